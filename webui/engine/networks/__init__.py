"""Extra networks: LoRA and its relatives, textual inversion embeddings, hypernetworks.

Each is a value that is attached to a loaded model and taken off again; afterwards the model is what it was, bit by bit.
"""

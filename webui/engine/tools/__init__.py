"""Working on model files: merging, pruning, converting. A file is read and written tensor by tensor."""

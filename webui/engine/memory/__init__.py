"""Where a network's tensors are, how they come to the device and go, and how much memory is left."""

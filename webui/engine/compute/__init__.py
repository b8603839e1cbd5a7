"""How networks run: the device, attention, layers and kernels, and what of their work is recorded or re-used."""

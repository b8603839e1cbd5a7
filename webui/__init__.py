"""Latent WebUI: a local web page, API and command line around a latent-diffusion pipeline."""

__version__ = "0.1.0"

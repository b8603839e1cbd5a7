"""Between pixels and latents, and what img2img and inpainting do in latents."""

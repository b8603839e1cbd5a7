"""From prompts to what the UNet is told."""

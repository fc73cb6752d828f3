"""Pixels ↔ latents: the bundled networks with their runner, and diffusers' autoencoders in blended tiles. `interface` is what all offer.

The engine's process runs it; training and bench do. Results may differ in the last bits between machines; nothing relies on them. It
imports `system`.
"""

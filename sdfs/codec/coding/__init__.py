"""Latents ↔ bytes, in integers, so that every machine agrees to the bit: priors, the entropy coder, and a coder for each kind of latents.

The engine's process runs it; training and bench do. docs/FORMAT.md is normative. It imports `codec.autoencoders`, because the learned
prior belongs to the bundled network.
"""

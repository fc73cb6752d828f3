"""The models in memory, within a budget: an autoencoder and the coder of its latents, together what a latent blob is made and read with.

The engine's process runs it. It imports `settings`, `system`, `models`, `codec.autoencoders`, `codec.coding` and `codec.quality`.
"""

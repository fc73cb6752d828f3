"""The models in memory: an autoencoder and the coder of its latents, together what a latent blob is made and read with."""

from sdfs.resident.model import HASH_DIGITS, Encoded, ResidentModel
from sdfs.resident.models import Models

__all__ = ["HASH_DIGITS", "Encoded", "Models", "ResidentModel"]

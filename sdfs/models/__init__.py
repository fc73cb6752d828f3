"""Autoencoders of the public hub, and of local folders, by name: what is on this machine, getting it, removing it. No torch here.

Their files are where huggingface_hub keeps them, or in the user's own folder; what SDFS itself notes of them is in `records`.
"""

from sdfs.models.folder import Model
from sdfs.models.names import KNOWN, Known, compatible
from sdfs.models.pulling import Plan, pull
from sdfs.models.registry import calibration, installed, of_blob, remove, resolve, save_calibration

__all__ = [
    "KNOWN",
    "Known",
    "Model",
    "Plan",
    "calibration",
    "compatible",
    "installed",
    "of_blob",
    "pull",
    "remove",
    "resolve",
    "save_calibration",
]

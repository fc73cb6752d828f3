"""Autoencoders of the public hub, and of local folders, by name: what is on this machine, getting it, removing it. No torch here.

Their files are where huggingface_hub keeps them, or in the user's own folder; what SDFS itself notes of them is in `records`.
Both processes run it, and commands do. It imports `system` and `settings`.

names      what a user may call a model
folder     a model's files, checked without loading them
records    what SDFS notes of models
pulling    getting one
registry   which are here
"""

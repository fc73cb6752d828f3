"""Picture file ↔ blob. The engine's process alone runs it: a slow call is no fault here, and heavy libraries stand nowhere else.

codec          encode and decode, as the engine is asked to
memory_budget  memory for what is done side by side
calibration    what `sdfs model calibrate` measures, in a process of its own
pictures       file bytes ↔ pixels and metadata
autoencoders   pixels ↔ latents
coding         latents ↔ bytes
quality        how far two pictures are apart, and what error may cost in bits
resident       autoencoder and coder together, loaded

It imports `settings`, `system`, `blob` and `models`. No owner imports it.
"""

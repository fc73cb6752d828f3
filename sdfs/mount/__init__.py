"""The pipe to the kernel: a thin FUSE adapter over `owner.tree`, with mounting and unmounting, and what mount(8) runs.

The owner's process runs it. Only `fuse` imports mfusepy. It imports `settings`, `system`, `control` and `owner`.
"""

"""The backing folder: its layout, the ownership lock, staging, the trash, names that outlast a power loss, and its check (`fsck`).

The owner's process runs it; `sdfs init` and `sdfs fsck` do, without one. Nothing below a store is trusted: no link is followed. It
imports `settings`, `system` and `blob`.
"""

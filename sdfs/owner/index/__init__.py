"""What the owner remembers of its store: which files are blobs, which contents there are and where, what waits to become a blob.

The owner's process runs it. All of it are hints that a scan rebuilds: a path is looked at again before it is believed. It imports
`system`, `blob` and `owner.store`.
"""

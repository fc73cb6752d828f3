"""What readers get: renders of the engine behind two caches, the payload of raw blobs, read-ahead of a folder, and the meters of all this.

The owner's process runs it. It imports `settings`, `system`, `blob`, `engine`, `owner.store` and `owner.index`.
"""

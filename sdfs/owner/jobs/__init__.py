"""What changes files besides their users: the worker that shrinks pictures, recompression, import, and restoring from the trash.

The owner's process runs it. Every job gives its result a name through `owner.tree.install`. It imports `settings`, `system`, `blob`,
`engine`, `control` and the other rooms of `owner`.
"""

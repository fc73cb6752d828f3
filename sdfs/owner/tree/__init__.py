"""Names and open files as the kernel sees them, without FUSE.

tree         the operations on names, attributes and files
attributes   attributes as they are shown, and where they are
open_folder  open folders
opening      from a name to a handle, and what the kernel may keep of it
handle       what an opener has
inode        open files: copy-up, divert, commit; the lock order
content      what the content of an open file is, in one value
install      how a finished file gets its name: the one way in
pages        what the kernel may have of open files

The owner's process runs it. It imports `settings`, `system`, `blob`, `owner.store`, `owner.index` and `owner.renders`.
"""

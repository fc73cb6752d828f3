"""The virtual file tree and the worker that shrinks it: everything the owner of a store does, without FUSE and without a socket.

tree        names and attributes; opens files
inode       open files: copy-up, divert, commit; the lock order
heads       which files are blobs
folders     which names a power loss may undo
renders     what readers get
pending     the queue of files that may become blobs
compressor  the worker: encode and swap
trash       what was replaced: listed, put back, forgotten
status      what is said of files and of the store
owner       all of it together, for one store
"""

"""The virtual file tree and the worker that shrinks it: everything the owner of a store does, without FUSE and without a socket.

tree        the operations on names, attributes and files
attributes  attributes as they are shown, and where they are
listing     open folders
opening     from a name to a handle, and what the kernel may keep of it
importing   copies of files from outside
inode       open files: copy-up, divert, commit; the lock order
content     what their content is
handle      what an opener has of them
install     how a finished file gets its name: the one way in
pages       what the kernel may have of them
heads       which files are blobs
known       which contents there are
paths       where they are, in little memory
folders     which names a power loss may undo
links       the names of files that have several
renders     what readers get
raw         that of raw blobs, which need no engine
pending     the queue of files that may become blobs
compressor  the worker: encode and swap
recompressing  other latents of a shrunk picture
trash       what was replaced: listed, put back, forgotten
status      what is said of files and of the store
file_status  what is said of one file
services    what clients may ask
owner       all of it together, for one store: its life
"""

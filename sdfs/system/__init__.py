"""Linux, where Python has no call for it: whole reads and writes, names that follow no link, mounts, places, logs,
waits, the service manager.

Both processes run it, and commands do. It knows nothing of pictures, blobs or stores. It imports no other room.
"""

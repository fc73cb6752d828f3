"""Whether a store may be on a filesystem, and whether one is a mount of SDFS.

A store relies on flock between all processes that may own it, on atomic renames, on inode numbers that stay, and on fsync. What is
refused keeps not all of them. A store within a mount of SDFS would, besides, have its blobs wrapped as user bytes that look like blobs.
"""

from __future__ import annotations

import contextlib
import os

from sdfs.errors import UserError
from sdfs.system.mounts import mounts, type_of

UNFIT = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "fuse.sshfs", "fuse.sdfs"})


def refuse_unfit(path: str) -> None:
    """Raises UserError where no store may be at `path`, which need not exist yet. What cannot be found out is let pass."""
    folder = os.path.realpath(path)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    with contextlib.suppress(OSError):
        if (found := type_of(folder, os.stat(folder).st_dev, mounts())) in UNFIT:
            raise UserError(f"{path} is on a filesystem of type {found}, where a store would not be safe: put it on a local filesystem")


def is_mount_of_sdfs(path: str) -> bool:
    """Tell whether `path` is on a mount of SDFS that our user made, or root."""
    device = os.stat(path).st_dev
    found = [mount for mount in mounts() if mount.device == device]
    return bool(found) and all(mount.type == "fuse.sdfs" and mount.user in (os.geteuid(), 0) for mount in found)

"""Attributes of backing files: those that SDFS keeps for itself, and copying the others."""

from __future__ import annotations

import contextlib
import errno
import os

XATTR_PREFIX = "user.sdfs."  # the store's own extended attributes: no program sees them listed, or copies them
PLAIN_XATTR = XATTR_PREFIX + "plain"  # of an unwrapped picture: it stays so until it is written to


def copy_attributes(source: int, target: int, mode: int) -> None:
    """Owner, extended attributes, permission bits `mode`, and times, between open files."""
    status, made = os.fstat(source), os.fstat(target)
    if (status.st_uid, status.st_gid) != (made.st_uid, made.st_gid):
        os.fchown(target, status.st_uid, status.st_gid)
    for name in _xattrs(source):
        if not name.startswith(XATTR_PREFIX):
            os.setxattr(target, name, os.getxattr(source, name))
    os.fchmod(target, mode)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def stays_plain(fd: int) -> bool:
    """Whether an unwrapped picture is not to be shrunk, for it was restored and nobody has written to it since."""
    try:
        return bool(os.getxattr(fd, PLAIN_XATTR))
    except OSError:
        return False


def forget_plain(fd: int) -> None:
    """The file was written to."""
    with contextlib.suppress(OSError):
        os.removexattr(fd, PLAIN_XATTR)


def _xattrs(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise

"""Attributes of backing files: those that SDFS keeps for itself, and copying the others."""

from __future__ import annotations

import contextlib
import errno
import os

XATTR_PREFIX = "user.sdfs."  # the store's own extended attributes: no program sees them listed, or copies them
PLAIN_XATTR = XATTR_PREFIX + "plain"  # of an unwrapped picture: it stays so until it is written to
VERDICT_XATTR = XATTR_PREFIX + "verdict"  # why a file that begins like a picture is none: see `verdict`
JUDGE = 1  # who gave a verdict: another number whenever a later SDFS knows better
_MAX_VERDICT = 1000  # bytes


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


def verdict(fd: int) -> str | None:
    """Tell why a file was found to be no picture; None: it never was, or it was changed since, or by an SDFS that knew less."""
    status = os.fstat(fd)
    try:
        judge, size, mtime_ns, reason = os.getxattr(fd, VERDICT_XATTR).decode().split(" ", 3)
    except (OSError, ValueError):
        return None
    return reason if (judge, size, mtime_ns) == (str(JUDGE), str(status.st_size), str(status.st_mtime_ns)) else None


def note_verdict(fd: int, reason: str) -> bool:
    """Have `verdict` tell it from now on. Returns whether the filesystem could take it."""
    status = os.fstat(fd)
    noted = f"{JUDGE} {status.st_size} {status.st_mtime_ns} {reason}".encode("utf-8", "replace")[:_MAX_VERDICT]
    try:
        os.setxattr(fd, VERDICT_XATTR, noted.decode("utf-8", "ignore").encode())
    except OSError:
        return False
    return True


def _xattrs(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise

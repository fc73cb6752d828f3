"""A folder with files that steer a program, and that only its user may change: `.sdfs`, and what is in it.

Whoever could put a link, a pipe or a second name of another file into such a folder would have the program write there, read there, or wait
for ever. So everything is opened by the descriptor of its folder, without following links, is looked at before it is opened for use, and
is refused, in a sentence that names it, unless it is

    a folder        of our user, which nobody else may write to
    a plain file    of our user, which not everybody may write to, with one name

A folder of root may be read by all others.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Self

from sdfs.errors import UserError
from sdfs.system.no_follow import name_in

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a plain file",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class PrivateFolder:
    """An open folder. `path` is where it was found, for messages; `address` leads to it in this process, while it is open."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self.address = f"/proc/self/fd/{fd}"
        self._uid = os.fstat(fd).st_uid

    @classmethod
    def open(cls, parent: str, name: str) -> Self:
        """Open the folder `name` in the folder `parent`, whose path may have links. Raises FileNotFoundError, OSError, UserError."""
        above = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            path = f"{parent.rstrip('/')}/{name}"
            return cls(_open(above, name, path, stat.S_IFDIR, os.O_RDONLY | os.O_DIRECTORY, {os.geteuid(), 0}), path)
        finally:
            os.close(above)

    @property
    def is_ours(self) -> bool:
        """Whether it is our user's, else it is root's."""
        return self._uid == os.geteuid()

    def has(self, name: str) -> bool:
        """Tell whether there is something of that name, whatever it is."""
        try:
            self.look(name)
        except FileNotFoundError:
            return False
        return True

    def look(self, name: str) -> os.stat_result:
        """Return what lstat says of an entry. Raises OSError."""
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    def name(self, name: str) -> str:
        """Return the path of an entry in this process, while the folder is open."""
        return name_in(self.fd, name)

    def folder(self, name: str, *, make: bool = False) -> PrivateFolder:
        """Open a folder in it, made with mode 0700 where it is missing and `make` is set. Raises FileNotFoundError, OSError, UserError."""
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.name(name), 0o700)
        path = f"{self.path}/{name}"
        return PrivateFolder(_open(self.fd, name, path, stat.S_IFDIR, os.O_RDONLY | os.O_DIRECTORY, {self._uid}), path)

    def file(self, name: str, flags: int) -> int:
        """Open a plain file in it; with O_CREAT it is made, with mode 0600, where it is missing. Never waits.

        Raises FileNotFoundError, OSError, UserError.
        """
        path = f"{self.path}/{name}"
        if flags & os.O_CREAT:
            with contextlib.suppress(FileExistsError):
                return os.open(self.name(name), flags | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        return _open(self.fd, name, path, stat.S_IFREG, flags & ~os.O_CREAT, {self._uid})

    def remove(self, name: str) -> None:
        """Remove a plain file that may be there. Raises OSError, and UserError where it is something else."""
        with contextlib.suppress(FileNotFoundError):
            os.close(_open(self.fd, name, f"{self.path}/{name}", stat.S_IFREG, None, {self._uid}))
            os.unlink(self.name(name))

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(folder: int, name: str, path: str, kind: int, flags: int | None, owners: set[int]) -> int:
    """Look at an entry by a descriptor that nothing can be done with, then open the same inode with `flags`; None: only look."""
    looked = os.open(name, _LOOK, dir_fd=folder)
    try:
        if (reason := _refusal(os.fstat(looked), kind, owners)) is not None:
            raise UserError(f"{path} {reason}")
        if flags is None:
            return os.dup(looked)
        try:
            return os.open(f"/proc/self/fd/{looked}", flags | os.O_CLOEXEC)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(looked)


def _refusal(status: os.stat_result, kind: int, owners: set[int]) -> str | None:
    """A clause that says why, and what to do; None: nothing is wrong."""
    have = stat.S_IFMT(status.st_mode)
    if have != kind:
        return f"is {_KINDS.get(have, 'something else')}, where SDFS wants {_KINDS[kind]}: move it away"
    if status.st_uid not in owners:
        return f"belongs to user {status.st_uid}, and you are user {os.geteuid()}: SDFS uses what is its own user's only"
    if kind == stat.S_IFDIR and status.st_mode & 0o022:
        return f"may be changed by others (mode {stat.S_IMODE(status.st_mode):04o}): look at what is in it, then `chmod 700` it"
    if kind == stat.S_IFREG and status.st_mode & 0o002:
        return f"may be changed by everybody (mode {stat.S_IMODE(status.st_mode):04o}): look at what is in it, then `chmod 600` it"
    if kind == stat.S_IFREG and status.st_nlink != 1:
        return f"has {status.st_nlink} names, of which one may be elsewhere: put a copy in its place"
    return None

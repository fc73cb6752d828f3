"""The options of a mount, as `-o`, mount(8) and /etc/fstab give them: one string, separated by commas.

SDFS takes some itself and hands others on to FUSE. Those that tell mount(8), fstab's readers and systemd when and by whom to mount, and
those about access times, which are the backing filesystem's business, it passes over. All others it refuses: who asks for something
should not believe to have it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sdfs.errors import UserError
from sdfs.owner.renders.cache import DEFAULT_BYTES
from sdfs.owner.renders.disk_cache import DEFAULT_DISK_BYTES
from sdfs.settings import Memory

_OWN = ("ro", "rw", "nonempty")
_SHARING = ("allow_other", "allow_root")
_KERNEL = ("suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "atime", "noatime")
_TAKEN = (*_OWN, *_SHARING, *_KERNEL)
_WHEN_AND_BY_WHOM = ("defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner", "group")
_ACCESS_TIMES = ("relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "diratime", "nodiratime")
_ALWAYS_SO = ("default_permissions",)  # logical modes are not those of the backing
_PASSED_OVER = (*_WHEN_AND_BY_WHOM, *_ACCESS_TIMES, *_ALWAYS_SO)
_MOST_BYTES = 1 << 62
_MOST_PICTURES = 64
_PASSED_OVER_PREFIXES = ("x-", "X-", "comment=", "user=", "helper=", "uhelper=")


@dataclass(frozen=True)
class MountOptions:
    read_only: bool = False
    nonempty: bool = False  # the mountpoint may have files, which the mount hides
    shared: bool = False  # others than who mounts may come: everybody, or root
    cache_bytes: int = DEFAULT_BYTES  # for renders in memory
    memory: Memory = field(default_factory=Memory)  # for the engine
    disk_cache: str | None = None  # a folder for renders
    disk_cache_bytes: int = DEFAULT_DISK_BYTES
    read_ahead: int = 4  # pictures; 0: none
    metrics: tuple[str, int] | None = None  # host and port to serve them at
    fuse: tuple[str, ...] = ()  # flags for libfuse; of two that contradict each other the later counts

    @classmethod
    def parse(cls, options: str) -> MountOptions:
        """Parse them; of two that exclude each other the later counts. Raises UserError, which names the first that SDFS does not take."""
        chosen: dict[str, None] = {}
        values: dict[str, Any] = {}
        for option in filter(None, options.split(",")):
            name, equals, value = option.partition("=")
            if equals and name in _WITH_VALUE:
                field, read = _WITH_VALUE[name]
                values[field] = read(value)
            elif option in _TAKEN:
                chosen.pop(option, None)
                chosen[option] = None
            elif option not in _PASSED_OVER and not option.startswith(_PASSED_OVER_PREFIXES):
                raise UserError(f"mount option {option}: SDFS does not take it, but {_ALL}; docs/CLI.md explains them")
        order = list(chosen)
        memory = {name: values.pop(name) for name in ("ram", "vram") if name in values}
        return cls(
            read_only=next((option == "ro" for option in reversed(order) if option in ("ro", "rw")), False),
            nonempty="nonempty" in chosen,
            shared=not chosen.keys().isdisjoint(_SHARING),
            fuse=tuple(option for option in order if option not in _OWN),
            memory=Memory(**memory),
            **values,
        )


def _folder(value: str) -> str:
    if not os.path.isabs(value):
        raise UserError(f"mount option disk_cache={value}: want a folder from the root down, as in /var/cache/sdfs")
    return value


def _number(name: str, what: str, most: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) <= most):
            raise UserError(f"mount option {name}={value}: want a number of {what}")
        return int(value)

    return read


def _address(value: str) -> tuple[str, int]:
    """HOST:PORT, [HOST]:PORT, or PORT of this machine alone."""
    host, _, port = value.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise UserError(f"mount option metrics={value}: want HOST:PORT, or a PORT")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


_WITH_VALUE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "cache_size": ("cache_bytes", _number("cache_size", "bytes", _MOST_BYTES)),
    "ram": ("ram", _number("ram", "bytes", _MOST_BYTES)),
    "vram": ("vram", _number("vram", "bytes", _MOST_BYTES)),
    "disk_cache": ("disk_cache", _folder),
    "disk_cache_size": ("disk_cache_bytes", _number("disk_cache_size", "bytes", _MOST_BYTES)),
    "read_ahead": ("read_ahead", _number("read_ahead", "pictures", _MOST_PICTURES)),
    "metrics": ("metrics", _address),
}
_ALL = ", ".join((*_TAKEN, *(f"{name}=…" for name in _WITH_VALUE)))

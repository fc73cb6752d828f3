"""The options of a mount, as `-o`, mount(8) and /etc/fstab give them: one string, separated by commas.

SDFS takes some itself and hands others on to FUSE. Those that tell mount(8), fstab's readers and systemd when and by whom to mount, and
those about access times, which are the backing filesystem's business, it passes over. All others it refuses: who asks for something
should not believe to have it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdfs.errors import UserError

_OWN = ("ro", "rw", "nonempty")
_SHARING = ("allow_other", "allow_root")
_KERNEL = ("suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "atime", "noatime")
_TAKEN = (*_OWN, *_SHARING, *_KERNEL)
_WHEN_AND_BY_WHOM = ("defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner", "group")
_ACCESS_TIMES = ("relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "diratime", "nodiratime")
_ALWAYS_SO = ("default_permissions",)  # logical modes are not those of the backing
_PASSED_OVER = (*_WHEN_AND_BY_WHOM, *_ACCESS_TIMES, *_ALWAYS_SO)
_PASSED_OVER_PREFIXES = ("x-", "X-", "comment=", "user=", "helper=", "uhelper=")


@dataclass(frozen=True)
class MountOptions:
    read_only: bool = False
    nonempty: bool = False  # the mountpoint may have files, which the mount hides
    shared: bool = False  # others than who mounts may come: everybody, or root
    fuse: tuple[str, ...] = ()  # flags for libfuse; of two that contradict each other the later counts


def parse(options: str) -> MountOptions:
    """Of options that contradict each other the last counts. Raises UserError, which names the first that SDFS does not take."""
    chosen: dict[str, None] = {}
    for option in filter(None, options.split(",")):
        if option in _TAKEN:
            chosen.pop(option, None)
            chosen[option] = None
        elif option not in _PASSED_OVER and not option.startswith(_PASSED_OVER_PREFIXES):
            raise UserError(f"mount option {option}: SDFS does not take it, but {', '.join(_TAKEN)}; docs/CLI.md explains them")
    order = list(chosen)
    return MountOptions(
        read_only=next((option == "ro" for option in reversed(order) if option in ("ro", "rw")), False),
        nonempty="nonempty" in chosen,
        shared=not chosen.keys().isdisjoint(_SHARING),
        fuse=tuple(option for option in order if option not in _OWN),
    )

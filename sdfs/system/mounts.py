"""What is mounted where: mountinfo, read and understood in one place."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_MOUNTINFO = "/proc/self/mountinfo"
_USER = re.compile(r"[ ,]user_id=([0-9]+)(?:,|$)")
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    id: int  # another one once it was mounted anew
    device: int  # st_dev of what is in it
    point: str
    type: str
    user: int | None = None  # who mounted it, as FUSE tells


def mounts() -> list[Mount]:
    """Return those of this process's mount namespace, in the order in which they were made. Raises OSError where there is no /proc."""
    with open(_MOUNTINFO, "rb") as file:
        return parse(os.fsdecode(file.read()))


def parse(mountinfo: str) -> list[Mount]:
    """Parse the content of /proc/PID/mountinfo; see proc_pid_mountinfo(5)."""
    found = []
    for line in filter(None, mountinfo.split("\n")):
        of_mount, _, of_filesystem = line.partition(" - ")
        user = _USER.search(of_filesystem)
        number, _, numbers, _, point, *_ = of_mount.split(" ")
        device = os.makedev(*map(int, numbers.split(":")))
        found.append(Mount(int(number), device, _unescape(point), of_filesystem.split(" ")[0], int(user[1]) if user else None))
    return found


def type_of(path: str, device: int, mounts: list[Mount]) -> str | None:
    """Return the type of the filesystem of a real path, or None. `device`: its st_dev, which some, such as btrfs, make up."""
    found = [mount for mount in mounts if mount.device == device] or [mount for mount in mounts if is_within(path, mount.point)]
    return max(reversed(found), key=lambda mount: len(mount.point)).type if found else None


def is_within(path: str, folder: str) -> bool:
    """Tell whether a real path is that of a folder, or of something in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _unescape(path: str) -> str:
    """Space, tab, newline and backslash are written as a backslash and three octal digits."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), path)

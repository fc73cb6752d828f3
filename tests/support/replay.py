"""What a power loss may leave of a recording: a model of a filesystem that keeps only what it has to.

Cut after any event, a change is durable if an fsync of its file came after it, or, of a name, an fsync of one of the folders it is in.
What is not may be lost or not; a rename is never half done. The combinations that are tried at every cut:

    names       none of those that are not durable · none, but what came before a durable one in any folder is durable (as in a
                journal) · all
    content     lost · lost, but files are as long as they would be, with zeros · all there

What a file loses first is what came last since its last fsync; attributes go with the content.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

from tests.support.recorder import Attributed, Event, Made, Named, Number, Promised, Recording, Resized, Synced, Wrote

Names = Literal["none", "journal", "all"]
Content = Literal["lost", "zeros", "all"]
VARIANTS: tuple[tuple[Names, Content], ...] = tuple(product(("none", "journal", "all"), ("lost", "zeros", "all")))


@dataclass
class Inode:
    mode: int
    target: str
    data: bytearray = field(default_factory=bytearray)
    attributes: dict[str, int | bytes] = field(default_factory=dict)
    names: dict[str, Number] = field(default_factory=dict)  # of a folder


class Disk:
    """What is there after a power loss."""

    def __init__(self, top: Number) -> None:
        self.top = top
        self.inodes: dict[Number, Inode] = {top: Inode(stat.S_IFDIR | 0o755, "")}

    def apply(self, event: Event, *, lost: Content = "all") -> None:
        """`lost`: how much of a change to a file's content or attributes gets through."""
        match event:
            case Made():
                self.inodes[event.number] = Inode(event.mode, event.target)
            case Named():
                self._name(event)
            case Wrote() | Resized() | Attributed():
                if lost == "all":
                    self._change(self.inodes[event.number], event)
                elif lost == "zeros":
                    self._lengthen(self.inodes[event.number], event)

    def _name(self, event: Named) -> None:
        if event.away is not None:
            folder, name = event.away
            if self.inodes[folder].names.get(name) == event.number:
                del self.inodes[folder].names[name]
        if event.to is not None:
            folder, name = event.to
            self.inodes[folder].names[name] = event.number

    def _change(self, inode: Inode, event: Wrote | Resized | Attributed) -> None:
        match event:
            case Wrote():
                end = event.offset + len(event.data)
                inode.data.extend(bytes(max(0, end - len(inode.data))))
                inode.data[event.offset : end] = event.data
            case Resized():
                del inode.data[event.size :]
                inode.data.extend(bytes(event.size - len(inode.data)))
            case Attributed(name=name, value=None):
                inode.attributes.pop(name, None)
            case Attributed(name=name, value=int() | bytes() as value):
                inode.attributes[name] = value

    def _lengthen(self, inode: Inode, event: Wrote | Resized | Attributed) -> None:
        end = event.offset + len(event.data) if isinstance(event, Wrote) else event.size if isinstance(event, Resized) else 0
        inode.data.extend(bytes(max(0, end - len(inode.data))))

    def files(self, number: Number | None = None, path: str = "") -> Iterator[tuple[str, Number]]:
        """All that can be reached, folders before what is in them."""
        for name, inner in sorted(self.inodes[number or self.top].names.items()):
            yield f"{path}/{name}", inner
            yield from self.files(inner, f"{path}/{name}")

    def fingerprint(self) -> str:
        """Equal for disks that do not differ; what the lock file says does not matter."""
        digest = hashlib.sha256()
        for path, number in self.files():
            inode = self.inodes[number]
            content = b"" if path == "/.sdfs/lock" else bytes(inode.data)
            digest.update(repr((path, number, inode.mode, inode.target, sorted(inode.attributes.items()), content)).encode())
        return digest.hexdigest()

    def build(self, root: Path) -> None:
        """As the folder `root`, which it makes."""
        root.mkdir()
        built: dict[Number, str] = {}
        for path, number in self.files():
            inode = self.inodes[number]
            if number in built:
                os.link(built[number], f"{root}{path}", follow_symlinks=False)
                continue
            built[number] = f"{root}{path}"
            _build(inode, built[number])


def _build(inode: Inode, path: str) -> None:
    if stat.S_ISDIR(inode.mode):
        Path(path).mkdir(mode=0o700)
    elif stat.S_ISLNK(inode.mode):
        os.symlink(inode.target, path)
        return
    else:
        Path(path).write_bytes(inode.data)
    for name, value in inode.attributes.items():
        if isinstance(value, bytes):
            os.setxattr(path, name, value)
    mode, mtime_ns = inode.attributes.get("mode", inode.mode), inode.attributes.get("mtime_ns")
    os.chmod(path, stat.S_IMODE(int(mode)))
    if isinstance(mtime_ns, int):
        os.utime(path, ns=(mtime_ns, mtime_ns))


@dataclass(frozen=True)
class Outcome:
    """What a power loss after so many events may leave, and what has to be true of it."""

    cut: int
    names: Names
    content: Content
    disk: Disk
    promises: dict[str, Promised]


def outcomes(recording: Recording) -> Iterator[Outcome]:
    """Of a power loss at any time since the recording began."""
    for cut in range(recording.start, len(recording.events) + 1):
        events = recording.events[:cut]
        promises = {event.name: event for event in events if isinstance(event, Promised)}
        for names, content in VARIANTS:
            yield Outcome(cut, names, content, _disk(recording, events, names, content), promises)


def _disk(recording: Recording, events: list[Event], names: Names, content: Content) -> Disk:
    disk = Disk(recording.top)
    synced = {event.number: at for at, event in enumerate(events) if isinstance(event, Synced)}  # the last time
    named_until = max((at for at, event in enumerate(events) if _is_durable_name(event, at, synced)), default=-1)
    for at, event in enumerate(events):
        if at < recording.start or isinstance(event, Made):
            disk.apply(event)
        elif isinstance(event, Named):
            if names == "all" or _is_durable_name(event, at, synced) or (names == "journal" and at < named_until):
                disk.apply(event)
        elif isinstance(event, Wrote | Resized | Attributed):
            disk.apply(event, lost="all" if synced.get(event.number, -1) > at else content)
    return disk


def _is_durable_name(event: Event, at: int, synced: dict[Number, int]) -> bool:
    if not isinstance(event, Named):
        return False
    folders = [place[0] for place in (event.to, event.away) if place is not None]
    return any(synced.get(folder, -1) > at for folder in folders)

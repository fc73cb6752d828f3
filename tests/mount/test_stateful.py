"""The same random operations on the mount and on a plain folder: same results, same errors, same files. Pictures included.

The lossless engine shrinks pictures bit for bit, so that everything can be compared at any time; `sync` lets swaps happen in between.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.support.mounting import Mounted, needs_fuse

pytestmark = [needs_fuse, pytest.mark.timeout(600)]

NAMES = st.sampled_from(["a.jpg", "b.jpg", "c.txt", "dir", "dir/a.jpg", "dir/e"])
PICTURE = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 20 + b"END"
CONTENTS = st.sampled_from([b"", b"text", PICTURE, PICTURE[:-3], b"\x89SDFS\r\n\x1a", b"\x89SDFS\r\n\x1a" + bytes(300)])
FLAGS = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_TRUNC])
_numbers = itertools.count()


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


class Pair(RuleBasedStateMachine):
    mounted: Mounted
    plain: Path

    def __init__(self) -> None:
        super().__init__()
        name = f"run{next(_numbers)}"
        self.roots = (self.mounted.path / name, self.plain / name)
        for root in self.roots:
            root.mkdir()
        self.open: list[tuple[int, int]] = []

    def both(self, call: Callable[[Path], Any]) -> None:
        ours, theirs = (outcome(lambda root=root: call(root)) for root in self.roots)
        assert ours == theirs

    def fds(self, index: int, call: Callable[[int], Any]) -> None:
        if self.open:
            ours, theirs = (outcome(lambda fd=fd: call(fd)) for fd in self.open[index % len(self.open)])
            assert ours == theirs

    @rule(name=NAMES, content=CONTENTS)
    def write(self, name: str, content: bytes) -> None:
        self.both(lambda root: (root / name).write_bytes(content))

    @rule(name=NAMES)
    def mkdir(self, name: str) -> None:
        self.both(lambda root: (root / name).mkdir())

    @rule(name=NAMES, other=NAMES)
    def rename(self, name: str, other: str) -> None:
        self.both(lambda root: os.rename(root / name, root / other))

    @rule(name=NAMES)
    def unlink(self, name: str) -> None:
        self.both(lambda root: os.unlink(root / name))

    @rule(name=NAMES)
    def rmdir(self, name: str) -> None:
        self.both(lambda root: os.rmdir(root / name))

    @rule(name=NAMES, size=st.sampled_from([0, 3, 4000, 6000]))
    def truncate(self, name: str, size: int) -> None:
        self.both(lambda root: os.truncate(root / name, size))

    @rule(name=NAMES, mode=st.sampled_from([0o600, 0o444, 0o000, 0o755]))
    def chmod(self, name: str, mode: int) -> None:
        self.both(lambda root: os.chmod(root / name, mode))

    @rule(name=NAMES, seconds=st.integers(0, 2**31))
    def utime(self, name: str, seconds: int) -> None:
        self.both(lambda root: os.utime(root / name, (seconds, seconds)))

    @rule(name=NAMES, value=st.binary(max_size=20))
    def set_xattr(self, name: str, value: bytes) -> None:
        self.both(lambda root: os.setxattr(root / name, "user.test", value))

    @rule(name=NAMES, flags=FLAGS)
    def open_file(self, name: str, flags: int) -> None:
        found = [outcome(lambda root=root: os.open(root / name, flags)) for root in self.roots]
        if all(isinstance(fd, int) for fd in found) and not (self.roots[1] / name).is_dir():
            self.open.append((found[0], found[1]))
            return
        for fd in found:
            if isinstance(fd, int):
                os.close(fd)
        kinds = [isinstance(fd, int) or fd for fd in found]
        assert kinds[0] == kinds[1]

    @rule(index=st.integers(0, 5), data=CONTENTS, offset=st.sampled_from([0, 5, 5000, 9000]))
    def pwrite(self, index: int, data: bytes, offset: int) -> None:
        self.fds(index, lambda fd: os.pwrite(fd, data, offset))

    @rule(index=st.integers(0, 5), offset=st.sampled_from([0, 100, 5000]))
    def pread(self, index: int, offset: int) -> None:
        self.fds(index, lambda fd: os.pread(fd, 700, offset))

    @rule(index=st.integers(0, 5), size=st.sampled_from([0, 7, 5000]))
    def ftruncate(self, index: int, size: int) -> None:
        self.fds(index, lambda fd: os.ftruncate(fd, size))

    @rule(index=st.integers(0, 5))
    def fsync(self, index: int) -> None:
        self.fds(index, os.fsync)

    @rule(index=st.integers(0, 5))
    def close(self, index: int) -> None:
        if self.open:
            for fd in self.open.pop(index % len(self.open)):
                os.close(fd)

    @rule()
    def sync(self) -> None:
        """Pictures that nobody has open are blobs now."""
        self.mounted.sync()

    @invariant()
    def same_files(self) -> None:
        listings = []
        for root in self.roots:
            names = sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.name.startswith(".fuse_hidden"))
            listings.append([(name, *self.facts(root / name)) for name in names])
        assert listings[0] == listings[1]

    def facts(self, path: Path) -> tuple[Any, ...]:
        status = path.stat()
        if path.is_dir():
            return (status.st_mode,)
        return status.st_mode, status.st_size, outcome(lambda: os.getxattr(path, "user.test")), path.read_bytes()

    def teardown(self) -> None:
        for pair in self.open:
            for fd in pair:
                os.close(fd)


def test_the_mount_behaves_as_a_plain_folder(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    runs = 2000 if pytestconfig.getoption("--long") else 40
    (tmp_path / "plain").mkdir()
    with Mounted(tmp_path) as mounted:
        machine = type("Machine", (Pair,), {"mounted": mounted, "plain": tmp_path / "plain"})
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        run_state_machine_as_test(machine, settings=settings(max_examples=runs, stateful_step_count=40, suppress_health_check=checks))

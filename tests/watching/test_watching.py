"""daemon.watching: real folders, the real kernel. Whatever happens in the folder, the listener can know every file that is there."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.names import is_skipped_folder
from daemon.watching import Watcher
from sdfs.errors import UserError
from tests.support.waiting import eventually

_CLONE_NEWUSER = 0x10000000
_SKIP = 77


class Heard:
    """A listener that notes what it is told, and finds the files of the folders that it is to scan."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.files: set[str] = set()

    def __contains__(self, call: tuple[str, ...]) -> bool:
        return call in self.calls

    def touched(self, path: str) -> None:
        self.calls.append(("touched", path))
        self.files.add(path)

    def closed(self, path: str) -> None:
        self.calls.append(("closed", path))
        self.files.add(path)

    def moved(self, old: str, new: str) -> None:
        self.calls.append(("moved", old, new))
        moved = {path for path in self.files if path == old or path.startswith(old + "/")}
        self.files -= moved
        self.files |= {new + path[len(old) :] for path in moved} or ({new} if Path(new).is_file() else set())

    def gone(self, path: str) -> None:
        self.calls.append(("gone", path))
        self.files = {found for found in self.files if found != path and not found.startswith(path + "/")}

    def rescan(self, folder: str, reason: str) -> None:
        self.calls.append(("rescan", folder))
        self.files |= files_below(folder)


def files_below(folder: str) -> set[str]:
    found = set()
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_skipped_folder(name)]
        found |= {f"{at}/{name}" for name in names}
    return found


@contextlib.contextmanager
def watching(root: Path, heard: Heard, *, polling: bool = False, poll_seconds: float = 3600.0) -> Iterator[Watcher]:
    watcher = Watcher(str(root), heard, polling=polling, poll_seconds=poll_seconds)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.stop()


def with_own_limits(test: Callable[..., None]) -> Callable[..., None]:
    """Runs a test in a child process with a user namespace of its own: no other process notices what limits it sets."""

    @functools.wraps(test)
    def in_child(*args: object, **kwargs: object) -> None:
        if (child := os.fork()) == 0:
            status = 1
            try:
                if ctypes.CDLL(None).unshare(_CLONE_NEWUSER) != 0:
                    status = _SKIP
                else:
                    test(*args, **kwargs)
                    status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == _SKIP:
            pytest.skip("no user namespace can be made here")
        assert status == 0

    return in_child


def set_limit(name: str, value: int) -> None:
    Path("/proc/sys/user", name).write_text(str(value))


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """What this thread does to files, somebody without privileges does."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    libc = ctypes.CDLL(None)
    libc.setfsuid(65534)
    try:
        yield
    finally:
        libc.setfsuid(0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "watched"
    folder.mkdir()
    return folder


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody gets to."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


@pytest.fixture
def heard() -> Heard:
    return Heard()


def write(path: Path, data: bytes = b"x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


# Files


def test_a_file_that_is_written_is_told_of_when_it_is_created_and_when_it_is_closed(root: Path, heard: Heard) -> None:
    with watching(root, heard):
        path = write(root / "a.jpg")
        eventually(lambda: ("closed", path) in heard)
        assert heard.calls == [("touched", path), ("closed", path)]


def test_writing_is_not_told_of(root: Path, heard: Heard) -> None:
    with watching(root, heard):
        with (root / "a.jpg").open("wb", buffering=0) as file:
            for _ in range(100):
                file.write(b"x")
        eventually(lambda: ("closed", str(root / "a.jpg")) in heard)
        assert len(heard.calls) == 2


def test_reading_is_not_told_of(root: Path, heard: Heard) -> None:
    write(root / "a.jpg")
    with watching(root, heard):
        (root / "a.jpg").read_bytes()
        path = write(root / "b.jpg")
        eventually(lambda: ("closed", path) in heard)
        assert not any(str(root / "a.jpg") in call for call in heard.calls)


def test_every_close_is_told_of(root: Path, heard: Heard) -> None:
    with watching(root, heard):
        for _ in range(50):
            count = len(heard.calls)
            path = write(root / "a.jpg")
            eventually(lambda path=path, count=count: ("closed", path) in heard.calls[count:])  # type: ignore[misc]


def test_a_rename_is_a_move(root: Path, heard: Heard) -> None:
    old = write(root / "a.jpg.part")
    with watching(root, heard):
        (root / "a.jpg.part").rename(root / "a.jpg")
        eventually(lambda: ("moved", old, str(root / "a.jpg")) in heard)


def test_a_file_that_is_moved_in_is_touched(root: Path, outside: Path, heard: Heard) -> None:
    write(outside / "a.jpg")
    with watching(root, heard):
        (outside / "a.jpg").rename(root / "a.jpg")
        eventually(lambda: ("touched", str(root / "a.jpg")) in heard)


def test_a_hard_link_is_touched(root: Path, outside: Path, heard: Heard) -> None:
    write(outside / "a.jpg")
    with watching(root, heard):
        (root / "a.jpg").hardlink_to(outside / "a.jpg")
        eventually(lambda: ("touched", str(root / "a.jpg")) in heard)


def test_a_file_that_is_deleted_is_gone(root: Path, heard: Heard) -> None:
    path = write(root / "a.jpg")
    with watching(root, heard):
        Path(path).unlink()
        eventually(lambda: ("gone", path) in heard)


def test_a_file_that_is_moved_away_is_gone_when_something_else_happens(root: Path, outside: Path, heard: Heard) -> None:
    path = write(root / "a.jpg")
    with watching(root, heard):
        Path(path).rename(outside / "a.jpg")
        write(root / "b.jpg")
        eventually(lambda: ("gone", path) in heard)


def test_a_file_that_is_moved_away_is_gone_at_the_next_check(root: Path, outside: Path, heard: Heard) -> None:
    path = write(root / "a.jpg")
    with watching(root, heard) as watcher:
        Path(path).rename(outside / "a.jpg")
        eventually(lambda: ("gone", path) in heard, meanwhile=watcher.check)


def test_names_that_are_no_text_are_told_of_like_others(root: Path, heard: Heard) -> None:
    with watching(root, heard):
        folder = root / os.fsdecode(b"\xff\xfe")
        folder.mkdir()
        eventually(lambda: ("rescan", str(folder)) in heard)
        path = write(folder / os.fsdecode(b"\xff.jpg"))
        eventually(lambda: ("closed", path) in heard)


# Folders


def test_a_new_folder_is_to_be_scanned_and_is_watched(root: Path, heard: Heard) -> None:
    with watching(root, heard):
        (root / "a").mkdir()
        eventually(lambda: ("rescan", str(root / "a")) in heard)
        path = write(root / "a" / "b.jpg")
        eventually(lambda: ("closed", path) in heard)


def test_a_folder_that_was_there_at_the_start_is_watched(root: Path, heard: Heard) -> None:
    (root / "a" / "b").mkdir(parents=True)
    with watching(root, heard):
        path = write(root / "a" / "b" / "c.jpg")
        eventually(lambda: ("closed", path) in heard)


def test_no_file_is_missed_in_folders_that_fill_while_they_are_found(root: Path, heard: Heard) -> None:
    with watching(root, heard):
        paths = {write(root.joinpath(*map(str, range(number % 7)), str(number), "x.jpg")) for number in range(1000)}
        eventually(lambda: heard.files >= paths)


def test_a_tree_that_is_moved_in_is_to_be_scanned_and_is_watched(root: Path, outside: Path, heard: Heard) -> None:
    write(outside / "a" / "b" / "c.jpg")
    with watching(root, heard):
        (outside / "a").rename(root / "a")
        eventually(lambda: heard.files == {str(root / "a" / "b" / "c.jpg")})
        path = write(root / "a" / "b" / "d.jpg")
        eventually(lambda: ("closed", path) in heard)


def test_a_folder_that_is_renamed_moves_with_all_below_and_stays_watched(root: Path, heard: Heard) -> None:
    (root / "a" / "b").mkdir(parents=True)
    with watching(root, heard):
        (root / "a").rename(root / "c")
        path = write(root / "c" / "b" / "d.jpg")
        eventually(lambda: ("closed", path) in heard)
        assert heard.calls[:2] == [("moved", str(root / "a"), str(root / "c")), ("rescan", str(root / "c"))]


def test_a_folder_that_was_moved_away_is_no_longer_watched(root: Path, outside: Path, heard: Heard) -> None:
    (root / "a" / "b").mkdir(parents=True)
    with watching(root, heard) as watcher:
        (root / "a").rename(outside / "a")
        eventually(lambda: ("gone", str(root / "a")) in heard, meanwhile=watcher.check)
        write(outside / "a" / "b" / "c.jpg")
        path = write(root / "d.jpg")
        eventually(lambda: ("closed", path) in heard)
        assert not any("c.jpg" in call[1] for call in heard.calls)


def test_a_folder_that_comes_back_under_another_name_is_told_of_under_that(root: Path, outside: Path, heard: Heard) -> None:
    write(root / "a" / "b" / "c.jpg")
    with watching(root, heard):
        (root / "a").rename(outside / "a")
        (outside / "a").rename(root / "z")
        eventually(lambda: heard.files == {str(root / "z" / "b" / "c.jpg")})
        path = write(root / "z" / "b" / "d.jpg")
        eventually(lambda: ("closed", path) in heard)


def test_a_folder_that_is_removed_and_made_again_is_watched(root: Path, heard: Heard) -> None:
    with watching(root, heard):
        for number in range(50):
            path = write(root / "a" / f"{number}.jpg")
            eventually(lambda path=path: path in heard.files)  # type: ignore[misc]
            shutil.rmtree(root / "a")


def test_hidden_folders_are_not_entered(root: Path, heard: Heard) -> None:
    (root / ".git").mkdir()
    with watching(root, heard):
        (root / ".Trash-1000").mkdir()
        write(root / ".Trash-1000" / "a.jpg")
        write(root / ".git" / "a.jpg")
        path = write(root / "b.jpg")
        eventually(lambda: ("closed", path) in heard)
        assert heard.files == {path}


def test_a_hidden_folder_that_gets_a_proper_name_is_as_if_new(root: Path, heard: Heard) -> None:
    write(root / ".upload" / "a.jpg")
    with watching(root, heard):
        (root / ".upload").rename(root / "album")
        eventually(lambda: str(root / "album" / "a.jpg") in heard.files)
        path = write(root / "album" / "b.jpg")
        eventually(lambda: ("closed", path) in heard)


def test_a_folder_that_becomes_hidden_is_gone(root: Path, heard: Heard) -> None:
    (root / "album").mkdir()
    with watching(root, heard):
        (root / "album").rename(root / ".album")
        eventually(lambda: ("gone", str(root / "album")) in heard)
        write(root / ".album" / "a.jpg")
        path = write(root / "b.jpg")
        eventually(lambda: ("closed", path) in heard)
        assert heard.files == {path}


def test_symbolic_links_are_not_followed(root: Path, outside: Path, heard: Heard) -> None:
    (root / "before").symlink_to(outside)
    with watching(root, heard):
        (root / "after").symlink_to(outside)
        write(outside / "a.jpg")
        path = write(root / "b.jpg")
        eventually(lambda: ("closed", path) in heard)
        assert not any("a.jpg" in call[1] for call in heard.calls)


def test_the_watched_folder_may_be_a_symbolic_link(root: Path, tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "link").symlink_to(root)
    with watching(tmp_path / "link", heard):
        write(root / "a.jpg")
        eventually(lambda: ("closed", str(tmp_path / "link" / "a.jpg")) in heard)


def test_a_folder_that_may_not_be_read_is_left_out_until_it_may(public: Path, heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        (public / name).mkdir(0o700)
    with contextlib.ExitStack() as stack:
        with as_nobody():
            watcher = stack.enter_context(watching(public, heard, poll_seconds=0.0))
            watcher.check()
            assert heard.calls == []
            assert caplog.messages == []
        watcher.check()
        assert heard.calls == [("rescan", str(public))]
        path = write(public / "a" / "c.jpg")
        eventually(lambda: ("closed", path) in heard)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_all_files_are_known_in_the_end(root: Path, outside: Path, heard: Heard, seed: int) -> None:
    chance = random.Random(seed)

    def somewhere() -> Path:
        folder = root.joinpath(*chance.choices(["a", "b", "c", ".d"], k=chance.randrange(4)))
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def do_something(number: int) -> None:
        at, there = somewhere(), chance.choice([somewhere(), outside])
        kind = chance.randrange(8)
        if kind < 4:
            write(at / f"{number}.jpg")
        elif kind < 5:
            shutil.rmtree(at / "a")
        elif kind < 7:
            (at / chance.choice("abc")).rename(there / chance.choice(["a", "b", "c", ".d", str(number)]))
        else:
            next(outside.iterdir()).rename(at / chance.choice("abc"))

    with watching(root, heard) as watcher:
        for number in range(1000):
            with contextlib.suppress(OSError, StopIteration):
                do_something(number)
            if number % 100 == 0:
                watcher.check()
        visible = files_below(str(root))
        eventually(lambda: heard.files >= visible, meanwhile=watcher.check)


# What goes wrong


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, heard: Heard) -> None:
    with pytest.raises(UserError, match=r"nowhere cannot be watched: No such file or directory"):
        Watcher(str(tmp_path / "nowhere"), heard).start()


def test_a_file_is_refused(tmp_path: Path, heard: Heard) -> None:
    with pytest.raises(UserError, match="Not a directory"):
        Watcher(write(tmp_path / "a.jpg"), heard).start()


def test_nothing_is_left_after_stop(root: Path, heard: Heard) -> None:
    descriptors, threads = len(list(Path("/proc/self/fd").iterdir())), threading.enumerate()
    for _ in range(20):
        with watching(root, heard):
            write(root / "a" / "b.jpg")
        shutil.rmtree(root / "a")
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert threading.enumerate() == threads


def test_stop_without_start_and_twice_does_nothing(root: Path, heard: Heard) -> None:
    watcher = Watcher(str(root), heard)
    watcher.stop()
    watcher.start()
    watcher.stop()
    watcher.stop()


def test_no_file_is_missed_when_the_queue_of_the_kernel_is_full(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Blocked(Heard):
        def __init__(self) -> None:
            super().__init__()
            self.go_on = threading.Event()

        def closed(self, path: str) -> None:
            self.go_on.wait()
            super().closed(path)

    heard = Blocked()
    with watching(root, heard), caplog.at_level(logging.INFO, "daemon"):
        for number in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) + 10_000):
            (root / f"{number % 2}.jpg").open("ab").close()
        paths = {write(root / f"{number}" / "a.jpg") for number in range(10)}
        heard.go_on.set()
        eventually(lambda: heard.files >= paths)
        assert ("rescan", str(root)) in heard
        assert "fs.inotify.max_queued_events" in caplog.text
        path = write(root / "7" / "later.jpg")
        eventually(lambda: ("closed", path) in heard)


def test_20_000_files_at_once_are_all_told_of(root: Path, heard: Heard) -> None:
    script = "import sys\nfor number in range(20_000):\n    open(f'{sys.argv[1]}/{number}.jpg', 'wb').close()"
    with watching(root, heard):
        subprocess.run([sys.executable, "-c", script, str(root)], check=True)
        eventually(lambda: len(heard.files) == 20_000)


@with_own_limits
def test_folders_beyond_the_limit_of_watches_are_polled_until_they_can_be_watched(
    root: Path, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [root / str(number) for number in range(30)]
    for folder in folders:
        (folder / "below").mkdir(parents=True)
    set_limit("max_inotify_watches", 9)
    with watching(root, heard, poll_seconds=0.0) as watcher:
        paths = {write(folder / "below" / "a.jpg") for folder in folders}
        eventually(lambda: heard.files == paths, meanwhile=watcher.check)
        messages = [record.getMessage() for record in caplog.records if record.name.startswith("daemon.")]
        assert len(messages) == 1
        assert "sudo sysctl fs.inotify.max_user_watches=" in messages[0]

        set_limit("max_inotify_watches", 1000)
        watcher.check()
        heard.calls.clear()
        watcher.check()
        assert heard.calls == []
        closes = {("closed", write(folder / "below" / "b.jpg")) for folder in folders}
        eventually(lambda: closes <= set(heard.calls))


@with_own_limits
def test_without_inotify_the_folder_is_polled_until_there_is(root: Path, heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    set_limit("max_inotify_instances", 0)
    with watching(root, heard, poll_seconds=0.0) as watcher:
        path = write(root / "a.jpg")
        watcher.check()
        assert heard.files == {path}
        assert "sudo sysctl fs.inotify.max_user_instances=" in caplog.text

        set_limit("max_inotify_instances", 10)
        watcher.check()
        path = write(root / "b.jpg")
        eventually(lambda: ("closed", path) in heard)


def test_polling_needs_no_thread_and_rescans_at_its_interval(root: Path, heard: Heard) -> None:
    threads = threading.enumerate()
    start = time.monotonic()
    with watching(root, heard, polling=True, poll_seconds=0.2) as watcher:
        assert threading.enumerate() == threads
        path = write(root / "a.jpg")
        watcher.check()
        eventually(lambda: heard.calls.count(("rescan", str(root))) == 2, meanwhile=watcher.check)
        assert time.monotonic() - start >= 0.4
        assert heard.files == {path}


@pytest.mark.parametrize("polling", [False, True])
def test_a_watched_folder_that_is_removed_and_made_again_is_watched_again(root: Path, heard: Heard, polling: bool) -> None:
    write(root / "a.jpg")
    with watching(root, heard, polling=polling) as watcher:
        shutil.rmtree(root)
        watcher.check()
        assert ("gone", str(root)) in heard
        watcher.check()
        path = write(root / "b.jpg")
        eventually(lambda: path in heard.files, meanwhile=watcher.check)


def test_a_watched_folder_that_is_replaced_between_two_checks_is_watched_again(root: Path, heard: Heard) -> None:
    with watching(root, heard) as watcher:
        for number in range(10):  # the new folder often has the inode number of the old one
            shutil.rmtree(root)
            path = write(root / f"{number}.jpg")
            eventually(lambda path=path: path in heard.files, meanwhile=watcher.check)  # type: ignore[misc]


def test_a_watched_folder_that_becomes_a_file_is_lost(root: Path, heard: Heard) -> None:
    with watching(root, heard) as watcher:
        root.rmdir()
        write(root)
        watcher.check()
        assert heard.calls[-1] == ("gone", str(root))


@pytest.mark.parametrize("name", ["card", "a card\t"])
def test_what_is_mounted_in_the_watched_folder_is_watched(root: Path, heard: Heard, name: str) -> None:
    folder = root / name
    folder.mkdir()
    with watching(root, heard) as watcher:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=False, capture_output=True).returncode != 0:
            pytest.skip("nothing can be mounted here")
        try:
            before = write(folder / "a.jpg")
            eventually(lambda: before in heard.files, meanwhile=watcher.check)
            path = write(folder / "b.jpg")
            eventually(lambda: ("closed", path) in heard)
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        watcher.check()
        path = write(folder / "c.jpg")
        eventually(lambda: ("closed", path) in heard)


def test_what_is_mounted_elsewhere_changes_nothing(root: Path, outside: Path, heard: Heard) -> None:
    with watching(root, heard) as watcher:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(outside)], check=False, capture_output=True).returncode != 0:
            pytest.skip("nothing can be mounted here")
        try:
            watcher.check()
            assert heard.calls == []
        finally:
            subprocess.run(["umount", str(outside)], check=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_is_started_again(root: Path, heard: Heard) -> None:
    class Fatal(Heard):
        def touched(self, path: str) -> None:
            if path.endswith("fatal.jpg") and path not in self.files:
                raise RuntimeError
            super().touched(path)

    heard = Fatal()
    with watching(root, heard) as watcher:
        path = write(root / "fatal.jpg")
        eventually(lambda: not any(thread.name == "sdfs-watch" for thread in threading.enumerate()))
        watcher.check()
        assert heard.files == {path}
        path = write(root / "b.jpg")
        eventually(lambda: ("closed", path) in heard)

"""Stores as a stranger may have made them: no command changes, reads or removes what is not the store's own, as root and as another user.

The shapes of `../shared/cases/stores`, where that folder is, and some that are made here. Each is built with canaries beside it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sdfs.owner.access import open_access
from sdfs.owner.store.store import init, read_owner
from tests.support import ROOT

CASES = ROOT.parent / "shared" / "cases" / "stores"
USER = 1500  # who need not exist
STRANGER = 12345
USERS = [os.geteuid(), USER] if os.geteuid() == 0 else [os.geteuid()]
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases, with the shapes of hostile stores")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")


class Commands:
    """`sdfs`, as any user: `tests/support/command_server.py`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sdfs-hostile-"))  # pytest's own folders are closed to other users
        self.folder.chmod(0o755)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        arguments = [sys.executable, str(ROOT / "tests/support/command_server.py")]
        self._server = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._read() == "ready\n"

    def _read(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline()

    def run(self, user: int, at: Path, *arguments: str | Path, **environment: str) -> tuple[int | None, str]:
        """The exit status, None of a command that hung, and stderr."""
        runtime = self.folder / f"runtime-{user}"
        runtime.mkdir(mode=0o700, exist_ok=True)
        os.chown(runtime, user, user)
        asked = {
            "arguments": list(map(str, arguments)),
            "user": user,
            "environment": {"XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime)} | environment,
            "folder": str(at),
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._read())
        return answer["status"], answer["stderr"]

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    commands = Commands()
    yield commands
    commands.close()


# shapes that are made here


def link(name: str, target: str) -> Callable[[Path], None]:
    def make(at: Path) -> None:
        path = at / "store" / ".sdfs" / name
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.symlink_to(target)

    return make


def second_name(name: str) -> Callable[[Path], None]:
    def make(at: Path) -> None:
        path = at / "store" / ".sdfs" / name
        path.unlink(missing_ok=True)
        path.hardlink_to(at / "outside" / "precious")

    return make


def pipe(name: str) -> Callable[[Path], None]:
    def make(at: Path) -> None:
        path = at / "store" / ".sdfs" / name
        path.unlink(missing_ok=True)
        os.mkfifo(path)

    return make


def internal_link(at: Path) -> None:
    (at / "store" / ".sdfs").rename(at / "outside" / "internal")
    (at / "store" / ".sdfs").symlink_to("../outside/internal")
    (at / "outside" / "internal" / "staging" / "1-1").write_text("precious")


SHAPES: dict[str, Callable[[Path], None]] = {
    "staging-link": link("staging", "../../outside"),
    "staging-link-to-the-tree": link("staging", ".."),
    "trash-link": link("trash", "../../outside"),
    "lock-link": link("lock", "../../outside/precious"),
    "lock-second-name": second_name("lock"),
    "log-link": link("log", "../../outside/precious"),
    "secret-link": link("secret", "../../outside/precious"),
    "config-link": link("config.toml.new", "../../outside/precious"),
    "lock-pipe": pipe("lock"),
    "internal-link": internal_link,
}
COMMANDS = (("ls",), ("fsck", "--repair"), ("sync",), ("trash", "empty"), ("init",))


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    return {
        str(path): (path.read_bytes() if path.is_file() else b"", status.st_mode, status.st_mtime_ns, status.st_uid)
        for path in sorted(folder.rglob("*"))
        for status in [path.lstat()]
    }


def make(at: Path) -> None:
    """A store with a picture, and precious files beside it, with names as of staging and trash, too."""
    (at / "outside").mkdir(parents=True)
    for name in ("precious", "1-1", "1000000000000000000-0.letter", "1000000000000000000-1-rescued.letter"):
        (at / "outside" / name).write_text(f"{name} is the only copy\n" * 100)
    init(at / "store")
    (at / "store" / "notes.txt").write_text("notes")


def give(at: Path, user: int) -> None:
    if os.geteuid() == 0:
        subprocess.run(["chown", "-Rh", f"{user}:{user}", at], check=True)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_command_touches_what_is_outside(commands: Commands, shape: str, user: int) -> None:
    at = commands.folder / f"{shape}-{user}"
    make(at)
    SHAPES[shape](at)
    give(at, user)
    before, tree = snapshot(at / "outside"), (at / "store" / "notes.txt").read_text()
    for command in COMMANDS:
        status, told = commands.run(user, at, *command, "store")
        assert status is not None, f"{command} hangs"
        assert "Traceback" not in told
    assert snapshot(at / "outside") == before
    assert (at / "store" / "notes.txt").read_text() == tree


@needs_root
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("command", [("ls",), ("stat",), ("cat",), ("du",), ("get",)])
def test_a_store_that_a_stranger_put_above_is_not_taken(commands: Commands, user: int, command: tuple[str]) -> None:
    at = commands.folder / f"above-{command[0]}-{user}"
    (at / "outside").mkdir(parents=True)
    (at / "mine").mkdir()
    for path in (at / "outside" / "1-1", at / "mine" / "photo.png"):
        path.write_text("precious")
    give(at, user)
    init(at)
    (at / ".sdfs" / "staging").rmdir()
    (at / ".sdfs" / "staging").symlink_to("../outside")
    subprocess.run(["chown", "-Rh", f"{STRANGER}:{STRANGER}", at / ".sdfs"], check=True)
    status, told = commands.run(user, at, *command, "mine/photo.png")
    assert (status, f"{at}/.sdfs belongs to user {STRANGER}" in told) == (3, True)
    assert os.listdir(at / "outside") == ["1-1"]


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_store_above_that_others_may_change_is_not_taken(commands: Commands, mode: int) -> None:
    at = commands.folder / f"open-{mode:o}"
    init(at)
    (at / "mine").mkdir()
    (at / "mine" / "notes.txt").write_text("notes")
    at.chmod(mode)
    status, told = commands.run(os.geteuid(), at, "cat", "mine/notes.txt")
    assert (status, "others may change" in told) == (3, True)
    assert commands.run(os.geteuid(), at, "ls", at)[0] == 0


def test_an_attribute_makes_no_folder_a_mount(commands: Commands, tmp_path: Path) -> None:
    init(tmp_path / "mine")
    (tmp_path / "mine" / ".sdfs" / "trash" / "1-1-rescued.letter").write_text("precious")
    (tmp_path / "folder").mkdir()
    os.setxattr(tmp_path / "folder", "user.sdfs.store", os.fsencode(tmp_path / "mine"))
    assert commands.run(os.geteuid(), tmp_path, "trash", "empty", "folder")[0] == 3
    assert os.listdir(tmp_path / "mine" / ".sdfs" / "trash") == ["1-1-rescued.letter"]


def test_an_inner_store_is_its_owners_business(commands: Commands, tmp_path: Path) -> None:
    init(tmp_path / "outer")
    init(tmp_path / "outer" / "inner")
    picture = b"\xff\xd8\xff" + b"picture " * 1000 + b"END"
    kept = tmp_path / "outer" / "inner" / ".sdfs" / "trash" / "1-1-rescued.photo.jpg"
    for path in (kept, tmp_path / "outer" / "inner" / "photo.jpg", tmp_path / "outer" / "photo.jpg"):
        path.write_bytes(picture)
    assert commands.run(os.geteuid(), tmp_path, "sync", "outer")[0] == 0
    assert (tmp_path / "outer" / "photo.jpg").read_bytes() != picture
    assert kept.read_bytes() == (tmp_path / "outer" / "inner" / "photo.jpg").read_bytes() == picture
    status, told = commands.run(os.geteuid(), tmp_path, "add", "outer", "outer/photo.jpg", "--to", "inner")
    assert (status, "is a store by itself" in told) == (12, True)
    assert commands.run(os.geteuid(), tmp_path, "sync", "outer/inner")[0] == 0
    assert (tmp_path / "outer" / "inner" / "photo.jpg").read_bytes() != picture


# an owner that is somebody else

KINDS = (
    *("names-up", "names-absolute", "folders-for-ever", "data-for-ever", "data-claimed", "data-negative", "line-for-ever", "silent"),
    *("slow", "says-yes", "wrong-types", "deep", "error-escapes", "times"),
)


@pytest.fixture
def owned_by(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A store that a program of ours, which is no owner, holds."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> Path:
        store = tmp_path / "deep" / "held" / "store"
        init(store)
        (store / "photo.png").write_bytes(b"picture")
        process = subprocess.Popen([sys.executable, CASES / "fake_owner.py", store, *arguments], stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return store

    yield start
    for process in running:
        process.terminate()
        process.communicate()


@needs_cases
@pytest.mark.parametrize("kind", [*KINDS[:1], *(pytest.param(kind, marks=pytest.mark.long) for kind in KINDS[1:])])
def test_whoever_only_holds_the_lock_is_not_believed(commands: Commands, owned_by: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    store = owned_by(kind)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG picture")
    output = tmp_path / "deep" / "output"
    output.mkdir()
    before = snapshot(tmp_path)
    for command in (("get", store, "-o", output), ("add", store, tmp_path / "picture.png"), ("ls", "-l", store), ("trash", "empty", store)):
        began_at = time.monotonic()
        status, told = commands.run(os.geteuid(), tmp_path, *command)
        assert (status, len(told.splitlines())) == (4, 1), told
        assert time.monotonic() - began_at < 25
    assert snapshot(tmp_path) == before


@needs_cases
def test_a_lock_that_names_another_stores_socket_leads_nowhere(commands: Commands, owned_by: Callable[..., Path], tmp_path: Path) -> None:
    init(tmp_path / "mine")
    kept = tmp_path / "mine" / ".sdfs" / "trash" / "1-1-rescued.letter"
    kept.write_text("nowhere else")
    with open_access(tmp_path / "mine"):
        owner = read_owner(tmp_path / "mine")
        assert owner is not None
        assert owner.socket is not None
        store = owned_by("other-owner", "--socket", owner.socket)
        status, told = commands.run(os.geteuid(), tmp_path, "trash", "empty", store)
    assert (status, "not the owner of this store" in told) == (4, True)
    assert kept.read_text() == "nowhere else"


# all shapes


def cases() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_stores", CASES / "make_stores.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_stores"] = module
    spec.loader.exec_module(module)
    return module


MAKER: Any = cases() if CASES.is_dir() else None
SAMPLE = (
    *("staging-link-to-the-trash", "staging-odd-entries", "trash-odd-entries", "trash-records"),
    *("init-links", "log-link", "nested", "planted-above"),
)
ALL = [name for name in MAKER.SHAPES if name not in SAMPLE] if MAKER else []


def every_command(at: Path) -> list[list[str | Path]]:
    store, photo = at / "store", at / "store" / "photo.png"
    names = [f"{1_600_000_000_000_000_000 + number}-{number}.file-{number}.txt" for number in range(24)]
    return [
        *(["ls", store], ["ls", "-l", store], ["stat", photo], ["stat", "--json", photo], ["stat", store], ["cat", photo], ["du", store]),
        *(["get", store, "-o", at / "got"], ["fsck", store], ["fsck", "--decode", store], ["fsck", "--repair", store], ["stats", store]),
        *(["trash", "list", store], ["trash", "restore", store, *names], ["trash", "restore", store, *names, "--to", "back"]),
        *(["trash", "empty", store], ["add", store, at.parent / "added.png", "--to", "added/deep"], ["sync", store]),
        *(["recompress", "--accept-loss", "--quality", "40", store], ["init", store]),
        *(["mount", store, at / "mount"], ["mount", "-o", "ro", store, at / "mount"], ["umount", at / "mount"]),
    ]


def few_commands(at: Path) -> list[list[str | Path]]:
    """Of which each is as well the surprise of the next."""
    wanted = (["ls"], ["fsck", "--repair"], ["trash", "restore"], ["trash", "empty"], ["sync"], ["init"])
    return [command for command in every_command(at) if any(command[: len(one)] == one for one in wanted)]


def unmount(commands: Commands, user: int, at: Path) -> None:
    if os.path.ismount(at / "mount"):
        commands.run(user, at, "cat", at / "mount" / "photo.png")
        assert commands.run(user, at, "umount", at / "mount") == (0, "")


def check(commands: Commands, shape: str, user: int, choose: Callable[[Path], list[list[str | Path]]], *, anew: bool) -> None:
    at = commands.folder / shape
    (commands.folder / "added.png").write_bytes(MAKER.picture(40))
    os.chown(commands.folder / "added.png", user, user)
    try:
        for number, command in enumerate(choose(at)):
            if anew or not number:
                if not MAKER.build(commands.folder, [shape], user):
                    pytest.skip("cannot be made here")
                (at / "mount").mkdir()
                os.chown(at / "mount", user, user)
            environment = json.loads((at / "case.json").read_text()).get("environment", {})
            status, told = commands.run(user, at, *command, **environment)
            unmount(commands, user, at)
            assert MAKER.harms(at) == [], command
            assert status is not None, f"{command} hangs"
            assert "Traceback" not in told, (command, told)
    finally:
        MAKER.remove_all(at)


@needs_cases
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("shape", SAMPLE)
def test_nothing_is_harmed(commands: Commands, shape: str, user: int) -> None:
    check(commands, shape, user, few_commands, anew=False)


@needs_cases
@pytest.mark.long
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("shape", [*SAMPLE, *ALL])
def test_nothing_is_harmed_by_any_command(commands: Commands, shape: str, user: int) -> None:
    check(commands, shape, user, every_command, anew=True)


# races

SWAP = """
import ctypes, os, sys, time
rename = ctypes.CDLL(None).renameat2
while True:
    assert rename(-100, os.fsencode(sys.argv[1]), -100, os.fsencode(sys.argv[2]), 2) == 0
"""


@pytest.fixture(params=[2.0, pytest.param(60.0, marks=pytest.mark.long)], ids="{:.0f} s".format)
def seconds(request: pytest.FixtureRequest) -> float:
    return float(request.param)


class Swapped:
    """A folder, and a link to one outside, which are exchanged all the time."""

    def __init__(self, folder: Path, outside: Path) -> None:
        self._folder = folder
        self._link = folder.with_name(f"{folder.name}-link")
        self._link.symlink_to(outside)

    def __enter__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", SWAP, self._folder, self._link])

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def test_a_file_that_is_added_stays_in_the_store(tmp_path: Path, seconds: float) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "photo.txt").write_text("photo")
    init(tmp_path / "store")
    (tmp_path / "store" / "bob").mkdir()
    added, tries, end = 0, 0, time.monotonic() + seconds
    with open_access(tmp_path / "store") as store, Swapped(tmp_path / "store" / "bob", tmp_path / "outside"):
        while time.monotonic() < end or not added:
            tries += 1
            try:
                store.add(tmp_path / "photo.txt", f"bob/{tries}/photo.txt")
                added += 1
            except Exception:  # a link was in the way
                continue
    assert added > 0
    assert os.listdir(tmp_path / "outside") == []


def test_a_file_that_is_fetched_stays_in_the_output(commands: Commands, tmp_path: Path, seconds: float) -> None:
    (tmp_path / "outside").mkdir()
    init(tmp_path / "store")
    (tmp_path / "store" / "sub").mkdir()
    for number in range(200):
        (tmp_path / "store" / "sub" / f"{number}.txt").write_text("notes")
    (tmp_path / "output" / "store" / "sub").mkdir(parents=True)
    got, end = set(), time.monotonic() + seconds
    with Swapped(tmp_path / "output" / "store" / "sub", tmp_path / "outside"):
        while time.monotonic() < end or not got:
            status, told = commands.run(os.geteuid(), tmp_path, "get", "store", "-o", "output")
            assert status in (0, 12), told
            for folder in ("sub", "sub-link"):
                if not (tmp_path / "output" / "store" / folder).is_symlink():
                    got |= set(os.listdir(tmp_path / "output" / "store" / folder))
    assert os.listdir(tmp_path / "outside") == []


def test_a_link_in_the_output_is_not_followed(commands: Commands, tmp_path: Path) -> None:
    init(tmp_path / "store")
    (tmp_path / "store" / "folder").mkdir()
    (tmp_path / "store" / "folder" / "notes.txt").write_text("notes")
    for folder in ("outside", "output/store"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "output" / "store" / "folder").symlink_to("../../outside")
    status, told = commands.run(os.geteuid(), tmp_path, "get", "store", "-o", "output")
    assert (status, f"{tmp_path}/output/store/folder cannot be made: there is a symbolic link on the way" in told) == (12, True)
    assert os.listdir(tmp_path / "outside") == []


def test_a_blob_with_a_name_outside_is_not_recompressed(commands: Commands, tmp_path: Path) -> None:
    init(tmp_path / "store")
    (tmp_path / "store" / "photo.jpg").write_bytes(b"\xff\xd8\xff" + b"picture " * 1000 + b"END")
    assert commands.run(os.geteuid(), tmp_path, "sync", "store")[0] == 0
    (tmp_path / "outside.jpg").hardlink_to(tmp_path / "store" / "photo.jpg")
    status, told = commands.run(os.geteuid(), tmp_path, "recompress", "--accept-loss", "--quality", "40", "store")
    assert (status, "has several names" in told) == (12, True)
    assert os.listxattr(tmp_path / "outside.jpg") == []

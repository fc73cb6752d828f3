"""sdfs.owner.store.private_folder, sdfs.system.no_follow: what another user could put in the way is refused, nothing beyond it touched."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdfs.errors import UserError
from sdfs.owner.store.private_folder import PrivateFolder
from sdfs.system.no_follow import folder_of, is_name, name_in, open_folder

STRANGER = 12345


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "outside").write_bytes(b"precious")
    return tmp_path / "private"


@pytest.fixture
def folder(path: Path) -> Iterator[PrivateFolder]:
    with PrivateFolder.open(str(path.parent), path.name) as folder:
        yield folder


def test_a_plain_file_is_made_for_its_user_alone_and_opened_again(folder: PrivateFolder, path: Path) -> None:
    fd = folder.file("lock", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"owner")
    os.close(fd)
    assert (path / "lock").stat().st_mode & 0o777 == 0o600
    fd = folder.file("lock", os.O_RDONLY)
    assert os.read(fd, 10) == b"owner"
    os.close(fd)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


NO_FILES: dict[str, Callable[[Path], None]] = {
    "a symbolic link": lambda path: path.symlink_to("../outside"),
    "a symbolic link to nothing": lambda path: path.symlink_to("../made"),
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
    "a socket": make_socket,
    "2 names": lambda path: path.hardlink_to(path.parent.parent / "outside"),
}


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_APPEND])
@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_plain_file_with_one_name_is_refused_by_name(folder: PrivateFolder, path: Path, what: str, flags: int) -> None:
    NO_FILES[what](path / "lock")
    with pytest.raises(UserError, match=f"private/lock (is|has) {what.removesuffix(' to nothing')}"):
        folder.file("lock", flags)
    assert sorted(os.listdir(path.parent)) == ["outside", "private"]
    assert (path.parent / "outside").read_bytes() == b"precious"


@pytest.mark.parametrize("what", NO_FILES)
def test_it_is_not_removed_either_unless_it_is_plain(folder: PrivateFolder, path: Path, what: str) -> None:
    NO_FILES[what](path / "log.old")
    with pytest.raises(UserError):
        folder.remove("log.old")
    assert os.path.lexists(path / "log.old")


def test_a_file_that_everybody_may_write_to_is_refused(folder: PrivateFolder, path: Path) -> None:
    (path / "lock").touch()
    (path / "lock").chmod(0o666)
    with pytest.raises(UserError, match=r"by everybody.*chmod 600"):
        folder.file("lock", os.O_RDONLY)


def test_a_folder_is_no_link(folder: PrivateFolder, path: Path) -> None:
    (path / "staging").symlink_to("..")
    with pytest.raises(UserError, match="staging is a symbolic link"):
        folder.folder("staging", make=True)


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(UserError, match=r"by others.*chmod 700"):
        PrivateFolder.open(str(path.parent), path.name)


def test_what_belongs_to_another_user_is_refused_with_his_number(folder: PrivateFolder, path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to give a file away")
    (path / "lock").touch()
    (path / "staging").mkdir()
    for name in ("lock", "staging", "."):
        os.chown(path / name, STRANGER, STRANGER)
    for use in (lambda: folder.file("lock", os.O_RDONLY), lambda: folder.folder("staging"), lambda: PrivateFolder.open(str(path), ".")):
        with pytest.raises(UserError, match=f"belongs to user {STRANGER}, and you are user 0"):
            use()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\0b", "a" * 256])
def test_ways_out_are_no_names(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize("name", ["...", "-rf", "a b", "\udcff", "a" * 255])
def test_odd_names_are_names(name: str) -> None:
    assert is_name(name)


class TestOpenFolder:
    def test_a_link_on_the_way_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "link").symlink_to("..")
        with pytest.raises(OSError, match="symbolic link on the way: 'a/link'"):
            open_folder(str(tmp_path), ["a", "link", "a"])

    def test_a_way_up_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="no name"):
            open_folder(str(tmp_path), [".."])

    def test_what_is_missing_can_be_made(self, tmp_path: Path) -> None:
        made: list[int] = []

        def make(name: str, depth: int) -> None:
            made.append(depth)
            os.mkdir(name)

        (tmp_path / "a").mkdir()
        os.close(open_folder(str(tmp_path), ["a", "b", "c"], on_missing=make))
        assert (made, (tmp_path / "a" / "b" / "c").is_dir()) == ([1, 2], True)

    def test_a_link_is_not_made_into_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("nowhere")
        with pytest.raises(OSError, match="symbolic link"):
            open_folder(str(tmp_path), ["link"], on_missing=lambda name, depth: os.mkdir(name))
        assert os.listdir(tmp_path) == ["link"]

    def test_a_name_stays_with_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "outside").mkdir()
        with folder_of(str(tmp_path), ["a"]) as folder:
            (tmp_path / "a").rename(tmp_path / "b")
            (tmp_path / "a").symlink_to("outside")
            Path(name_in(folder, "file")).touch()
        assert (os.listdir(tmp_path / "b"), os.listdir(tmp_path / "outside")) == (["file"], [])

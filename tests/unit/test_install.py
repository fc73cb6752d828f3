"""sdfs.owner.tree.install: a name gets another content only if it is what was meant to be replaced; all who remember it know."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdfs.blob import container
from sdfs.blob.container import MAGIC
from sdfs.control.answers import Wish
from sdfs.errors import NameTaken, UserError
from sdfs.owner.owner import Owner
from sdfs.owner.store.store import STAGED
from sdfs.owner.tree.tree import Tree
from sdfs.system.files import read_all
from tests.support.trees import read, shrink, trash, write

PICTURE, EDITED = (b"\xff\xd8\xff" + word * 1000 + b"END" for word in (b"picture ", b"edited "))
LIKE_A_BLOB = MAGIC + b" user bytes"
LONG_AGO_NS = 10**18
NOBODY = (65534, 65534)
WISH = Wish({"quality": 30}, accept_loss=True)


@pytest.fixture
def two_names(blob: Path, root: Path) -> list[Path]:
    """Of the blob; the second was made behind the owner's back, as `cp -al` does."""
    (root / "b.jpg").hardlink_to(blob)
    return [blob, root / "b.jpg"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").write_bytes(PICTURE)
    return tmp_path / "source"


def mode_of(tree: Tree, path: str) -> int:
    return stat.S_IMODE(tree.getattr(path).mode)


def find(owner: Owner, content: bytes) -> str | None:
    found = owner.services.find(hashlib.sha256(content).hexdigest(), len(content))
    return found.path if found is not None else None


@pytest.fixture
def while_copying(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something done once, when a file of the store is being copied."""

    def once(change: Callable[[], object]) -> None:
        copy, left = tree.store.copy, [change]

        def copy_slowly(source: int, target: int, **options: Any) -> None:
            copy(source, target, **options)
            if left:
                left.pop()()

        monkeypatch.setattr(tree.store, "copy", copy_slowly)

    return once


class TestChmodOfABlob:
    """0444 is a mode that the blob's preamble has to record: it is installed as a copy."""

    def test_keeps_a_file_that_is_renamed_over_it_meanwhile(
        self, tree: Tree, root: Path, blob: Path, while_copying: Callable[[Callable[[], object]], None]
    ) -> None:
        write(tree, "/new", EDITED)
        while_copying(lambda: tree.rename("/new", "/a.jpg"))
        old = blob.read_bytes()
        tree.chmod("/a.jpg", 0o444)
        assert read(tree, "/a.jpg") == EDITED
        assert mode_of(tree, "/a.jpg") == 0o444
        assert old in trash(root)

    def test_keeps_a_blob_that_is_renamed_over_it_meanwhile(
        self, owner: Owner, tree: Tree, blob: Path, while_copying: Callable[[Callable[[], object]], None]
    ) -> None:
        write(tree, "/new", EDITED)
        shrink(owner)
        while_copying(lambda: tree.rename("/new", "/a.jpg"))
        tree.chmod("/a.jpg", 0o444)
        assert read(tree, "/a.jpg") == EDITED
        assert mode_of(tree, "/a.jpg") == 0o444
        assert blob.stat().st_mode & 0o600 == 0o600

    def test_brings_back_nothing_that_is_removed_meanwhile(
        self, tree: Tree, blob: Path, while_copying: Callable[[Callable[[], object]], None]
    ) -> None:
        while_copying(lambda: tree.unlink("/a.jpg"))
        with pytest.raises(FileNotFoundError):
            tree.chmod("/a.jpg", 0o444)
        assert not blob.exists()

    def test_leaves_nothing_in_staging_whatever_happens(
        self, tree: Tree, root: Path, blob: Path, while_copying: Callable[[Callable[[], object]], None]
    ) -> None:
        write(tree, "/new", EDITED)
        while_copying(lambda: tree.rename("/new", "/a.jpg"))
        tree.chmod("/a.jpg", 0o444)
        assert list((root / ".sdfs" / "staging").iterdir()) == []

    def test_with_two_names_is_refused_and_the_names_stay_one_file(self, tree: Tree, two_names: list[Path]) -> None:
        with pytest.raises(PermissionError):
            tree.chmod("/a.jpg", 0o444)
        assert two_names[0].samefile(two_names[1])
        assert [mode_of(tree, path) for path in ("/a.jpg", "/b.jpg")] == [0o644, 0o644]

    def test_with_two_names_is_done_where_the_backing_has_the_mode(self, tree: Tree, two_names: list[Path]) -> None:
        tree.chmod("/a.jpg", 0o600)
        assert two_names[0].samefile(two_names[1])
        assert [mode_of(tree, path) for path in ("/a.jpg", "/b.jpg")] == [0o600, 0o600]

    def test_that_fails_leaves_the_number_of_its_copy_to_others(self, tree: Tree, blob: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(staged: str, path: str, **options: Any) -> None:
            numbers.append((os.lstat(staged).st_dev, os.lstat(staged).st_ino))
            raise OSError(errno.EIO, "broken")

        numbers: list[tuple[int, int]] = []
        handle = tree.open("/a.jpg", os.O_RDONLY)
        monkeypatch.setattr(tree.store, "replace", fail)
        with pytest.raises(OSError, match="broken"):
            tree.chmod("/a.jpg", 0o444)
        assert tree.inodes.find(numbers[0]) is None
        tree.release(handle)


class TestRecompress:
    def test_leaves_a_blob_with_two_names_alone_and_says_why(self, owner: Owner, two_names: list[Path]) -> None:
        with pytest.raises(UserError, match="several names"):
            owner.services.recompress("a.jpg", WISH)
        assert two_names[0].samefile(two_names[1])

    def test_leaves_what_it_did_not_replace_out_of_the_trash(self, owner: Owner, root: Path, two_names: list[Path]) -> None:
        before = trash(root)
        with pytest.raises(UserError):
            owner.services.recompress("a.jpg", WISH)
        assert trash(root) == before

    def test_keeps_a_file_that_is_renamed_over_it_meanwhile(
        self, owner: Owner, tree: Tree, root: Path, blob: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tree, "/new", EDITED)
        sync, left = tree.store.trash.sync, [1]

        def sync_slowly() -> None:
            sync()
            if left and left.pop():
                tree.rename("/new", "/a.jpg")

        monkeypatch.setattr(tree.store.trash, "sync", sync_slowly)
        with pytest.raises(UserError, match="changed meanwhile"):
            owner.services.recompress("a.jpg", WISH)
        assert read(tree, "/a.jpg") == EDITED


class TestTheTimesOfAFolder:
    @pytest.fixture
    def while_replacing(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
        """Have something begun, by another, right after a staged file was renamed, and wait until it is done or waits itself."""

        def once(change: Callable[[], object]) -> None:
            rename, left = os.rename, [change]

            def rename_and_wait(old: str, new: str) -> None:
                rename(old, new)
                if STAGED.fullmatch(Path(old).name) and left:
                    thread = threading.Thread(target=left.pop())
                    others.append(thread)
                    thread.start()
                    thread.join(0.5)

            others: list[threading.Thread] = []
            monkeypatch.setattr(os, "rename", rename_and_wait)
            finished.append(lambda: [thread.join() for thread in others])

        finished: list[Callable[[], object]] = []
        self.finish = lambda: [each() for each in finished]
        return once

    def test_stay_over_a_swap(self, owner: Owner, tree: Tree, root: Path) -> None:
        tree.mkdir("/d", 0o755)
        write(tree, "/d/a.jpg", PICTURE)
        os.utime(root / "d", ns=(LONG_AGO_NS, LONG_AGO_NS))
        shrink(owner)
        assert (root / "d").stat().st_mtime_ns == LONG_AGO_NS

    @pytest.mark.parametrize(
        "make",
        [
            lambda tree: write(tree, "/d/new", b"text"),
            lambda tree: tree.mkdir("/d/new", 0o755),
            lambda tree: tree.mknod("/d/new", stat.S_IFIFO | 0o644, 0),
            lambda tree: tree.symlink("a.jpg", "/d/new"),
            lambda tree: tree.rmdir("/d/empty"),
            lambda tree: tree.utimens("/d", 5, 5),
        ],
        ids=["create", "mkdir", "mknod", "symlink", "rmdir", "utimens"],
    )
    def test_show_what_happens_in_it_during_a_swap(
        self,
        owner: Owner,
        tree: Tree,
        root: Path,
        while_replacing: Callable[[Callable[[], object]], None],
        make: Callable[[Tree], object],
    ) -> None:
        tree.mkdir("/d", 0o755)
        tree.mkdir("/d/empty", 0o755)
        write(tree, "/d/a.jpg", PICTURE)
        os.utime(root / "d", ns=(LONG_AGO_NS, LONG_AGO_NS))
        while_replacing(lambda: make(tree))
        shrink(owner)
        self.finish()
        assert (root / "d").stat().st_mtime_ns != LONG_AGO_NS


class TestAnImportWhoseFolderCannotBeSynced:
    @pytest.fixture(autouse=True)
    def failed(self, owner: Owner, tree: Tree, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(path: str) -> None:
            raise OSError(errno.EIO, "broken")

        with monkeypatch.context() as patch:
            patch.setattr(tree.durable_names, "_sync_folder", fail)
            with pytest.raises(UserError, match="broken"):
                owner.services.add(source, "a.jpg")

    def test_is_queued(self, owner: Owner, tree: Tree, root: Path) -> None:
        status = (root / "a.jpg").stat()
        assert (status.st_dev, status.st_ino) in tree.pending

    def test_is_known_by_its_content(self, owner: Owner) -> None:
        assert owner.tree.content_index.by_content(hashlib.sha256(PICTURE).hexdigest(), len(PICTURE)) is not None

    @pytest.mark.parametrize("sha256", [hashlib.sha256(PICTURE).hexdigest(), None], ids=["known by its hash", "unknown"])
    def test_is_made_durable_by_the_next_one(self, owner: Owner, source: Path, sha256: str | None) -> None:
        assert owner.services.add(source, "a.jpg", sha256) == "/a.jpg"
        assert owner.tree.durable_names._changes == {}

    def test_has_the_name_all_the_same_so_that_another_content_does_not_get_it(self, owner: Owner, source: Path) -> None:
        source.write_bytes(EDITED)
        with pytest.raises(NameTaken):
            owner.services.add(source, "a.jpg")


@pytest.mark.parametrize(
    "make",
    [
        lambda tree: tree.create("/new", 0o644, os.O_WRONLY, NOBODY),
        lambda tree: tree.mkdir("/new", 0o755, NOBODY),
        lambda tree: tree.mknod("/new", stat.S_IFIFO | 0o644, 0, NOBODY),
        lambda tree: tree.symlink("target", "/new", NOBODY),
    ],
    ids=["create", "mkdir", "mknod", "symlink"],
)
def test_what_cannot_be_given_to_whoever_makes_it_is_not_there(
    tree: Tree, root: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Tree], object]
) -> None:
    def fail(path: str, uid: int, gid: int, **options: Any) -> None:
        raise OSError(errno.EDQUOT, "no room for that user")

    monkeypatch.setattr(os, "chown", fail)
    with pytest.raises(OSError, match="no room"):
        make(tree)
    assert not os.path.lexists(root / "new")


class TestFindKnows:
    def test_what_was_restored(self, owner: Owner, blob: Path) -> None:
        find(owner, PICTURE)
        owner.tree.unlink("/a.jpg")
        owner.services.restore("a.jpg", "back")
        assert find(owner, PICTURE) == "/back/a.jpg"

    def test_what_was_restored_by_an_owner_that_did_not_see_it_go(self, root: Path, owner: Owner, tree: Tree) -> None:
        name = f"{time.time_ns()}-0.b.jpg"
        (root / ".sdfs" / "trash" / name).write_bytes(EDITED)
        assert find(owner, EDITED) is None
        owner.services.restore(name, "back")
        assert find(owner, EDITED) == "/back/b.jpg"

    @pytest.mark.parametrize("content", [b"text", PICTURE, LIKE_A_BLOB], ids=["text", "picture", "begins like a blob"])
    def test_what_was_written(self, owner: Owner, tree: Tree, content: bytes) -> None:
        assert find(owner, content) is None
        write(tree, "/a", content)
        assert find(owner, content) == "/a"

    def test_what_a_blob_was_changed_to(self, owner: Owner, tree: Tree, blob: Path) -> None:
        handle = tree.open("/a.jpg", os.O_WRONLY | os.O_TRUNC)
        handle.write(b"text", 0)
        handle.flush()
        assert find(owner, b"text") == "/a.jpg"
        tree.release(handle)

    def test_where_a_recompressed_picture_is(self, owner: Owner, blob: Path) -> None:
        owner.services.recompress("a.jpg", WISH)
        assert find(owner, PICTURE) == "/a.jpg"


class TestCommit:
    def test_replaces_nothing_that_was_put_there_behind_the_owners_back(self, tree: Tree, root: Path, blob: Path) -> None:
        handle = tree.open("/a.jpg", os.O_WRONLY | os.O_TRUNC)
        handle.write(b"written", 0)
        (root / "other").write_bytes(b"other")
        (root / "other").rename(blob)
        with pytest.raises(OSError, match="behind the owner's back"):
            handle.fsync()
        tree.release(handle)
        assert blob.read_bytes() == b"other"
        assert b"written" in trash(root)

    def test_goes_where_the_file_was_renamed_to_meanwhile(
        self, tree: Tree, root: Path, blob: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sync, left = tree.store.trash.sync, [1]

        def sync_slowly() -> None:
            sync()
            if left and left.pop():
                tree.rename("/a.jpg", "/b.jpg")

        monkeypatch.setattr(tree.store.trash, "sync", sync_slowly)
        handle = tree.open("/a.jpg", os.O_WRONLY | os.O_TRUNC)
        handle.write(b"written", 0)
        handle.fsync()
        tree.release(handle)
        assert not blob.exists()
        assert (root / "b.jpg").read_bytes() == b"written"
        assert [container.is_blob(content) for content in trash(root)].count(True) == 1


def test_a_rename_that_fails_leaves_no_second_name_of_the_blob_it_was_to_replace(owner: Owner, tree: Tree, blob: Path) -> None:
    tree.mkdir("/d", 0o755)
    with pytest.raises(NotADirectoryError):
        tree.rename("/d", "/a.jpg")
    assert blob.stat().st_nlink == 1


PACKAGE = Path(container.__file__).parents[1]


@pytest.mark.parametrize(
    ("call", "places"),
    [
        (r"store\.replace\(", {"owner/tree/install.py"}),
        (r"[._]store\.add\(", {"owner/tree/install.py"}),
        (r"rename_noreplace", {"owner/store/store.py", "owner/tree/tree.py", "cli/get.py"}),
        (r"\bos\.rename\b", {"owner/tree/tree.py", "owner/store/store.py", "owner/store/trash.py", "owner/renders/disk_cache.py"}),
    ],
    ids=["replace", "add", "rename_noreplace", "rename"],
)
def test_files_get_their_names_in_one_place(call: str, places: set[str]) -> None:
    """Besides: what users rename (tree), the renames themselves (store), what goes into the trash or out of a store, renders on a disk."""
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if re.search(call, path.read_text())}
    assert found - {"system/files.py"} == places


def test_the_copy_that_a_chmod_installs_is_the_same_blob_but_for_the_mode(tree: Tree, blob: Path) -> None:
    before = blob.read_bytes()
    tree.chmod("/a.jpg", 0o444)
    fd = os.open(blob, os.O_RDONLY)
    after = read_all(fd)
    os.close(fd)
    assert container.parse(after).sections == container.parse(before).sections

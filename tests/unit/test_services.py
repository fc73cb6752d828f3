"""sdfs.owner.services, in the owner's process: adding, listing, counting."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sdfs.errors import UserError
from sdfs.owner.owner import Owner
from sdfs.owner.tree.tree import Tree
from tests.support.lossless_engine import PICTURE
from tests.support.trees import read, write


def test_add_keeps_time_and_mode(owner: Owner, tree: Tree, tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"content")
    source.chmod(0o640)
    os.utime(source, ns=(1, 2))
    owner.services.add(source, "new/folder/a")
    attributes = tree.getattr("/new/folder/a")
    assert (stat.S_IMODE(attributes.mode), attributes.mtime_ns) == (0o640, 2)


def test_add_refuses_an_existing_name(owner: Owner, tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"new")
    write(tree, "/a", b"old")
    with pytest.raises(UserError, match="exists"):
        owner.services.add(tmp_path / "a", "a")
    assert read(tree, "/a") == b"old"


def test_an_added_picture_is_pending(owner: Owner, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(PICTURE)
    owner.services.add(tmp_path / "a", "a")
    assert owner.services.stat("a").state == "pending"


def test_a_path_through_a_symbolic_link_is_refused(owner: Owner, tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    tree.symlink(str(tmp_path), "/out")
    with pytest.raises(UserError, match="symbolic link"):
        owner.services.stat("out/secret")


def test_a_path_cannot_climb_out(owner: Owner, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(UserError, match="No such file"):
        owner.services.stat("../secret")


@pytest.mark.usefixtures("blob")
def test_status_counts(owner: Owner, tree: Tree, root: Path) -> None:
    write(tree, "/plain", b"content")
    write(tree, "/pending", PICTURE)
    status = owner.services.status()
    assert (status.exact, status.pending, status.plain) == (1, 1, 1)
    assert status.logical_bytes == 2 * len(PICTURE) + 7
    assert status.stored_bytes == len(PICTURE) + 7 + (root / "a.jpg").stat().st_size


def test_list_tells_what_is_in_a_folder(owner: Owner, tree: Tree) -> None:
    tree.mkdir("/d", 0o755)
    write(tree, "/a", b"content")
    assert [(listed.path, listed.state, listed.logical_bytes) for listed in owner.services.list("/")] == [
        ("/a", "plain", 7),
        ("/d", "folder", 0),
    ]

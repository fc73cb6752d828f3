"""Every picture that is not latents has a reason, which lasts, and which can be summed up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.owner.access import Access
from sdfs.owner.owner import Owner
from sdfs.owner.store.attributes import note_verdict, verdict
from sdfs.owner.store.store import init
from tests.support.lossless_engine import LosslessEngine

PICTURE = b"\xff\xd8\xff" + b"picture " * 1000 + b"END"
UNFINISHED = PICTURE[:-3]


class CountingEngine(LosslessEngine):
    asked = 0

    def encode(self, *arguments: object, **named: object) -> object:  # type: ignore[override]
        CountingEngine.asked += 1
        return super().encode(*arguments, **named)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    init(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def owner(root: Path) -> Iterator[Owner]:
    owner = Owner(root, engine=CountingEngine)
    yield owner
    owner.close()


@pytest.fixture
def access(owner: Owner) -> Access:
    return owner.services


def sync(access: Access) -> None:
    access.sync(lambda done, total: None)


def test_what_is_no_picture_says_why_and_is_not_asked_of_another_owner(root: Path) -> None:
    (root / "half.jpg").write_bytes(UNFINISHED)
    for _ in range(2):
        owner = Owner(root, engine=CountingEngine)
        sync(owner.services)
        status = owner.services.stat("half.jpg")
        owner.close()
        assert (status.state, bool(status.reason)) == ("plain", True)
    assert CountingEngine.asked == 1


def test_what_is_written_to_is_judged_again(root: Path, access: Access) -> None:
    (root / "half.jpg").write_bytes(UNFINISHED)
    sync(access)
    (root / "half.jpg").write_bytes(PICTURE)
    assert access.stat("half.jpg").state == "pending"


@pytest.mark.parametrize("name", ["linked", "text"])
def test_what_nobody_judged_has_its_reason_too(root: Path, access: Access, name: str) -> None:
    (root / "linked").write_bytes(PICTURE)
    os.link(root / "linked", root / "other")
    (root / "text").write_bytes(b"text")
    assert access.stat(name).state == "plain"
    assert access.stat(name).reason == {"linked": "it has several names", "text": None}[name]


def test_a_verdict_is_of_the_bytes_that_were_judged(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with path.open("r+b") as file:
        if not note_verdict(file.fileno(), "it is cut off: 5 bytes, ünlucky " * 99):
            pytest.skip("the filesystem has no extended attributes")
        found = verdict(file.fileno())
        assert found is not None
        assert found.startswith("it is cut off: 5 bytes, ünlucky it is")
        file.write(b"6" * 6)
        file.flush()
        assert verdict(file.fileno()) is None


def test_reasons_are_summed_up(root: Path, access: Access) -> None:
    """Numbers apart, and the most bytes first."""
    (root / "folder").mkdir()
    for number in range(3):
        (root / f"folder/half{number}.jpg").write_bytes(UNFINISHED + bytes(number))
    (root / "text").write_bytes(b"text")
    (root / "a.jpg").write_bytes(PICTURE)
    sync(access)
    sums = access.reasons("/")
    assert [(one.state, one.files, one.stored_bytes) for one in sums if one.state == "plain"] == [
        ("plain", 3, 3 * len(UNFINISHED) + 3),
        ("plain", 1, 4),
    ]
    assert sums[-1].reason is None
    assert [one.files for one in access.reasons("folder")] == [3]
    assert access.reasons("text")[0].files == 1

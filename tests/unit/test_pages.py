"""Which pages of renders the kernel keeps: never of two renders together, whatever the engine returns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.errors import DamagedError
from sdfs.owner.owner import Owner
from sdfs.owner.store.store import init
from sdfs.owner.tree.handle import Handle
from tests.support.latent_engine import RENDERS, LatentEngine
from tests.support.lossless_engine import PICTURE


@pytest.fixture
def engine() -> LatentEngine:
    return LatentEngine()


@pytest.fixture
def owner(tmp_path: Path, engine: LatentEngine) -> Iterator[Owner]:
    """Of a store with a shrunk `a.jpg`; memory keeps only renders of who has them open."""
    init(tmp_path / "store")
    (tmp_path / "store" / "a.jpg").write_bytes(PICTURE)
    owner = Owner(tmp_path / "store", engine=lambda: engine, cache_bytes=0)
    owner.services.sync(lambda done, total: None)
    yield owner
    owner.close()


def opened(owner: Owner) -> Handle:
    return owner.tree.open("/a.jpg", os.O_RDONLY)


def read(handle: Handle) -> bytes:
    return handle.read(len(PICTURE), 0)


def read_once(owner: Owner) -> bytes:
    handle = opened(owner)
    try:
        return read(handle)
    finally:
        owner.tree.release(handle)


def test_pages_of_a_render_as_recorded_are_kept_over_a_close(owner: Owner) -> None:
    read_once(owner)
    handle = opened(owner)
    assert handle.keep_cache
    assert read(handle) == RENDERS["A"]
    owner.tree.release(handle)


def test_pages_of_another_are_not(owner: Owner, engine: LatentEngine) -> None:
    engine.renders = "B"
    read_once(owner)
    handle = opened(owner)
    assert not handle.keep_cache
    owner.tree.release(handle)


def test_who_kept_pages_is_refused_another_render_every_time(owner: Owner, engine: LatentEngine) -> None:
    read_once(owner)
    handle = opened(owner)
    engine.renders = "B"
    for _ in range(3):  # the kernel asks again where its read ahead was refused
        with pytest.raises(DamagedError, match="open the file again"):
            read(handle)
    owner.tree.release(handle)
    assert read_once(owner) == RENDERS["B"]


def test_who_opens_beside_who_was_refused_keeps_no_pages(owner: Owner, engine: LatentEngine) -> None:
    read_once(owner)
    first, engine.renders = opened(owner), "B"
    with pytest.raises(DamagedError):
        read(first)
    second = opened(owner)
    assert not second.keep_cache
    assert read(second) == RENDERS["B"]
    with pytest.raises(DamagedError):
        read(first)
    for handle in (first, second):
        owner.tree.release(handle)


def test_those_who_have_a_file_open_together_share_its_pages_and_its_render(owner: Owner, engine: LatentEngine) -> None:
    engine.renders = "B"
    first = opened(owner)
    assert not first.keep_cache
    assert read(first) == RENDERS["B"]
    second = opened(owner)
    assert second.keep_cache
    owner.tree.release(first)
    engine.renders = "A"
    assert read(second) == RENDERS["B"]
    third = opened(owner)
    assert third.keep_cache
    assert read(third) == RENDERS["B"]
    for handle in (second, third):
        owner.tree.release(handle)
    assert engine.decodes == 1


def test_once_all_of_them_have_closed_it_the_next_keeps_no_pages(owner: Owner, engine: LatentEngine) -> None:
    engine.renders = "B"
    handles = [opened(owner) for _ in range(3)]
    for handle in handles:
        owner.tree.release(handle)
    handle = opened(owner)
    assert not handle.keep_cache
    owner.tree.release(handle)

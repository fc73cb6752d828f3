"""The second tier of renders, as readers meet it: nothing is decoded twice, and only what the engine would give is served."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sdfs.errors import DamagedError
from sdfs.owner.owner import Owner
from sdfs.owner.renders.disk_cache import DiskCache
from sdfs.owner.store.store import init
from tests.support.latent_engine import RENDERS, LatentEngine
from tests.support.lossless_engine import PICTURE


@pytest.fixture
def engine() -> LatentEngine:
    return LatentEngine()


@pytest.fixture
def begin(tmp_path: Path, engine: LatentEngine) -> Iterator[Callable[[], Owner]]:
    """Begins the next owner of a store that has a shrunk `a.jpg`; memory keeps no render."""
    owners: list[Owner] = []

    def next_owner() -> Owner:
        if owners:
            owners.pop().close()
        disk_cache = partial(DiskCache, str(tmp_path / "cache"))
        owners.append(Owner(tmp_path / "store", engine=lambda: engine, cache_bytes=0, disk_cache=disk_cache))
        return owners[0]

    init(tmp_path / "store")
    (tmp_path / "store" / "a.jpg").write_bytes(PICTURE)
    next_owner().services.sync(lambda done, total: None)
    yield next_owner
    owners.pop().close()


def read(owner: Owner) -> bytes:
    file = io.BytesIO()
    owner.services.read_to("a.jpg", file)
    return file.getvalue()


@pytest.mark.parametrize("renders", ["A", "B"], ids=["as recorded", "as on another machine"])
def test_the_next_owner_need_not_decode(begin: Callable[[], Owner], engine: LatentEngine, renders: str) -> None:
    engine.renders = renders
    for _ in range(3):
        assert read(begin()) == RENDERS[renders]
    assert engine.decodes == 1


def test_what_does_not_wait_for_the_engine_is_told_so(begin: Callable[[], Owner]) -> None:
    read(begin())
    owner = begin()
    read(owner)
    it = owner.services.statistics()
    assert (it.decoded, it.decoded_reads, it.cached_reads) == (0, 0, 1)
    assert (it.memory_misses, it.disk_hits, it.disk_misses) == (1, 1, 0)


def test_a_damaged_file_is_decoded_again(begin: Callable[[], Owner], engine: LatentEngine, tmp_path: Path) -> None:
    read(begin())
    begin()
    [file] = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert read(begin()) == RENDERS["A"]
    assert engine.decodes == 2


def test_a_render_as_recorded_may_stay_with_the_kernel_though_it_came_from_the_disk(begin: Callable[[], Owner]) -> None:
    read(begin())
    owner = begin()
    read(owner)
    handle = owner.tree.open("/a.jpg", os.O_RDONLY)
    assert handle.keep_cache
    owner.tree.release(handle)


def test_a_render_that_differs_from_one_the_kernel_may_have_is_not_taken_from_the_disk(
    begin: Callable[[], Owner], engine: LatentEngine
) -> None:
    engine.renders = "B"
    read(begin())
    owner, engine.renders = begin(), "A"
    disk, owner.renders.disk = owner.renders.disk, None
    assert read(owner) == RENDERS["A"]
    owner.renders.disk = disk
    assert read(owner) == RENDERS["A"]


def test_what_the_engine_may_not_return_is_not_kept(begin: Callable[[], Owner], engine: LatentEngine, tmp_path: Path) -> None:
    owner = begin()
    RENDERS["short"] = b"short"
    engine.renders = "short"
    with pytest.raises(DamagedError, match="want"):
        read(owner)
    begin()
    assert list((tmp_path / "cache").iterdir()) == []

"""sdfs.owner.index.contents: contents are found again by what a blob is called, renders to, or was; and nothing is believed unseen."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT, KIND_RAW
from sdfs.owner.index import contents
from sdfs.owner.index.contents import ContentIndex
from sdfs.owner.index.paths import Paths
from sdfs.owner.store.store import Store, init
from tests.support.memory import CHUNKS_KIB, taken_kib, write_large_raw_blob

ORIGINAL = b"original"
RENDER = b"render"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    init(tmp_path / "store")
    store = Store(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def root(store: Store) -> Path:
    return Path(store.root)


@pytest.fixture
def blobs(store: Store) -> ContentIndex:
    return ContentIndex(store)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def latent(weights: str = "a" * 16, original: bytes = ORIGINAL, render: bytes = RENDER) -> bytes:
    header = {"render": sha256(render)[:16], "original_sha256": sha256(original), "weights": weights, "quality": 50, "latents_crc32": 1}
    return container.pack(KIND_LATENT, len(render), header, {"latents": b"latents"})


def id_of(blob: bytes) -> str:
    return container.latent_id(container.parse(blob).header)


def raw(content: bytes) -> bytes:
    return container.pack(KIND_RAW, len(content), {"original_sha256": sha256(content)}, {"file": content})


def put(blobs: ContentIndex, path: Path, content: bytes) -> str:
    """A file that was noted; its path."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    blobs.note(str(path))
    return str(path)


class TestByRender:
    def test_a_latent_blob(self, blobs: ContentIndex, root: Path) -> None:
        put(blobs, root / "a", latent())
        assert blobs.by_render(sha256(RENDER)) == latent()

    def test_in_the_trash_too(self, blobs: ContentIndex, root: Path) -> None:
        put(blobs, root / ".sdfs" / "trash" / "1-0.a", latent())
        assert blobs.by_render(sha256(RENDER)) == latent()

    def test_nothing_that_was_not_noted(self, blobs: ContentIndex, root: Path) -> None:
        (root / "a").write_bytes(latent())
        assert blobs.by_render(sha256(RENDER)) is None

    def test_nothing_that_is_another_blob_by_now(self, blobs: ContentIndex, root: Path) -> None:
        put(blobs, root / "a", latent())
        (root / "a").write_bytes(latent(render=b"another"))
        assert blobs.by_render(sha256(RENDER)) is None

    def test_nothing_that_is_gone(self, blobs: ContentIndex, root: Path) -> None:
        put(blobs, root / "a", latent())
        (root / "a").unlink()
        assert blobs.by_render(sha256(RENDER)) is None

    def test_of_two_the_one_that_was_noted_last(self, blobs: ContentIndex, root: Path) -> None:
        put(blobs, root / "a", latent())
        put(blobs, root / "b", latent())
        (root / "a").unlink()
        assert blobs.by_render(sha256(RENDER)) == latent()


class TestById:
    def test_a_latent_blob(self, blobs: ContentIndex, root: Path) -> None:
        put(blobs, root / "a", latent())
        assert blobs.by_id(id_of(latent())) == latent()

    @pytest.mark.parametrize("where", ["folder/a", ".sdfs/trash/1-0.a"])
    def test_one_that_has_to_be_searched_for(self, blobs: ContentIndex, root: Path, where: str) -> None:
        (root / "folder").mkdir()
        (root / where).write_bytes(latent())
        assert blobs.by_id(id_of(latent())) == latent()

    def test_a_search_in_vain_is_not_repeated_at_once(self, blobs: ContentIndex, root: Path) -> None:
        assert blobs.by_id(id_of(latent())) is None
        (root / "a").write_bytes(latent())
        assert blobs.by_id(id_of(latent())) is None

    def test_but_after_a_while(self, blobs: ContentIndex, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert blobs.by_id(id_of(latent())) is None
        (root / "a").write_bytes(latent())
        monkeypatch.setattr(contents, "SEARCH_SECONDS", 0.0)
        assert blobs.by_id(id_of(latent())) == latent()

    @pytest.mark.parametrize("weights", ["", "ä", "a\0b", "x" * 1000])
    def test_whatever_is_in_its_header(self, blobs: ContentIndex, root: Path, weights: str) -> None:
        put(blobs, root / "a", latent(weights))
        assert blobs.by_id(id_of(latent(weights))) == latent(weights)

    @pytest.mark.parametrize("identity", ["", "ä", "a\0b", "x" * 1000])
    def test_nothing_for_what_is_no_id(self, blobs: ContentIndex, root: Path, identity: str) -> None:
        put(blobs, root / "a", latent())
        assert blobs.by_id(identity) is None


class TestByContent:
    def test_the_render_of_a_latent_blob(self, blobs: ContentIndex, root: Path) -> None:
        path = put(blobs, root / "a", latent())
        assert blobs.by_content(sha256(RENDER), len(RENDER)) == path

    def test_no_render_of_what_is_in_the_trash(self, blobs: ContentIndex, root: Path) -> None:
        put(blobs, root / ".sdfs" / "trash" / "1-0.a", latent())
        assert blobs.by_content(sha256(RENDER), len(RENDER)) is None

    def test_a_latent_blob(self, blobs: ContentIndex, root: Path) -> None:
        path = put(blobs, root / "a", latent())
        assert blobs.by_content(sha256(ORIGINAL), len(ORIGINAL)) == path

    @pytest.mark.parametrize("name", ["a\nb", "\udcff", "x" * 255])
    def test_whatever_the_file_is_called(self, blobs: ContentIndex, root: Path, name: str) -> None:
        path = put(blobs, root / name, latent())
        assert blobs.by_content(sha256(ORIGINAL), len(ORIGINAL)) == path

    def test_an_exact_blob(self, blobs: ContentIndex, root: Path) -> None:
        path = put(blobs, root / "a", raw(ORIGINAL))
        assert blobs.by_content(sha256(ORIGINAL), len(ORIGINAL)) == path

    def test_an_unwrapped_file(self, blobs: ContentIndex, root: Path) -> None:
        path = put(blobs, root / "a", ORIGINAL)
        assert blobs.by_content(sha256(ORIGINAL), len(ORIGINAL)) == path

    def test_nothing_in_the_trash(self, blobs: ContentIndex, root: Path) -> None:
        put(blobs, root / ".sdfs" / "trash" / "1-0.a", latent())
        put(blobs, root / ".sdfs" / "trash" / "1-0.b", ORIGINAL)
        assert blobs.by_content(sha256(ORIGINAL), len(ORIGINAL)) is None

    def test_nothing_for_a_blob_that_is_not_whole(self, blobs: ContentIndex, root: Path) -> None:
        path = Path(put(blobs, root / "a", latent()))
        path.write_bytes(latent()[:-1] + b"?")
        assert blobs.by_content(sha256(ORIGINAL), len(ORIGINAL)) is None

    def test_nothing_for_a_raw_blob_that_no_reader_would_get(self, blobs: ContentIndex, root: Path) -> None:
        header = {"original_sha256": sha256(ORIGINAL)}
        put(blobs, root / "a", container.pack(KIND_RAW, len(ORIGINAL), header, {"file": ORIGINAL, "more": b""}))
        assert blobs.by_content(sha256(ORIGINAL), len(ORIGINAL)) is None


class TestRenames:
    @pytest.mark.parametrize("content", [latent(), ORIGINAL], ids=["blob", "unwrapped"])
    def test_of_a_file(self, blobs: ContentIndex, root: Path, content: bytes) -> None:
        put(blobs, root / "a", content)
        (root / "a").rename(root / "b")
        blobs.rename(str(root / "a"), str(root / "b"), len(content))
        assert blobs.by_content(sha256(ORIGINAL), len(ORIGINAL)) == str(root / "b")

    @pytest.mark.parametrize("content", [latent(), ORIGINAL], ids=["blob", "unwrapped"])
    def test_of_a_folder(self, blobs: ContentIndex, root: Path, content: bytes) -> None:
        (root / "old").mkdir()
        put(blobs, root / "old" / "sub" / "a", content)
        (root / "old").rename(root / "new")
        blobs.rename_folder(str(root / "old"), str(root / "new"))
        assert blobs.by_content(sha256(ORIGINAL), len(ORIGINAL)) == str(root / "new" / "sub" / "a")

    def test_of_a_folder_leave_one_alone_whose_name_begins_like_it(self, blobs: ContentIndex, root: Path) -> None:
        path = put(blobs, root / "older" / "a", latent())
        blobs.rename_folder(str(root / "old"), str(root / "new"))
        assert blobs.by_content(sha256(ORIGINAL), len(ORIGINAL)) == path

    def test_of_a_folder_whose_former_name_is_taken_again(self, blobs: ContentIndex, root: Path) -> None:
        put(blobs, root / "old" / "a", latent())
        (root / "old").rename(root / "new")
        blobs.rename_folder(str(root / "old"), str(root / "new"))
        other = put(blobs, root / "old" / "a", latent("c" * 16, b"other", b"other render"))
        assert blobs.by_content(sha256(ORIGINAL), len(ORIGINAL)) == str(root / "new" / "a")
        assert blobs.by_content(sha256(b"other"), 5) == other

    def test_of_a_folder_to_a_name_that_was_one_before(self, blobs: ContentIndex, root: Path) -> None:
        put(blobs, root / "new" / "a", latent())
        (root / "new" / "a").rename(root / "new" / "b")
        put(blobs, root / "old" / "a", latent("c" * 16, b"other", b"other render"))
        blobs.rename_folder(str(root / "new"), str(root / "elsewhere"))
        (root / "new").rename(root / "elsewhere")
        (root / "old").rename(root / "new")
        blobs.rename_folder(str(root / "old"), str(root / "new"))
        assert blobs.by_content(sha256(b"other"), 5) == str(root / "new" / "a")


LARGE_BLOB = """
import sys
from pathlib import Path
from sdfs.owner.store.store import Store
from sdfs.owner.index.contents import ContentIndex as KnownBlobs
store = Store(Path(sys.argv[1]))
blobs = KnownBlobs(store)
blobs.note(sys.argv[2])
before = peak()
assert blobs.by_content(sys.argv[3], 0) == sys.argv[2]
print(peak() - before)
"""


def test_no_more_than_chunks_of_a_large_raw_blob_are_in_memory(tmp_path: Path) -> None:
    init(tmp_path)
    digest = write_large_raw_blob(tmp_path / "raw")
    assert taken_kib(LARGE_BLOB, tmp_path, tmp_path / "raw", digest) < CHUNKS_KIB


def test_a_blob_that_is_known_by_three_names_takes_150_bytes_of_memory() -> None:
    tracemalloc.start()
    paths = Paths()
    for number in range(5000):
        for name in ("id", "render", "original"):
            paths.put(f"{name}{number}", f"/home/user/pictures.sdfs/2024/{number // 500}/IMG_20240517_{number:06}.jpg")
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 150 * 5000 + 40 * 4096  # there are 4096 buckets

"""The commands as a user runs them: in a process of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.commands import done

PICTURE = Path("sklearn/datasets/images/flower.jpg")


@pytest.fixture(scope="session")
def picture() -> Path:
    """A JPEG of 640 × 427."""
    return next(path for entry in sys.path if (path := Path(entry, PICTURE)).is_file())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with `notes.txt` and `folder/inner.txt` in it."""
    made = tmp_path / "pictures.sdfs"
    done("init", made)
    (made / "notes.txt").write_text("plain text\n")
    (made / "folder").mkdir()
    (made / "folder" / "inner.txt").write_text("inner\n")
    return made


@pytest.fixture(scope="session")
def shrunk(tmp_path_factory: pytest.TempPathFactory, picture: Path) -> Path:
    """A store with `2024/photo.jpg`, which is latent, in it; not to be changed."""
    folder = tmp_path_factory.mktemp("shrunk")
    source = folder / "photo.jpg"
    source.write_bytes(picture.read_bytes())
    done("init", folder / "store")
    done("add", folder / "store", source, "--to", "2024")
    return folder / "store"

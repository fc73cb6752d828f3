"""How commands and the watching daemon use a store: through its owner if it has one, else as its owner.

with open_access(Path("pictures.sdfs")) as store:
    store.add(Path("photo.jpg"), "2026/photo.jpg")
    store.sync(lambda done, total: print(done, total))
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sdfs.blob.file import BlobFile
from sdfs.control.client import ControlClient
from sdfs.control.requests import Access
from sdfs.errors import NotAStore, SdfsError, StoreBusy
from sdfs.owner.index.contents import stands_for
from sdfs.owner.owner import Owner
from sdfs.owner.serving import serving
from sdfs.owner.store.fitness import is_mount_of_sdfs
from sdfs.owner.store.store import INTERNAL, is_store, looks_like_store, read_identity, read_owner
from sdfs.system.files import content_sha256, opened
from sdfs.system.no_follow import folder_of

STATUS_XATTR = "user.sdfs.status"  # answered by every regular file of a mount
STORE_XATTR = "user.sdfs.store"  # answered by the root of a mount: the path of its store
_STARTING_SECONDS = 1.0  # until an owner listens
_LETTING_GO_SECONDS = 10.0
_HANDOVER_SECONDS = 5.0  # an owner that ends still has the store for a moment; one that starts does not listen yet


def store_at(folder: Path | str, *, above: bool = False) -> Path | None:
    """The store whose folder, or the root of whose mount, this is; None: it is neither, or not there.

    `above`: nobody named the folder, it is one that something named is in. Raises NotAStore where there is an `.sdfs` that is not to be
    trusted: it is somebody else's, or stands in a folder above that others may change, as in /tmp.
    """
    if not is_store(Path(folder)):
        return store_mounted_at(folder)
    status = Path(folder).stat()
    if above and (status.st_uid not in (os.geteuid(), 0) or status.st_mode & stat.S_IWOTH):
        raise NotAStore(f"others may change {folder}, so SDFS takes it to be a store only if you name {folder} itself")
    return Path(folder)


def store_mounted_at(folder: Path | str) -> Path | None:
    """The store of which this is the root of a mount. On other filesystems anybody may have given a folder that attribute."""
    try:
        store = os.getxattr(folder, STORE_XATTR)
        return Path(os.fsdecode(store)) if is_mount_of_sdfs(os.fspath(folder)) else None
    except OSError:
        return None


def is_store_of_anybody(folder: str) -> bool:
    """Tell whether a folder looks like a store, or is the root of a mount of one, whoever may own it."""
    return looks_like_store(folder) or store_mounted_at(folder) is not None


def holds(store: Path, path: str, sha256: str) -> bool:
    """Tell whether the file `path` of the store's tree holds, or as a whole blob stands for, a content of this hash (hexadecimal).

    By the bytes on the disk, which are durable then, and nobody's word.
    """
    *folders, name = path.strip("/").split("/")
    try:
        with folder_of(os.path.realpath(store), folders) as folder, opened(name, folder=folder) as fd:
            if not stat.S_ISREG(os.fstat(fd).st_mode) or [*folders, name][0] == INTERNAL:
                return False
            if (blob := BlobFile.of(fd)) is not None:
                blob.check()
            os.fsync(fd)
            return content_sha256(fd) == sha256 if blob is None else stands_for(blob, sha256)
    except (OSError, SdfsError):
        return False


def take_over(store: Path, *, become_owner: Callable[[Path], Owner] = Owner) -> Owner:
    """Own a store for long, as a mount does: an owner that can do its work through another is asked to let go of it.

    Raises NotAStore, StoreTooNew, and StoreBusy where there is an owner that needs the store for itself.
    """
    end, asked = time.monotonic() + _STARTING_SECONDS, False
    while True:
        try:
            return become_owner(store)
        except StoreBusy:
            if time.monotonic() > end:
                raise
            if not asked and isinstance(client := _client(store), ControlClient):
                with contextlib.suppress(OSError):  # it has just let go
                    client.hand_over()
                end, asked = time.monotonic() + _LETTING_GO_SECONDS, True
            time.sleep(0.05)


@contextlib.contextmanager
def open_access(
    store: Path, *, become_owner: Callable[..., Owner] = Owner, on_hand_over: Callable[[], None] | None = None
) -> Iterator[Access]:
    """Raises NotAStore, StoreTooNew, and StoreBusy where the owner does not answer.

    `on_hand_over`: called, from another thread, if this process owns the store now and somebody wants to mount it: leave the context
    soon. Its work goes on through the new owner once the context is entered again.
    """
    end = time.monotonic() + _HANDOVER_SECONDS
    while True:
        try:
            owner = become_owner(store, on_hand_over=on_hand_over)
        except StoreBusy as error:
            client = _client(store)
            if isinstance(client, ControlClient):
                yield client
                return
            if time.monotonic() > end:
                raise StoreBusy(f"{error}{client}") from None
            time.sleep(0.05)
        else:
            break
    with serving(owner):
        yield owner.services


def _client(store: Path) -> ControlClient | str:
    """A client of the owner, or, as the end of a sentence, why there is none."""
    owner = read_owner(store)
    if owner is None or owner.socket is None:
        return ""
    client = ControlClient(owner.socket, read_identity(store))  # type: ignore[abstract]  # its methods are made from those of Access
    try:
        client.probe()
    except OSError:
        return ""
    except StoreBusy as error:
        return f"; {error}"
    return client

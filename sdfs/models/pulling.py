"""Getting a model from the hub, with huggingface_hub's client, into its cache.

The client would keep whatever it is sent, and begin again after an interruption. So each file is downloaded beside its place in the cache,
from where the last attempt ended, and moved there once it has the hash that the hub states. The rest is the client's.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sdfs.errors import ModelError
from sdfs.models import folder, names, records, registry
from sdfs.models.folder import Model
from sdfs.models.names import Source


@dataclass(frozen=True)
class Plan:
    """What a pull is about to do."""

    id: str
    class_name: str
    factor: int
    channels: int
    weights_bytes: int  # on the disk; the weights take about as much memory
    missing_bytes: int  # to download


def pull(name: str, announce: Callable[[Plan], None] = lambda plan: None) -> Model:
    """Get a model at the commit that its revision is now. Of a local folder, only see that it holds one.

    `announce` is called before the weights are downloaded; what came before an interruption is kept for the next time.
    Raises ModelError, OSError.
    """
    if names.is_folder(name):
        return registry.resolve(name)
    source = names.parse(name)
    with _alone(), _hub(source):
        at = _look_up(source)
        config = folder.read_config(_fetch(_state(at, folder.CONFIG)), str(at))
        weights = _state(at, folder.WEIGHTS)
        announce(Plan(str(at), config.class_name, config.factor, config.channels, weights.size, weights.missing_bytes()))
        folder.count_parameters(_fetch(weights), str(at))
    records.note(records.PULLED, {str(source): at.revision, str(at): at.revision})
    return registry.resolve(str(at))


@dataclass(frozen=True)
class _Stated:
    """A file, as the hub states it."""

    at: Source
    path: str  # within the repository
    url: str
    size: int
    digest: str  # SHA-256, or of small files that are no LFS objects what git names them by

    @property
    def blob(self) -> Path:
        """Where the cache has its content."""
        return registry.repository_folder(self.at) / "blobs" / self.digest

    @property
    def partial(self) -> Path:
        return self.blob.with_name(f"{self.digest}.incomplete")

    def missing_bytes(self) -> int:
        if self.blob.exists():
            return 0
        return self.size - (self.partial.stat().st_size if self.partial.exists() else 0)

    def is_of(self, path: Path) -> bool:
        with path.open("rb") as file:
            if len(self.digest) == 64:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.digest
            return hashlib.sha1(b"blob %d\0" % self.size + file.read()).hexdigest() == self.digest


def _look_up(source: Source) -> Source:
    """`source` at its commit; raises ModelError where the hub has no model there."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(source.repository, revision=source.revision)
    at = replace(source, revision=info.sha or "")
    if not at.is_pinned:
        raise ModelError(f"the hub states no commit of {source}")
    paths = [PurePosixPath(sibling.rfilename) for sibling in info.siblings or []]
    if not source.subfolder and PurePosixPath("model_index.json") in paths:
        raise ModelError(f"{source.repository} is a pipeline: its autoencoder is {source.repository}/vae, or another of its folders")
    folder.check_names({path.name for path in paths if path.parent == PurePosixPath(source.subfolder)}, str(source))
    return at


def _state(at: Source, name: str) -> _Stated:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    path = at.file(name)
    url = hf_hub_url(at.repository, path, revision=at.revision)
    metadata = get_hf_file_metadata(url)
    if metadata.size is None or not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", metadata.etag or ""):
        raise ModelError(f"the hub states no size, or no hash, of {path} of {at}: it could not be checked")
    return _Stated(at, path, url, metadata.size, metadata.etag or "")


def _fetch(stated: _Stated) -> Path:
    """The file in the snapshot of its commit, downloaded unless its content is in the cache already."""
    from huggingface_hub import hf_hub_download

    if not stated.blob.exists() or not stated.is_of(stated.blob):
        _download(stated)
        if not stated.is_of(stated.partial):
            stated.partial.unlink()
            raise ModelError(f"{stated.path} of {stated.at} does not have the hash that the hub states: nothing of it was kept")
        stated.partial.replace(stated.blob)
    return Path(hf_hub_download(stated.at.repository, stated.path, revision=stated.at.revision))  # finds the blob, and links it


def _download(stated: _Stated) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, if not exported

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what goes wrong is told once, below
    stated.partial.parent.mkdir(parents=True, exist_ok=True)
    if stated.partial.exists() and stated.partial.stat().st_size > stated.size:
        stated.partial.unlink()
    with stated.partial.open("ab") as file:
        http_get(
            stated.url,
            file,
            resume_size=file.tell(),
            headers=build_hf_headers(headers={"Accept-Encoding": "identity"}),
            expected_size=stated.size,
            displayed_filename=stated.path,
        )
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    try:
        with records.locked("pull.lock", wait=False):
            yield
    except BlockingIOError:
        raise ModelError("another process is pulling a model: wait for it") from None


@contextlib.contextmanager
def _hub(source: Source) -> Iterator[None]:
    """What the hub or its client say, as one sentence. The system's errors pass."""
    from huggingface_hub import constants, errors

    hub, repository = constants.ENDPOINT, source.repository
    try:
        yield
    except errors.GatedRepoError as error:
        how = f'accept its terms at {hub}/{repository}, then set HF_TOKEN, or run "hf auth login"'
        raise ModelError(f"{repository} is gated: {how}") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"{hub} has no {repository}, or it is private and HF_TOKEN may not see it") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{repository} has no revision {source.revision}") from error
    except errors.OfflineModeIsEnabled as error:
        raise ModelError(f"HF_HUB_OFFLINE is set, so SDFS does not look for {source.path}: unset it") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        cause = "it does not accept HF_TOKEN" if status == 401 else f"HTTP status {status}"
        raise ModelError(f"{hub} refuses {repository}: {cause}; what came is kept") from error
    except errors.HFValidationError as error:
        raise ModelError(f"{repository} is no name of a repository") from error
    except (OSError, errors.HTTPError, ValueError) as error:  # type: ignore[attr-defined]  # httpx2's, whichever the client uses
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{hub} does not answer as it should ({reason}): pull again, what came is kept") from error

"""Which models are loaded, within a budget of memory."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError

from sdfs.codec.autoencoders.runner import fastest_dtype
from sdfs.codec.resident.image_codecs import IMAGE_CODECS
from sdfs.codec.resident.model import HASH_DIGITS, BundledModel, ResidentModel
from sdfs.errors import ModelError, SdfsError
from sdfs.models import names, registry
from sdfs.models.folder import Model
from sdfs.settings import BUNDLED, Memory
from sdfs.system.backoff import Backoff

if TYPE_CHECKING:
    from sdfs.codec.resident.pretrained import PretrainedModel

RETRY = Backoff(5.0, 300.0)  # until a model that did not load is tried again
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Loaded = TypeVar("Loaded")
_log = logging.getLogger(__name__)


class _Failure(NamedTuple):
    message: str
    number: int  # in a row
    ends_at: float  # the pause; monotonic


class Models:
    """The bundled model is always there. Others are loaded when they are asked for, and leave, the least recently used first, when
    their weights would together exceed the budget; one that is alone may. One that is still used when it has to leave stays, and counts,
    until its user lets go of it, and is not loaded a second time meanwhile.

    A model that cannot be loaded is ModelError to who asks for it, logged once, and tried again after a pause, which grows while it
    fails: RETRY.

    Thread-safe. Who asks for a model that is loaded does not wait for one that is being loaded.
    """

    def __init__(
        self, device: str | None = None, dtype: str | None = None, *, budget_bytes: int = Memory.ram, device_bytes: int | None = None
    ) -> None:
        """`device`: a torch device, default CUDA where there is one; `dtype`: 'float32' or 'bfloat16', default what suits each model.

        `device_bytes`: of a CUDA device's memory, all that torch may take in this process. Where that does not suffice tiles become
        smaller, and at last the CPU is used.
        """
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.backends.cudnn.allow_tf32 = False  # or float32 would keep 11 bits, of latents that reach thousands
        if device_bytes is not None and self._device.type == "cuda":
            try:
                share = device_bytes / torch.cuda.get_device_properties(self._device).total_memory
                torch.cuda.set_per_process_memory_fraction(min(1.0, share), self._device)
            except RuntimeError as error:
                _log.warning("%s does not take a bound of its memory: %s", self._device, error)
        self._dtype = _DTYPES[dtype] if dtype else None
        self._budget_bytes = budget_bytes
        self._bundled: BundledModel | None = None
        self._failures: dict[str, _Failure] = {}  # by the names in their messages
        self._loading = threading.Lock()  # guards what is above; taken before `_listing`
        self._listing = threading.Lock()  # guards these, by the hash of their weights:
        self._loaded: OrderedDict[str, PretrainedModel] = OrderedDict()
        self._alive: WeakValueDictionary[str, PretrainedModel] = WeakValueDictionary()  # what is loaded or used
        with contextlib.suppress(ModelError):  # who needs it will hear of it
            self.bundled()

    def bundled(self) -> BundledModel:
        """Raises ModelError."""
        if self._bundled is None:
            with self._loading:
                self._bundled = self._bundled or self._try("the bundled model", self._load_bundled)
        return self._bundled

    def figures(self) -> dict[str, Any]:
        """As `Codec.figures`."""
        placed = None if self._bundled is None else self._bundled.placed
        device, dtype = placed or (self._device, self._dtype)
        on_cuda = device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(device) if on_cuda else device.type,
            "dtype": None if dtype is None else str(dtype).removeprefix("torch."),
            "device_bytes": torch.cuda.memory_reserved(device) if on_cuda else None,
        }

    def named(self, name: str) -> ResidentModel:
        """As the user names it. Raises ModelMissing, ModelError."""
        return self.bundled() if name == BUNDLED else self._load(registry.resolve(name))

    def of_blob(self, header: Mapping[str, Any], *, instead: str | None = None) -> ResidentModel:
        """The model that a blob's header asks for, or a compatible one named `instead`. Raises ModelMissing, ModelError."""
        wanted, weights = str(header["autoencoder"]), str(header["weights"])
        if wanted in IMAGE_CODECS and instead is None:
            return IMAGE_CODECS[wanted]
        if instead is not None:
            other = registry.resolve(instead)
            if not names.compatible(wanted, other.id):
                raise ModelError(f"{other.id} does not decode latents of {wanted}: they are not known to share a latent space")
            return self._load(other)
        if not wanted.startswith(f"{BUNDLED}-"):
            return self._load(registry.of_blob(wanted, weights))
        bundled = self.bundled()
        if (bundled.id, bundled.weights_sha256[:HASH_DIGITS]) != (wanted, weights):
            have = f"{bundled.id} with {bundled.weights_sha256[:HASH_DIGITS]}"
            raise ModelError(f"the blob needs autoencoder {wanted} with weights {weights}; this SDFS has {have}")
        return bundled

    def _load(self, model: Model) -> PretrainedModel:
        if (found := self._find(model)) is not None:
            return found
        with self._loading:
            if (found := self._find(model)) is not None:
                return found
            made = self._try(model.id, partial(self._load_pretrained, model))
            with self._listing:
                self._loaded[model.weights_sha256] = self._alive[model.weights_sha256] = made
            return made

    def _load_bundled(self) -> BundledModel:
        def on(device: torch.device) -> BundledModel:
            return BundledModel(device, self._dtype or (torch.bfloat16 if device.type == "cuda" else fastest_dtype()))

        return self._placed(on)

    def _load_pretrained(self, model: Model) -> PretrainedModel:
        from sdfs.codec.resident.pretrained import PretrainedModel

        self._make_room(model.weights_bytes)
        return self._placed(lambda device: PretrainedModel(model, device, self._dtype))

    def _placed(self, load: Callable[[torch.device], Loaded]) -> Loaded:
        """On the device, or on the CPU where that does not work."""
        try:
            return load(self._device)
        except RuntimeError as error:
            if self._device.type == "cpu":
                raise
            _log.warning("%s does not work, the CPU is used: %s", self._device, error)
        return load(torch.device("cpu"))

    def _try(self, name: str, load: Callable[[], Loaded]) -> Loaded:
        last = self._failures.get(name)
        if last is not None and time.monotonic() < last.ends_at:
            raise ModelError(last.message)
        try:
            made = load()
        except (SdfsError, OSError, LookupError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            message = str(error) if isinstance(error, ModelError) else f"{name} cannot be loaded: {type(error).__name__}: {error}"
            if last is None or last.message != message:
                _log.error("%s", message)
            number = 1 if last is None else last.number + 1
            self._failures[name] = _Failure(message, number, time.monotonic() + RETRY.seconds(number))
            raise ModelError(message) from error
        self._failures.pop(name, None)
        return made

    def _find(self, model: Model) -> PretrainedModel | None:
        with self._listing:
            if (found := self._alive.get(model.weights_sha256)) is not None:
                self._loaded[model.weights_sha256] = found
                self._loaded.move_to_end(model.weights_sha256)
            return found

    def _make_room(self, wanted_bytes: int) -> None:
        with self._listing:
            while (
                self._loaded and sum(model.autoencoder.bytes_resident for model in self._alive.values()) + wanted_bytes > self._budget_bytes
            ):
                self._loaded.popitem(last=False)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

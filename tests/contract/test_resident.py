"""sdfs.codec.resident: the models in memory, with real diffusers autoencoders, small and with random weights."""

from __future__ import annotations

import io
import re
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from sdfs.blob import container
from sdfs.blob.container import KIND_LATENT, Blob
from sdfs.codec.codec import Codec
from sdfs.codec.resident import loading as resident_models
from sdfs.codec.resident.loading import Models
from sdfs.codec.resident.model import HASH_DIGITS, Encoded, ResidentModel
from sdfs.codec.resident.pretrained import PretrainedModel
from sdfs.errors import DamagedError, ModelError, ModelMissing
from sdfs.models.folder import Model
from sdfs.settings import BUNDLED, Effort, EncodeSettings
from tests.support.small_models import kl, saved, tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def resident() -> Models:
    return Models("cpu", "float32")


@pytest.fixture
def model(resident: Models, model_folders: dict[str, Path]) -> ResidentModel:
    return resident.named(str(model_folders["AutoencoderKL"]))


def header_of(model: ResidentModel, encoded: Encoded, quality: int = 60) -> dict[str, Any]:
    return {
        "autoencoder": model.id,
        "weights": model.weights_sha256[:HASH_DIGITS],
        "quality": quality,
        "latents_crc32": encoded.latents_crc32,
        **encoded.header,
    }


@pytest.mark.parametrize("name", ["AutoencoderKL", "AutoencoderTiny", "AutoencoderDC"])
def test_a_blob_of_any_class_decodes_to_what_its_encoder_saw(
    name: str, resident: Models, model_folders: dict[str, Path], small_picture: NDArray[np.uint8]
) -> None:
    model = resident.named(str(model_folders[name]))
    encoded = model.encode(small_picture, 60, Effort.NORMAL)
    header = header_of(model, encoded)
    assert np.array_equal(resident.of_blob(header).decode(encoded.section, header, 90, 130), encoded.pixels)


def test_more_quality_takes_more_bytes_and_is_closer_to_the_latents(model: ResidentModel, small_picture: NDArray[np.uint8]) -> None:
    exact = model.encode(small_picture, 100, Effort.NORMAL).pixels.astype(float)
    sizes, errors = [], []
    for quality in (0, 25, 50, 75):
        encoded = model.encode(small_picture, quality, Effort.NORMAL)
        sizes.append(len(encoded.section))
        errors.append(np.square(encoded.pixels - exact).mean())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_damaged_latents_are_noticed(model: ResidentModel, small_picture: NDArray[np.uint8]) -> None:
    encoded = model.encode(small_picture, 60, Effort.NORMAL)
    header = header_of(model, encoded) | {"latents_crc32": encoded.latents_crc32 ^ 1}
    with pytest.raises(DamagedError):
        model.decode(encoded.section, header, 90, 130)


def test_the_least_recently_used_model_leaves_when_memory_is_short(model_folders: dict[str, Path]) -> None:
    folder, other = str(model_folders["AutoencoderKL"]), str(model_folders["AutoencoderTiny"])
    resident = Models("cpu", "float32", budget_bytes=0)
    first = weakref.ref(resident.named(folder))
    assert resident.named(folder) is first()
    resident.named(other)
    assert first() is None


def test_a_model_that_has_to_leave_while_it_is_used_is_not_loaded_twice(model_folders: dict[str, Path]) -> None:
    folder, other = str(model_folders["AutoencoderKL"]), str(model_folders["AutoencoderTiny"])
    resident = Models("cpu", "float32", budget_bytes=0)
    used = resident.named(folder)
    resident.named(other)
    assert resident.named(folder) is used


def test_threads_that_ask_for_a_model_at_once_get_the_same(model_folders: dict[str, Path]) -> None:
    resident, folder = Models("cpu", "float32"), str(model_folders["AutoencoderKL"])
    with ThreadPoolExecutor(4) as threads:
        assert len({id(model) for model in threads.map(resident.named, [folder] * 4)}) == 1


@pytest.fixture
def misfit(tmp_path: Path, model_folders: dict[str, Path]) -> Path:
    """A model whose configuration is not that of its weights."""
    folder = shutil.copytree(model_folders["AutoencoderTiny"], tmp_path / "misfit")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"latent_channels": 4', '"latent_channels": 5'))
    return folder


def test_a_model_that_does_not_load_is_logged_once(misfit: Path, caplog: pytest.LogCaptureFixture) -> None:
    resident = Models("cpu", "float32")
    for _ in range(3):
        with pytest.raises(ModelError, match="local:misfit"):
            resident.named(str(misfit))
    assert len(caplog.messages) == 1


class Clock:
    """Of the models, in seconds, in place of `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(resident_models, "time", clock)
    return clock


class Logbook(Models):
    """Notes when it tries to load a model; keeps one in memory."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("cpu", "float32", budget_bytes=0)
        self.tries: list[float] = []
        self._clock = clock

    def _load_pretrained(self, model: Model) -> PretrainedModel:
        self.tries.append(self._clock.now)
        return super()._load_pretrained(model)


def test_a_model_that_does_not_load_is_tried_again_after_pauses_that_grow_to_five_minutes(misfit: Path, clock: Clock) -> None:
    resident = Logbook(clock)
    for second in range(1000):
        clock.now = second
        with pytest.raises(ModelError, match="local:misfit"):
            resident.named(str(misfit))
    assert resident.tries == [0, 5, 15, 35, 75, 155, 315, 615, 915]


def test_a_model_that_loads_has_its_failures_forgotten(misfit: Path, model_folders: dict[str, Path], clock: Clock) -> None:
    resident, wrong = Logbook(clock), (misfit / "config.json").read_text()
    for clock.now in (0, 5):
        with pytest.raises(ModelError):
            resident.named(str(misfit))
    clock.now = 15
    shutil.copy(model_folders["AutoencoderTiny"] / "config.json", misfit)
    resident.named(str(misfit))
    resident.named(str(model_folders["AutoencoderKL"]))  # it leaves the memory
    (misfit / "config.json").write_text(wrong)
    for clock.now in (20, 24, 25):
        with pytest.raises(ModelError):
            resident.named(str(misfit))
    assert resident.tries[-2:] == [20, 25]


def test_where_a_device_does_not_work_the_cpu_does(small_picture: NDArray[np.uint8], caplog: pytest.LogCaptureFixture) -> None:
    model = Models("meta", "bfloat16").bundled()  # a device that keeps no numbers
    assert model.encode(small_picture, 60, Effort.FAST).pixels.shape == small_picture.shape
    assert "the CPU is used" in caplog.text


def test_the_bundled_model_is_always_there(resident: Models) -> None:
    assert resident.named(BUNDLED) is resident.bundled()


def test_a_model_that_is_not_here_is_named_with_the_command_that_gets_it(resident: Models) -> None:
    header = {"autoencoder": "stabilityai/sd-vae-ft-mse@" + "a" * 40, "weights": "b" * 16}
    with pytest.raises(ModelMissing, match="sdfs model pull stabilityai/sd-vae-ft-mse@aaaa"):
        resident.of_blob(header)


def test_other_weights_are_refused(resident: Models, model: ResidentModel, small_picture: NDArray[np.uint8]) -> None:
    header = header_of(model, model.encode(small_picture, 60, Effort.NORMAL)) | {"weights": "0" * 16}
    with pytest.raises(ModelError):
        resident.of_blob(header)


def test_a_model_of_another_latent_space_does_not_substitute(
    resident: Models, model: ResidentModel, model_folders: dict[str, Path], small_picture: NDArray[np.uint8]
) -> None:
    header = header_of(model, model.encode(small_picture, 60, Effort.NORMAL))
    with pytest.raises(ModelError, match="not known to share a latent space"):
        resident.of_blob(header, instead=str(model_folders["AutoencoderTiny"]))


def saved_as(picture: NDArray[np.uint8], pillow_format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, pillow_format)
    return file.getvalue()


def encoded(picture: NDArray[np.uint8], pillow_format: str, settings: EncodeSettings) -> Blob:
    return container.parse(Codec("cpu", "float32").encode(saved_as(picture, pillow_format), settings))


def test_a_picture_that_a_model_would_spoil_is_kept_exactly(model_folders: dict[str, Path], small_picture: NDArray[np.uint8]) -> None:
    """The gate does not trust a model more for having been asked for."""
    blob = encoded(small_picture, "BMP", EncodeSettings(100, str(model_folders["AutoencoderKL"])))
    reason = r"local:AutoencoderKL quality 100 gives PSNR [\d.]+ dB, MS-SSIM [\d.e-]+: want 22 dB, MS-SSIM 0.94"
    assert re.fullmatch(reason, blob.header["reason"])


def test_a_store_may_have_another_gate(model_folders: dict[str, Path], small_picture: NDArray[np.uint8]) -> None:
    blob = encoded(small_picture, "BMP", EncodeSettings(30, str(model_folders["AutoencoderKL"]), min_psnr=0, min_ms_ssim=0))
    assert blob.preamble.kind == KIND_LATENT
    assert blob.header["scores"]["psnr"] < 22


def test_a_file_by_another_decoder_is_larger_where_its_pixels_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: NDArray[np.uint8]
) -> None:
    """Losslessly compressed ones: the model that made the latents decodes them to a smoother picture than the other."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for repository, make in {"stabilityai--sd-vae-ft-mse": noisy, "madebyollin--taesd": tiny}.items():
        cached = tmp_path / f"models--{repository}"
        saved(make, cached / "snapshots" / COMMIT)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text(COMMIT)
    codec = Codec("cpu", "float32")
    source = saved_as(np.asarray(Image.fromarray(photo[60:240, 100:340]).filter(ImageFilter.GaussianBlur(40))) & 0xFE, "PNG")
    blob = codec.encode(source, EncodeSettings(40, "taesd", min_psnr=0, min_ms_ssim=0))
    assert len(codec.decode(blob, model="sd-vae-ft-mse")) > len(codec.decode(blob)) == container.parse(blob).preamble.rendered_size


def noisy() -> Any:
    return kl(scaling_factor=20.0)


def test_it_says_where_the_bundled_model_is() -> None:
    assert Models("cpu", "float32").figures() == {"device": "cpu", "dtype": "float32", "device_bytes": None}

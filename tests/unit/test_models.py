"""Models on this machine: their names, folders and records. The hub's cache is laid out by hand, as huggingface_hub does."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdfs.errors import ModelError, ModelMissing
from sdfs.models import names, records, registry
from sdfs.models.folder import count_parameters
from sdfs.models.names import KNOWN, Known
from tests.support import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
KL: dict[str, Any] = {"_class_name": "AutoencoderKL", "block_out_channels": [8, 16, 16, 16], "latent_channels": 4, "in_channels": 3}


def safetensors(content: bytes = b"weights!") -> bytes:
    """A file of one float32 tensor."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [len(content) // 4], "data_offsets": [0, len(content)]}}).encode()
    return struct.pack("<Q", len(header)) + header + content


def make(folder: Path, config: Any = KL, weights: bytes = safetensors()) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no records."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "hub"


@pytest.fixture
def snapshot(cache: Path) -> Path:
    """sd-vae-ft-mse, as another program leaves it in the cache."""
    repository = cache / "models--stabilityai--sd-vae-ft-mse"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return make(repository / "snapshots" / COMMIT)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "repository", "subfolder", "revision"),
        [
            ("taesd", "madebyollin/taesd", "", "main"),
            ("sd3", "stabilityai/stable-diffusion-3-medium-diffusers", "vae", "main"),
            ("taesd@v2", "madebyollin/taesd", "", "v2"),
            ("some/model", "some/model", "", "main"),
            ("some/model.v1/a/b@refs/pr/4", "some/model.v1", "a/b", "refs/pr/4"),
            (f"some/model@{COMMIT}", "some/model", "", COMMIT),
        ],
    )
    def test_a_name_means_a_folder_of_a_repository_at_a_revision(self, name: str, repository: str, subfolder: str, revision: str) -> None:
        assert names.parse(name) == names.Source(repository, subfolder, revision)

    @pytest.mark.parametrize(
        "name", ["", "unknown", "/etc", "a/../b", "a/b/../c", "a/b@../c", "a/b@", "a//b", "a/.b", "a/b\n", "-a/b", "a b/c"]
    )
    def test_what_could_leave_the_cache_is_no_name(self, name: str) -> None:
        with pytest.raises(ModelError, match="want a name"):
            names.parse(name)

    @pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
    def test_every_known_name_is_one_of_the_hub(self, known: Known) -> None:
        source = names.parse(known.name)
        assert (source.path, source.revision, names.short_name(source)) == (known.path, "main", known.name)

    def test_no_name_is_known_twice(self) -> None:
        assert len({known.name for known in KNOWN}) == len({known.path for known in KNOWN}) == len(KNOWN)

    def test_every_known_name_is_documented(self) -> None:
        page = (ROOT / "docs/MODELS.md").read_text()
        assert [known.name for known in KNOWN if f"| `{known.name}` | `{known.path}`" not in page] == []

    @pytest.mark.parametrize("name", ["/models/mine", "./mine", "../mine", "~/mine", ".", ".."])
    def test_a_folder_is_told_by_its_beginning(self, name: str) -> None:
        assert names.is_folder(name)

    def test_a_folder_that_is_there_is_not_mistaken_for_a_repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make(tmp_path / "some" / "model")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ModelMissing):
            registry.resolve("some/model")


class TestCompatible:
    def test_models_of_one_latent_space_are(self) -> None:
        assert names.compatible(f"madebyollin/taesd@{COMMIT}", f"stabilityai/sd-vae-ft-mse@{OTHER}")

    def test_models_of_two_latent_spaces_are_not(self) -> None:
        assert not names.compatible(f"madebyollin/taesd@{COMMIT}", f"stabilityai/sdxl-vae@{COMMIT}")

    def test_a_model_is_with_itself(self) -> None:
        assert names.compatible(f"some/model@{COMMIT}", f"some/model@{COMMIT}")

    def test_of_models_that_nobody_knows_nothing_is_guessed(self) -> None:
        assert not names.compatible(f"some/model@{COMMIT}", f"some/model@{OTHER}")


class TestFolder:
    @pytest.mark.parametrize(
        ("class_name", "blocks", "length", "factor"),
        [
            ("AutoencoderKL", "block_out_channels", 4, 8),
            ("AutoencoderTiny", "encoder_block_out_channels", 4, 8),
            ("AutoencoderDC", "encoder_block_out_channels", 6, 32),
        ],
    )
    def test_the_config_tells_class_channels_and_factor(
        self, tmp_path: Path, class_name: str, blocks: str, length: int, factor: int
    ) -> None:
        config = {"_class_name": class_name, blocks: [8] * length, "latent_channels": 16, "in_channels": 3}
        model = registry.resolve(str(make(tmp_path / "mine", config)))
        assert (model.class_name, model.channels, model.factor) == (class_name, 16, factor)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"auto_map": {"AutoModel": "model.Model"}}, "code of its own"),
            ({"_class_name": "AutoencoderKLWan"}, "class AutoencoderKLWan"),
            ({"_class_name": ["AutoencoderKL"]}, "want AutoencoderKL"),
            ({"_class_name": None}, "class None"),
            ({"latent_channels": None}, "latent_channels"),
            ({"latent_channels": True}, "latent_channels"),
            ({"latent_channels": 10**9}, "latent_channels"),
            ({"block_out_channels": []}, "block_out_channels"),
            ({"block_out_channels": [8] * 40}, "block_out_channels"),
            ({"block_out_channels": 4}, "block_out_channels"),
            ({"in_channels": 1}, "pictures of 1 channels"),
        ],
    )
    def test_a_config_that_sdfs_cannot_use_is_refused(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        make(tmp_path / "mine", KL | change)
        with pytest.raises(ModelError, match=message):
            registry.resolve(str(tmp_path / "mine"))

    @pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00"])
    def test_a_config_that_is_no_json_object_is_refused(self, tmp_path: Path, text: str) -> None:
        (make(tmp_path / "mine") / "config.json").write_text(text)
        with pytest.raises(ModelError, match="no JSON object"):
            registry.resolve(str(tmp_path / "mine"))

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            (["diffusion_pytorch_model.bin"], "pickled"),
            (["model.ckpt", "README.md"], "pickled"),
            (["diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model-00001-of-00002.safetensors"], "several files"),
            (["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin"], r"only as diffusion_pytorch_model\.fp16"),
            ([], "no weights"),
        ],
    )
    def test_weights_that_sdfs_does_not_read_are_refused(self, tmp_path: Path, files: list[str], message: str) -> None:
        folder = make(tmp_path / "mine")
        (folder / "diffusion_pytorch_model.safetensors").unlink()
        for name in files:
            (folder / name).touch()
        with pytest.raises(ModelError, match=message):
            registry.resolve(str(folder))

    def test_a_folder_without_a_config_holds_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"it has no config\.json"):
            registry.resolve(str(tmp_path))

    def test_a_folder_that_is_not_there_is_an_error_of_the_system(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            registry.resolve(str(tmp_path / "missing"))

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x08",
            safetensors()[:-1],
            safetensors() + b"\0",
            struct.pack("<Q", 1 << 60) + b"{}",
            struct.pack("<Q", 2) + b"{}",
            struct.pack("<Q", 2) + b"[]",
            struct.pack("<Q", 10) + b'{"w": null' + b"}",
            struct.pack("<Q", 11) + b'{"w": null}',
            struct.pack("<Q", 32) + b'{"w": {"data_offsets": ["a", 1]}}'[:32],
        ],
    )
    def test_weights_that_are_no_whole_safetensors_file_are_refused(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(ModelError, match="no whole safetensors file"):
            count_parameters(tmp_path / "file", "it")

    def test_parameters_are_counted_without_reading_them(self, tmp_path: Path) -> None:
        assert registry.resolve(str(make(tmp_path / "mine", weights=safetensors(b"1234" * 10)))).parameters == 10


class TestResolve:
    def test_what_is_not_here_is_missing_and_the_message_names_the_command(self) -> None:
        with pytest.raises(ModelMissing, match=r'^taesd is not on this machine: get it with "sdfs model pull taesd"$'):
            registry.resolve("taesd")

    @pytest.mark.parametrize("name", ["sd-vae-ft-mse", "stabilityai/sd-vae-ft-mse", f"stabilityai/sd-vae-ft-mse@{COMMIT}"])
    def test_what_another_program_put_into_the_cache_is_found(self, snapshot: Path, name: str) -> None:
        model = registry.resolve(name)
        assert (model.id, model.name, model.folder) == (f"stabilityai/sd-vae-ft-mse@{COMMIT}", "sd-vae-ft-mse", snapshot)

    def test_its_id_has_the_subfolder(self, cache: Path) -> None:
        make(cache / "models--some--pipeline" / "snapshots" / COMMIT / "vae")
        assert registry.resolve(f"some/pipeline/vae@{COMMIT}").id == f"some/pipeline/vae@{COMMIT}"

    def test_the_weights_are_named_by_their_sha256(self, snapshot: Path) -> None:
        model = registry.resolve("sd-vae-ft-mse")
        assert (model.weights_sha256, model.weights_bytes) == (hashlib.sha256(safetensors()).hexdigest(), len(safetensors()))

    def test_a_snapshot_without_its_weights_is_missing(self, snapshot: Path) -> None:
        (snapshot / "diffusion_pytorch_model.safetensors").unlink()
        with pytest.raises(ModelMissing):
            registry.resolve("sd-vae-ft-mse")

    def test_the_commit_that_was_pulled_counts_though_the_branch_moved(self, snapshot: Path) -> None:
        make(snapshot.with_name(OTHER))
        (snapshot.parents[1] / "refs" / "main").write_text(OTHER)
        records.note(records.PULLED, {"stabilityai/sd-vae-ft-mse@main": COMMIT})
        assert registry.resolve("sd-vae-ft-mse").folder == snapshot

    def test_a_folder_is_named_by_its_last_part(self, tmp_path: Path) -> None:
        assert registry.resolve(str(make(tmp_path / "mine"))).id == "local:mine"


class TestOfBlob:
    WEIGHTS = hashlib.sha256(safetensors()).hexdigest()[:16]

    def test_it_is_found_by_what_the_header_records(self, snapshot: Path) -> None:
        assert registry.of_blob(f"stabilityai/sd-vae-ft-mse@{COMMIT}", self.WEIGHTS).folder == snapshot

    def test_what_is_missing_is_named_with_its_commit(self) -> None:
        with pytest.raises(ModelMissing, match=f'get it with "sdfs model pull some/model@{COMMIT}"'):
            registry.of_blob(f"some/model@{COMMIT}", self.WEIGHTS)

    def test_other_weights_under_its_id_are_refused(self, snapshot: Path) -> None:
        with pytest.raises(ModelError, match="has other weights here"):
            registry.of_blob(f"stabilityai/sd-vae-ft-mse@{COMMIT}", "0" * 16)

    @pytest.mark.parametrize("id", ["sd-vae-ft-mse", "/etc", "stabilityai/sd-vae-ft-mse@main", "../../etc@" + COMMIT])
    def test_an_id_that_no_blob_has_is_refused(self, snapshot: Path, id: str) -> None:
        with pytest.raises(ModelError):
            registry.of_blob(id, self.WEIGHTS)

    def test_a_folder_is_found_by_its_weights_once_it_was_used(self, tmp_path: Path) -> None:
        folder = make(tmp_path / "mine")
        with pytest.raises(ModelMissing, match=r"local:mine of weights .* is not on this machine"):
            registry.of_blob("local:mine", self.WEIGHTS)
        registry.resolve(str(folder))
        assert registry.of_blob("local:mine", self.WEIGHTS).folder == folder

    def test_a_folder_that_was_renamed_is_found_by_its_weights(self, tmp_path: Path) -> None:
        registry.resolve(str(make(tmp_path / "mine").rename(tmp_path / "renamed")))
        assert registry.of_blob("local:mine", self.WEIGHTS).folder == tmp_path / "renamed"

    def test_a_folder_whose_weights_changed_is_missing(self, tmp_path: Path) -> None:
        folder = make(tmp_path / "mine")
        registry.resolve(str(folder))
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(safetensors(b"1234"))
        with pytest.raises(ModelMissing):
            registry.of_blob("local:mine", self.WEIGHTS)


class TestInstalled:
    def test_nothing_is_at_first(self) -> None:
        assert registry.installed() == []

    def test_known_names_in_the_cache_are(self, snapshot: Path) -> None:
        assert [model.name for model in registry.installed()] == ["sd-vae-ft-mse"]

    def test_what_was_pulled_is_with_each_commit(self, snapshot: Path) -> None:
        make(snapshot.with_name(OTHER))
        records.note(records.PULLED, {f"stabilityai/sd-vae-ft-mse@{OTHER}": OTHER})
        assert [model.folder.name for model in registry.installed()] == [COMMIT, OTHER]

    def test_a_folder_that_was_used_is_until_it_is_gone(self, tmp_path: Path) -> None:
        folder = make(tmp_path / "mine")
        registry.resolve(str(folder))
        assert [model.id for model in registry.installed()] == ["local:mine"]
        folder.rename(tmp_path / "elsewhere")
        assert registry.installed() == []

    def test_a_folder_that_is_removed_is_only_forgotten(self, tmp_path: Path) -> None:
        model = registry.resolve(str(make(tmp_path / "mine")))
        assert registry.remove(model) == 0
        assert (registry.installed(), model.folder.is_dir()) == ([], True)


class TestRemove:
    def test_only_the_files_of_the_model_are(self, snapshot: Path) -> None:
        (snapshot / "unet.safetensors").touch()
        assert registry.remove(registry.resolve("sd-vae-ft-mse")) > len(safetensors())
        assert [path.name for path in snapshot.iterdir()] == ["unet.safetensors"]

    def test_content_that_another_snapshot_has_stays(self, snapshot: Path) -> None:
        blob = snapshot.parents[1] / "blobs" / "content"
        blob.parent.mkdir()
        weights = make(snapshot.with_name(OTHER)) / "diffusion_pytorch_model.safetensors"
        weights.rename(blob)
        weights.symlink_to("../../blobs/content")
        (snapshot / weights.name).unlink()
        (snapshot / weights.name).symlink_to("../../blobs/content")
        registry.remove(registry.resolve("sd-vae-ft-mse"))
        assert registry.resolve(f"stabilityai/sd-vae-ft-mse@{OTHER}").weights_bytes == len(safetensors())

    def test_its_pulls_are_forgotten(self, snapshot: Path) -> None:
        key = "stabilityai/sd-vae-ft-mse"
        records.note(records.PULLED, {f"{key}@main": COMMIT, f"{key}@{COMMIT}": COMMIT, f"{key}@old": OTHER, "some/model@main": COMMIT})
        registry.remove(registry.resolve("sd-vae-ft-mse"))
        assert set(records.load(records.PULLED)) == {f"{key}@old", "some/model@main"}


class TestRecords:
    def test_a_calibration_is_kept_with_the_weights(self, snapshot: Path, tmp_path: Path) -> None:
        assert registry.calibration(registry.resolve("sd-vae-ft-mse")) is None
        registry.save_calibration(registry.resolve("sd-vae-ft-mse"), {"steps": [1, 2]})
        assert registry.calibration(registry.resolve(str(make(tmp_path / "copy")))) == {"steps": [1, 2]}

    def test_a_newer_calibration_replaces_the_old_one(self, snapshot: Path) -> None:
        registry.save_calibration(registry.resolve("sd-vae-ft-mse"), {"old": 1})
        registry.save_calibration(registry.resolve("sd-vae-ft-mse"), {"new": 2})
        assert registry.calibration(registry.resolve("sd-vae-ft-mse")) == {"new": 2}

    def test_weights_are_hashed_once(self, tmp_path: Path) -> None:
        weights = make(tmp_path / "mine") / "diffusion_pytorch_model.safetensors"
        first, status = records.sha256(weights), weights.stat()
        with weights.open("r+b") as file:
            file.write(b"unnoticed")
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert records.sha256(weights) == first

    def test_weights_that_changed_are_hashed_again(self, tmp_path: Path) -> None:
        weights = make(tmp_path / "mine") / "diffusion_pytorch_model.safetensors"
        first = records.sha256(weights)
        weights.write_bytes(safetensors(b"others!!" * 2))
        assert records.sha256(weights) != first

    def test_models_are_found_where_nothing_can_be_noted(self, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_DATA_HOME", "/proc/nowhere")
        assert registry.resolve("sd-vae-ft-mse").folder == snapshot

    def test_a_damaged_record_is_told(self) -> None:
        records.note(records.PULLED, {"a": "b"})
        (records.data_folder() / records.PULLED).write_text("{")
        with pytest.raises(ModelError, match=r"pulled\.json is damaged: remove it"):
            registry.resolve("taesd")

    def test_processes_that_note_at_once_lose_nothing(self) -> None:
        script = "import sys; from sdfs.models import records\nfor n in range(20): records.note('r.json', {f'{sys.argv[1]} {n}': n})"
        writers = [subprocess.Popen([sys.executable, "-c", script, str(n)], cwd=ROOT) for n in range(3)]
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
        assert len(records.load("r.json")) == 60


def test_the_hubs_client_loads_no_torch() -> None:
    script = (
        "import sys; from huggingface_hub import HfApi; from huggingface_hub.file_download import http_get; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"

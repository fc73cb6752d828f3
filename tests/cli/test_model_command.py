"""`sdfs model` as a user runs it: huggingface_hub's real client, against a hub on the loopback."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.cli import exit_codes
from tests.support.commands import COMMAND, ENVIRONMENT
from tests.support.hub_server import TOKEN, HubServer
from tests.support.waiting import eventually

MSE = "stabilityai/sd-vae-ft-mse"
FLUX = "black-forest-labs/FLUX.1-dev"
CONFIG = json.dumps({"_class_name": "AutoencoderKL", "block_out_channels": [8] * 4, "latent_channels": 4, "in_channels": 3}).encode()
WEIGHTS = "diffusion_pytorch_model.safetensors"
CHUNK = 10 << 20  # bytes; what the client has of an interrupted download are whole chunks


def safetensors(size_bytes: int, fill: bytes = b"\0") -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [size_bytes // 4], "data_offsets": [0, size_bytes]}}).encode()
    return struct.pack("<Q", len(header)) + header + fill * size_bytes


SMALL = {"config.json": CONFIG, WEIGHTS: safetensors(4000)}
LARGE = {"config.json": CONFIG, WEIGHTS: safetensors(3 * CHUNK)}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        yield hub


class Machine:
    """Somebody's, with an empty cache, who uses the hub at `url`."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("HF_")}
        self.environment |= {"HF_ENDPOINT": url, "HF_HOME": str(home / "hf"), "XDG_DATA_HOME": str(home / "data")}

    def start(self, *arguments: str, stderr: int = subprocess.PIPE, **variables: str) -> subprocess.Popen[str]:
        environment = {**self.environment, **variables}
        return subprocess.Popen(
            [*COMMAND, "model", *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, cwd=self.home
        )

    def on_terminal(self, *arguments: str) -> str:
        """What a terminal gets to see of stderr."""
        terminal, side = pty.openpty()
        termios.tcsetwinsize(side, (24, 120))
        with open(terminal, "rb", buffering=0) as shown, self.start(*arguments, stderr=side) as process:
            os.close(side)
            chunks = []
            with contextlib.suppress(OSError):  # EIO: nobody has the other side any more
                while chunk := shown.read(1 << 16):
                    chunks.append(chunk)
        assert process.returncode == 0
        return b"".join(chunks).decode()

    def done(self, *arguments: str, **variables: str) -> str:
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        return out

    def fails(self, *arguments: str, code: int = exit_codes.REFUSED, **variables: str) -> str:
        """The last line on stderr; those before it are of the plan."""
        process = self.start(*arguments, **variables)
        _, err = process.communicate(timeout=100)
        assert process.returncode == code, err
        *plan, line = err.splitlines()
        assert len(plan) in (0, 2)
        return line

    def files(self, pattern: str) -> list[Path]:
        return [path for path in (self.home / "hf" / "hub").glob(pattern) if path.is_file()]


@pytest.fixture
def machine(tmp_path: Path, hub: HubServer) -> Machine:
    return Machine(tmp_path, hub.url)


class TestPull:
    def test_it_prints_the_id_with_the_commit(self, machine: Machine, hub: HubServer) -> None:
        commit = hub.put(MSE, SMALL)
        assert machine.done("pull", "sd-vae-ft-mse") == f"{MSE}@{commit}\n"

    def test_it_tells_the_cost_before(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, LARGE)
        process = machine.start("pull", "sd-vae-ft-mse")
        _, err = process.communicate(timeout=100)
        _, cost = err.splitlines()
        assert cost == "sdfs: 31.5 MB to download, 31.5 MB on the disk, about 31.5 MB of memory, and more while it works"

    def test_a_terminal_gets_a_bar(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, LARGE)
        assert f"{WEIGHTS}: 100%" in machine.on_terminal("pull", MSE)

    def test_it_gets_config_and_weights_and_nothing_else(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, {**SMALL, "model.bin": b"pickled", "model.py": b"code", "other.safetensors": safetensors(8), "README.md": b""})
        machine.done("pull", MSE)
        assert sorted(path.name for path in machine.files("*/snapshots/*/*")) == ["config.json", WEIGHTS]
        assert len(hub.downloads()) == 1

    def test_what_is_there_is_not_downloaded_again(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, SMALL)
        assert machine.done("pull", MSE) == machine.done("pull", MSE)
        assert len(hub.downloads()) == 1

    def test_a_name_means_what_was_pulled_until_it_is_pulled_again(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, SMALL)
        first = machine.done("pull", MSE)
        hub.put(MSE, {**SMALL, WEIGHTS: safetensors(8)})
        assert json.loads(machine.done("info", MSE, "--json"))[0]["autoencoder"] == first.strip()
        second = machine.done("pull", MSE)
        assert second != first
        assert json.loads(machine.done("info", MSE, "--json"))[0]["autoencoder"] == second.strip()
        assert machine.done("info", first.strip())

    def test_a_commit_can_be_named(self, machine: Machine, hub: HubServer) -> None:
        old = hub.put(MSE, SMALL)
        hub.put(MSE, {**SMALL, WEIGHTS: safetensors(8)})
        assert machine.done("pull", f"sd-vae-ft-mse@{old}") == f"{MSE}@{old}\n"

    def test_a_folder_is_made_known(self, machine: Machine) -> None:
        folder = machine.home / "mine"
        folder.mkdir()
        for name, content in SMALL.items():
            (folder / name).write_bytes(content)
        assert machine.done("pull", "./mine") == "local:mine\n"
        assert machine.done("info", "local:mine")


class TestInterruption:
    def test_a_connection_that_breaks_is_resumed(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, LARGE)
        hub.break_off(CHUNK + 1000)
        machine.done("pull", MSE)
        assert [request.range for request in hub.downloads()] == [None, f"bytes={CHUNK}-"]

    def test_the_next_pull_goes_on_where_a_failed_one_ended(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, LARGE)
        hub.break_off(2 * CHUNK + 1000)
        hub.refuse()
        assert machine.fails("pull", MSE) == f"sdfs: {hub.url} refuses {MSE}: HTTP status 503; what came is kept"
        hub.requests.clear()
        machine.done("pull", MSE)
        assert [request.range for request in hub.downloads()] == [f"bytes={2 * CHUNK}-"]

    def test_the_next_pull_goes_on_where_a_killed_one_ended(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, LARGE)
        with hub.stalled(CHUNK + 1000):
            process = machine.start("pull", MSE)
            hub.wait_until_stalled()
            eventually(lambda: [path.stat().st_size for path in machine.files("*/blobs/*.incomplete")] == [CHUNK])
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=10)
        machine.done("pull", MSE)
        assert [request.range for request in hub.downloads()] == [None, f"bytes={CHUNK}-"]

    def test_what_is_not_whole_is_not_on_this_machine(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, LARGE)
        hub.break_off(CHUNK + 1000)
        hub.refuse()
        machine.fails("pull", MSE)
        assert "is not on this machine" in machine.fails("info", MSE)

    def test_two_pulls_at_once_do_not_meet(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, LARGE)
        with hub.stalled(1000):
            process = machine.start("pull", MSE)
            hub.wait_until_stalled()
            assert machine.fails("pull", MSE) == "sdfs: another process is pulling a model: wait for it"
            process.kill()
            process.communicate(timeout=10)


class TestTrust:
    def test_weights_that_have_not_the_stated_hash_are_refused(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, SMALL)
        [sha256] = hub.objects
        hub.objects[sha256] = safetensors(4000, b"\1")
        assert "does not have the hash that the hub states" in machine.fails("pull", MSE)
        assert "is not on this machine" in machine.fails("info", MSE)

    def test_nothing_is_kept_of_them(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, SMALL)
        [sha256] = hub.objects
        right, hub.objects[sha256] = hub.objects[sha256], safetensors(4000, b"\1")
        machine.fails("pull", MSE)
        hub.objects[sha256] = right
        assert machine.done("pull", MSE)

    def test_weights_that_were_spoilt_in_the_cache_are_mended(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, SMALL)
        machine.done("pull", MSE)
        [sha256] = hub.objects
        [blob] = machine.files(f"*/blobs/{sha256}")
        blob.write_bytes(safetensors(4000, b"\1"))
        machine.done("pull", MSE)
        assert json.loads(machine.done("info", MSE, "--json"))[0]["weights_sha256"] == sha256

    def test_a_config_that_has_not_the_stated_hash_is_refused(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, SMALL)
        hub.spoilt["config.json"] = CONFIG.replace(b"4", b"8")
        assert "does not have the hash that the hub states" in machine.fails("pull", MSE)

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"config.json": CONFIG, "diffusion_pytorch_model.bin": b""}, "has only pickled weights"),
            ({**SMALL, "config.json": CONFIG.replace(b"{", b'{"auto_map": {"AutoModel": "model.Model"}, ', 1)}, "code of its own"),
            ({**SMALL, "config.json": CONFIG.replace(b"AutoencoderKL", b"UNet2DModel")}, "is of class UNet2DModel: want AutoencoderKL"),
            ({**SMALL, WEIGHTS: b"no safetensors"}, "is no whole safetensors file"),
            ({"model_index.json": b"{}", "vae/config.json": CONFIG}, f"is a pipeline: its autoencoder is {MSE}/vae"),
            ({"README.md": b""}, "it has no config.json"),
        ],
    )
    def test_what_sdfs_cannot_use_is_refused(self, machine: Machine, hub: HubServer, files: dict[str, bytes], message: str) -> None:
        hub.put(MSE, files)
        assert message in machine.fails("pull", MSE)

    def test_weights_of_a_wrong_class_are_not_downloaded(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, {**SMALL, "config.json": CONFIG.replace(b"AutoencoderKL", b"UNet2DModel")})
        machine.fails("pull", MSE)
        assert hub.downloads() == []


class TestTokens:
    def test_a_gated_model_says_what_to_do(self, machine: Machine, hub: HubServer) -> None:
        hub.put(FLUX, {f"vae/{name}": content for name, content in SMALL.items()}, gated=True)
        how = f'accept its terms at {hub.url}/{FLUX}, then set HF_TOKEN, or run "hf auth login"'
        assert machine.fails("pull", "flux") == f"sdfs: {FLUX} is gated: {how}"

    def test_a_token_without_access_says_the_same(self, machine: Machine, hub: HubServer) -> None:
        hub.put(FLUX, {f"vae/{name}": content for name, content in SMALL.items()}, gated=True)
        assert "is gated" in machine.fails("pull", "flux", HF_TOKEN="hf_of_another")

    def test_a_token_opens_it(self, machine: Machine, hub: HubServer) -> None:
        commit = hub.put(FLUX, {f"vae/{name}": content for name, content in SMALL.items()}, gated=True)
        assert machine.done("pull", "flux", HF_TOKEN=TOKEN) == f"{FLUX}/vae@{commit}\n"

    def test_the_token_is_sent_to_the_hub_alone(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, SMALL)
        machine.done("pull", MSE, HF_TOKEN=TOKEN)
        [download] = hub.downloads()
        assert download.host.startswith("localhost:")
        assert download.authorization is None


class TestTheHubFails:
    def test_a_repository_that_it_has_not(self, machine: Machine, hub: HubServer) -> None:
        assert machine.fails("pull", "taesd").startswith(f"sdfs: {hub.url} has no madebyollin/taesd, or it is private")

    def test_a_revision_that_it_has_not(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, SMALL)
        assert machine.fails("pull", "sd-vae-ft-mse@v2") == f"sdfs: {MSE} has no revision v2"

    def test_no_hub(self, machine: Machine) -> None:
        assert "http://127.0.0.1:9 does not answer as it should" in machine.fails("pull", "taesd", HF_ENDPOINT="http://127.0.0.1:9")

    def test_offline_nothing_is_asked(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, SMALL)
        assert machine.fails("pull", MSE, HF_HUB_OFFLINE="1") == f"sdfs: HF_HUB_OFFLINE is set, so SDFS does not look for {MSE}: unset it"
        assert hub.requests == []

    def test_what_was_pulled_is_there_without_it(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, SMALL)
        machine.done("pull", MSE)
        hub.requests.clear()
        assert machine.done("info", MSE, HF_HUB_OFFLINE="1") == machine.done("info", MSE)
        assert hub.requests == []


class TestListing:
    def test_every_known_name_is_listed(self, machine: Machine) -> None:
        rows = json.loads(machine.done("list", "--json"))
        assert {"name": "taesd", "id": "madebyollin/taesd"} | dict.fromkeys(["class_name", "channels", "factor", "weights_bytes"]) in rows

    def test_what_is_here_has_figures(self, machine: Machine, hub: HubServer) -> None:
        commit = hub.put(MSE, SMALL)
        machine.done("pull", MSE)
        _, line, *others = machine.done("list").splitlines()
        assert line.split() == ["sd-vae-ft-mse", "AutoencoderKL", "4", "8", f"{len(SMALL[WEIGHTS]):,}", f"{MSE}@{commit}"]
        assert not any("sd-vae-ft-mse" in other for other in others)

    def test_info_tells_what_a_blob_records(self, machine: Machine, hub: HubServer) -> None:
        commit = hub.put(MSE, SMALL)
        machine.done("pull", MSE)
        [details] = json.loads(machine.done("info", MSE, "--json"))
        sha256 = hashlib.sha256(SMALL[WEIGHTS]).hexdigest()
        assert (details["autoencoder"], details["weights"], details["weights_sha256"]) == (f"{MSE}@{commit}", sha256[:16], sha256)
        assert details["compatible"] == ["sd-vae", "sd-vae-ft-ema", "taesd"]
        assert (details["memory_bytes"], details["calibrated"]) == (4000, False)

    def test_info_names_the_command_that_gets_what_is_missing(self, machine: Machine) -> None:
        assert machine.fails("info", "taesd") == 'sdfs: taesd is not on this machine: get it with "sdfs model pull taesd"'

    def test_remove_prints_the_bytes_freed(self, machine: Machine, hub: HubServer) -> None:
        hub.put(MSE, SMALL)
        machine.done("pull", MSE)
        assert machine.done("remove", MSE) == f"{len(CONFIG) + len(SMALL[WEIGHTS]):,}\n"
        assert machine.files("*/snapshots/*/*") == machine.files("*/blobs/*") == []


@pytest.mark.parametrize("name", ["AutoencoderKL", "AutoencoderTiny", "AutoencoderDC"])
def test_every_class_gets_from_save_pretrained_over_the_hub_to_from_pretrained(machine: Machine, hub: HubServer, name: str) -> None:
    import diffusers

    from tests.support.small_models import MODELS, saved

    make, factor, channels = MODELS[name]
    made = saved(make, machine.home / "made")
    hub.put(f"some/{name}", {path.name: path.read_bytes() for path in made.iterdir()})
    machine.done("pull", f"some/{name}")
    [details] = json.loads(machine.done("info", f"some/{name}", "--json"))
    assert (details["class_name"], details["factor"]) == (name, factor)
    loaded = getattr(diffusers, name).from_pretrained(details["folder"], local_files_only=True, low_cpu_mem_usage=False)
    assert loaded.config.latent_channels == channels

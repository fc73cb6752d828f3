"""`-o metrics=…`: what a mount tells Prometheus, over HTTP."""

from __future__ import annotations

import re
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import ROOT
from tests.support.lossless_engine import PICTURE
from tests.support.mounting import BACKGROUND, Mounted, is_mounted, needs_fuse

pytestmark = needs_fuse


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def samples(text: str) -> dict[tuple[str, ...], float]:
    """By name and the values of labels, `le` last."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(name, *(labels[label] for label in sorted(labels, reverse=True))): value for name, labels, value, *_ in found}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a mount with a shrunk picture that three read, and a plain file."""
    folder, port = tmp_path_factory.mktemp("metrics"), free_port()
    with Mounted(folder, f"metrics=127.0.0.1:{port},disk_cache={folder}/cache") as mounted:
        (mounted.path / "a.jpg").write_bytes(PICTURE)
        (mounted.path / "notes").write_text("plain")
        mounted.sync()
        for _ in range(3):
            (mounted.path / "a.jpg").read_bytes()
        return scrape(port)


def test_files_by_state(told: str) -> None:
    found = samples(told)
    assert {state: found["sdfs_files", state] for state in ("latent", "exact", "pending", "plain", "damaged")} == {
        "latent": 0,
        "exact": 1,
        "pending": 0,
        "plain": 1,
        "damaged": 0,
    }
    assert found[("sdfs_logical_bytes",)] == len(PICTURE) + 5


def test_a_folder_read_in_order_is_decoded_ahead_of_its_reader(tmp_path: Path) -> None:
    port, names = free_port(), [f"{n:02}.jpg" for n in range(40)]
    with Mounted(tmp_path) as mounted:
        for n, name in enumerate(names):
            (mounted.path / name).write_bytes(PICTURE.replace(b"picture", b"pict%03d" % n))
        mounted.sync()
    with Mounted(tmp_path, f"metrics={port}") as mounted:
        for name in names:
            (mounted.path / name).read_bytes()
        found = samples(scrape(port))
    assert found[("sdfs_decoded_pictures_total",)] == len(names)
    assert found[("sdfs_decoded_ahead_pictures_total",)] > 0


def test_a_histogram_of_reads(told: str) -> None:
    found = samples(told)
    assert found["sdfs_read_seconds_count", "engine"] == found["sdfs_read_seconds_bucket", "engine", "+Inf"] == 1
    assert found["sdfs_read_seconds_bucket", "engine", "1e-06"] == 0
    assert 0 < found["sdfs_read_seconds_sum", "engine"] < 20


def test_caches_and_decodes(told: str) -> None:
    found = samples(told)
    assert found[("sdfs_decoded_pixels_total",)] == 4 * 3
    assert (found["sdfs_cache_misses_total", "memory"], found["sdfs_cache_misses_total", "disk"]) == (1, 1)
    assert found["sdfs_cache_bytes", "memory"] == len(PICTURE)


def test_processes(told: str) -> None:
    found = samples(told)
    assert found["sdfs_engine_state", "unloaded"] == 1
    assert found["sdfs_engine_state", "running"] == 0
    assert found["sdfs_resident_memory_bytes", "mount"] > 1e6


def test_every_metric_is_documented(told: str) -> None:
    names = {family.name + ("_total" if family.type == "counter" else "") for family in text_string_to_metric_families(told)}
    documented = set(re.findall(r"`(sdfs_\w+)", (ROOT / "docs" / "CLI.md").read_text()))
    assert names == documented


def test_a_port_that_is_taken_is_an_error_before_the_mount(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        command = [*BACKGROUND, str(mounted.store), str(mounted.path), f"metrics={address}"]
        failed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert failed.stderr.splitlines()[-1] == f"sdfs.errors.UserError: metrics cannot be served at {address}: Address already in use"
    assert not is_mounted(mounted.path)


def test_the_port_is_free_after_the_mount(tmp_path: Path) -> None:
    port = free_port()
    for _ in range(2):
        with Mounted(tmp_path, f"metrics={port}"):
            assert "sdfs_files" in scrape(port)

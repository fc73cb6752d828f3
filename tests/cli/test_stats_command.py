"""`sdfs stats`: what a store holds and what its mount does."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from dataclasses import fields
from pathlib import Path

import pytest

from sdfs.cli import exit_codes
from sdfs.control.answers import Statistics
from tests.support.commands import COMMAND, ENVIRONMENT, done, fails, mounted, sdfs, section

needs_fuse = pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no /dev/fuse")


def test_without_a_mount_it_counts_the_files(store: Path) -> None:
    [it] = json.loads(done("stats", "--json", store))
    assert (it["plain"], it["logical_bytes"], it["mountpoint"], it["engine_state"]) == (2, 17, None, "unloaded")


def test_in_words(store: Path) -> None:
    told = done("stats", store)
    assert "files              0 latent, 0 exact, 0 pending, 2 plain, 0 damaged\n" in told
    assert "engine             unloaded\n" in told


def test_every_field_is_documented() -> None:
    assert [field.name for field in fields(Statistics) if f"`{field.name}`" not in section("stats")] == []


def test_a_file_is_no_store(store: Path) -> None:
    fails(exit_codes.NOT_A_STORE, "stats", store / "notes.txt")


def test_watching_is_for_terminals(store: Path) -> None:
    assert sdfs("stats", "--watch", store).returncode == exit_codes.USAGE


@needs_fuse
def test_of_a_mount(store: Path) -> None:
    with mounted(store) as mount:
        [it] = json.loads(done("stats", "--json", mount))
        assert (it["store"], it["mountpoint"]) == (str(store), str(mount))
        assert it["pid"] != os.getpid()
        assert it["resident_bytes"] < 80e6


def watch_until(terminal: int, text: str) -> None:
    """What a terminal is shown has `text`, from now on."""
    shown = b""
    end = time.monotonic() + 30
    while text.encode() not in shown:
        assert time.monotonic() < end, shown
        shown += os.read(terminal, 4096)


@needs_fuse
def test_watching_goes_on_over_mount_and_unmount(store: Path) -> None:
    terminal, side = pty.openpty()
    with (
        open(terminal, "rb", buffering=0),
        subprocess.Popen([*COMMAND, "stats", "--watch", store], stdout=side, env=ENVIRONMENT) as watching,
    ):
        os.close(side)
        try:
            watch_until(terminal, "2 plain")
            with mounted(store):
                watch_until(terminal, "mounted at")
                (store.with_name("mount") / "more.txt").write_text("more")
                watch_until(terminal, "3 plain")
            watch_until(terminal, "3 plain")
        finally:
            watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == exit_codes.INTERRUPTED

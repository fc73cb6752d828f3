"""The daemon as a process: signals, restarts, kills, full disks. With an engine that keeps every picture exactly."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdfs.blob import container
from tests.support import ROOT
from tests.support.waiting import eventually
from tests.support.watching_daemon import Daemon, left, originals, picture


class TestSignals:
    def test_it_ends_cleanly_and_says_so(self, daemon: Daemon) -> None:
        daemon.start()
        assert daemon.end() == 0
        daemon.wait_for("STOPPING=1")

    def test_it_finishes_the_file_in_hand(self, daemon: Daemon) -> None:
        (daemon.folder / "a.jpg").write_bytes(picture("a"))
        daemon.start("1.5")
        eventually(lambda: len(daemon.stored()) == 1)
        assert daemon.end() == 0
        assert sum(originals(daemon).values()) == 1
        assert left(daemon) == []

    def test_a_changed_configuration_is_taken_up(self, daemon: Daemon, tmp_path: Path) -> None:
        (tmp_path / "further").mkdir()
        (tmp_path / "further/b.jpg").write_bytes(picture("b"))
        daemon.start()
        daemon.configure(tmp_path / "further")
        daemon.send(signal.SIGHUP)
        daemon.wait_for("READY=1")
        eventually(lambda: (daemon.store / "b.jpg").exists() and not (tmp_path / "further/b.jpg").exists())

    def test_a_broken_configuration_changes_nothing(self, daemon: Daemon) -> None:
        daemon.start()
        daemon.config.write_text("[[watch")
        daemon.send(signal.SIGHUP)
        daemon.wait_for("READY=1")
        (daemon.folder / "a.jpg").write_bytes(picture("a"))
        eventually(lambda: not left(daemon))
        assert "the configuration is not changed" in daemon.log()


class TestKills:
    def test_killed_while_it_works_every_file_is_taken_exactly_once(self, daemon: Daemon) -> None:
        for number in range(60):
            (daemon.folder / f"{number}.jpg").write_bytes(picture(str(number)))
        chance = random.Random(1)
        for _ in range(6):
            daemon.start("0.02")
            time.sleep(chance.uniform(0.3, 0.9))
            daemon.end(signal.SIGKILL)
        daemon.start()
        eventually(lambda: not left(daemon))
        assert daemon.end() == 0
        assert len(originals(daemon)) == 60
        assert set(originals(daemon).values()) == {1}


class TestAFullDisk:
    @pytest.fixture
    def small_store(self, daemon: Daemon) -> Path:
        if os.geteuid() != 0:
            pytest.skip("only root can mount a tmpfs")
        for path in sorted(daemon.store.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", daemon.store], check=True)
        from sdfs.owner.store.store import init

        init(daemon.store)
        return daemon.store

    def test_pauses_and_goes_on_when_there_is_room(self, daemon: Daemon, small_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ballast = small_store / "ballast"
        ballast.write_bytes(bytes(3_400_000))
        try:
            daemon.environment["SDFS_TEST_PAUSE"] = "0.5"
            daemon.start()
            (daemon.folder / "a.jpg").write_bytes(picture("a", 1_500_000))
            eventually(lambda: "on hold" in daemon.log())
            assert left(daemon) != []
            ballast.unlink()
            eventually(lambda: not left(daemon))
            assert daemon.end() == 0
        finally:
            daemon.close()
            subprocess.run(["umount", daemon.store], check=True)


class TestStatus:
    def status(self, daemon: Daemon) -> list[dict[str, object]]:
        command = [sys.executable, "-c", "from sdfs.cli import main; main()", "watch", "--status", "--json"]
        answer = subprocess.run(command, cwd=ROOT, env=daemon.environment, capture_output=True, check=True)
        found: list[dict[str, object]] = json.loads(answer.stdout)
        return found

    def test_tells_who_watches_and_what_it_could_not_take(self, daemon: Daemon) -> None:
        daemon.start()
        (watch,) = self.status(daemon)
        assert (watch["folder"], watch["watched"], watch["problems"]) == (str(daemon.folder), True, [])
        daemon.end()
        assert not self.status(daemon)[0]["watched"]


class TestWriters:
    """Who writes in a way that is hard to tell from being done."""

    def test_one_that_reopens_its_file_after_every_line(self, daemon: Daemon) -> None:
        daemon.start()
        path, content = daemon.folder / "a.jpg", picture("a")
        for at in range(0, len(content), 100):
            with path.open("ab") as file:
                file.write(content[at : at + 100])
            time.sleep(0.05)
        eventually(lambda: not left(daemon))
        assert daemon.end() == 0
        assert [container.parse(path.read_bytes()).preamble.rendered_size for path in daemon.stored()] == [len(content)]

    def test_files_deleted_while_they_settle_are_no_trouble(self, daemon: Daemon) -> None:
        daemon.start()
        for number in range(20):
            (daemon.folder / f"{number}.jpg").write_bytes(picture(str(number)))
            (daemon.folder / f"{number}.jpg").unlink()
        (daemon.folder / "a.jpg").write_bytes(picture("a"))
        eventually(lambda: not left(daemon))
        assert daemon.end() == 0
        assert len(daemon.stored()) == 1
        assert "WARNING" not in daemon.log()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_twenty_thousand_files_at_once(daemon: Daemon) -> None:
    """More than the kernel's queue of events holds; while one writer writes a kilobyte a second, and the daemon is killed twice."""
    source = daemon.root / "source"
    source.mkdir()
    for number in range(20_000):
        (source / f"{number}.jpg").write_bytes(picture(str(number)))
    daemon.start()
    slow = (daemon.folder / "slow.jpg").open("wb")
    content = picture("slow", 60_000)
    subprocess.run(["cp", "-r", source, daemon.folder], check=True)
    for at in range(0, len(content), 1000):
        slow.write(content[at : at + 1000])
        slow.flush()
        time.sleep(1)
        if at in (20_000, 40_000):
            daemon.end(signal.SIGKILL)
            daemon.start()
        assert not (daemon.store / "slow.jpg").exists()
    slow.close()
    eventually(lambda: not left(daemon), seconds=1500)
    assert daemon.end() == 0
    assert len(originals(daemon)) == 20_001
    assert set(originals(daemon).values()) == {1}

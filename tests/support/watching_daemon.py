"""A watching daemon in a process of its own, as systemd would run it. It keeps every picture exactly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

from sdfs.blob import container
from sdfs.owner.store.store import init
from tests.support import ROOT


class Daemon:
    """Watches `folder` for `store`; tells its state through a real datagram socket."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder, self.store, self.config = root / "incoming", root / "store", root / "config.toml"
        self.folder.mkdir()
        init(self.store)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "STATE_DIRECTORY": str(root / "state"),
            "XDG_RUNTIME_DIR": str(root),
            "NOTIFY_SOCKET": str(root / "notify"),
        }
        self.configure()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(root / "notify"))
        self._socket.settimeout(60)

    def configure(self, *further: Path, **settings: object) -> None:
        settings = {"originals": "delete", "settle_seconds": 0.5} | settings
        lines = [f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for name, value in settings.items()]
        tables = [["[[watch]]", f'folder = "{folder}"', f'store = "{self.store}"', *lines] for folder in (self.folder, *further)]
        self.config.write_text("\n".join(line for table in tables for line in table))

    def start(self, *arguments: str) -> None:
        """Returns once it is ready. `arguments` of lossless_daemon, after the configuration."""
        command = [sys.executable, "-m", "tests.support.lossless_daemon", str(self.config), *arguments]
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        self.wait_for("READY=1")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wait_for(self, state: str) -> None:
        while state not in self._socket.recv(4096).decode().splitlines():
            pass

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(90)
        self._process = None
        return status

    def log(self) -> str:
        return (self.root / "log").read_text()

    def stored(self) -> list[Path]:
        """Files of the store's tree."""
        return sorted(path for path in self.store.rglob("*") if path.is_file() and ".sdfs" not in path.parts)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket.close()


def picture(name: str, size: int = 1000) -> bytes:
    return b"\xff\xd8\xff" + f"picture {name} ".encode().ljust(size, b".") + b"END"


def originals(daemon: Daemon) -> Counter[str]:
    """How often the store has each content, by its hash; every file must be a whole blob."""
    return Counter(container.parse(path.read_bytes()).header["original_sha256"] for path in daemon.stored())


def left(daemon: Daemon) -> list[Path]:
    return [path for path in daemon.folder.rglob("*") if path.is_file()]

"""systemd units of this installation: made of the templates in `systemd/`, written, found again, removed.

A template is as a distribution would ship it; here /usr/bin/sdfs and /usr/bin/sdfs-daemon become the programs that are installed. Every
unit begins with MARKER, and no file without it is ever touched. A mount has two: the template of all mounts, and a drop-in with
its store and options.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from sdfs.errors import NotAStore, UserError
from sdfs.mount.options import MountOptions
from sdfs.owner.store.store import is_store
from sdfs.system.places import config_home, daemon_config

MARKER = "# Written by `sdfs service install`; `sdfs service remove` removes it.\n"
DAEMON = "sdfs-daemon.service"
MOUNT_TEMPLATE = "sdfs-mount@.service"
HELPER = "mount.fuse.sdfs"
Content = str | Path  # of a file; where a link leads
_DROP_IN = "sdfs.conf"
_LONGEST_UNIT_NAME = 253  # bytes: the folder of its drop-ins has two more


@dataclass(frozen=True)
class Manager:
    """A service manager: the system's, or the user's. `root` is where /etc and /sbin are."""

    system: bool
    root: Path = Path("/")

    @property
    def units(self) -> Path:
        """The folder of the units that its administrator, or its user, makes."""
        if self.system:
            return self.root / "etc/systemd/system"
        return config_home() / "systemd/user"

    @property
    def helper(self) -> Path:
        """Where mount(8) looks for what mounts filesystems of the type fuse.sdfs."""
        return self.root / "sbin" / HELPER

    @property
    def configuration(self) -> Path:
        """What the daemon watches."""
        return self.root / "etc/sdfs/config.toml" if self.system else daemon_config()

    @property
    def systemctl(self) -> tuple[str, ...]:
        return ("systemctl",) if self.system else ("systemctl", "--user")


def mount_unit(mountpoint: str) -> str:
    """The unit that mounts at an absolute path. Raises UserError where systemd takes no unit of that name."""
    name = MOUNT_TEMPLATE.replace("@", f"@{escape_path(mountpoint)}")
    if len(name) > _LONGEST_UNIT_NAME:
        raise UserError(f"{mountpoint}: too long for the name of a unit: take a shorter mountpoint")
    return name


def escape_path(path: str) -> str:
    """What `systemd-escape --path` makes of an absolute, normal path."""
    escaped = "".join(map(_escape_byte, os.fsencode(path.strip("/"))))
    return re.sub(r"^\.", r"\\x2e", escaped) or "-"


def _escape_byte(byte: int) -> str:
    character = chr(byte)
    if character == "/":
        return "-"
    return character if character.isascii() and (character.isalnum() or character in ":_.") else f"\\x{byte:02x}"


def daemon_files(manager: Manager, programs: Path) -> dict[Path, Content]:
    """What the watched folders need: contents by path. `programs`: the folder with SDFS's. Raises UserError."""
    if not manager.configuration.is_file():
        raise UserError(f"{manager.configuration} is not there: write it first (docs/WATCHING.md has an example)")
    return {manager.units / DAEMON: _unit(manager, DAEMON, programs)}


def mount_files(manager: Manager, programs: Path, store: Path, mountpoint: str, options: str) -> dict[Path, Content]:
    """What a mount needs: contents by path. Raises UserError, NotAStore."""
    root = os.path.realpath(store)
    if not is_store(Path(root)):
        raise NotAStore(f"{store} is no SDFS store: make it one with `sdfs init`")
    MountOptions.parse(options)
    drop_in = (
        f"{MARKER}\n[Unit]\nRequiresMountsFor={_quote(root)} {_quote(os.path.dirname(mountpoint))}\n\n"
        f"[Service]\nEnvironment={_quote(f'STORE={root}')} {_quote(f'OPTIONS={options}')}\n"
    )
    return {
        manager.units / MOUNT_TEMPLATE: _unit(manager, MOUNT_TEMPLATE, programs),
        manager.units / f"{mount_unit(mountpoint)}.d" / _DROP_IN: drop_in,
    }


def _unit(manager: Manager, name: str, programs: Path) -> str:
    template = resources.files("sdfs").joinpath("installation", "templates", "system" if manager.system else "user", name).read_text()
    return MARKER + re.sub(r"/usr/bin/(sdfs\S*)", lambda found: _quote(str(program(programs, found[1]))), template)


def program(programs: Path, name: str) -> Path:
    """Raises UserError where it is not there."""
    if not (programs / name).is_file():
        raise UserError(f"{programs} has no {name}: install SDFS, and call the `sdfs` that is installed")
    return programs / name


def _quote(text: str) -> str:
    """As one word of a unit file. Raises UserError where it cannot be."""
    if not text.isprintable():
        raise UserError(f"{text!r} cannot be written into a unit: it has characters that are not printable")
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%"))


def helper_files(manager: Manager, programs: Path) -> dict[Path, Content]:
    """What mount(8) needs for filesystems of the type fuse.sdfs. Raises UserError."""
    return {manager.helper: program(programs, HELPER)}


def write(files: Mapping[Path, Content]) -> list[Path]:
    """Returns those that were not so already. Raises UserError, before anything is written, where one is somebody else's."""
    for path in files:
        if _content(path) is not None and not _is_ours(path):
            raise UserError(f"{path} is there, and was not written by `sdfs service install`: it is left alone")
    changed = [path for path, content in files.items() if _content(path) != content]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        content = files[path]
        path.symlink_to(content) if isinstance(content, Path) else path.write_text(content)
    return changed


def installed_units(manager: Manager) -> list[str]:
    """The daemon, and the mounts."""
    drop_ins = manager.units.glob(f"sdfs-mount@?*.service.d/{_DROP_IN}")
    mounts = sorted(path.parent.name.removesuffix(".d") for path in drop_ins if _is_ours(path))
    return [DAEMON, *mounts] if _is_ours(manager.units / DAEMON) else mounts


def unit_files(manager: Manager, units: Collection[str]) -> list[Path]:
    """What was written for installed `units`, and the links that enable them. With the last mount goes the template of all."""
    files = [link for unit in units for link in manager.units.glob(f"*.wants/{unit}")]
    files += [manager.units / (unit if unit == DAEMON else f"{unit}.d/{_DROP_IN}") for unit in units]
    left = set(installed_units(manager)) - {DAEMON, *units}
    template = manager.units / MOUNT_TEMPLATE
    return files if left or not _is_ours(template) else [*files, template]


def installed_helper(manager: Manager) -> list[Path]:
    return [manager.helper] if _is_ours(manager.helper) else []


def remove(files: Sequence[Path]) -> None:
    """Also the folders that become empty."""
    for path in files:
        path.unlink()
        if path.parent.suffix in (".d", ".wants") and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _content(path: Path) -> Content | None:
    if path.is_symlink():
        return path.readlink()
    return path.read_text(errors="replace") if path.exists() else None


def _is_ours(path: Path) -> bool:
    content = _content(path)
    return content.name == HELPER if isinstance(content, Path) else content is not None and content.startswith(MARKER)

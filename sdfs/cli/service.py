from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdfs.installation.units import Content, Manager

_System = Annotated[bool, typer.Option("--system", help="Of the system, not the user's.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")]

app = typer.Typer(no_args_is_help=True, help="Have systemd mount stores and watch folders.")


@app.command("install")
def install(
    daemon: Annotated[bool, typer.Option("--daemon", help="Watch the folders of the configuration.")] = False,
    mount: Annotated[tuple[Path, Path] | None, typer.Option("--mount", metavar="STORE MOUNTPOINT", help="Mount a store.")] = None,
    options: Annotated[str, typer.Option("-o", metavar="OPTIONS", help="Options of the mount, separated by commas.")] = "",
    mount_helper: Annotated[bool, typer.Option("--mount-helper", help="Let mount(8) and /etc/fstab mount stores; as root.")] = False,
    system: _System = False,
    dry_run: _DryRun = False,
) -> None:
    """Write units for systemd, and have it start them, now and from now on."""
    from sdfs.installation import units

    if not (daemon or mount or mount_helper):
        raise typer.BadParameter("name --daemon, --mount STORE MOUNTPOINT, or --mount-helper")
    manager = units.Manager(system)
    programs = Path(os.path.realpath(sys.argv[0])).parent
    files: dict[Path, Content] = {}
    wanted = []
    if daemon:
        files |= units.daemon_files(manager, programs)
        wanted.append(units.DAEMON)
    if mount:
        mountpoint = os.path.realpath(mount[1])
        files |= units.mount_files(manager, programs, mount[0], mountpoint, options)
        wanted.append(units.mount_unit(mountpoint))
    if mount_helper:
        files |= units.helper_files(manager, programs)
    if dry_run:
        for path, content in files.items():
            print(f"# {path} -> {content}\n" if isinstance(content, Path) else f"# {path}\n{content}")
    else:
        _say("wrote", units.write(files))
    if wanted:
        _systemctl(manager, ["daemon-reload"], ["enable", "--now", *wanted], dry_run=dry_run)


@app.command("remove")
def remove(
    daemon: Annotated[bool, typer.Option("--daemon", help="Only the watched folders.")] = False,
    mount: Annotated[Path | None, typer.Option("--mount", metavar="MOUNTPOINT", help="Only this mount.")] = None,
    mount_helper: Annotated[bool, typer.Option("--mount-helper", help="Only what lets mount(8) mount stores; as root.")] = False,
    system: _System = False,
    dry_run: _DryRun = False,
) -> None:
    """Stop what was installed, and remove what was written for it. Stores and configurations stay."""
    from sdfs.installation import units

    manager = units.Manager(system)
    everything = not (daemon or mount or mount_helper)
    installed = units.installed_units(manager)
    if not everything:
        named = [units.DAEMON] if daemon else []
        if mount:
            named.append(units.mount_unit(os.path.realpath(mount)))
        installed = [unit for unit in installed if unit in named]
    helper = units.installed_helper(manager) if mount_helper or (everything and system) else []
    if installed:
        _systemctl(manager, ["disable", "--now", *installed], dry_run=dry_run)
    files = units.unit_files(manager, installed) + helper
    if dry_run:
        print("".join(f"rm {path}\n" for path in files), end="")
    else:
        units.remove(files)
        _say("removed", files)
    if installed:
        _systemctl(manager, ["daemon-reload"], dry_run=dry_run)
        if not dry_run:
            _forget_failures(manager, installed)
    elif not helper:
        print("sdfs: nothing of this is installed", file=sys.stderr)


def _say(what: str, paths: list[Path]) -> None:
    for path in paths:
        print(f"sdfs: {what} {path}", file=sys.stderr)


def _forget_failures(manager: Manager, units: list[str]) -> None:
    """Have systemd list those no more that failed while they were stopped. It complains of the others, which it has forgotten already."""
    with contextlib.suppress(FileNotFoundError):  # there is no systemd here
        subprocess.run([*manager.systemctl, "reset-failed", *units], check=False, stderr=subprocess.DEVNULL)


def _systemctl(manager: Manager, *commands: list[str], dry_run: bool) -> None:
    """Where systemd does not run, the commands are told instead. Raises UserError where one fails."""
    from sdfs.errors import UserError

    runs = Path("/run/systemd/system").is_dir()
    if not (runs or dry_run):
        print("sdfs: systemd does not run here; where it does:", file=sys.stderr)
    for command in ([*manager.systemctl, *arguments] for arguments in commands):
        if dry_run or not runs:
            print(shlex.join(command), file=sys.stdout if dry_run else sys.stderr)
        elif subprocess.run(command, check=False).returncode:  # it has told why on stderr
            raise UserError(f"`{shlex.join(command)}` failed")

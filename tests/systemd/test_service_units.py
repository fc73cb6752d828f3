"""Units: what is written, what systemd makes of it, what is taken away again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sdfs.errors import NotAStore, UserError
from sdfs.installation.units import (
    DAEMON,
    MARKER,
    Manager,
    daemon_files,
    escape_path,
    helper_files,
    installed_helper,
    installed_units,
    mount_files,
    mount_unit,
    remove,
    unit_files,
    write,
)
from sdfs.owner.store.store import init

PATHS = [
    "/",
    "/mnt",
    "/home/me/Pictures 2026",
    "/a-b/c_d:e.f",
    "/.hidden/.x",
    "/a\\b",
    "/caf\u00e9",
    "/%n/$HOME/${X}",
    "/\udce9",
    '/"quoted"',
]
needs_systemd_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@pytest.fixture(params=["user", "system"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    """That of a user, and that of a system whose root is elsewhere; either has a configuration of the daemon."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    manager = Manager(request.param == "system", tmp_path / "root")
    manager.configuration.parent.mkdir(parents=True)
    manager.configuration.touch()
    return manager


@pytest.fixture
def store(tmp_path: Path) -> Path:
    init(tmp_path / "a store, 100% \\ mine")
    return tmp_path / "a store, 100% \\ mine"


def install_all(manager: Manager, programs: Path, store: Path) -> list[Path]:
    files = daemon_files(manager, programs) | helper_files(manager, programs)
    for mountpoint in ("/mnt/one", "/mnt/two"):
        files |= mount_files(manager, programs, store, mountpoint, "ro")
    return write(files)


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="needs systemd-escape")
@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_escaped_as_systemd_does(path: str) -> None:
    escaped = subprocess.run(["systemd-escape", "--path", path], capture_output=True, check=True).stdout
    assert escape_path(path) == os.fsdecode(escaped).removesuffix("\n")


def test_a_mountpoint_whose_unit_would_have_too_long_a_name_is_refused() -> None:
    with pytest.raises(UserError, match="shorter"):
        mount_unit("/mnt/" + "long" * 60)


@needs_systemd_analyze
def test_systemd_has_nothing_to_say_about_the_units(manager: Manager, programs: Path, store: Path, tmp_path: Path) -> None:
    install_all(manager, programs, store)
    units = [str(manager.units / unit) for unit in (DAEMON, mount_unit("/mnt/one"))]
    (manager.units / mount_unit("/mnt/one")).symlink_to("sdfs-mount@.service")
    whose = [] if manager.system else ["--user"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    result = subprocess.run(
        ["systemd-analyze", *whose, "verify", "--man=no", *units], capture_output=True, text=True, env=environment, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_units_call_the_programs_of_this_installation(manager: Manager, programs: Path, store: Path) -> None:
    install_all(manager, programs, store)
    called = re.findall(r"^Exec\w+=-?(.*?sdfs\S*)", (manager.units / "sdfs-mount@.service").read_text(), re.MULTILINE)
    assert called == [f'"{programs}/sdfs"'] * 2


def test_no_setting_of_a_mount_keeps_fusermount3_from_mounting_or_hides_the_mount(manager: Manager, programs: Path, store: Path) -> None:
    install_all(manager, programs, store)
    settings = re.findall(r"^(\w+)=", (manager.units / "sdfs-mount@.service").read_text(), re.MULTILINE)
    harmful = re.compile(
        "NoNew|SystemCall|Private|Protect|Restrict(?!Prevent)|Lock|Memory|ReadOnly|ReadWrite|Inaccessible|Bind|Root|Dynamic"
    )
    assert [name for name in settings if harmful.match(name)] == []


def test_everything_that_is_installed_is_removed(manager: Manager, programs: Path, store: Path) -> None:
    before = files_below(manager.root) | files_below(manager.units)
    install_all(manager, programs, store)
    remove(unit_files(manager, installed_units(manager)) + installed_helper(manager))
    assert files_below(manager.root) | files_below(manager.units) == before
    assert list(manager.units.iterdir()) == []


def test_links_that_enable_a_unit_are_removed_with_it(manager: Manager, programs: Path, store: Path) -> None:
    install_all(manager, programs, store)
    wants = manager.units / "default.target.wants"
    wants.mkdir()
    (wants / DAEMON).symlink_to(manager.units / DAEMON)
    remove(unit_files(manager, [DAEMON]))
    assert not wants.exists()


def test_a_mount_goes_without_the_others(manager: Manager, programs: Path, store: Path) -> None:
    install_all(manager, programs, store)
    remove(unit_files(manager, [mount_unit("/mnt/one")]))
    assert installed_units(manager) == [DAEMON, mount_unit("/mnt/two")]
    assert (manager.units / "sdfs-mount@.service").exists()


def test_to_install_twice_writes_nothing_the_second_time(manager: Manager, programs: Path, store: Path) -> None:
    assert len(install_all(manager, programs, store)) == 5
    assert install_all(manager, programs, store) == []


def test_what_has_changed_is_written_again(manager: Manager, programs: Path, store: Path) -> None:
    install_all(manager, programs, store)
    (manager.units / DAEMON).write_text(MARKER + "of an older SDFS")
    assert write(daemon_files(manager, programs)) == [manager.units / DAEMON]


def test_a_unit_of_somebody_else_is_neither_written_over_nor_removed(manager: Manager, programs: Path) -> None:
    manager.units.mkdir(parents=True)
    (manager.units / DAEMON).write_text("[Service]\nExecStart=/usr/bin/theirs\n")
    with pytest.raises(UserError, match="left alone"):
        write(daemon_files(manager, programs))
    assert installed_units(manager) == []


def test_a_helper_of_somebody_else_is_neither_written_over_nor_removed(manager: Manager, programs: Path) -> None:
    manager.helper.parent.mkdir(parents=True)
    manager.helper.write_text("theirs")
    with pytest.raises(UserError, match="left alone"):
        write(helper_files(manager, programs))
    assert installed_helper(manager) == []


def test_a_link_to_a_helper_that_is_gone_is_replaced(manager: Manager, programs: Path) -> None:
    manager.helper.parent.mkdir(parents=True)
    manager.helper.symlink_to("/gone/mount.fuse.sdfs")
    write(helper_files(manager, programs))
    assert manager.helper.readlink() == programs / "mount.fuse.sdfs"


def test_a_mount_of_no_store_is_refused(manager: Manager, programs: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAStore):
        mount_files(manager, programs, tmp_path, "/mnt/one", "")


def test_a_mount_option_that_sdfs_does_not_take_is_refused(manager: Manager, programs: Path, store: Path) -> None:
    with pytest.raises(UserError, match="no_such_option"):
        mount_files(manager, programs, store, "/mnt/one", "no_such_option")


def test_a_store_whose_name_has_a_line_end_is_refused(manager: Manager, programs: Path, tmp_path: Path) -> None:
    init(tmp_path / "two\nlines")
    with pytest.raises(UserError, match="printable"):
        mount_files(manager, programs, tmp_path / "two\nlines", "/mnt/one", "")


def test_a_daemon_without_a_configuration_is_refused(manager: Manager, programs: Path) -> None:
    manager.configuration.unlink()
    with pytest.raises(UserError, match="is not there: write it first"):
        daemon_files(manager, programs)


def test_programs_that_are_not_installed_are_refused(manager: Manager, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no sdfs-daemon"):
        daemon_files(manager, tmp_path)

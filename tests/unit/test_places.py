"""sdfs.system.places: where files of the user's are."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from sdfs.errors import UserError
from sdfs.system.places import config_home, daemon_config, data_home, socket_folder, state_folder

VARIABLES = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "STATE_DIRECTORY")


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("place", "in_home"),
    [(config_home, ".config"), (data_home, ".local/share"), (state_folder, ".local/state/sdfs")],
    ids=["config", "data", "state"],
)
def test_in_the_home_folder_unless_a_variable_says_otherwise(place: Callable[[], Path], in_home: str, tmp_path: Path) -> None:
    assert place() == tmp_path / in_home


@pytest.mark.parametrize("home", ["", None])
def test_without_home_the_users_database_says_where(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As systemd runs what mounts at boot."""
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert data_home() == Path(pwd.getpwuid(os.getuid()).pw_dir, ".local/share")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2_000_000_000)
    with pytest.raises(UserError, match="set HOME, or XDG_CONFIG_HOME"):
        daemon_config()


def test_variables_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES[:3]:
        monkeypatch.setenv(name, f"/places/{name}")
    assert daemon_config() == Path("/places/XDG_CONFIG_HOME/sdfs/config.toml")
    assert data_home() == Path("/places/XDG_DATA_HOME")
    assert state_folder() == Path("/places/XDG_STATE_HOME/sdfs")


def test_the_first_of_systemds_state_folders_is_the_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    assert state_folder() == Path("/var/lib/one")


def test_sockets_are_in_the_folder_for_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert socket_folder() == f"{tmp_path}/sdfs"
    assert (tmp_path / "sdfs").stat().st_mode & 0o777 == 0o700

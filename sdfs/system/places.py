"""Where files belong that are the user's and no store's: the folders of the XDG base directory specification, and systemd's.

They need not exist. All raise UserError where a user has no home.
"""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

from sdfs.errors import UserError
from sdfs.system.files import make_private


def config_home() -> Path:
    """Return `$XDG_CONFIG_HOME`."""
    return _of_user("XDG_CONFIG_HOME", ".config")


def data_home() -> Path:
    """Return `$XDG_DATA_HOME`."""
    return _of_user("XDG_DATA_HOME", ".local/share")


def daemon_config() -> Path:
    """Return the file that says what the daemon watches: `$XDG_CONFIG_HOME/sdfs/config.toml`."""
    return config_home() / "sdfs/config.toml"


def state_folder() -> Path:
    """Return `$STATE_DIRECTORY` (systemd's) or `$XDG_STATE_HOME/sdfs`."""
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    return _of_user("XDG_STATE_HOME", ".local/state") / "sdfs"


def socket_folder() -> str:
    """Make the folder where owners of stores listen, which only their user may enter. Raises OSError, UserError where others may."""
    bases = (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{os.geteuid()}")
    usable = (f"{base}/sdfs" for base in bases if base and os.access(base, os.W_OK | os.X_OK))
    folder = next(usable, f"{tempfile.gettempdir()}/sdfs-{os.geteuid()}")
    make_private(folder, "holds SDFS's sockets")
    return folder


def _of_user(variable: str, in_home: str) -> Path:
    if given := os.environ.get(variable):
        return Path(given)
    try:
        return Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir, in_home)
    except KeyError:
        raise UserError(f"user {os.getuid()} has no home folder: set HOME, or {variable}") from None

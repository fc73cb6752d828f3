"""What mount(8) runs for the type fuse.sdfs, and with it /etc/fstab and systemd's mount units; see EXTERNAL HELPERS in mount(8).

    mount.fuse.sdfs STORE MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]

systemd has it run without HOME and XDG_RUNTIME_DIR, and perhaps without PATH.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sdfs.errors import SdfsError, StoreBusy, UserError
from sdfs.mount.options import MountOptions

# exit statuses of mount(8)
USAGE = 1  # the call is wrong, or not permitted
SYSTEM = 2
FAILED = 32

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OWNER_END_SECONDS = 10.0  # umount(8) does not wait for the process of a mount to end, and mount(8) may come right after it


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of mount(8) that tells how it went. Ends by SystemExit where the call is wrong."""
    parser = _parser()
    call = parser.parse_args(arguments)
    options = _known(call.options) if call.sloppy else call.options
    try:
        MountOptions.parse(options)
    except UserError as error:
        parser.error(str(error))
    os.environ["PATH"] = os.environ.get("PATH") or _PATH
    if os.geteuid() == 0:
        os.environ.setdefault("XDG_RUNTIME_DIR", "/run")  # /run/user/0 goes away with a login
    try:
        if not call.fake:
            _mount(Path(call.store), Path(call.mountpoint), options)
    except (SdfsError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return _status(error)
    if call.verbose:
        print(f"{parser.prog}: {call.store} is mounted at {call.mountpoint}")
    return 0


def _parser() -> _Parser:
    parser = _Parser("mount.fuse.sdfs", description="Mount an SDFS store; for mount(8).")
    parser.add_argument("store")
    parser.add_argument("mountpoint")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="pass over mount options that SDFS does not take")
    parser.add_argument("-f", dest="fake", action="store_true", help="do all but mount")
    parser.add_argument("-n", action="store_true", help="of no meaning here")
    parser.add_argument("-v", dest="verbose", action="store_true", help="tell that it was mounted")
    parser.add_argument("-o", dest="options", default="", help="mount options, separated by commas")
    parser.add_argument("-t", help="of no meaning here")
    return parser


def _known(options: str) -> str:
    return ",".join(option for option in options.split(",") if _is_known(option))


def _is_known(option: str) -> bool:
    try:
        MountOptions.parse(option)
    except UserError:
        return False
    return True


def _mount(store: Path, mountpoint: Path, options: str) -> None:
    from sdfs.mount.mounting import run  # raises MountError where there is no libfuse

    end = time.monotonic() + _OWNER_END_SECONDS
    while True:
        try:
            return run(store, mountpoint, options=options)
        except StoreBusy:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _status(error: SdfsError | OSError) -> int:
    if isinstance(error, OSError):
        return USAGE if isinstance(error, PermissionError) else SYSTEM
    return FAILED

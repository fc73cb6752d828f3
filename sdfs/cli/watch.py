from __future__ import annotations

import os
import sys

import typer

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}  # all of them are the daemon's


def run(context: typer.Context) -> None:
    """Watch folders, and move the pictures that land in them into a store: `sdfs-daemon`."""
    os.execv(sys.executable, [sys.executable, "-P", "-m", "daemon", *context.args])

"""The command line: one module a command. Data goes to stdout, messages to stderr.

Modules here import the rest of SDFS inside functions only, so that `sdfs --help` stays quick; a test enforces it.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `sdfs` with `arguments` (None: those of the process). Ends by SystemExit; an exception of another kind is a bug."""
    from sdfs.cli.app import app

    app(args=arguments, prog_name="sdfs")

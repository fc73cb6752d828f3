from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdfs.cli import exit_codes

if TYPE_CHECKING:
    from sdfs.owner.store.fsck import Decode, Finding


def run(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The store; nobody may have it mounted.")],
    decode: Annotated[bool, typer.Option("--decode", help="Decode every blob, too.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Remove what a killed owner left unfinished.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
) -> None:
    """Check all that is stored. Changes nothing, unless told to repair."""
    from sdfs.cli.naming import store_of
    from sdfs.cli.output import note, print_json, print_line, progress
    from sdfs.owner.store.fsck import check

    with progress() as bars, _decoder(decode) as decoder:
        task = bars.add_task("checking", total=None)
        findings = check(
            store_of(store), repair=repair, decode=decoder, progress=lambda done, total: bars.update(task, completed=done, total=total)
        )
        files = int(bars.tasks[task].total or 0)
    if json:
        print_json(findings)
    else:
        for finding in findings:
            print_line(f"{finding.path}: {finding.kind}: {finding.message}{' (removed)' if finding.repaired else ''}")
    damaged = sum(finding.is_damage for finding in findings)
    note(f"files checked: {files:,}, damaged: {damaged:,}, other findings: {len(findings) - damaged:,}")
    if (code := _status(findings)) != exit_codes.OK:
        raise typer.Exit(code)


@contextlib.contextmanager
def _decoder(wanted: bool) -> Iterator[Decode | None]:
    if not wanted:
        yield None
        return
    from sdfs.engine.client import Engine

    engine = Engine()
    try:
        yield lambda key, blob: engine.decode(key, blob).result()
    finally:
        engine.close()


def _status(findings: list[Finding]) -> int:
    damage = {finding.kind for finding in findings if finding.is_damage}
    if damage:
        return exit_codes.TOO_NEW if damage == {"too-new"} else exit_codes.DAMAGED
    return exit_codes.INCOMPLETE if any(finding.kind == "no-model" for finding in findings) else exit_codes.OK

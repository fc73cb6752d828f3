"""`sdfs watch --status`: from the ledgers, so that it needs no running daemon."""

from __future__ import annotations

import json

import typer

from daemon.ledger import Report, reports
from sdfs.system.escape import escape


def tell(*, as_json: bool) -> None:
    found = reports()
    if as_json:
        typer.echo(json.dumps([_as_dict(report) for report in found]))
        return
    if not found:
        typer.echo("nothing was ever watched", err=True)
    for report in found:
        typer.echo("\n".join(_lines(report)))


def _as_dict(report: Report) -> dict[str, object]:
    shown = ("path", "state", "destination", "reason", "tries", "due")
    problems = [{name: getattr(entry, name) for name in shown} for entry in report.problems]
    return {**report.facts, "watched": report.watched, "files": report.counts, "problems": problems}


def _lines(report: Report) -> list[str]:
    facts = report.facts
    state = "watched" if report.watched else "not watched now"
    if report.watched and facts.get("trouble"):
        state = f"on hold: {facts['trouble']}"
    lines = [f"{facts['folder']}: {state}"]
    lines += [f"  {entry.path}: {entry.reason} (tried {entry.tries} times)" for entry in report.problems]
    return list(map(escape, lines))

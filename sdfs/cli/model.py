from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sdfs.models.folder import Model
    from sdfs.models.pulling import Plan

_Name = Annotated[str, typer.Argument(metavar="NAME", help="A short name, org/name[/subfolder][@revision], or a folder (./…).")]
_Json = Annotated[bool, typer.Option("--json", help="As a JSON array.")]

app = typer.Typer(no_args_is_help=True, help="Get, show and remove autoencoders of the public hub.")


@dataclass(frozen=True)
class _Row:
    """A model, and where it is not on this machine its names only."""

    name: str | None
    id: str
    class_name: str | None = None
    channels: int | None = None
    factor: int | None = None
    weights_bytes: int | None = None


@dataclass(frozen=True)
class _Details:
    name: str | None
    folder: str
    class_name: str
    channels: int
    factor: int
    weights_bytes: int
    memory_bytes: int
    weights_sha256: str
    autoencoder: str
    weights: str
    calibrated: bool
    compatible: list[str]


@app.command("list")
def list_(json: _Json = False) -> None:
    """List the models that are on this machine, and the names of others."""
    from sdfs.cli.output import print_json
    from sdfs.models.names import KNOWN
    from sdfs.models.registry import installed

    models = installed()
    here = {model.name for model in models}
    rows = [_Row(m.name, m.id, m.class_name, m.channels, m.factor, m.weights_bytes) for m in models]
    rows += [_Row(known.name, known.path) for known in KNOWN if known.name not in here]
    if json:
        print_json(rows)
    else:
        _print(rows)


def _print(rows: list[_Row]) -> None:
    from sdfs.cli.output import number, print_table

    lines = [("name", "class", "channels", "factor", "bytes", "id")]
    for row in rows:
        figures = (number(value) if value is not None else "-" for value in (row.channels, row.factor, row.weights_bytes))
        lines.append((row.name or "-", row.class_name or "-", *figures, row.id))  # type: ignore[arg-type]
    print_table(lines, "<<>>>")


@app.command("pull")
def pull(name: _Name) -> None:
    """Get a model from the hub, or what is missing of it, and print its id.

    How much that is is told before, and an interrupted download goes on where it ended. A local folder is only checked.
    """
    from sdfs.cli.output import print_line
    from sdfs.models import pulling

    print_line(pulling.pull(name, _announce).id)


def _announce(plan: Plan) -> None:
    disk, missing = (f"{size / 1e6:,.1f} MB" for size in (plan.weights_bytes, plan.missing_bytes))
    print(f"sdfs: {plan.id}: {plan.class_name}, {plan.channels} channels at 1/{plan.factor}", file=sys.stderr)
    print(f"sdfs: {missing} to download, {disk} on the disk, about {disk} of memory, and more while it works", file=sys.stderr)


@app.command("info")
def info(name: _Name, json: _Json = False) -> None:
    """Tell what a model on this machine is, and what a blob of it records."""
    from sdfs.cli.output import print_fields, print_json
    from sdfs.models.registry import resolve

    model = resolve(name)
    details = _details(model)
    if json:
        print_json([details])
    else:
        print_fields(model.id, {**vars(details), "compatible": ", ".join(details.compatible) or None})


def _details(model: Model) -> _Details:
    from sdfs.models.names import KNOWN, compatible
    from sdfs.models.registry import calibration

    return _Details(
        name=model.name,
        folder=str(model.folder),
        class_name=model.class_name,
        channels=model.channels,
        factor=model.factor,
        weights_bytes=model.weights_bytes,
        memory_bytes=4 * model.parameters,
        weights_sha256=model.weights_sha256,
        autoencoder=model.id,
        weights=model.weights_sha256[:16],
        calibrated=calibration(model) is not None,
        compatible=[known.name for known in KNOWN if known.name != model.name and compatible(known.path, model.id)],
    )


@app.command("calibrate")
def calibrate(
    name: _Name,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos of the kind that will be stored; up to 16 are used.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Measure on photos how coarsely each latent channel may be quantised; pictures shrunk from then on are smaller.

    Those that are stored already do not need it.
    """
    from sdfs.cli.output import print_line, progress
    from sdfs.errors import ModelError
    from sdfs.models import registry

    model = registry.resolve(name)
    with progress(quiet=quiet) as bars:
        task = bars.add_task("calibrating", total=None)
        result: dict[str, Any] = {}
        for result in _measured(name, folder):
            bars.update(task, completed=result.get("photos", 0))
    if "steps" not in result:
        raise ModelError(f"{name} could not be calibrated: {result.get('error', 'the process that measures died')}")
    registry.save_calibration(model, result)
    print_line(" ".join(f"{step:.3f}" for step in result["steps"]))


def _measured(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """What a process says that may import torch."""
    import json
    import subprocess

    command = [sys.executable, "-P", "-m", "sdfs.codec.calibration", name, str(folder.absolute())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield from map(json.loads, process.stdout)


@app.command("remove")
def remove(name: _Name) -> None:
    """Delete a model that was pulled, and print the bytes freed. A local folder is only forgotten.

    Pictures that were shrunk with it cannot be read until it is back.
    """
    from sdfs.cli.output import number, print_line
    from sdfs.models import registry

    print_line(number(registry.remove(registry.resolve(name))))

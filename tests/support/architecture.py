"""What docs/ARCHITECTURE.md and docs/DEPENDENCIES.md say of imports, read from their tables; and what is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

OPEN_TO_ALL = ("sdfs", "sdfs.errors")


@dataclass(frozen=True)
class Room:
    modules: tuple[str, ...]  # modules, or packages with all that is no other room
    processes: str  # E engine, O owner, B both, C commands and other programs
    may_import: str  # as it is written

    @property
    def name(self) -> str:
        return self.modules[0]


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    below = (ROOT / "docs" / page).read_text().partition(f"## {heading}\n")[2]
    lines = below.partition("\n|")[2].partition("\n\n")[0].split("\n")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def rooms() -> list[Room]:
    """The rooms of the library and the daemon."""
    found = []
    for row in table("ARCHITECTURE.md", "Rooms"):
        modules = tuple(module_named(path) for path in re.findall(r"`([\w/.]+)`", row[0]))
        if modules[0].split(".")[0] in ("sdfs", "daemon"):
            found.append(Room(modules, row[1], row[-1]))
    return found


def module_named(path: str) -> str:
    return path.removesuffix(".py").strip("/").replace("/", ".")


def room_of(module: str, rooms: list[Room]) -> Room | None:
    """The one with the longest name that fits."""
    fitting = [(len(name), room) for room in rooms for name in room.modules if module == name or module.startswith(name + ".")]
    return max(fitting, key=lambda fit: fit[0])[1] if fitting else None


def allowed(room: Room, rooms: list[Room]) -> set[str]:
    """The names of the rooms that `room` may import, itself included, and of modules of other rooms.

    `a, b.{c, d}`: these; `a.*`: a and all rooms in it; `everything but a, b`; what is in brackets is for people. All within `sdfs`.
    """
    written = re.sub(r"\([^)]*\)|[`–]", "", room.may_import)
    listed = written.removeprefix("everything but ")
    plain = re.sub(r"([\w.]+)\.\{([^}]*)\}", lambda found: ", ".join(f"{found[1]}.{name.strip()}" for name in found[2].split(",")), listed)
    named = set()
    for word in filter(None, (word.strip() for word in plain.split(","))):
        name = f"sdfs.{word.removesuffix('.*')}" if word != "daemon" else word
        fitting = {other.name for other in rooms if name in other.modules}
        if word.endswith(".*"):
            fitting |= {other.name for other in rooms if other.name.startswith(name + ".")}
        assert fitting or is_module(name), f"docs/ARCHITECTURE.md lets {room.name} import {word}, which is no room, and no module"
        named |= fitting or {name}
    return {other.name for other in rooms} - named if listed != written else named | {room.name}


def files() -> list[Path]:
    return [path for package in ("sdfs", "daemon") for path in sorted((ROOT / package).rglob("*.py")) if path.read_text().strip()]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def imports_of(node: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere under `node`."""
    for statement in ast.walk(node):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, "imports are absolute"
            assert statement.module is not None
            names = [f"{statement.module}.{alias.name}" for alias in statement.names]
            yield from (name if is_module(name) else statement.module for name in names)


def ours(module: str) -> bool:
    return module.split(".")[0] in ("sdfs", "daemon")

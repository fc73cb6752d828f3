"""Who may import whom: the table of docs/ARCHITECTURE.md, enforced; and which packages, that of docs/DEPENDENCIES.md."""

from __future__ import annotations

import ast
import graphlib
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.architecture import (
    OPEN_TO_ALL,
    allowed,
    files,
    imports_of,
    is_module,
    module_named,
    module_of,
    ours,
    room_of,
    rooms,
    table,
)

ROOMS = rooms()
IMPORTED = {module_of(path): set(imports_of(ast.parse(path.read_text()))) for path in files()}
HEAVY = ("torch", "diffusers", "constriction", "PIL", "imagecodecs", "safetensors", "lz4", "numpy")
MODULE_NAMES = {"pillow": "PIL"}  # of packages whose module is called otherwise


@pytest.mark.parametrize("module", IMPORTED)
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    room = room_of(module, ROOMS)
    imported = {name for name in IMPORTED[module] if ours(name) and name not in OPEN_TO_ALL}
    assert room is not None or not imported, f"{module} belongs to no room of docs/ARCHITECTURE.md"
    may = allowed(room, ROOMS) if room is not None else set()
    assert {name for name in imported - may if (other := room_of(name, ROOMS)) is None or other.name not in may} == set()


def test_rooms_import_each_other_in_one_direction() -> None:
    arrows: dict[str, set[str]] = {}
    for module, imported in IMPORTED.items():
        if (room := room_of(module, ROOMS)) is not None:
            others = {other.name for name in imported if ours(name) and (other := room_of(name, ROOMS)) is not None}
            arrows.setdefault(room.name, set()).update(others - {room.name})
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError


def test_every_room_of_the_architecture_is_there() -> None:
    assert [name for room in ROOMS for name in room.modules if not is_module(name)] == []


def may_import(cell: str) -> set[str]:
    """The rooms and modules that the last column of docs/DEPENDENCIES.md names."""
    engine = {name for room in ROOMS for name in room.modules if room.processes == "E"} if "engine process" in cell else set()
    return engine | {module_named(path) for path in re.findall(r"`([\w/.]+)`", cell)}


PACKAGES = {
    MODULE_NAMES.get(package, package.lower().replace("-", "_")): may_import(row[-1])
    for row in table("DEPENDENCIES.md", "To run")
    for package in re.findall(r"`([\w-]+)`", row[0])
}


@pytest.mark.parametrize("module", IMPORTED)
def test_a_package_is_imported_only_where_dependencies_say(module: str) -> None:
    packages = {name.split(".")[0] for name in IMPORTED[module] if not ours(name)} - sys.stdlib_module_names - {"_typeshed"}
    places = {package: PACKAGES.get(package, set()) for package in packages}
    assert [name for name, allowed in places.items() if not any(module == one or module.startswith(one + ".") for one in allowed)] == []


def test_every_package_of_the_dependencies_is_imported() -> None:
    imported = {name.split(".")[0] for names in IMPORTED.values() for name in names}
    assert PACKAGES.keys() - imported == set()


@pytest.mark.parametrize("path", [path for path in files() if module_of(path).startswith("sdfs.cli")], ids=module_of)
def test_a_command_imports_the_filesystem_inside_functions_only(path: Path) -> None:
    top_level = ast.Module([node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    light = ("sdfs.cli", "sdfs.errors", "sdfs.settings")
    assert [name for name in imports_of(top_level) if ours(name) and not name.startswith(light) and name != "sdfs"] == []


def test_the_owner_process_loads_nothing_heavy() -> None:
    """What its modules import at once; Prometheus's library waits until it is asked for."""
    light = [name for name in IMPORTED if (room := room_of(name, ROOMS)) and room.processes != "E" and not name.endswith("__main__")]
    modules = ", ".join(name for name in light if "prometheus_client" not in IMPORTED[name])
    script = f"import json, sys, {modules}; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=ROOT).stdout)
    assert {name.split(".")[0] for name in loaded} & {*HEAVY, "prometheus_client"} == set()


def test_help_takes_hardly_longer_than_the_library_that_prints_it() -> None:
    """Processor time; in turns, because machines are of different speed, and busy."""

    def seconds(script: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)

    bare = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
    took = [(seconds("from sdfs.cli import main; main(['--help'])"), seconds(bare)) for _ in range(5)]
    of_ours, of_typer = map(min, zip(*took, strict=True))
    assert of_ours < 2 * of_typer

"""Who may import whom: the table of docs/ARCHITECTURE.md, enforced."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A room and the rooms it may import; `errors` is open to all. The longest name that fits a module is its room.
ENGINE_ROOMS: dict[str, set[str]] = {
    "sdfs.entropy": set(),
    "sdfs.autoencoders": set(),
    "sdfs.priors": {"sdfs.autoencoders", "sdfs.entropy"},
    "sdfs.slices": set(),
    "sdfs.latent_coding": {"sdfs.entropy", "sdfs.autoencoders", "sdfs.priors", "sdfs.slices"},
    "sdfs.formats": {"sdfs.signatures", "sdfs.container", "sdfs.picture"},
    "sdfs.picture": {"sdfs.signatures", "sdfs.container", "sdfs.formats"},
    "sdfs.quality": set(),
    "sdfs.trade_off": {"sdfs.autoencoders", "sdfs.latent_coding", "sdfs.quality"},
    "sdfs.generic_coding": {"sdfs.entropy", "sdfs.priors", "sdfs.slices"},
    "sdfs.resident": {
        "sdfs.autoencoders",
        "sdfs.latent_coding",
        "sdfs.generic_coding",
        "sdfs.models",
        "sdfs.quality",
        "sdfs.settings",
        "sdfs.trade_off",
    },
    "sdfs.calibration": {"sdfs.autoencoders", "sdfs.picture", "sdfs.signatures", "sdfs.models"},
    "sdfs.metadata": {"sdfs.deflate"},
    "sdfs.codec": {
        "sdfs.signatures",
        "sdfs.container",
        "sdfs.metadata",
        "sdfs.picture",
        "sdfs.quality",
        "sdfs.resident",
        "sdfs.room",
        "sdfs.settings",
    },
    "sdfs.room": set(),
    "sdfs.engine.service": {"sdfs.engine.protocol", "sdfs.codec", "sdfs.settings"},
}
OWNER_ROOMS: dict[str, set[str]] = {
    "sdfs.errors": set(),
    "sdfs.signatures": set(),
    "sdfs.deflate": set(),
    "sdfs.container": {"sdfs.deflate"},
    "sdfs.engine.protocol": set(),
    "sdfs.settings": set(),
    "sdfs.engine.child": set(),
    "sdfs.engine.requests": {"sdfs.engine.protocol"},
    "sdfs.engine.client": {"sdfs.engine.protocol", "sdfs.engine.child", "sdfs.engine.requests", "sdfs.settings"},
    "sdfs.files": set(),
    "sdfs.file_id": set(),
    "sdfs.blob_file": {"sdfs.container", "sdfs.files"},
    "sdfs.filesystems": set(),
    "sdfs.no_follow": set(),
    "sdfs.private_folder": {"sdfs.no_follow"},
    "sdfs.trash": {"sdfs.files", "sdfs.private_folder"},
    "sdfs.store": {
        "sdfs.file_id",
        "sdfs.files",
        "sdfs.filesystems",
        "sdfs.no_follow",
        "sdfs.private_folder",
        "sdfs.trash",
        "sdfs.settings",
    },
    "sdfs.fsck": {"sdfs.blob_file", "sdfs.store", "sdfs.trash", "sdfs.files", "sdfs.private_folder", "sdfs.container"},
    "sdfs.cache": {"sdfs.files"},
    "sdfs.tree": {
        "sdfs.blob_file",
        "sdfs.file_id",
        "sdfs.store",
        "sdfs.settings",
        "sdfs.trash",
        "sdfs.files",
        "sdfs.no_follow",
        "sdfs.cache",
        "sdfs.engine.client",
        "sdfs.container",
        "sdfs.signatures",
    },
    "sdfs.control": {"sdfs.file_id", "sdfs.files", "sdfs.no_follow", "sdfs.tree"},
    "sdfs.serving": {"sdfs.control", "sdfs.tree"},
    "sdfs.access": {
        "sdfs.serving",
        "sdfs.tree",
        "sdfs.control",
        "sdfs.store",
        "sdfs.files",
        "sdfs.filesystems",
        "sdfs.no_follow",
        "sdfs.blob_file",
    },
    "sdfs.printable": set(),
    "sdfs.notify": set(),
    "sdfs.models": set(),
    "sdfs.mount_options": {"sdfs.cache", "sdfs.settings"},
    "sdfs.fuse": set(),
    "sdfs.fuse_operations": {"sdfs.file_id", "sdfs.fuse", "sdfs.tree"},
    "sdfs.metrics": {"sdfs.tree"},
    "sdfs.background": {"sdfs.printable"},
    "sdfs.mount": {
        "sdfs.notify",
        "sdfs.mount_options",
        "sdfs.fuse",
        "sdfs.fuse_operations",
        "sdfs.background",
        "sdfs.tree",
        "sdfs.serving",
        "sdfs.access",
        "sdfs.cache",
        "sdfs.metrics",
        "sdfs.store",
    },
    "sdfs.service_units": {"sdfs.mount_options", "sdfs.store"},
    "sdfs.mount_helper": {"sdfs.mount", "sdfs.mount_options"},
    "sdfs.cli": {
        "sdfs.service_units",
        "sdfs.models",
        "sdfs.settings",
        "sdfs.printable",
        "sdfs.access",
        "sdfs.mount",
        "sdfs.store",
        "sdfs.fsck",
        "sdfs.files",
        "sdfs.no_follow",
        "sdfs.engine.client",
    },
    "daemon": {"sdfs.access", "sdfs.file_id", "sdfs.notify", "sdfs.signatures", "sdfs.printable", "sdfs.files", "sdfs.store", "sdfs.cli"},
}
ROOMS = ENGINE_ROOMS | OWNER_ROOMS

# Foreign packages that only some rooms may import.
HEAVY = ("torch", "diffusers", "constriction", "PIL", "imagecodecs", "safetensors")
CONFINED: dict[str, set[str]] = {
    **{package: set(ENGINE_ROOMS) for package in HEAVY},
    "mfusepy": {"sdfs.fuse"},
    "prometheus_client": {"sdfs.metrics"},
    "huggingface_hub": {"sdfs.models"},
    **{package: {"daemon"} for package in ("watchdog", "send2trash", "exifread")},
}


def files() -> list[Path]:
    return [path for package in ("sdfs", "daemon") for path in sorted((ROOT / package).rglob("*.py")) if path.read_text().strip()]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str | None:
    fitting = [room for room in ROOMS if module == room or module.startswith(room + ".")]
    return max(fitting, key=len, default=None)


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


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    module = module_of(path)
    room = room_of(module)
    if room is None:
        assert module in ("sdfs", "sdfs.engine"), f"{module} belongs to no room of docs/ARCHITECTURE.md"
        return
    allowed = ROOMS[room] | {room, "sdfs.errors"}
    imported = {name for name in imports_of(ast.parse(path.read_text())) if ours(name) and name != "sdfs"}
    assert {name for name in imported if room_of(name) not in allowed} == set()


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_a_confined_package_is_imported_only_in_its_rooms(path: Path) -> None:
    packages = {name.split(".")[0] for name in imports_of(ast.parse(path.read_text()))}
    assert {package for package in packages & CONFINED.keys() if room_of(module_of(path)) not in CONFINED[package]} == set()


@pytest.mark.parametrize("path", [path for path in files() if module_of(path).startswith("sdfs.cli")], ids=module_of)
def test_a_command_imports_the_filesystem_inside_functions_only(path: Path) -> None:
    top_level = ast.Module([node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    light = ("sdfs.cli", "sdfs.errors", "sdfs.settings")
    assert {name for name in imports_of(top_level) if ours(name) and room_of(name) not in light} == set()


def test_every_room_of_the_architecture_exists() -> None:
    assert [room for room in ROOMS if not is_module(room)] == []


@pytest.mark.parametrize(
    "module", ["sdfs.mount", "sdfs.tree", "sdfs.control", "sdfs.access", "sdfs.engine.client", "sdfs.models", "sdfs.cli", "daemon"]
)
def test_the_owner_process_loads_nothing_heavy(module: str) -> None:
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=ROOT).stdout)
    assert {name.split(".")[0] for name in loaded} & {*HEAVY, "prometheus_client"} == set()


def test_help_takes_hardly_longer_than_the_library_that_prints_it() -> None:
    """Processor time; in turns, for machines are of different speed, and busy."""

    def seconds(script: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)

    bare = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
    took = [(seconds("from sdfs.cli import main; main(['--help'])"), seconds(bare)) for _ in range(5)]
    of_ours, of_typer = map(min, zip(*took, strict=True))
    assert of_ours < 2 * of_typer

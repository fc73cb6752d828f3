"""What a user can type or meet is documented."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sdfs.cli import exit_codes
from sdfs.cli.app import app
from tests.support import ROOT
from tests.support.commands import PAGE, section


def commands_of(group: Any, before: str = "") -> dict[str, Any]:
    """All commands by what a user types after `sdfs`, those within groups too."""
    found = {}
    for name, command in group.commands.items():
        found[before + name] = command
        if hasattr(command, "commands"):
            found |= commands_of(command, f"{before}{name} ")
    return found


COMMANDS = commands_of(get_command(app))
CODES = {name: code for name, code in vars(exit_codes).items() if name.isupper() and isinstance(code, int)}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_in_its_section(command: str) -> None:
    assert re.search(rf"^    sdfs {command}\b", section(command), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_in_its_section(command: str) -> None:
    options = [
        parameter.opts for parameter in COMMANDS[command].params if parameter.param_type_name == "option" and parameter.name != "help"
    ]
    assert [names for names in options if not any(re.search(rf"(?<![\w-]){name}\b", section(command)) for name in names)] == []


def test_every_section_is_a_command_and_every_line_of_use_one() -> None:
    assert set(re.findall(r"^## sdfs (\w+)", PAGE, re.MULTILINE)) == {command.split()[0] for command in COMMANDS}
    groups = {command.split()[0] for command in COMMANDS if " " in command}
    used = {f"{group} {name}" for group, name in re.findall(r"^    sdfs (\w+) ([a-z][\w-]*)", PAGE, re.MULTILINE) if group in groups}
    assert used <= set(COMMANDS)


def test_every_exit_status_is_in_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert sorted(map(int, rows)) == sorted(CODES.values())


def test_no_exit_status_means_two_things() -> None:
    assert len(set(CODES.values())) == len(CODES)


def test_every_exit_status_has_a_comment() -> None:
    source = Path(exit_codes.__file__).read_text()
    assert [name for name in CODES if not re.search(rf"^{name} = \d+  # \w", source, re.MULTILINE)] == []


def test_the_readme_mentions_no_command_that_is_not_there() -> None:
    used = set(re.findall(r"^    sdfs (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert used <= set(COMMANDS)


def test_every_dependency_is_justified() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(entry for extra in project["optional-dependencies"].values() for entry in extra)]
    names = {re.split(r"[<>=!~\[; ]", entry)[0] for entry in wanted}
    justified = set(re.findall(r"`([A-Za-z0-9-]+)`", (ROOT / "docs" / "DEPENDENCIES.md").read_text()))
    assert names <= justified

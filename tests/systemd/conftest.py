from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import Machine, make_programs


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs that are installed."""
    return make_programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine"), programs) as machine:
        yield machine

"""sdfs.system.backoff: how long what failed has to wait, of all who use it."""

from __future__ import annotations

import pytest

from daemon.ledger import RETRY as FILES_OF_THE_DAEMON
from sdfs.engine.client import BACKOFF as ENGINE
from sdfs.owner.index.pending import RETRY as PENDING
from sdfs.system.backoff import Backoff


@pytest.mark.parametrize(
    ("backoff", "seconds"),
    [
        (ENGINE, [0.1, 0.2, 0.4, 25.6, 30.0, 30.0]),
        (PENDING, [1, 2, 4, 256, 512, 600]),
        (FILES_OF_THE_DAEMON, [60, 120, 240, 15360, 6 * 3600, 6 * 3600]),
    ],
    ids=["engine", "pending", "daemon"],
)
def test_a_wait_doubles_up_to_the_last(backoff: Backoff, seconds: list[float]) -> None:
    assert [backoff.seconds(failures) for failures in (1, 2, 3, 9, 10, 5000)] == seconds

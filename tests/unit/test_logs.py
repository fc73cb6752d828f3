"""sdfs.system.logs: what a process that serves says, to a terminal, a file or systemd's journal."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

SCRIPT = """
import logging, os
from sdfs.system.logs import log_to_stderr

status = os.fstat(2)
os.environ["JOURNAL_STREAM"] = {journal!r}.format(status)
log_to_stderr("sdfs.one", "sdfs.two")
logging.getLogger("sdfs.one.module").warning("%s is odd", "a\\n\\x1b[2Jb")
logging.getLogger("sdfs.two").info("well")
logging.getLogger("sdfs.two").debug("nobody wants to know")
{further}
"""
JOURNAL = "{0.st_dev}:{0.st_ino}"


def said(further: str = "", *, journal: str) -> list[str]:
    """The lines of a process whose standard error is the journal that `JOURNAL_STREAM` names, or is not."""
    script = SCRIPT.format(journal=journal, further=further)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stderr.splitlines()


@pytest.mark.parametrize("journal", ["", "1:1"], ids=["no journal", "a journal that is elsewhere"])
def test_lines_have_the_time_and_no_commands_for_a_terminal(journal: str) -> None:
    warning, info = said(journal=journal)
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert re.fullmatch(time + re.escape(r" sdfs.one.module WARNING: a\n\x1b[2Jb is odd"), warning)
    assert re.fullmatch(f"{time} sdfs.two INFO: well", info)


def test_the_journal_gets_priorities() -> None:
    assert said(journal=JOURNAL) == [r"<4>a\n\x1b[2Jb is odd", "<6>well"]


def test_every_line_of_a_traceback_has_one() -> None:
    further = "try: 1 / 0\nexcept ZeroDivisionError: logging.getLogger('sdfs.two').exception('a bug')"
    lines = said(further, journal=JOURNAL)[2:]
    assert lines[0] == "<3>a bug"
    assert lines[-1] == "<3>ZeroDivisionError: division by zero"
    assert all(line.startswith("<3>") for line in lines)


def test_a_log_that_is_set_up_again_is_written_once_and_goes_where_standard_error_is() -> None:
    """As a mount that goes to the background does."""
    further = "os.dup2(1, 2)\nos.environ['JOURNAL_STREAM'] = 'gone'\nlog_to_stderr('sdfs.two')\nlogging.getLogger('sdfs.two').info('again')"
    script = SCRIPT.format(journal=JOURNAL, further=further)
    out = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    assert re.fullmatch(r"\S+ \S+ sdfs.two INFO: again\n", out)

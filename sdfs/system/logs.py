"""The log of a process that serves: to its standard error, whatever that is by then."""

from __future__ import annotations

import logging
import os

from sdfs.system.escape import escape

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}  # syslog's


def log_to_stderr(*packages: str) -> None:
    """Have the modules of these packages log to standard error from now on, in the form that suits it; what was set up before ends.

    To be called again when standard error has become another file.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Journal("%(message)s") if _is_journal() else _Escaped("%(asctime)s %(name)s %(levelname)s: %(message)s"))
    for package in packages:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


class _Escaped(logging.Formatter):
    """Names in a message may have line ends, and characters that a terminal takes for commands."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return escape(super().formatMessage(record))


class _Journal(_Escaped):
    """Every line has the priority that systemd-journald strips (sd-daemon(3)); it has the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        priority = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return priority + super().format(record).replace("\n", f"\n{priority}")


def _is_journal() -> bool:
    """Tell whether standard error is what systemd says in `$JOURNAL_STREAM`, which children inherit; see systemd.exec(5)."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"

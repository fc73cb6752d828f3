"""Samples of many rounds, and their medians as tables and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from rich.table import Table

Medians = dict[str, dict[str, float]]  # by row and column


class Figures:
    """One table: what was measured in its rows, of what in its columns, which come in the order in which they were first added."""

    def __init__(self, title: str, ratio: tuple[str, str] | None = None) -> None:
        """`ratio`: two columns, of which a last one tells the quotient of the medians."""
        self.title = title
        self._ratio = ratio
        self._samples: dict[str, dict[str, list[float]]] = {}

    def add(self, row: str, column: str, value: float) -> None:
        self._samples.setdefault(row, {}).setdefault(column, []).append(value)

    @contextmanager
    def timing(self, row: str, column: str, unit: float = 1.0) -> Iterator[None]:
        """Adds the time that the block takes, in units of so many seconds."""
        begun = perf_counter()
        yield
        self.add(row, column, (perf_counter() - begun) / unit)

    def medians(self) -> Medians:
        return {row: {column: statistics.median(values) for column, values in columns.items()} for row, columns in self._samples.items()}

    def as_dict(self) -> dict[str, Any]:
        return {"title": self.title, "medians": self.medians(), "samples": self._samples}

    def table(self) -> Table:
        medians = self.medians()
        columns = list(dict.fromkeys(column for row in medians.values() for column in row))
        table = Table(title=self.title, title_justify="left")
        table.add_column("", no_wrap=True)
        for name in [*columns, *([" / ".join(self._ratio)] if self._ratio else [])]:
            table.add_column(name, justify="right")
        for name, row in medians.items():
            cells = [number(row[column]) if column in row else "" for column in columns]
            table.add_row(name, *cells, *([self._quotient(row)] if self._ratio else []))
        return table

    def _quotient(self, row: dict[str, float]) -> str:
        assert self._ratio is not None
        one, other = self._ratio
        return f"{row[one] / row[other]:.2f}" if one in row and other in row else ""


def number(value: float) -> str:
    """Three digits, or the whole number if it has more."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

"""The figures of `bench.filesystem`."""

from __future__ import annotations

import io

from rich.console import Console

from bench.filesystem.figures import Figures, number


def shown(figures: Figures) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(figures.table())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_of_many_rounds_the_median_counts() -> None:
    figures = Figures("files")
    for value in (1.0, 100.0, 2.0):
        figures.add("write", "SDFS", value)
    assert figures.medians() == {"write": {"SDFS": 2.0}}


def test_the_samples_of_all_rounds_are_kept() -> None:
    figures = Figures("files")
    for value in (1.0, 100.0):
        figures.add("write", "SDFS", value)
    assert figures.as_dict()["samples"] == {"write": {"SDFS": [1.0, 100.0]}}


def test_a_ratio_is_of_medians() -> None:
    figures = Figures("files", ratio=("SDFS", "native"))
    for ours, native in ((9.0, 1.0), (6.0, 8.0), (1.0, 3.0)):
        figures.add("write", "SDFS", ours)
        figures.add("write", "native", native)
    assert "2.00" in shown(figures)


def test_a_row_need_not_have_all_columns() -> None:
    figures = Figures("memory", ratio=("SDFS", "native"))
    figures.add("idle", "SDFS", 27.0)
    figures.add("idle", "native", 9.0)
    figures.add("engine running", "SDFS", 31.0)
    assert [line.count("3.00") for line in shown(figures).splitlines() if "running" in line or "idle" in line] == [1, 0]


def test_numbers_have_three_digits_or_all_of_a_whole_number() -> None:
    assert [number(value) for value in (0.12345, 12.345, 123.45, 12345.6)] == ["0.123", "12.3", "123", "12,346"]

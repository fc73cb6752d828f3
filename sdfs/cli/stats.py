from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from sdfs.control.answers import Statistics


def run(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The store, or a mount of it.")],
    watch: Annotated[bool, typer.Option("--watch", help="Every second, on a terminal, until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
) -> None:
    """Tell what a store holds, and what its mount does: reads, decodes, caches, memory."""
    import sys

    from sdfs.cli.naming import store_of
    from sdfs.cli.output import print_fields, print_json
    from sdfs.owner.access import open_access

    if watch and (json or not sys.stdout.isatty()):
        raise typer.BadParameter("--watch is for a terminal: programs ask for --json as often as they like")
    root = store_of(store)
    if watch:
        _watch(root)
        return
    with open_access(root) as access:
        statistics = access.statistics()
    if json:
        print_json([statistics])
    else:
        print_fields(statistics.store, _fields(statistics))


def _watch(store: Path) -> None:
    """Until Ctrl-C; through whoever owns the store. While nobody does, this process owns it, and lets go of it for a mount."""
    import threading
    import time

    from rich.live import Live

    from sdfs.errors import StoreBusy
    from sdfs.owner.access import open_access

    with Live(auto_refresh=False) as live:
        while True:
            leave = threading.Event()
            try:
                with open_access(store, on_hand_over=leave.set) as access:
                    while not leave.is_set():
                        live.update(_view(access.statistics()), refresh=True)
                        leave.wait(1)
            except (ConnectionError, FileNotFoundError, StoreBusy):
                live.update("the store changes hands …", refresh=True)
            time.sleep(1)  # the next owner's turn


def _view(statistics: Statistics) -> Table:
    from rich.table import Table
    from rich.text import Text

    from sdfs.system.escape import escape

    table = Table(title=Text(escape(statistics.store)), title_justify="left", show_header=False, box=None)
    for name, value in _fields(statistics).items():
        if value is not None:
            table.add_row(name, Text(escape(value)))
    return table


def _fields(statistics: Statistics) -> dict[str, str | None]:
    it = statistics
    states = ("latent", "exact", "pending", "plain", "damaged")
    age = f" ({it.counted_seconds_ago:.0f} s ago)" if it.counted_seconds_ago >= 1 else ""
    rate = it.decode_megapixels_per_second
    engine = _memory(it.engine_resident_bytes)
    return {
        "mounted at": it.mountpoint,
        "files": ", ".join(f"{getattr(it, state):,} {state}" for state in states) + age,
        "size": _bytes(it.logical_bytes),
        "stored": _bytes(it.stored_bytes) + (f" ({100 * it.stored_bytes / it.logical_bytes:.1f} %)" if it.logical_bytes else ""),
        "pending now": f"{it.queued:,}",
        "decoded": f"{it.decoded:,} pictures, {it.decoded_ahead:,} ahead of readers" + (f", {rate:.1f} MP/s" if rate is not None else ""),
        "reads that decode": _reads(it.decoded_reads, it.decoded_p50_seconds, it.decoded_p99_seconds),
        "reads that do not": _reads(it.cached_reads, it.cached_p50_seconds, it.cached_p99_seconds),
        "cache in memory": _cache(it.memory_hits, it.memory_misses, it.memory_bytes),
        "cache on disk": _cache(it.disk_hits, it.disk_misses, it.disk_bytes),
        "engine": it.engine_state + (f", {engine}" if engine else ""),
        "device": _device(it),
        "memory": _memory(it.resident_bytes),
    }


def _device(it: Statistics) -> str | None:
    held = "" if it.engine_device_bytes is None else f", {_bytes(it.engine_device_bytes)} held"
    return None if it.engine_device is None else f"{it.engine_device}, {it.engine_dtype}{held}"


def _reads(count: int, p50: float | None, p99: float | None) -> str:
    return f"{count:,}" + (f", p50 {1000 * p50:.3g} ms, p99 {1000 * p99:.3g} ms" if p50 is not None and p99 is not None else "")


def _cache(hits: int | None, misses: int | None, size: int | None) -> str | None:
    return None if size is None else f"{hits:,} hits, {misses:,} misses, {_bytes(size)}"


def _bytes(size: int) -> str:
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if size >= unit), (1e3, "kB"))
    return f"{size / unit:,.1f} {name}"


def _memory(size: int | None) -> str | None:
    return None if size is None else f"{_bytes(size)} resident"

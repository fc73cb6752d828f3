from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sdfs.control.answers import FileStatus, StoreStatus


_SCORES = {"score": "", "worst_score": " in the worst square", "letters_score": " where there are letters"}


def run(
    paths: Annotated[list[Path], typer.Argument(metavar="PATHS...", help="Files of a store, or a store.")],
    json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
) -> None:
    """Tell what files are kept as, what they take, and what was lost.

    Of a store: how many there are of each kind, and the sums.
    """
    from sdfs.cli.naming import each_place
    from sdfs.cli.output import print_json

    statuses = [access.stat(place.path) if place.path != "/" else access.status() for access, place in each_place(paths)]
    if json:
        print_json(statuses)
        return
    for status in statuses:
        _print(status)


def _print(status: FileStatus | StoreStatus) -> None:
    from sdfs.cli.output import print_fields
    from sdfs.control.answers import StoreStatus

    if isinstance(status, StoreStatus):
        print_fields(status.store, _fields_of_store(status))
    else:
        print_fields(status.path, _fields_of_file(status))


def _fields_of_file(status: FileStatus) -> dict[str, object]:
    return {
        "state": status.state,
        "size": _bytes(status.logical_bytes),
        "stored": _share(status.stored_bytes, status.logical_bytes),
        "picture": f"{status.format}, {status.width} × {status.height}" if status.width else None,
        "picture alone": _picture_alone(status),
        "promised": f"a score of {status.asked}" if status.asked is not None else None,
        "score": _score(status.scores) if status.scores else None,
        "worst place": _worst_place(status.scores) if status.scores and "worst_x" in status.scores else None,
        "coded by": f"{status.autoencoder} at quality {status.quality}" if status.autoencoder else None,
        "reason": status.reason,
    }


def _picture_alone(status: FileStatus) -> str | None:
    """What the picture takes where the file has more behind it."""
    if not status.behind_bytes or status.behind_stored_bytes is None:
        return None
    size, stored = status.logical_bytes - status.behind_bytes, status.stored_bytes - status.behind_stored_bytes
    behind = f"{_share(status.behind_stored_bytes, status.behind_bytes)} of {_bytes(status.behind_bytes)}"
    return f"{_share(stored, size)} of {_bytes(size)}; what lies behind it takes {behind}"


def _score(scores: dict[str, float]) -> str:
    seen = [f"{scores[name]:.1f}{where}" for name, where in _SCORES.items() if name in scores]
    return ", ".join([*seen, f"PSNR {scores['psnr']:.1f} dB", f"MS-SSIM {scores['ms_ssim']:.4f}"])


def _worst_place(scores: dict[str, float]) -> str:
    off = f"mean error {scores['worst_mean_error']}, rms error {scores['worst_rms_error']}, structure {scores['worst_structure']}"
    return f"at pixel ({scores['worst_x']}, {scores['worst_y']}): {off}"


def _fields_of_store(status: StoreStatus) -> dict[str, object]:
    states = ("latent", "exact", "pending", "plain", "damaged")
    return {
        "mounted at": status.mountpoint,
        "files": ", ".join(f"{getattr(status, state):,} {state}" for state in states),
        "size": _bytes(status.logical_bytes),
        "stored": _share(status.stored_bytes, status.logical_bytes),
        "quality": status.quality,
        "model": status.model,
        "effort": status.effort,
        "gate": f"PSNR {status.min_psnr:g} dB, MS-SSIM {status.min_ms_ssim:g}",
    }


def _bytes(size: int) -> str:
    return f"{size:,} bytes"


def _share(size: int, whole: int) -> str:
    return f"{_bytes(size)} ({100 * size / whole:.1f} %)" if whole else _bytes(size)

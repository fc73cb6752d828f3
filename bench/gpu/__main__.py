"""What a GPU makes of the autoencoders: speed by batch and tile, memory, and how far number formats are from float32.

    python -m bench.gpu [--json FILE]                   # on a CUDA device
    python -m bench.gpu --device cpu --quick            # whether the program works: tiny tiles, a tiny model

Models: the bundled codec, and an AutoencoderKL of the size of Stable Diffusion's with random weights, which cost what trained ones
cost. Nothing is fetched. Each configuration is warmed up; its time is the median of several runs, the device waited for in each. What
torch.compile and CUDA graphs change is measured in bf16, one tile at a time.

The share is of what the matrix units reach in the same run, on a large product of random matrices in the same number format: the time
that the operations counted would take at that speed, over the time measured. The bundled codec's linear paths are float32 whatever its
format; their operations count at float32's speed. float32 comes with TF32, which is how torch convolves on a GPU unless it is told
otherwise, and which those paths have in the 16-bit formats; and without.

The bundled codec's encoder is a transform without a network; all windows are long.

Differences are of what a decoder gives, or of what the float32 decoder gives of an encoder's latents, from float32 without TF32 throughout.
Pictures of random weights are flat: their differences are as if they had a photo's contrast.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench.gpu.measure import FULL, QUICK, Bench, Report
from sdfs.codec.autoencoders.runner import LARGEST_ERROR
from sdfs.settings import DEFAULTS


def show(report: Report, console: Console) -> None:
    ceilings = ", ".join(f"{name} {flops / 1e12:.3g}" for name, flops in report.ceilings.items())
    console.print(f"{report.device}, torch {report.torch}; matrix products, TFLOP/s: {ceilings}")
    speeds = Table("model", "network", "mode", "format", "tile", "batch", "ms", "MP/s", "TFLOP", "share, %", "working MiB")
    for s in report.speeds:
        memory = "" if s.working_mib is None else f"{s.working_mib:.0f}"
        measured = (f"{1e3 * s.seconds:.2f}", f"{s.megapixels_a_second:.4g}", f"{s.flop / 1e12:.3g}", f"{100 * s.share:.1f}", memory)
        speeds.add_row(s.model, s.network, s.mode, s.format, str(s.tile), str(s.batch), *measured)
    console.print(speeds)
    differences = Table("model", "network", "format", "levels", "PSNR, dB")
    for d in report.differences:
        differences.add_row(d.model, d.network, d.format, f"{d.levels:.3f}", f"{d.psnr:.1f}")
    console.print(f"From float32; the engine allows {LARGEST_ERROR} levels, the gate wants {DEFAULTS.min_psnr:g} dB:", differences)
    for line in report.skipped:
        console.print(f"skipped: {line}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device; --device cpu --quick shows whether the program works")
    report = Bench(device, QUICK if options.quick else FULL).run()
    show(report, Console(width=140))
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How much memory a script takes, in a process of its own; and a blob that would take a lot."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zlib
from pathlib import Path

from sdfs.blob import container
from sdfs.blob.container import KIND_RAW, MAGIC
from tests.support import ROOT

LARGE = 100 << 20
CHUNKS_KIB = 20 << 10  # what may be in memory of it

# Not getrusage: what that tells begins with the peak of the process that started this one.
_PEAK = """
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def taken_kib(script: str, *arguments: object) -> int:
    """What a script prints, which has a function `peak`: the most memory that its process has had, in KiB."""
    command = [sys.executable, "-c", _PEAK + script, *map(str, arguments)]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def write_large_raw_blob(path: Path) -> str:
    """Of user bytes that begin with the blob magic, and are a hole then; returns their SHA-256."""
    size, chunk = len(MAGIC) + LARGE, bytes(1 << 20)
    sha256, crc = hashlib.sha256(MAGIC), zlib.crc32(MAGIC)
    for _ in range(LARGE // len(chunk)):
        sha256.update(chunk)
        crc = zlib.crc32(chunk, crc)
    header = {"original_size": size, "original_sha256": sha256.hexdigest()}
    head = container.pack_head(KIND_RAW, size, header, [("file", size, crc)])
    with path.open("wb") as file:
        file.write(head + MAGIC)
        file.truncate(len(head) + size)
    return sha256.hexdigest()

"""Which names say that what bears them is not meant for us: files that somebody is still making, and folders of the system's own."""

from __future__ import annotations

import re

# Browsers, download managers, torrent clients, synchronisers, uploaders: all rename the file when they have it whole.
_ENDINGS = (
    ".!bt",
    ".!qb",
    ".!sync",
    ".!ut",
    ".aria2",
    ".bc!",
    ".crdownload",
    ".download",
    ".downloading",
    ".dtapart",
    ".fdmdownload",
    ".filepart",
    ".jc!",
    ".opdownload",
    ".part",
    ".partial",
    ".partially-downloaded",
    ".tacitpart",
    ".temp",
    ".tmp",
    ".uploading",
    ".ut!",
    ".ytdl",
    "_exiftool_tmp",
    "~",
)
_BEGINNINGS = (
    ".",  # rsync, scp and sftp servers, GLib and KDE, Syncthing, Nextcloud, Android's ".pending-", AppleDouble's "._"
    "~$",  # Office
    "~syncthing~",
)
_FORMS = re.compile(
    r"""
    .+ \.part \d+                           # pieces of downloads
    | .+ \.sb-[0-9a-f]{8}-\w{6}             # saved by a sandboxed program on macOS
    | .+ \.octransferid\d+ .*               # uploaded to ownCloud or Nextcloud
    | \#.*\#                                # Emacs
    """,
    re.VERBOSE | re.DOTALL,
)
# Thumbnails, bins and snapshots that file servers and Windows keep beside what they serve. Many of them hold pictures.
_SYSTEM_FOLDERS = frozenset(
    {"#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "@recently-snapshot", "lost+found", "system volume information"}
)


def is_temporary(name: str) -> bool:
    """Whether a file or folder of that name, without its path, is left alone until it is renamed."""
    name = name.lower()
    return name.startswith(_BEGINNINGS) or name.endswith(_ENDINGS) or _FORMS.fullmatch(name) is not None


def is_skipped_folder(name: str) -> bool:
    """Whether folders of that name, without its path, are never entered: temporary ones (so all dotfolders: bins, versions, caches),
    and those that systems keep for themselves."""
    return is_temporary(name) or name.lower() in _SYSTEM_FOLDERS

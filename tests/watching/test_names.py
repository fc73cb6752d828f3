"""daemon.names: what programs call files that they have not finished, and folders that hold no pictures of the user's."""

from __future__ import annotations

import pytest

from daemon.names import is_skipped_folder, is_temporary

TEMPORARY = {
    "Firefox, KDE, curl": "IMG_1234.AbC12345.jpg.part",
    "Chrome, Edge, Vivaldi": "Unconfirmed 123456.crdownload",
    "Opera": "photo.jpg.opdownload",
    "Safari": "photo.jpg.download",
    "WinSCP": "photo.jpg.filepart",
    "rclone": "photo.jpg.f8a3c1de.partial",
    "aria2's notes": "photo.jpg.aria2",
    "uTorrent": "photo.jpg.!ut",
    "qBittorrent": "photo.jpg.!qB",
    "Resilio Sync": "photo.jpg.!sync",
    "FolderSync": "photo.jpg.tacitpart",
    "a piece": "photo.jpg.part3",
    "rsync": ".photo.jpg.Xa81kZ",
    "GLib": ".goutputstream-3J2BQ2",
    "Syncthing": ".syncthing.photo.jpg.tmp",
    "Syncthing on Windows": "~syncthing~photo.jpg.tmp",
    "Nextcloud": ".photo.jpg.~1a2b3c",
    "Nextcloud's server": "photo.jpg.ocTransferId1234567.part",
    "ProFTPD": ".in.photo.jpg.",
    "Android": ".pending-1700000000-photo.jpg",
    "macOS beside a file": "._photo.jpg",
    "macOS when it saves": "photo.jpg.sb-1a2b3c4d-AbCdEf",
    "Office": "~$album.docx",
    "ExifTool": "photo.jpg_exiftool_tmp",
    "editors": "photo.jpg~",
    "Emacs": "#photo.jpg#",
    "capitals": "PHOTO.JPG.TMP",
    "undecodable": ".photo\udcff",
    "a name of several lines": "a\nb.part7",
}
FINISHED = [
    "photo.jpg",
    "PHOTO.JPG",
    "photo",
    "a part.jpg",
    "tmp",
    "part",
    "apart",
    "photo.jpg_original",
    "~photo.jpg",
    "photo (1).jpg",
    "#1.jpg",
    "a.party",
]


@pytest.mark.parametrize("name", TEMPORARY.values(), ids=TEMPORARY.keys())
def test_files_that_somebody_is_still_making_are_left_alone(name: str) -> None:
    assert is_temporary(name)


@pytest.mark.parametrize("name", FINISHED)
def test_other_names_are_not(name: str) -> None:
    assert not is_temporary(name)


@pytest.mark.parametrize(
    "name", [".Trash-1000", ".stversions", ".git", "album.download", "holiday.part", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found"]
)
def test_bins_and_caches_and_unfinished_folders_are_not_entered(name: str) -> None:
    assert is_skipped_folder(name)


@pytest.mark.parametrize("name", ["DCIM", "2024", "recycle", "part one", "Trash"])
def test_other_folders_are(name: str) -> None:
    assert not is_skipped_folder(name)

"""What each command does, without a mount."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdfs.blob import container
from sdfs.blob.container import MAGIC
from sdfs.cli import exit_codes
from tests.support.commands import COMMAND, ENVIRONMENT, done, fails, on_terminal, sdfs

# init


def test_init_makes_a_folder_that_is_not_there_a_store(tmp_path: Path) -> None:
    done("init", tmp_path / "new")
    assert done("ls", tmp_path / "new") == ""


def test_init_remembers_the_quality(tmp_path: Path) -> None:
    done("init", tmp_path / "new", "--quality", "33")
    [status] = json.loads(done("stat", "--json", tmp_path / "new"))
    assert status["quality"] == 33


def test_init_refuses_a_store(store: Path) -> None:
    assert "already" in fails(exit_codes.REFUSED, "init", store)


def test_init_remembers_the_effort_and_the_gate(tmp_path: Path) -> None:
    done("init", tmp_path / "new", "--effort", "best", "--min-psnr", "20", "--min-ms-ssim", "0.8")
    [status] = json.loads(done("stat", "--json", tmp_path / "new"))
    assert (status["effort"], status["min_psnr"], status["min_ms_ssim"]) == ("best", 20, 0.8)


def test_init_refuses_an_impossible_quality(tmp_path: Path) -> None:
    assert sdfs("init", tmp_path / "new", "--quality", "101").returncode == exit_codes.USAGE


# add


def test_add_copies_folders_with_all_that_is_in_them(store: Path, tmp_path: Path) -> None:
    (tmp_path / "trip" / "day").mkdir(parents=True)
    (tmp_path / "trip" / "day" / "log").write_text("rain")
    done("add", store, tmp_path / "trip", "--to", "years/2024")
    assert done("cat", store / "years/2024/trip/day/log") == "rain"


def test_add_keeps_the_time(store: Path, tmp_path: Path) -> None:
    source = tmp_path / "old"
    source.touch()
    os.utime(source, ns=(1, 1_000_000_007))
    done("add", store, source)
    [listed] = json.loads(done("ls", "--json", store / "old"))
    assert listed["mtime_ns"] == 1_000_000_007


def test_add_leaves_a_name_that_is_taken_alone_and_adds_the_others(store: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("others")
    (tmp_path / "more.txt").write_text("more")
    assert "notes.txt" in fails(exit_codes.INCOMPLETE, "add", store, tmp_path / "notes.txt", tmp_path / "more.txt")
    assert done("cat", store / "notes.txt", store / "more.txt") == "plain text\nmore"


@pytest.mark.parametrize("folder", ["..", "../../etc", "2024/../../etc"])
def test_add_refuses_a_folder_that_seems_to_be_elsewhere(store: Path, tmp_path: Path, folder: str) -> None:
    (tmp_path / "new").touch()
    assert f"--to {folder}: want a folder within the store" in fails(exit_codes.REFUSED, "add", store, tmp_path / "new", "--to", folder)


def test_add_takes_a_folder_from_the_stores_root_down(store: Path, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    done("add", store, tmp_path / "new", "--to", "/etc/..data")
    assert done("ls", store / "etc" / "..data") == "new\n"


def test_add_tells_of_links_that_it_leaves_out(store: Path, tmp_path: Path) -> None:
    (tmp_path / "trip").mkdir()
    (tmp_path / "trip" / "link").symlink_to("/etc/hostname")
    assert "link is left out" in fails(exit_codes.INCOMPLETE, "add", store, tmp_path / "trip")


def test_add_of_a_file_that_is_not_there_adds_nothing(store: Path, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    fails(exit_codes.NOT_FOUND, "add", store, tmp_path / "there", tmp_path / "missing")
    assert "there" not in done("ls", store).split()


def test_add_returns_when_pictures_are_latents(shrunk: Path) -> None:
    [status] = json.loads(done("stat", "--json", shrunk / "2024/photo.jpg"))
    assert status["state"] == "latent"


def test_add_is_silent_off_a_terminal(store: Path, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    completed = sdfs("add", store, tmp_path / "new")
    assert (completed.stdout, completed.stderr) == ("", "")


# get and cat


def test_get_copies_folders_out(store: Path, tmp_path: Path) -> None:
    done("get", store / "folder", store / "notes.txt", "--output", tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert found == {"folder", "folder/inner.txt", "notes.txt"}


def test_get_of_a_store_makes_a_folder_of_its_name(store: Path, tmp_path: Path) -> None:
    done("get", store, "--output", tmp_path / "out")
    assert (tmp_path / "out" / store.name / "folder" / "inner.txt").read_text() == "inner\n"


def test_get_keeps_the_time(store: Path, tmp_path: Path) -> None:
    os.utime(store / "notes.txt", ns=(1, 1_000_000_007))
    done("get", store / "notes.txt", "--output", tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").stat().st_mtime_ns == 1_000_000_007


def test_get_copies_names_as_long_as_names_can_be(store: Path, tmp_path: Path) -> None:
    (store / ("n" * 255)).write_text("long")
    done("get", store / ("n" * 255), "--output", tmp_path / "out")
    assert (tmp_path / "out" / ("n" * 255)).read_text() == "long"


def test_get_leaves_a_name_that_is_taken_alone_and_gets_the_others(store: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "exists" in fails(exit_codes.INCOMPLETE, "get", store / "notes.txt", store / "folder", "--output", tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "folder" / "inner.txt").exists()


def test_get_leaves_nothing_half_done(shrunk: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "store"
    subprocess.run(["cp", "-r", shrunk, damaged], check=True)
    blob = damaged / "2024" / "photo.jpg"
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    fails(exit_codes.INCOMPLETE, "get", blob, "--output", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_cat_gives_a_picture_of_the_originals_size_and_format(shrunk: Path, picture: Path) -> None:
    render = subprocess.run([*COMMAND, "cat", shrunk / "2024/photo.jpg"], check=True, capture_output=True, env=ENVIRONMENT).stdout
    assert (len(render), render[:3]) == (picture.stat().st_size, b"\xff\xd8\xff")


def test_cat_gives_files_one_after_the_other(store: Path) -> None:
    assert done("cat", store / "notes.txt", store / "folder/inner.txt") == "plain text\ninner\n"


def test_cat_of_a_folder_names_it(store: Path) -> None:
    assert fails(exit_codes.REFUSED, "cat", store) == "sdfs: / is no regular file"
    assert fails(exit_codes.REFUSED, "cat", store / "folder") == "sdfs: /folder is no regular file"


def test_cat_of_a_damaged_picture_says_so(shrunk: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "store"
    subprocess.run(["cp", "-r", shrunk, damaged], check=True)
    with (damaged / "2024" / "photo.jpg").open("r+b") as file:
        file.truncate(4000)
    fails(exit_codes.DAMAGED, "cat", damaged / "2024/photo.jpg")


# ls


def test_ls_gives_names_and_marks_folders(store: Path) -> None:
    assert done("ls", store).splitlines() == ["folder/", "notes.txt"]


def test_ls_long_gives_state_and_sizes(shrunk: Path, picture: Path) -> None:
    state, size, stored, *_ = done("ls", "-l", shrunk / "2024").split()
    assert (state, size) == ("latent", f"{picture.stat().st_size:,}")
    assert int(stored.replace(",", "")) < picture.stat().st_size / 2


def test_ls_long_of_an_empty_folder_is_empty(store: Path) -> None:
    (store / "empty").mkdir()
    assert done("ls", "-l", store / "empty") == ""


def test_ls_json_is_the_listing_itself(store: Path) -> None:
    assert [(entry["path"], entry["state"]) for entry in json.loads(done("ls", "--json", store))] == [
        ("/folder", "folder"),
        ("/notes.txt", "plain"),
    ]


def test_ls_gives_names_that_are_not_utf_8_as_they_are(store: Path) -> None:
    (store / os.fsdecode(b"caf\xe9")).touch()
    assert os.fsdecode(b"caf\xe9") in done("ls", store).splitlines()


# stat


def test_stat_tells_what_was_lost(shrunk: Path) -> None:
    assert "PSNR" in done("stat", shrunk / "2024/photo.jpg")


def test_stat_of_a_store_counts_its_files(shrunk: Path) -> None:
    assert "1 latent, 0 exact, 0 pending, 0 plain, 0 damaged" in done("stat", shrunk)


def test_stat_json_has_an_object_for_each_path(store: Path) -> None:
    assert [entry["path"] for entry in json.loads(done("stat", "--json", store / "notes.txt", store / "folder/inner.txt"))] == [
        "/notes.txt",
        "/folder/inner.txt",
    ]


# sync


def test_sync_shrinks_what_is_pending(store: Path, picture: Path) -> None:
    (store / "photo.jpg").write_bytes(picture.read_bytes())
    done("sync", store)
    assert done("ls", "-l", store / "photo.jpg").startswith("latent")


# naming


def test_a_path_names_its_store_from_any_folder(store: Path) -> None:
    assert done("cat", "inner.txt", cwd=store / "folder") == "inner\n"


def test_the_current_folder_can_be_the_store(store: Path) -> None:
    assert done("ls", ".", cwd=store).splitlines() == ["folder/", "notes.txt"]


def test_a_path_in_no_store_is_told_from_one_that_is_missing(store: Path, tmp_path: Path) -> None:
    fails(exit_codes.NOT_A_STORE, "stat", tmp_path / "missing")
    fails(exit_codes.NOT_FOUND, "stat", store / "missing")


def test_a_folder_within_a_store_is_no_store(store: Path) -> None:
    fails(exit_codes.NOT_A_STORE, "sync", store / "folder")


def test_the_stores_own_files_have_no_name(store: Path) -> None:
    fails(exit_codes.REFUSED, "cat", store / ".sdfs/config.toml")


# names that are no text

HOSTILE = "new\nline \x1b]0;title\x07 \u202egnp"
SHOWN = "new\\nline \\x1b]0;title\\x07 \\u202egnp"


@pytest.fixture
def hostile(store: Path) -> Path:
    (store / "odd" / HOSTILE).mkdir(parents=True)
    (store / "odd" / HOSTILE / HOSTILE).write_bytes(MAGIC)
    return store / "odd"


@pytest.mark.parametrize("command", [("ls",), ("ls", "-l"), ("stat",), ("du",)])
def test_a_terminal_gets_names_with_escapes(hostile: Path, command: tuple[str, ...]) -> None:
    shown = on_terminal(*command, hostile / HOSTILE / HOSTILE)
    assert SHOWN in shown
    assert HOSTILE not in shown


def test_what_is_no_terminal_gets_names_as_they_are(hostile: Path) -> None:
    assert done("ls", hostile) == f"{HOSTILE}/\n"
    assert HOSTILE in done("ls", "-l", hostile)


def test_json_has_names_as_they_are(hostile: Path) -> None:
    [entry] = json.loads(on_terminal("ls", "--json", hostile))
    assert entry["path"] == f"/odd/{HOSTILE}"


def test_messages_have_names_with_escapes(hostile: Path) -> None:
    assert SHOWN in fails(exit_codes.DAMAGED, "cat", hostile / HOSTILE / HOSTILE)
    assert f"missing {SHOWN}" in fails(exit_codes.NOT_FOUND, "cat", hostile / f"missing {HOSTILE}")


def test_a_terminal_gets_what_a_blob_says_with_escapes(store: Path) -> None:
    blob = container.pack(container.KIND_RAW, 1, {"reason": HOSTILE}, {"file": b"x"})
    (store / "blob").write_bytes(blob)
    assert SHOWN in on_terminal("stat", store / "blob")


# how commands end


def test_a_store_of_a_newer_sdfs_is_refused(store: Path) -> None:
    config = store / ".sdfs/config.toml"
    config.write_text(config.read_text().replace("format = 1", "format = 99"))
    assert "99" in fails(exit_codes.TOO_NEW, "ls", store)


def test_a_wrong_command_line_is_told_from_all_else() -> None:
    assert sdfs("frobnicate").returncode == exit_codes.USAGE


def test_a_reader_that_stops_is_no_error(store: Path) -> None:
    (store / "large").write_bytes(bytes(10 << 20))
    command: list[str | Path] = [*COMMAND, "cat", store / "large"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == exit_codes.READER_GONE


def test_a_bug_gets_a_traceback(store: Path) -> None:
    script = "import sdfs.owner.access; sdfs.owner.access.open_access = None; from sdfs.cli import main; main()"
    completed = subprocess.run([sys.executable, "-c", script, "ls", store], capture_output=True, text=True, env=ENVIRONMENT)
    assert completed.returncode == exit_codes.BUG
    assert "Traceback" in completed.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["add", "--help"], ["--version"]])
def test_help_and_version_go_to_stdout(arguments: list[str]) -> None:
    assert "sdfs" in done(*arguments)

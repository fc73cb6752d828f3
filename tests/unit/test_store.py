"""sdfs.owner.store.store: layout, ownership, staging, trash."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdfs.errors import NotAStore, StoreBusy, StoreTooNew, UserError
from sdfs.owner.store.store import Store, init, is_owned, is_store, read_config, read_owner
from sdfs.settings import Effort, EncodeSettings
from sdfs.system.files import read_all, rename_noreplace


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    store = Store(root)
    yield store
    store.close()


def configure(root: Path, text: str) -> None:
    (root / ".sdfs" / "config.toml").write_text(text)


def trash(root: Path) -> list[str]:
    return sorted(path.name.partition(".")[2] for path in (root / ".sdfs" / "trash").iterdir())


def put_into_trash(store: Store, name: str, content: bytes = b"original") -> None:
    path = Path(store.root, name)
    path.write_bytes(content)
    store.keep(str(path))
    path.unlink()


def test_init_makes_a_store(root: Path) -> None:
    assert is_store(root)


def test_init_keeps_what_a_folder_has(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    init(tmp_path)
    assert (tmp_path / "a").read_text() == "content"


def test_init_refuses_a_store(root: Path) -> None:
    with pytest.raises(UserError, match="already"):
        init(root)


def test_a_store_remembers_its_settings(tmp_path: Path) -> None:
    settings = EncodeSettings(80, 'local:"m"', Effort.BEST, 20.5, 0.9)
    init(tmp_path, settings)
    store = Store(tmp_path)
    assert store.settings == settings
    store.close()


def test_a_setting_that_is_missing_is_as_by_default(root: Path) -> None:
    configure(root, "format = 1\nfeatures = []\nquality = 50\n")
    assert read_config(root) == EncodeSettings(50)


def test_a_setting_that_cannot_be_is_refused_with_its_file(root: Path) -> None:
    configure(root, "format = 1\nfeatures = []\nquality = 50\nmin_ms_ssim = 94\n")
    with pytest.raises(UserError, match=r"config\.toml: min_ms_ssim: want 0 to 1, have 94"):
        Store(root)


def test_nobody_else_may_enter_the_internal_folder(root: Path) -> None:
    assert (root / ".sdfs").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAStore):
        Store(tmp_path)


def test_a_newer_format_is_refused_with_want_and_have(root: Path) -> None:
    configure(root, "format = 2\nfeatures = []\nquality = 50\n")
    with pytest.raises(StoreTooNew, match="want 1, have 2"):
        Store(root)


def test_an_unknown_feature_is_refused_by_name(root: Path) -> None:
    configure(root, 'format = 1\nfeatures = ["shards"]\nquality = 50\n')
    with pytest.raises(StoreTooNew, match="shards"):
        Store(root)


def test_a_second_owner_is_refused_with_the_first_ones_process_id(store: Store) -> None:
    with pytest.raises(StoreBusy, match=f"process {os.getpid()}"):
        Store(Path(store.root))


def test_a_closed_store_can_be_owned_again(root: Path) -> None:
    Store(root).close()
    Store(root).close()


def test_a_store_is_owned_while_somebody_has_it(root: Path) -> None:
    store = Store(root)
    assert is_owned(root)
    store.close()
    assert not is_owned(root)


class TestOnAReadOnlyFilesystem:
    @pytest.fixture(params=[True, False], ids=["owned before", "never owned"])
    def frozen(self, request: pytest.FixtureRequest, root: Path) -> Iterator[Path]:
        """A store in which an owner was killed, or that has no lock file, on a filesystem that is mounted read-only."""
        if os.geteuid() != 0:
            pytest.skip("needs root, to mount a filesystem read-only")
        (root / ".sdfs" / "staging" / "1-2").write_text("half a file")
        (root / ".sdfs" / "lock").write_text('{"pid": 1, "socket": null}')
        if not request.param:
            (root / ".sdfs" / "lock").unlink()
        subprocess.run(["mount", "--bind", root, root], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
            yield root
        finally:
            subprocess.run(["umount", root], check=True)

    def test_a_store_can_be_owned(self, frozen: Path) -> None:
        store = Store(frozen)
        assert store.read_only
        store.announce("/run/socket")
        store.expire_trash(time.time())
        store.close()

    def test_it_is_left_as_it_is(self, frozen: Path) -> None:
        before = sorted((path, path.read_bytes()) for path in frozen.rglob("*") if path.is_file())
        Store(frozen).close()
        assert sorted((path, path.read_bytes()) for path in frozen.rglob("*") if path.is_file()) == before

    @pytest.mark.parametrize("frozen", [True], indirect=True)
    def test_a_second_owner_is_refused(self, frozen: Path) -> None:
        store = Store(frozen)
        assert is_owned(frozen)
        with pytest.raises(StoreBusy):
            Store(frozen)
        store.close()

    def test_what_is_written_is_refused(self, frozen: Path) -> None:
        store = Store(frozen)
        with pytest.raises(OSError, match="Read-only"):
            store.stage()
        store.close()


def test_a_store_on_another_filesystem_is_not_read_only(store: Store) -> None:
    assert not store.read_only


def _own_and_die(root: Path) -> None:
    Store(root).stage(b"half a file")
    os._exit(9)


def test_the_store_of_a_killed_owner_can_be_owned(root: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_own_and_die, args=(root,))
    process.start()
    process.join()
    Store(root).close()


def test_what_a_killed_owner_staged_is_swept(root: Path) -> None:
    (root / ".sdfs" / "staging" / "1-2").write_text("half a file")
    Store(root).close()
    assert list((root / ".sdfs" / "staging").iterdir()) == []


def test_the_lock_file_says_who_owns_the_store_and_where_it_listens(store: Store) -> None:
    store.announce("/run/socket")
    owner = read_owner(Path(store.root))
    assert owner is not None
    assert (owner.pid, owner.socket) == (os.getpid(), "/run/socket")


def test_nobody_owns_a_closed_store(root: Path) -> None:
    Store(root).close()
    assert read_owner(root) is None


def test_a_staged_file_has_its_content_and_can_be_discarded(store: Store) -> None:
    staged = store.stage(b"content")
    assert read_all(staged.fd) == b"content"
    staged.discard()
    assert not Path(staged.path).exists()


def test_what_is_kept_stays_where_it_is_and_is_in_the_trash(store: Store, root: Path) -> None:
    (root / "photo.jpg").write_text("original")
    store.keep(f"{store.root}/photo.jpg")
    assert (root / "photo.jpg").exists()
    assert trash(root) == ["photo.jpg"]


def test_a_long_name_is_shortened_in_the_trash(store: Store, root: Path) -> None:
    (root / ("é" * 127)).write_text("original")
    store.keep(f"{store.root}/{'é' * 127}")
    assert len(trash(root)) == 1


def test_trash_lives_for_its_grace_time(store: Store, root: Path) -> None:
    put_into_trash(store, "a")
    store.trash.expire(time.time() + 5, grace_seconds=10)
    assert trash(root) == ["a"]
    store.trash.expire(time.time() + 15, grace_seconds=10)
    assert trash(root) == []


def test_the_oldest_trash_goes_when_there_is_too_much(store: Store, root: Path) -> None:
    for name in ("old", "new"):
        put_into_trash(store, name, bytes(100))
    store.trash.expire(time.time(), max_bytes=150)
    assert trash(root) == ["new"]


def test_what_has_another_name_does_not_go_with_the_trash(store: Store, root: Path) -> None:
    (root / "a").write_text("original")
    store.keep(f"{store.root}/a")
    store.trash.expire(time.time() + 15, grace_seconds=10)
    assert trash(root) == ["a"]


def test_what_was_rescued_is_never_given_up(store: Store, root: Path) -> None:
    staged = store.stage(b"what was written")
    store.trash.rescue(staged.path, f"{store.root}/a")
    os.close(staged.fd)
    store.trash.expire(time.time() + 15, grace_seconds=10, max_bytes=0)
    assert trash(root) == ["a"]


def test_a_user_cannot_name_a_file_so_that_it_remains_in_the_trash(store: Store, root: Path) -> None:
    for name in ("-rescued.a", "1-1-rescued.a", "rescued.a"):
        put_into_trash(store, name)
    store.trash.expire(time.time() + 15, grace_seconds=10)
    assert trash(root) == []


def test_a_call_that_fails_for_another_reason_than_a_full_disk_is_not_repeated(store: Store, root: Path) -> None:
    put_into_trash(store, "a")
    calls = []

    def fail() -> None:
        calls.append(1)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output"):
        store.with_room(fail)
    assert (len(calls), trash(root)) == (1, ["a"])


def test_walk_finds_all_files_but_the_stores_own(store: Store, root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "c").touch()
    (root / "d").touch()
    (root / "link").symlink_to("d")
    assert sorted(path for path, _ in store.walk()) == [f"{store.root}/a/b/c", f"{store.root}/d"]


def test_rename_noreplace_refuses_an_existing_name(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    with pytest.raises(FileExistsError):
        rename_noreplace(f"{tmp_path}/a", f"{tmp_path}/b")


def test_what_a_killed_owner_kept_and_did_not_replace_has_one_name_again(root: Path) -> None:
    (root / "photo.jpg").write_text("original")
    store = Store(root)
    store.keep(f"{store.root}/photo.jpg")
    store.close()
    Store(root).close()
    assert trash(root) == []
    assert (root / "photo.jpg").stat().st_nlink == 1


def test_what_is_kept_records_where_it_was(store: Store, root: Path) -> None:
    (root / "folder").mkdir()
    (root / "folder" / "photo.jpg").write_text("original")
    kept = store.keep(f"{store.root}/folder/photo.jpg")
    assert os.getxattr(kept, "user.sdfs.path") == b"/folder/photo.jpg"

"""What `-o` means."""

from __future__ import annotations

import pytest

from sdfs.errors import UserError
from sdfs.mount.options import MountOptions
from sdfs.settings import Memory


@pytest.mark.parametrize("options", ["", ",", "defaults", "rw"])
def test_by_default_a_mount_is_private_and_writable(options: str) -> None:
    assert MountOptions.parse(options) == MountOptions()


@pytest.mark.parametrize(
    ("options", "read_only"), [("ro", True), ("rw,ro", True), ("ro,rw", False), ("ro,rw,ro", True), ("rw,nosuid", False)]
)
def test_the_last_of_ro_and_rw_counts(options: str, read_only: bool) -> None:
    assert MountOptions.parse(options).read_only == read_only


def test_ro_is_not_left_to_fuse_alone() -> None:
    assert MountOptions.parse("ro").fuse == ()


def test_nonempty_is_no_option_of_fuse() -> None:
    assert MountOptions.parse("nonempty") == MountOptions(nonempty=True)


@pytest.mark.parametrize("option", ["allow_other", "allow_root"])
def test_a_mount_for_others_is_shared(option: str) -> None:
    assert MountOptions.parse(option) == MountOptions(shared=True, fuse=(option,))


def test_fuse_gets_what_the_kernel_heeds_in_order() -> None:
    assert MountOptions.parse("noexec,ro,sync,noatime").fuse == ("noexec", "sync", "noatime")


def test_the_last_of_two_that_contradict_each_other_stays_the_last() -> None:
    assert MountOptions.parse("nodev,dev,nodev").fuse == ("dev", "nodev")


PASSED_OVER = """
    defaults auto noauto nofail _netdev user users owner group relatime strictatime lazytime default_permissions
    x-systemd.automount x-gvfs-show X-mount.mkdir=0755 comment=photos user=alice
"""
REFUSED = """
    no_such_option fsname=x subtype=x max_read=4096 uid=0 umask=077 kernel_cache attr_timeout=9 auto_unmount nosymfollow remount dirsync
    encoding=latin1 errors=strict raw_fi foreground debug nothreads use_ino ro=1 RO
"""


@pytest.mark.parametrize("option", PASSED_OVER.split())
def test_what_is_for_mount_and_systemd_is_passed_over(option: str) -> None:
    assert MountOptions.parse(f"{option},ro,{option}") == MountOptions(read_only=True)


@pytest.mark.parametrize("option", REFUSED.split())
def test_everything_else_is_refused_by_name(option: str) -> None:
    with pytest.raises(UserError, match=f"mount option {option}:.*ro, rw.*docs/CLI.md"):
        MountOptions.parse(f"ro,{option}")


def test_renders_on_a_disk() -> None:
    assert MountOptions.parse("ro,disk_cache=/var/cache/a=b,disk_cache_size=1000") == MountOptions(
        read_only=True, disk_cache="/var/cache/a=b", disk_cache_bytes=1000
    )


@pytest.mark.parametrize(
    "option",
    [
        "disk_cache=",
        "disk_cache=cache",
        "disk_cache_size=",
        "disk_cache_size=4G",
        "disk_cache_size=-1",
        "metrics=",
        "metrics=localhost",
        "metrics=:0",
        "metrics=65536",
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(option: str) -> None:
    with pytest.raises(UserError, match=f"mount option {option}: want"):
        MountOptions.parse(option)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("9100", ("127.0.0.1", 9100)),
        (":9100", ("127.0.0.1", 9100)),
        ("0.0.0.0:9100", ("0.0.0.0", 9100)),
        ("[::1]:9100", ("::1", 9100)),
        ("photos.lan:9100", ("photos.lan", 9100)),
    ],
)
def test_metrics_are_for_this_machine_unless_a_host_is_named(value: str, address: tuple[str, int]) -> None:
    assert MountOptions.parse(f"metrics={value}").metrics == address


def test_memory_is_for_renders_and_for_the_engine() -> None:
    parsed = MountOptions.parse("cache_size=1,ram=2,vram=3")
    assert (parsed.cache_bytes, parsed.memory) == (1, Memory(ram=2, vram=3))


@pytest.mark.parametrize(
    "option", ["ram=4G", "ram=", "ram=-1", "vram=1.5", "cache_size=x", "read_ahead=65", "ram=" + "9" * 5000, "read_ahead=²"]
)
def test_a_number_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(UserError, match=option):
        MountOptions.parse(option)

"""Mounting and unmounting.

run → checks → (background: fork, before any thread exists) → Owner → Fuse(…), which returns once it is unmounted
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from sdfs.errors import MountError, NotAStore, UserError
from sdfs.mount import fuse
from sdfs.mount.operations import Operations
from sdfs.mount.options import MountOptions
from sdfs.owner.access import store_mounted_at, take_over
from sdfs.owner.owner import Owner
from sdfs.owner.renders.disk_cache import DiskCache
from sdfs.owner.services import Mount
from sdfs.owner.serving import serving
from sdfs.owner.store.store import is_owned, is_store, open_log, read_owner
from sdfs.system import background
from sdfs.system.logs import log_to_stderr
from sdfs.system.mounts import mounts
from sdfs.system.service_manager import notify, pinging_watchdog

_OWNER_END_SECONDS = 30.0
_FUSERMOUNT_SECONDS = 60.0
_log = logging.getLogger(__name__)


def run(
    store: Path,
    mountpoint: Path,
    *,
    foreground: bool = False,
    options: str = "",
    become_owner: Callable[..., Owner] = Owner,
) -> None:
    """Mount a store.

    In the foreground it returns once it is unmounted; else once the mount is there, served by a process of its own that logs to
    `.sdfs/log`. `options`: as `MountOptions.parse` takes them. Raises UserError, NotAStore, StoreBusy, StoreTooNew, MountError.
    """
    chosen = MountOptions.parse(options)
    root, target = Path(os.path.realpath(store)), Path(os.path.abspath(mountpoint))
    if not is_store(root):
        raise NotAStore(f"{store} is no SDFS store: make it one with `sdfs init`")
    own = partial(become_owner, cache_bytes=chosen.cache_bytes, memory=chosen.memory)
    serve = partial(_serve, root, target, chosen, own)
    if foreground:
        log_to_stderr("sdfs")
        with _telling_service_manager(root, target) as mounted:
            serve(mounted)
    else:
        background.start(serve, str(mountpoint), partial(open_log, root))


@contextlib.contextmanager
def _telling_service_manager(root: Path, mountpoint: Path) -> Iterator[Callable[[], None]]:
    """Tell it of the life of a mount. Gives what is to be called once the mount is there."""
    with contextlib.ExitStack() as stack:
        stack.callback(notify, "STOPPING=1")

        def mounted() -> None:
            notify(f"READY=1\nSTATUS={root} is mounted at {mountpoint}")
            stack.enter_context(pinging_watchdog(partial(_answers, mountpoint)))

        yield mounted


def _answers(mountpoint: Path) -> bool:
    """Wait until a mount answers, because the kernel has no cache of statvfs. An error is an answer, and so is one of the folder beneath.

    Nothing of the mount is kept open, so that it can be unmounted.
    """
    with contextlib.suppress(OSError):
        os.statvfs(mountpoint)
    return True


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount, and wait until the owner has ended. `lazy`: even while files are open, and without waiting. Raises MountError."""
    root = store_mounted_at(mountpoint)  # None of a dead mount, or none of ours: fusermount3 knows
    owner = read_owner(root) if root else None
    _fusermount(mountpoint, lazy=lazy)
    end = time.monotonic() + _OWNER_END_SECONDS
    while not lazy and root and read_owner(root) == owner and _is_owned(root):
        if time.monotonic() > end:
            process = owner.pid if owner else "unknown"
            raise MountError(f"{mountpoint} is unmounted, but process {process} still owns {root}: a program waits for its answer")
        time.sleep(0.02)


def _is_owned(root: Path) -> bool:
    with contextlib.suppress(UserError):  # a store of somebody else
        return is_owned(root)
    return False


def _fusermount(mountpoint: Path, *, lazy: bool) -> None:
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), os.path.abspath(mountpoint)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_FUSERMOUNT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountError(f"{mountpoint} cannot be unmounted: {error}") from error
    if result.returncode:
        raise MountError(f"{mountpoint} cannot be unmounted: {result.stderr.strip() or 'fusermount3 does not say why'}")


def _mountpoint(path: Path) -> Path:
    """Where to mount; makes the folder, and unmounts what a killed owner left there."""
    try:
        os.statvfs(path)  # stat() may be answered from the kernel's cache for a second after the owner's death
    except FileNotFoundError:
        try:
            path.mkdir()
        except OSError as error:
            raise MountError(f"{path} is not there and cannot be made: {error.strerror}") from error
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise MountError(f"{path} cannot be used: {error.strerror}") from error
        _fusermount(path, lazy=True)
        _log.warning("%s was the dead mount of a process that was killed: it is unmounted now", path)
    if not path.is_dir():
        raise MountError(f"{path} is no folder")
    return Path(os.path.realpath(path))


def _check_places(root: Path, mountpoint: Path, *, allow_nonempty: bool) -> None:
    if os.path.ismount(mountpoint) and not _awaits_mount(mountpoint):
        raise MountError(f"{mountpoint} is a mountpoint already")
    if mountpoint == root or root in mountpoint.parents:
        raise MountError(f"the mountpoint {mountpoint} is inside the store {root}: take a folder elsewhere")
    if mountpoint in root.parents:
        raise MountError(f"the store {root} is inside the mountpoint {mountpoint}, which would hide it: take a folder elsewhere")
    if not allow_nonempty and os.listdir(mountpoint):
        raise MountError(f"{mountpoint} is not empty, and the mount would hide what it has: take an empty folder, or use -o nonempty")


def _disk_cache(root: Path, mountpoint: Path, options: MountOptions) -> DiskCache | None:
    if options.disk_cache is None:
        return None
    folder = Path(os.path.realpath(options.disk_cache))
    for place in (root, mountpoint):
        if place == folder or place in folder.parents:
            raise MountError(f"the folder for renders {folder} is inside {place}: take one elsewhere")
    return DiskCache(str(folder), options.disk_cache_bytes)


def _metrics(owner: Owner, options: MountOptions) -> AbstractContextManager[None]:
    if options.metrics is None:
        return contextlib.nullcontext()
    from sdfs.mount.metrics import serving_metrics

    return serving_metrics(owner, *options.metrics)


def _awaits_mount(mountpoint: Path) -> bool:
    """Tell whether it is an automounter that is mounted there."""
    device = mountpoint.stat().st_dev
    return any(mount.device == device and mount.type == "autofs" for mount in mounts())


def _serve(
    root: Path,
    named: Path,
    options: MountOptions,
    become_owner: Callable[..., Owner],
    on_mounted: Callable[[], None],
) -> None:
    """Own the store and serve the mount until it is unmounted."""
    mountpoint = _mountpoint(named)
    _check_places(root, mountpoint, allow_nonempty=options.nonempty)
    os.umask(0)  # modes come with the caller's umask applied
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # an open file of the mount is one of ours
    connection = fuse.Connection()
    mount = Mount(str(mountpoint), options.read_only, partial(_fusermount, mountpoint, lazy=False), connection.forget)
    disk_cache = partial(_disk_cache, root, mountpoint, options)
    owner = take_over(root, become_owner=partial(become_owner, mount=mount, disk_cache=disk_cache, read_ahead=options.read_ahead))
    with serving(owner):
        if owner.store.read_only:
            _log.warning("%s is on a filesystem that is mounted read-only: so is %s", root, mountpoint)
        operations = Operations(owner, connection, shared=options.shared, on_mounted=on_mounted)
        try:
            with _metrics(owner, options):
                fuse.Fuse(operations, str(mountpoint), **fuse.arguments(str(root), options.fuse, read_only=owner.read_only))
        except RuntimeError as error:
            if not operations.mounted:
                raise MountError(f"{mountpoint} cannot be mounted: libfuse ended with {error}; it has written why to stderr") from None
            if error.args != (8,):
                _log.warning("libfuse ended with %s", error)
        finally:
            owner.interrupt()

# Sourced by demo and test: gets FUSE 3 and a Python environment (.venv) ready. Says what it does on stderr.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
torch=2.13.0

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'sdfs: %s\n' "$*" >&2
    exit 1
}

# Install Debian/Ubuntu packages; $1: what for.
install_packages() {
    local reason=$1 elevate=()
    shift
    command -v apt-get >/dev/null || die "$reason needs the package(s) $*; there is no apt-get here: install them and try again"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "$reason needs the package(s) $*; you are not root and there is no sudo: have them installed and try again"
        elevate=(sudo)
    fi
    say "Installing $* ($reason)"
    "${elevate[@]}" apt-get update -qq || say "apt-get update failed; trying with the package lists that are here"
    "${elevate[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 || die "apt-get could not install $*: is there a network?"
}

is_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if command -v "$candidate" >/dev/null && is_python "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "there is no Python 3.11 or newer here: install one and try again"
}

# FUSE 3: the library, its helper and the device.
need_fuse() {
    local python=$1
    if ! command -v fusermount3 >/dev/null || ! "$python" -c 'import ctypes.util, sys; sys.exit(not ctypes.util.find_library("fuse3"))'; then
        install_packages "mounting" fuse3
    fi
    [ -c /dev/fuse ] || die "there is no /dev/fuse: load the kernel module (modprobe fuse), or start the container with --device /dev/fuse --cap-add SYS_ADMIN"
    { : <>/dev/fuse; } 2>/dev/null || die "/dev/fuse may not be opened: start the container with --device /dev/fuse --cap-add SYS_ADMIN"
}

# A CPU build saves gigabytes where there is no NVIDIA device, if the package sources that pip is configured with have one.
install_torch() {
    say "Installing torch $torch (hundreds of megabytes, or gigabytes with CUDA; only once)"
    if [ ! -e /dev/nvidia0 ] && ! command -v nvidia-smi >/dev/null; then
        "$venv/bin/pip" install --quiet --retries 1 --timeout 15 --only-binary=:all: "torch==$torch+cpu" 2>/dev/null && return
    fi
    "$venv/bin/pip" install "torch==$torch" >&2 || die "torch $torch could not be installed: is there a network, and room on the disk?"
}

# setup EXTRA: FUSE, and .venv with this repository and its optional dependencies EXTRA. Does nothing where nothing changed.
setup() {
    local extra=$1 python stamp want
    python=$(find_python)
    need_fuse "$python"
    stamp=$venv/.installed-$extra
    want=$(cksum <"$root/pyproject.toml")
    if [ -x "$venv/bin/python" ] && is_python "$venv/bin/python" && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
        return
    fi
    if ! { [ -x "$venv/bin/pip" ] && is_python "$venv/bin/python"; }; then
        say "Making a Python environment in $venv"
        rm -rf "$venv"
        if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
            install_packages "a Python environment" python3-venv
        fi
        "$python" -m venv "$venv" || die "$python could not make an environment in $venv"
    fi
    "$venv/bin/python" -c 'import torch' 2>/dev/null || install_torch
    say "Installing SDFS and its dependencies ($extra)"
    "$venv/bin/pip" install --quiet --editable "$root[$extra]" >&2 || die "the dependencies could not be installed: is there a network?"
    printf '%s\n' "$want" >"$stamp"
}

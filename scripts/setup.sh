# Sourced by run, test and check: goes to the repository's root and defines what they set up; nothing happens twice.

venv=${DREAMPOSE_VENV:-}  # where the packages go; elsewhere for a tree that is not to be written to
[[ -z $venv || $venv == /* ]] || venv=$PWD/$venv
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${venv:-$PWD/.venv}

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Installs packages of the system where we may (root, or sudo that asks for no password); fails without a word otherwise.
system_install() {
    local -a as_root=()
    command -v apt-get >/dev/null || return 1
    if [[ $(id -u) != 0 ]]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    say "Installing $* with apt-get ..."
    "${as_root[@]}" apt-get update -qq >&2 || say "apt-get update failed; trying with the package lists at hand."
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

make_venv() {
    local candidate python="" package
    if [[ -x $venv/bin/python ]] && new_enough "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && new_enough "$candidate"; then python=$candidate; break; fi
    done
    [[ -n $python ]] || die "DreamPose needs Python 3.11 or newer, and none was found." \
        "Install it (Debian 12, Ubuntu 24.04 or newer: sudo apt-get install python3) and run this again."
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
        system_install "$package" || die "Python's venv module is incomplete. Run 'sudo apt-get install $package' and then this again."
    fi
    if [[ -e $venv && ! -e $venv/pyvenv.cfg && -n $(ls -A "$venv") ]]; then  # --clear would empty it
        die "$venv is there and holds no Python environment: name another folder in DREAMPOSE_VENV and run this again."
    fi
    say "Making ${venv##*/} with $("$python" --version) ..."
    "$python" -m venv --clear "$venv" || die "No Python environment can be made at $venv: name another folder in DREAMPOSE_VENV and run this again."
}

# Installs the pinned packages of file $1 unless its copy beside them says that this was done.
install_requirements() {
    local file=$1 torch
    if cmp -s "$file" "$venv/installed-$file" && cmp -s requirements.txt "$venv/installed-requirements.txt"; then return; fi
    torch=$(grep -E '^torch==' requirements.txt)
    if ! "$venv/bin/python" -m pip show -q torch 2>/dev/null && ! command -v nvidia-smi >/dev/null; then
        say "No NVIDIA GPU here. Should pip now fetch torch's CUDA build (some GB; it works, too), you may interrupt it, set" \
            "PIP_EXTRA_INDEX_URL to the CPU index that PyTorch's installation page names, and run this again."
    fi
    say "Installing the packages of $file (the first time takes some minutes) ..."
    # torch first and alone, so that a machine's own wheel of it is chosen before anything else asks for one.
    "$venv/bin/python" -m pip install --disable-pip-version-check "$torch" >&2
    "$venv/bin/python" -m pip install --disable-pip-version-check -r "$file" >&2
    cp requirements.txt "$venv/installed-requirements.txt"
    [[ $file == requirements.txt ]] || cp "$file" "$venv/installed-$file"
}

need_ffmpeg() {
    if command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null; then return; fi
    system_install ffmpeg || die "ffmpeg and ffprobe are needed on PATH." \
        "Install them (Debian, Ubuntu: sudo apt-get install ffmpeg; macOS: brew install ffmpeg) and run this again."
}

# Prints the path of a Chromium that starts; fails where none can be had.
find_chromium() {
    local candidate
    for candidate in "${DREAMPOSE_CHROMIUM:-}" chromium chromium-browser google-chrome; do
        if [[ -n $candidate ]] && "$candidate" --version >/dev/null 2>&1; then command -v "$candidate"; return; fi
    done
    candidate=$("$venv/bin/python" -c 'from playwright.sync_api import sync_playwright as start
with start() as playwright: print(playwright.chromium.executable_path)' 2>/dev/null) || return 1
    "$candidate" --version >/dev/null 2>&1 && echo "$candidate"
}

# Debian has Chromium itself; Ubuntu's package is only a door to snap, so there playwright brings its own build.
install_chromium() {
    local id=""
    [[ -r /etc/os-release ]] && id=$(. /etc/os-release && echo "${ID:-}")
    if [[ $id == debian ]] && system_install chromium; then return; fi
    say "Fetching playwright's Chromium ..."
    "$venv/bin/python" -m playwright install chromium >&2 || return 1
    if [[ $(id -u) == 0 ]]; then "$venv/bin/python" -m playwright install-deps chromium >&2 || return 1; fi
}

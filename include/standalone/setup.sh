#!/bin/sh
# Make an environment from the pinned requirements, once; `make setup` and every other target call it.
#
#   setup.sh [FOLDER]   FOLDER: the environment to make (default .venv, for Airflow 3 .venv-airflow3)
#   setup.sh --folder   say which that is, and make nothing; 1 where there is no Python for it
#   AIRFLOW=2 or 3   which Airflow it is for; by itself 3 where no Python for Airflow 2 is found but one for 3
#   PYTHON=/path/to/python   the interpreter to use instead of searching
#
# A second call costs a few milliseconds. It works again when a requirements file changed, the checkout
# moved, the environment is broken, or the last call was interrupted.
set -eu
# These would reach every Python below; the last one would keep it from storing byte-code.
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV PYTHONDONTWRITEBYTECODE
cd "$(dirname "$0")/../.."

say() { echo "setup: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

# What the environment depends on: the pins, this script, and where the checkout lies (scripts name their
# interpreter by its full path).
wanted() {
    cksum "$requirements" requirements-dev.txt "$constraints" include/standalone/setup.sh
    pwd -P
}

complete() {
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted)" ] && [ -x "$venv/bin/airflow" ] &&
        "$venv/bin/python" -c '' 2>/dev/null && asked_for
}

# True unless PYTHON asks for another interpreter than the environment's.
asked_for() {
    [ -z "${PYTHON:-}" ] || [ "$(base_of "$venv/bin/python")" = "$(base_of "$PYTHON")" ]
}

base_of() { "$1" -c 'import sys; print(sys.base_prefix)' 2>/dev/null; }

# "3.12 Linux x86_64 /path/of/interpreter", nothing where $1 does not run: a pyenv shim can be in PATH
# and answer "command not found".
describe() {
    "$1" -c 'import platform, sys
print("%d.%d" % sys.version_info[:2], platform.system(), platform.machine(), sys.executable)' 2>/dev/null || true
}

# What Airflow $airflow runs on, the first choice first.
versions() {
    case $airflow in
    3) echo 3.13 3.12 3.14 ;;
    *) echo 3.12 3.11 ;;
    esac
}

supported() {
    for version in $(versions); do
        case $1 in
        "$version Linux x86_64 "* | "$version Linux aarch64 "*) return 0 ;;
        esac
    done
    return 1
}

# Set python to an interpreter, and found to what was there instead.
find_python() {
    python= found=
    for candidate in ${PYTHON:-$(candidates)}; do
        description=$(describe "$candidate")
        [ -n "$description" ] || continue
        if supported "$description"; then
            python=${description#* * * }
            return
        fi
        found="${found:+$found, }$candidate is Python ${description% *}"
    done
    return 1
}

# Those of pyenv are in PATH only where they are switched on.
candidates() {
    for version in $(versions); do echo "python$version"; done
    echo python3
    for version in $(versions); do
        for candidate in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/"python$version"; do
            [ -x "$candidate" ] && echo "$candidate"
        done
    done
}

choose_airflow() {
    airflow=${AIRFLOW:-2}
    [ -z "${AIRFLOW:-}" ] || return 0
    [ ! -f .venv/.complete ] || return 0
    find_python && return
    airflow=3
    find_python || airflow=2
}

choose_airflow
case $airflow in
2) requirements=requirements.txt constraints=constraints.txt folder=.venv ;;
3) requirements=requirements-airflow3.txt constraints=constraints-airflow3.txt folder=.venv-airflow3 ;;
*) fail "AIRFLOW=$airflow: give 2 or 3" ;;
esac
if [ "${1:-}" = --folder ]; then
    echo "$folder"
    [ -f "$folder/.complete" ] || find_python
    exit
fi
venv=${1:-$folder}
stamp=$venv/.complete

if complete; then
    exit 0
fi

# Two calls at once: the second waits, and finds the work done. The lock ends with this process.
exec 9<include/standalone/setup.sh
if command -v flock >/dev/null; then
    flock 9
    if complete; then
        exit 0
    fi
fi

# An environment that runs on a supported Python is kept, whichever interpreter a search would find today:
# it may be in use. Only one of another interpreter than PYTHON asks for, of another place, or left by an
# interrupted call is made anew.
reusable() {
    [ -f "$venv/pyvenv.cfg" ] && [ ! -f "$venv/.incomplete" ] && [ -x "$venv/bin/airflow" ] &&
        [ "$(sed -n '1s/^#!//p' "$venv/bin/airflow")" = "$(pwd -P)/$venv/bin/python" ] &&
        supported "$(describe "$venv/bin/python")" && asked_for
}

if reusable; then
    python=$("$venv/bin/python" -c 'import sys; print(sys._base_executable)')
else
    find_python ||
        fail "Airflow $airflow needs Python $(versions | sed 's/ / or /g') on Linux x86_64 or aarch64;" \
            "found: ${found:-no Python that runs}. Install one with your system's package manager, or use" \
            "Docker: docker compose up"
fi
. include/standalone/uv_settings.sh
uv_settings "$python"

if ! reusable; then
    if [ -d "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ] && [ ! -f "$venv/.incomplete" ]; then
        fail "$venv exists and is no Python environment: move it away"
    fi
    say "making $venv with $python"
    rm -rf "$venv"
    mkdir -p "$venv"
    : >"$venv/.incomplete"
    if uv --version >/dev/null 2>&1; then
        uv venv --quiet --allow-existing --no-project --python "$python" "$venv" ||
            fail "uv could not make $venv (see above)"
    else
        "$python" -m venv "$venv" ||
            fail "$python cannot make an environment: install its venv package" \
                "(Debian, Ubuntu: apt-get install python3-venv), or uv"
    fi
fi
: >"$venv/.incomplete"

if uv --version >/dev/null 2>&1; then
    uv=uv
else
    pin=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements-dev.txt)
    say "getting uv $pin through pip"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$pin" ||
        fail "pip could not install uv $pin: is the package index reachable?"
    uv=$venv/bin/uv
fi

say "installing $(grep -c '^[A-Za-z0-9]' "$constraints") packages and compiling them (one to three minutes)"
"$uv" pip install --quiet --python "$venv/bin/python" --compile-bytecode \
    -r "$requirements" -r requirements-dev.txt -c "$constraints" ||
    fail "the installation failed (see above): is the package index reachable? Run it again to go on"

wanted >"$venv/.complete.new"
mv "$venv/.complete.new" "$stamp"
rm "$venv/.incomplete"
say "$venv is ready"

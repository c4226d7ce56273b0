#!/bin/sh
# Run the unit tests on the other supported Python too, in an environment of its own (.venv-3.11 or
# .venv-3.12). Where the machine does not have it, say so loudly and succeed.
set -eu
cd "$(dirname "$0")/../.."
if [ ! -x .venv/bin/python ]; then
    echo "SKIPPED: the unit tests on a second Python, which are for Airflow 2.11" >&2
    exit 0
fi
case $(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])') in
3.12) other=3.11 ;;
*) other=3.12 ;;
esac

find_other() {
    # Run each one: a pyenv shim can be in PATH for a version that is not switched on.
    for candidate in "python$other" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$other".*/bin/"python$other"; do
        if "$candidate" -c '' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

python=$(find_other)
if [ -z "$python" ]; then
    echo "SKIPPED: the unit tests on Python $other, which is not on this machine:" \
        "install python$other with your system's package manager" >&2
    exit 0
fi
PYTHON=$python include/standalone/setup.sh ".venv-$other"
echo "unit tests on Python $other" >&2
exec ".venv-$other/bin/python" -m pytest tests/unit -q -p no:cacheprovider "$@"

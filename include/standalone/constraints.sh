#!/bin/sh
# Compile constraints.txt, the whole resolution of the two requirements files, or check that it still is.
#
#   constraints.sh write   what `make constraints` does; `--upgrade` after it takes newer releases
#   constraints.sh check   compare, say what differs, write nothing
#
# One file serves Python 3.11 and 3.12 (markers tell them apart). The pins that stand are preferred, so a
# new release somewhere does not turn the check red; a changed requirements file does.
set -eu
cd "$(dirname "$0")/../.."
uv=.venv/bin/uv
. include/standalone/uv_settings.sh
uv_settings "$(.venv/bin/python -c 'import sys; print(sys._base_executable)')"

compile() {
    output=$1
    shift
    # The command in the header, and no index address: nothing of the machine that compiled it.
    "$uv" pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
        --custom-compile-command 'make constraints' --output-file "$output" "$@" \
        requirements.txt requirements-dev.txt >/dev/null || {
        echo "constraints: uv could not resolve the requirements (see above): is the package index reachable?" >&2
        exit 1
    }
}

case ${1:-} in
write)
    shift
    compile constraints.txt "$@"
    ;;
check)
    fresh=$(mktemp)
    trap 'rm -f "$fresh"' EXIT
    cp constraints.txt "$fresh"
    compile "$fresh"
    if ! diff -u --label constraints.txt --label 'what the requirements need' constraints.txt "$fresh"; then
        echo "constraints: constraints.txt is not what the requirements files need (above): run" \
            "\`make constraints\` and commit it" >&2
        exit 1
    fi
    ;;
*)
    echo "usage: constraints.sh write [--upgrade] | check" >&2
    exit 2
    ;;
esac

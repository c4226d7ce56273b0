#!/bin/sh
# Compile constraints.txt and constraints-airflow3.txt, the whole resolutions of the requirements files, or
# check that they still are.
#
#   constraints.sh write   what `make constraints` does; `--upgrade` after it takes newer releases
#   constraints.sh check   compare, say what differs, write nothing
#
# One file serves several Pythons (markers tell them apart). The pins that stand are preferred, so a
# new release somewhere does not turn the check red; a changed requirements file does.
set -eu
cd "$(dirname "$0")/../.."
venv=${VENV:-.venv}
uv=$venv/bin/uv
. include/standalone/uv_settings.sh
uv_settings "$("$venv/bin/python" -c 'import sys; print(sys._base_executable)')"
# What a machine keeps beside its index may be some wheels of a release, of one Python only.
unset UV_INDEX UV_FIND_LINKS

# compile PYTHON SUFFIX OUTPUT [OPTION…]: the oldest Python, which of the requirements, where to.
compile() {
    python=$1 requirements=requirements$2.txt output=$3
    shift 3
    # The command in the header, and no index address: nothing of the machine that compiled it.
    "$uv" pip compile --quiet --universal --python-version "$python" --no-emit-index-url \
        --no-emit-find-links --custom-compile-command 'make constraints' --output-file "$output" "$@" \
        "$requirements" requirements-dev.txt >/dev/null || {
        echo "constraints: uv could not resolve $requirements (see above): is the package index reachable?" >&2
        exit 1
    }
}

# check PYTHON SUFFIX
check() {
    pins=constraints$2.txt
    cp "$pins" "$fresh"
    compile "$1" "$2" "$fresh"
    if ! diff -u --label "$pins" --label 'what the requirements need' "$pins" "$fresh"; then
        echo "constraints: $pins is not what the requirements files need (above): run" \
            "\`make constraints\` and commit it" >&2
        exit 1
    fi
}

case ${1:-} in
write)
    shift
    compile 3.11 '' constraints.txt "$@"
    compile 3.12 -airflow3 constraints-airflow3.txt "$@"
    ;;
check)
    fresh=$(mktemp)
    trap 'rm -f "$fresh"' EXIT
    check 3.11 ''
    check 3.12 -airflow3
    ;;
*)
    echo "usage: constraints.sh write [--upgrade] | check" >&2
    exit 2
    ;;
esac

#!/bin/sh
# Delete what this checkout's runs have made: the state folder with the database, its private folder
# outside the checkout, the environments, caches. Works without the environment, and after a broken set-up.
set -eu
cd "$(dirname "$0")/../.."
state=${MLTRADING_STATE_DIR:-.state}

# True while process $1 serves the data folder $2.
serves() {
    [ -r "/proc/$1/cmdline" ] && tr '\0' '\n' <"/proc/$1/cmdline" | grep -Fqx "$2"
}

if [ -f "$state/stack.json" ]; then
    # {"pid": PID, …}; null once it has ended in order.
    pid=$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' "$state/stack.json")
    if [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q 'include\.standalone'; then
        echo "clean: a run of this checkout is up as pid $pid: end it first (Ctrl-C in its terminal)" >&2
        exit 1
    fi
fi

private=
if [ -f "$state/postgres/private_folder" ]; then
    private=$(cat "$state/postgres/private_folder")
    # A copied checkout points to the original's folder: not ours to delete.
    if [ "$(cat "$private/state_folder" 2>/dev/null)" != "$(cd "$state" && pwd)" ]; then
        private=
    fi
fi

for data in "$(cd "$state" 2>/dev/null && pwd)/postgres/data" "${private:+$private/data}"; do
    [ -f "$data/postmaster.pid" ] || continue
    pid=$(head -n 1 "$data/postmaster.pid")
    serves "$pid" "$data" || continue
    kill -INT "$pid"
    while serves "$pid" "$data"; do sleep 0.1; done
done

case $private in
/var/lib/mltrading/?*)
    rm -rf "$private"
    rmdir /var/lib/mltrading 2>/dev/null || true
    ;;
esac
rm -rf "$state" .venv .venv-airflow3 .venv-3.11 .venv-3.12 .pytest_cache .mypy_cache .ruff_cache .hypothesis bench.json
find . -name .git -prune -o -type d -name __pycache__ -exec rm -rf {} +
echo "clean: done" >&2

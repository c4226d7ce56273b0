# Sourced, not run. uv does not read pip's settings: `uv_settings INTERPRETER` passes on the index a machine
# has set up for pip, so that both reach the same packages. What is set for uv itself stands.
# shellcheck shell=sh
uv_settings() {
    # Only interpreters this machine has are used.
    export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
    # As pip does; which version is taken is not left to an index, every one is pinned.
    export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
    [ -z "${UV_DEFAULT_INDEX:-}" ] || return 0
    pip_settings=$("$1" -m pip config list 2>/dev/null || true)
    pass_on UV_DEFAULT_INDEX "${PIP_INDEX_URL:-$(of_pip index-url)}"
    pass_on UV_INDEX "${UV_INDEX:-${PIP_EXTRA_INDEX_URL:-$(of_pip extra-index-url)}}"
    pass_on UV_FIND_LINKS "${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$(of_pip find-links)}}"
}

# What pip's configuration files say of a key; pip shows several values in one, with \n between.
of_pip() { printf '%s\n' "$pip_settings" | sed -n "s/^global\.$1='\(.*\)'\$/\1/p" | sed 's/\\n/ /g'; }

pass_on() { [ -z "$2" ] || export "$1=$2"; }

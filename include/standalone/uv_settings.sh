# Sourced, not run. uv does not read pip's settings: `uv_settings INTERPRETER` passes on the index a machine
# has set up for pip, so that both reach the same packages. What is set for uv itself stands.
# shellcheck shell=sh
uv_settings() {
    # Only interpreters this machine has are used.
    export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
    # As pip does; which version is taken is not left to an index, every one is pinned.
    export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
    pass_on UV_DEFAULT_INDEX "${PIP_INDEX_URL:-}" "$1" index-url
    pass_on UV_INDEX "${PIP_EXTRA_INDEX_URL:-}" "$1" extra-index-url
    pass_on UV_FIND_LINKS "${PIP_FIND_LINKS:-}" "$1" find-links
}

# pass_on VARIABLE VALUE INTERPRETER KEY: VALUE, or what pip's configuration files say of KEY.
pass_on() {
    eval "known=\${$1:-}"
    [ -z "$known" ] || return 0
    value=${2:-$("$3" -m pip config get "global.$4" 2>/dev/null || true)}
    [ -z "$value" ] || export "$1=$value"
}

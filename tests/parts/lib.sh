# Common to the parts of tests/run; sourced, not run. A part exits 0 when it passed, with $SKIP when there was
# nothing to do, with anything else when it failed.

SKIP=77
REPORT=$PWD/target/report
TOOLS=$PWD/target/tools

# say TEXT: a line of the part itself, apart from what its tools print.
say() { printf '   %s\n' "$*"; }

die() {
    printf '   %s\n' "$*" >&2
    exit 1
}

# need_packages PACKAGE...: installed from Debian's packages, or a sentence that says so.
need_packages() {
    if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
        say "installing $*"
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "$@"; } \
            >/dev/null || die "the packages $* could not be installed"
    else
        die "missing: $*; on Debian run: sudo apt-get install $*"
    fi
}

# need COMMAND PACKAGE...: the command is there, or its packages are installed.
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null || need_packages "$@"
    command -v "$command" >/dev/null || die "\"$command\" is still missing with $* installed"
}

# need_cargo: cargo, and a C compiler for SQLite, for ring and for linking.
need_cargo() {
    command -v cargo >/dev/null || die "\"cargo\" is missing; install Rust from https://rustup.rs"
    need cc gcc libc6-dev
}

# component COMMAND NAME: a part of the toolchain that a minimal installation leaves out.
component() {
    cargo "$1" --version >/dev/null 2>&1 && return
    command -v rustup >/dev/null || die "\"cargo $1\" is missing; install the toolchain's component $2"
    rustup component add "$2" || die "rustup could not add $2"
}

# cargo_tool NAME VERSION: a tool from crates.io, in target/tools, not in the user's home.
cargo_tool() {
    local name=$1 version=$2
    export PATH="$TOOLS/bin:$PATH"
    [[ $("$TOOLS/bin/$name" --version 2>/dev/null) == "$name $version"* ]] && return
    say "building $name $version (once; it stays in target/tools)"
    # From another directory: this workspace's settings are not the tool's.
    (cd / && CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --profile dev --root "$TOOLS" \
        "$name@$version") || die "$name $version could not be built"
}

# report NAME UNIT VALUE: one figure into target/report/NAME.json.
report() {
    mkdir -p "$REPORT"
    printf '{"name": "%s", "unit": "%s", "value": %s}\n' "$1" "$2" "$3" >"$REPORT/$1.json"
}

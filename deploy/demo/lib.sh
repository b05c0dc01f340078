# Shared by the demos; each sources it first. It makes a working directory, and undoes everything at the end, however
# the demo ends.
#
#   step SENTENCE               say what comes now
#   at HOST COMMAND...          type a command on that host (or right here: `operator`), and show what it says, which is
#                               then in SAID
#   refused WHY HOST COMMAND... the same, of a command that has to fail and to say WHY
#   says TEXT SENTENCE          the last command has said just TEXT; otherwise the demo fails with SENTENCE
#   cluster_up                  three metadata servers and three stores
#   need PROGRAM PACKAGE ...    fail with the name of the package when a program is absent
#
# HOLDFAST_BIN  the program (default: target/release/holdfast of this tree), with holdfast-keeper beside it
# DEMO_DIR      where to work (default: /var/tmp)
# KEEP=1        leave the working directory behind, with the logs

set -Eeuo pipefail

DEMO=$(basename "$0")
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CLUSTER_COMMAND=$ROOT/deploy/local/cluster
HOLDFAST_BIN=$(realpath -m "${HOLDFAST_BIN:-$ROOT/target/release/holdfast}")
DEFERRED=()
SAID=
source "$ROOT/deploy/demo/hosts.sh"

# --- what a reader sees -------------------------------------------------------------------------------------------

step() { printf '\n# %s\n' "$*"; }

at() { typed "$@" || fail "this failed on $(name_of "$1"): $(quoted "${@:2}")"; }

refused() {
    local why=$1
    shift
    if typed "$@"; then fail "this was not refused on $(name_of "$1"): $(quoted "${@:2}")"; fi
    [[ $SAID == *"$why"* ]] || fail "this was not refused with '$why': $(quoted "${@:2}")"
}

says() { [[ $SAID == "$1" ]] || fail "$2"; }

# typed HOST COMMAND...: shown as a person would type it, with what it says below. Numbers of containers and images tell
# a reader nothing.
typed() {
    local host=$1 status=0
    shift
    printf '%s$ %s\n' "$(name_of "$host")" "$(quoted "$@")"
    run_on "$host" "$@" >"$WORK/said" 2>&1 </dev/null || status=$?
    SAID=$(cat "$WORK/said")
    [[ -z $SAID ]] || sed -E '/^(sha256:)?[0-9a-f]{64}$/d; s/^/    /' <<<"$SAID"
    return "$status"
}

name_of() { if [[ $1 == operator ]]; then echo operator; else echo "host-$1"; fi; }

run_on() {
    case $1:$2 in
    operator:*) "${@:2}" ;;
    *:docker) engine "$1" "${@:3}" ;;
    *) on "$1" "${@:2}" ;;
    esac
}

# The words of a command, in quotes where a shell needs them.
quoted() {
    local word words=()
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_./:=,@%+-]*\'* | \'*) words+=("\"$word\"") ;;
        *[!A-Za-z0-9_./:=,@%+-]* | '') words+=("'$word'") ;;
        *) words+=("$word") ;;
        esac
    done
    echo "${words[*]}"
}

fail() {
    printf '%s: FAILED: %s\n' "$DEMO" "$*" >&2
    exit 1
}

# --- what has to be undone ----------------------------------------------------------------------------------------

# defer COMMAND...: run it at the end; the last is run first.
defer() { DEFERRED+=("$(printf '%q ' "$@")"); }

finish() {
    local status=$? place
    trap '' INT TERM
    trap - EXIT ERR
    set +e
    cd /
    for ((place = ${#DEFERRED[@]} - 1; place >= 0; place--)); do
        if ! eval "${DEFERRED[place]}"; then
            printf '%s: FAILED: cleaning up: %s\n' "$DEMO" "${DEFERRED[place]}" >&2
            status=1
        fi
    done
    ((status)) || printf '\n%s: all as it should be, in %s s\n' "$DEMO" "$SECONDS"
    exit "$status"
}

remove_work() {
    [[ -z ${KEEP:-} ]] || { echo "kept $WORK"; return 0; }
    # Nothing may be removed through a mount that is still there.
    if grep -q " $WORK/" /proc/self/mounts; then
        echo "still mounted below $WORK" >&2
        return 1
    fi
    rm -rf --one-file-system "$WORK"
}

# --- a cluster ----------------------------------------------------------------------------------------------------

cluster_up() {
    CLUSTER=$WORK/cluster
    step "A cluster: three metadata servers and three stores, three copies of everything."
    defer cluster_down
    "$CLUSTER_COMMAND" up "$CLUSTER" >"$WORK/cluster.log" 2>&1 ||
        fail "the cluster does not start: $(tail -1 "$WORK/cluster.log")"
    use_credential "$CLUSTER/admin.credential"
}

# Operators' commands and the hosts' plugins show it from now on.
use_credential() {
    CREDENTIAL=$1
    export HOLDFAST_CREDENTIAL=$1
}

# By force when it does not go; that is a failure.
cluster_down() {
    local file
    # Interrupted before that file is there, nothing was started.
    [[ -e $CLUSTER/admin.credential ]] || return 0
    timeout 60 "$CLUSTER_COMMAND" down "$CLUSTER" && return 0
    for file in "$CLUSTER"/*/pid; do
        [[ ! -e $file ]] || kill -KILL "$(cat "$file")" 2>/dev/null
    done
    return 1
}

# --- hosts and images ---------------------------------------------------------------------------------------------

# hosts_up HOST...
hosts_up() {
    local host
    step "Hosts with a Docker engine each: $(printf 'host-%s ' "$@")"
    for host in "$@"; do host_up "$host"; done
}

# own_srv HOST: a /srv of that host's own. What is mounted there reaches containers that ask for it, as everything does
# on a host with systemd.
own_srv() {
    on "$1" mount -t tmpfs -o mode=755 tmpfs /srv
    on "$1" mount --make-shared /srv
}

# site_image HOST VERSION: the next release of a site, as its authors make it.
site_image() {
    local dir=$WORK/site
    mkdir -p "$dir"
    echo "This is version $2" >"$dir/index.html"
    printf 'FROM httpd\nCOPY index.html /usr/local/apache2/htdocs/\n' >"$dir/Dockerfile"
    echo "host-$1\$ docker build -t site:$2 ."
    engine "$1" build -q -t "site:$2" "$dir" >"$WORK/build.log" 2>&1 ||
        fail "the image is not built: $(tail -1 "$WORK/build.log")"
}

# web HOST NAME OPTION... IMAGE: a container of the site that answers.
web() {
    at "$1" docker run -d --name "$2" --network none "${@:3}"
    until_so 20 engine "$1" exec "$2" wget -qO /dev/null http://127.0.0.1/ || fail "container $2 does not answer"
}

# --- the beginning ------------------------------------------------------------------------------------------------

need() {
    while (($#)); do
        command -v "$1" >/dev/null || fail "needs $1: apt install $2"
        shift 2
    done
}

[[ $EUID -eq 0 ]] || fail "needs root, for namespaces and mounts"
need dockerd docker.io docker docker.io busybox busybox-static curl curl jq jq
need pgrep procps unshare util-linux mount mount
for program in "$HOLDFAST_BIN" "$(dirname "$HOLDFAST_BIN")/holdfast-keeper"; do
    [[ -x $program ]] || fail "$program is not there: build it with cargo build --release, or set HOLDFAST_BIN"
done
PATH=$(dirname "$HOLDFAST_BIN"):$PATH
# The engine's own builder needs nothing else.
export DOCKER_BUILDKIT=0
WORK=$(mktemp -d "${DEMO_DIR:-/var/tmp}/holdfast-demo-$DEMO.XXXXXX")
chmod 755 "$WORK"
defer remove_work
trap finish EXIT
trap 'printf "%s: FAILED: line %s: %s\n" "$DEMO" "$LINENO" "$BASH_COMMAND" >&2' ERR
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$WORK"

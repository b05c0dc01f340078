# Shared by the suites; each sources it first.
#
# A suite is a program that ends with 0 when what it is named after holds, and says on its last line what it did. It
# works in a directory of its own, on a cluster of its own, and leaves nothing behind: whatever it starts it hands to
# `defer`, which undoes it at the end, in reverse, however the suite ends.
#
#   TEST_ON=ext4    run on a local ext4 directory instead of a cluster, bind-mounted where several mounts are asked
#                   for. On ext4 every suite that can run there must pass: that proves the suite.
#   KEEP=1          leave the working directory (and its logs) behind.
#
# Environment, set by tests/run: HOLDFAST_BIN and TORTURE (programs), SUITE_TOOLS (directory of pjdfstest and fsx),
# SUITE_LOGS (where the cluster's logs go when the suite fails).

set -Eeuo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SUITE=$(basename "$0")
CLUSTER_COMMAND=$ROOT/deploy/local/cluster
TEST_ON=${TEST_ON:-cluster}
MOUNTS=()
DEFERRED=()

say() { printf '%s: %s\n' "$SUITE" "$*"; }

fail() {
    printf '%s: FAILED: %s\n' "$SUITE" "$*" >&2
    exit 1
}

# need COMMAND...: a test that needs something absent fails with its name.
need() {
    local command
    for command in "$@"; do
        command -v "$command" >/dev/null || fail "needs $command, which is not installed"
    done
}

need_root() { [[ $EUID -eq 0 ]] || fail "needs root (mounts, namespaces, other users)"; }

# defer COMMAND...: run it at the end.
defer() { DEFERRED+=("$(printf '%q ' "$@")"); }

finish() {
    local status=$? place
    trap '' INT TERM
    trap - EXIT
    set +e
    cd /
    [[ $status -ne 0 ]] && keep_logs
    for ((place = ${#DEFERRED[@]} - 1; place >= 0; place--)); do
        if ! eval "${DEFERRED[place]}"; then
            printf '%s: FAILED: cleaning up: %s\n' "$SUITE" "${DEFERRED[place]}" >&2
            status=1
        fi
    done
    exit "$status"
}

keep_logs() {
    [[ -n ${SUITE_LOGS:-} && -d $WORK/cluster ]] || return 0
    mkdir -p "$SUITE_LOGS/$SUITE.cluster"
    local log
    for log in "$WORK"/cluster/*/log; do
        tail -c 4M "$log" >"$SUITE_LOGS/$SUITE.cluster/$(basename "$(dirname "$log")").log"
    done
}

remove_work() {
    [[ -n ${KEEP:-} ]] && { say "kept $WORK"; return 0; }
    # Nothing may be removed through a mount that is still there.
    if grep -q " $WORK/" /proc/self/mounts; then
        say "still mounted below $WORK"
        return 1
    fi
    rm -rf --one-file-system "$WORK"
}

unmount() {
    timeout 60 umount "$1" && return 0
    umount --lazy "$1"
    say "umount $1 failed or hung"
    return 1
}

# stop PID: end a process of ours and wait for it.
stop() {
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# True when a process is gone, or is only not yet buried. A process whose first thread has ended looks the same while
# its others still wait in the kernel, and those hold its files open.
ended() {
    [[ -e /proc/$1 ]] || return 0
    [[ $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) == [ZX]* ]] || return 1
    (($({ ls "/proc/$1/task" 2>/dev/null || true; } | wc -l) <= 1))
}

# wait_until SECONDS COMMAND...: until it succeeds.
wait_until() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < until)) || return 1
        sleep 0.1
    done
}

# readme_blocks README DIR: each block of commands in that file as a file there, named by its heading and its number below that: `Docker 1`.
readme_blocks() {
    awk -v dir="$2" '
        /^```/ { inside = !inside; file = ""; if (inside && $0 == "```sh") file = dir "/" heading " " ++number; next }
        inside { if (file) print >file; next }
        /^##+ / { heading = $0; sub(/^#+ /, "", heading); number = 0 }' "$1"
}

now_ms() { date +%s%3N; }

# --- what the suite runs on ---------------------------------------------------------------------------------------

# ext4_at PATH MEGABYTES: a fresh ext4 filesystem mounted there.
ext4_at() {
    truncate -s "$2M" "$1.image"
    mkfs.ext4 -q -F -I 256 "$1.image"
    mkdir -p "$1"
    mount -o loop "$1.image" "$1"
    defer unmount "$1"
}

# mounts COUNT [-o OPTIONS]: sets MOUNTS to COUNT mounts of one volume of a fresh cluster (or of one ext4 directory).
mounts() {
    local count=$1 n
    shift
    need_root
    if [[ $TEST_ON == ext4 ]]; then
        ext4_at "$WORK/ext4" 4096
        rmdir "$WORK/ext4/lost+found"
    else
        cluster_up
    fi
    for ((n = 1; n <= count; n++)); do
        add_mount "$WORK/mnt$n" "$@"
    done
}

# add_mount PATH [-o OPTIONS]: one more mount of the same volume, appended to MOUNTS.
add_mount() {
    local path=$1
    shift
    mkdir -p "$path"
    if [[ $TEST_ON == ext4 ]]; then
        mount --bind "$WORK/ext4" "$path"
        defer unmount "$path"
    else
        # `cluster down` unmounts what is mounted, and says when it cannot.
        cluster mount main "$path" "$@"
    fi
    MOUNTS+=("$path")
}

only_on_a_cluster() { [[ $TEST_ON == cluster ]] || fail "is about a cluster and cannot run on $TEST_ON"; }

cluster() {
    local verb=$1
    shift
    "$CLUSTER_COMMAND" "$verb" "$CLUSTER" "$@"
}

cluster_up() {
    [[ -x $CLUSTER_COMMAND ]] || fail "needs deploy/local/cluster, which is not there"
    [[ -x ${HOLDFAST_BIN:-} ]] || fail "needs the holdfast program in HOLDFAST_BIN (tests/run builds it)"
    install_helpers
    CLUSTER=$WORK/cluster
    defer cluster_down
    cluster up
}

# Ends the cluster, by force when it does not go; then the suite has failed. So it has when a client took more memory than
# it may by default.
cluster_down() {
    local status=0
    memory_is_kept || status=1
    cluster_ends || status=1
    return "$status"
}

memory_is_kept() {
    local path peak_kib
    for path in "$CLUSTER"/mount-*/pid; do
        [[ -e $path ]] || continue
        peak_kib=$(sed -n 's/^VmHWM:\s*\([0-9]*\) kB/\1/p' "/proc/$(cat "$path")/status" 2>/dev/null)
        ((${peak_kib:-0} <= 256 * 1024)) || { say "a client took $((peak_kib / 1024)) MiB"; return 1; }
        [[ -z $peak_kib || -z ${SUITE_LOGS:-} ]] ||
            printf '%s: a client took %s MiB\n' "$SUITE" $((peak_kib / 1024)) >>"$SUITE_LOGS/memory"
    done
}

cluster_ends() {
    local path pid
    timeout 90 "$CLUSTER_COMMAND" down "$CLUSTER" && return 0
    for path in "$CLUSTER"/*/mnt; do [[ -e $path ]] && umount --lazy "$(cat "$path")" 2>/dev/null; done
    for pid in "$CLUSTER"/*/pid; do [[ -e $pid ]] && kill -KILL "$(cat "$pid")" 2>/dev/null; done
    return 1
}

# memory_group MIB: a control group of so much memory, in GROUP, of the first or second hierarchy; whatever is started in it
# stays in it.
memory_group() {
    local limit
    if [[ -d /sys/fs/cgroup/memory ]]; then
        GROUP=/sys/fs/cgroup/memory/holdfast-$(basename "$0")-$$
        limit=memory.limit_in_bytes
        GROUP_EVENTS=$GROUP/memory.oom_control
        group_peak() { cat "$GROUP/memory.max_usage_in_bytes"; }
    else
        GROUP=/sys/fs/cgroup/holdfast-$(basename "$0")-$$
        limit=memory.max
        GROUP_EVENTS=$GROUP/memory.events
        group_peak() { cat "$GROUP/memory.peak"; }
    fi
    mkdir "$GROUP" || fail "no control group can be made"
    defer rmdir "$GROUP"
    [[ -e $GROUP/$limit ]] || fail "this host has no memory controller"
    echo $(($1 << 20)) >"$GROUP/$limit"
}

group_kills() { sed -n 's/^oom_kill //p' "$GROUP_EVENTS"; }

# What mount(8) and umount(8) run for a Holdfast mount, as deploy/install puts it there.
install_helpers() {
    local helper
    for helper in {,u}mount.{,fuse.,fuseblk.}holdfast; do
        [[ -e /sbin/$helper && ! -L /sbin/$helper ]] && fail "/sbin/$helper is there and is not ours"
        ln -sfn "$HOLDFAST_BIN" "/sbin/$helper"
        defer rm -f "/sbin/$helper"
    done
}

# The number of the metadata server that leads; fails while there is none. Ids are the cluster's, numbers those of its
# directories: the address says which is which.
leader() {
    local address
    address=$(cluster status --json 2>/dev/null | jq -er '.leader as $l | .metas[] | select(.id == $l) | .address') || return 1
    grep -lx "$address" "$CLUSTER"/meta-*/listen | sed 's/.*meta-\([0-9]*\).*/\1/'
}

# Every server is up, has caught up, and one leads.
all_up() {
    cluster status --json 2>/dev/null | jq -e '.leader and
        ([.metas[] | select(.voter and .lag != null and .lag < 100)] | length == 3) and
        ([.stores[] | select(.up)] | length == 3)' >/dev/null
}

# The number of the mount on PATH, as `cluster kill` wants it.
mount_number() { grep -lx "$1" "$CLUSTER"/mount-*/mnt | sed 's/.*mount-\([0-9]*\).*/\1/'; }

kill_servers() { for n in 1 2 3; do cluster kill meta "$n"; cluster kill store "$n"; done; }
# A metadata server is ready when it has joined the others: so they start together.
start_servers() {
    local n pids=()
    for n in 1 2 3; do
        cluster start meta "$n" & pids+=($!)
        cluster start store "$n" & pids+=($!)
    done
    for n in "${pids[@]}"; do wait "$n" || fail "a server does not start again"; done
}

a_follower() {
    local leading
    leading=$(leader)
    echo $((leading % 3 + 1))
}

has_leader() { leader >/dev/null; }

# Where server N keeps its index (sled), which must be expendable.
index_of_meta() {
    local dir=$CLUSTER/meta-$1/data/index
    [[ -d $dir ]] || fail "metadata server $1 has no index in $dir"
    echo "$dir"
}

torture() {
    [[ -x ${TORTURE:-} ]] || fail "needs the torture program in TORTURE (tests/run builds it)"
    "$TORTURE" "$@"
}

suite_tool() {
    [[ -x ${SUITE_TOOLS:-}/$1 ]] || fail "needs $1 in SUITE_TOOLS (tests/run installs it)"
    "$SUITE_TOOLS/$1" "${@:2}"
}

WORK=$(mktemp -d "${TEST_DIR:-/var/tmp}/holdfast-$SUITE.XXXXXX")
chmod 755 "$WORK"
cd "$WORK"
defer remove_work
trap finish EXIT
trap 'printf "%s: FAILED: line %s: %s\n" "$SUITE" "$LINENO" "$BASH_COMMAND" >&2' ERR
trap 'exit 130' INT
trap 'exit 143' TERM

# Hosts with a Docker engine each, on one machine: sourced by the demos and by tests. Needs root, Debian's docker.io and busybox-static.
#
# A host is a mount and a process namespace of its own: what is mounted there is seen there alone, and when its first process is killed
# everything on it dies at once, as when the plug is pulled. Its engine is a dockerd with its own data; its plugin a `holdfast docker`.
#
#   host_up HOST [OPTION...]    start it; the options are dockerd's; without a CREDENTIAL there is no plugin yet
#   engine HOST COMMAND...      docker on that host
#   host_start HOST plugin|dockerd [OPTION...], host_stop HOST plugin|dockerd SIGNAL
#   host_kill HOST              pull the plug
#   host_freeze HOST, host_thaw HOST  everything on it stands still, containers too, as when its hypervisor pauses it; and goes on
#   image HOST NAME DIR [OPTION...]  make an image of a directory; the options are those of `docker import`
#   busybox_at DIR              a root directory with a shell and the usual commands
#   programs_at DIR FILE...     these programs in such a directory, with the libraries that they are linked to
#   httpd_image HOST            the image `httpd`, of Debian's apache2; httpd_at DIR is what is in it
#
# Reads WORK (a directory), HOLDFAST_BIN (the program) and CREDENTIAL (an operator's). `defer COMMAND...` is called with what undoes it.
# With OWN_NETWORK=1 a host has a network of its own too, where Docker makes bridges and publishes ports; that needs iproute2 and iptables.

place_of() { printf '%s/host-%s' "$WORK" "$1"; }

host_up() {
    local host=$1 place
    place=$(place_of "$host")
    mkdir -p "$place"
    setsid unshare ${OWN_NETWORK:+--net} --mount --pid --fork --kill-child --mount-proc --propagation private bash -c '
        for dir in /run/docker /run/containerd /run/holdfast; do mkdir -p $dir && mount -t tmpfs tmpfs $dir || exit 1; done
        [[ -z $2 ]] || ip link set lo up || exit 1
        touch "$1/is-up"
        while :; do sleep 1000 & wait $!; done' host "$place" "${OWN_NETWORK:-}" >"$place/log" 2>&1 </dev/null &
    echo $! >"$place/pid"
    disown
    defer host_kill "$host"
    until_so 20 test -e "$place/is-up" || { echo "host $host does not start" >&2; return 1; }
    pgrep -P "$(cat "$place/pid")" >"$place/init"
    [[ -z ${CREDENTIAL:-} ]] || host_start "$host" plugin
    host_start "$host" dockerd "${@:2}"
}

# on HOST COMMAND...: a program of that host's.
on() { nsenter --net --mount --pid --target "$(cat "$(place_of "$1")/init")" "${@:2}"; }

host_start() {
    local host=$1 what=$2 place command network=(--bridge none --iptables=false)
    [[ -z ${OWN_NETWORK:-} ]] || network=()
    place=$(place_of "$host")
    case $what in
    plugin) command=("$HOLDFAST_BIN" docker --credential "$CREDENTIAL" --dir "$place/plugin") ;;
    dockerd)
        rm -f "$place/dockerd-pid"
        command=(
            dockerd --data-root "$place/docker" --exec-root /run/docker --pidfile "$place/dockerd-pid" --host "unix://$place/docker.sock"
            ${network[@]+"${network[@]}"} --cgroup-parent "holdfast-$host" "${@:3}"
        )
        ;;
    esac
    on "$host" setsid "${command[@]}" >>"$place/$what.log" 2>&1 </dev/null &
    echo $! >"$place/$what.pid"
    disown
    until_so 60 "is_up_$what" "$place" "$host" || { tail -5 "$place/$what.log" >&2; return 1; }
}

is_up_plugin() { on "$2" curl -sf --unix-socket /run/docker/plugins/holdfast.sock http://plugin/Plugin.Activate -X POST -o /dev/null; }
is_up_dockerd() { docker -H "unix://$1/docker.sock" info >/dev/null 2>&1; }

# Its process on that host, by the number it has here.
host_process() {
    local place
    place=$(place_of "$1")
    case $2 in
    plugin) pgrep -f "^$HOLDFAST_BIN docker --credential $CREDENTIAL --dir $place/plugin" ;;
    dockerd) pgrep -f "^dockerd --data-root $place/docker" ;;
    esac
}

host_stop() {
    local pid
    for pid in $(host_process "$1" "$2"); do
        kill "-$3" "$pid"
        until_so 60 is_gone "$pid" || { echo "$2 of host $1 does not end" >&2; return 1; }
    done
}

is_gone() { [[ ! -e /proc/$1 || $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) == [ZX]* ]]; }

all_gone() {
    local pid
    for pid in "$@"; do is_gone "$pid" || return 1; done
}

host_kill() {
    local place outside init
    place=$(place_of "$1")
    [[ -e $place/pid ]] || return 0
    outside=$(cat "$place/pid")
    # Asked of the system: it may be killed while it starts, before its number is written down.
    init=$(pgrep -P "$outside" || true)
    kill -KILL $init "$outside" 2>/dev/null || true
    until_so 60 all_gone $init "$outside" || { echo "host $1 does not end" >&2; return 1; }
    rm -f "$place/pid" "$place/init" "$place/is-up"
    find /sys/fs/cgroup -depth -type d -path "*/holdfast-$1*" -exec rmdir {} + 2>/dev/null || true
}

# Also those of its containers, which have numbers of their own.
processes_of() {
    ps -e -o ppid=,pid= | awk -v init="$(cat "$(place_of "$1")/init")" '
        { children[$1] = children[$1] " " $2 }
        function tell(pid, list, n, i) { print pid; n = split(children[pid], list, " "); for (i = 1; i <= n; i++) tell(list[i]) }
        END { tell(init) }'
}

# Until nothing is there that was not stopped before: until then there may be new ones.
host_freeze() {
    local stopped='' now
    while now=$(processes_of "$1") && [[ $now != "$stopped" ]]; do
        kill -STOP $now 2>/dev/null || true
        stopped=$now
    done
}

host_thaw() { kill -CONT $(processes_of "$1") 2>/dev/null || true; }

engine() { docker -H "unix://$(place_of "$1")/docker.sock" "${@:2}"; }

image() { tar -C "$3" -c . | engine "$1" import "${@:4}" - "$2" >/dev/null; }

busybox_at() {
    local command
    mkdir -p "$1"/{bin,tmp,etc}
    cp /bin/busybox "$1/bin/busybox"
    for command in sh cat cp dd echo find grep head hostname httpd ls mkdir rm sed seq sha256sum sleep sort stat sync touch wc wget xargs; do
        ln -sf busybox "$1/bin/$command"
    done
}

# programs_at DIR FILE...: each at its place below DIR, with the libraries that it is linked to.
programs_at() {
    cp --parents --dereference --target-directory "$@"
    libraries_at "$@"
}

# The C library loads libgcc_s by itself, to end a thread.
libraries_at() {
    local dir=$1
    shift
    { echo /lib/*/libgcc_s.so.1; ldd "$@" | grep -o '/[^ :]*\.so[^ :]*'; } | sort -u |
        xargs cp --parents --dereference --target-directory "$dir"
}

# httpd_image HOST: the image `httpd`, made of Debian's; it serves /usr/local/apache2/htdocs.
httpd_image() {
    [[ -e $WORK/httpd ]] || httpd_at "$WORK/httpd"
    image "$1" httpd "$WORK/httpd" --change 'CMD ["apache2", "-f", "/etc/httpd.conf", "-D", "FOREGROUND"]'
}

httpd_at() {
    local dir=$1 modules=/usr/lib/apache2/modules
    busybox_at "$dir"
    programs_at "$dir" /usr/sbin/apache2 "$modules"/mod_{mpm_event,authz_core,dir}.so
    mkdir -p "$dir/usr/local/apache2/htdocs"
    echo 'www-data:x:33:33::/:/bin/false' >"$dir/etc/passwd"
    echo 'www-data:x:33:' >"$dir/etc/group"
    cat >"$dir/etc/httpd.conf" <<CONF
LoadModule mpm_event_module $modules/mod_mpm_event.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule dir_module $modules/mod_dir.so
ServerName localhost
Listen 80
User www-data
Group www-data
PidFile /tmp/httpd.pid
ErrorLog /proc/self/fd/2
DocumentRoot /usr/local/apache2/htdocs
CONF
}

# until_so SECONDS COMMAND...: until it succeeds.
until_so() {
    local until=$((SECONDS + $1))
    until "${@:2}"; do
        ((SECONDS < until)) || return 1
        sleep 0.1
    done
}

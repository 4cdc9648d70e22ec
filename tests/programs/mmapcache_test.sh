#!/bin/bash
# mmapcache_test.sh -- mappings that unmap themselves, under load (FR-19, FR-25, FR-29, FR-43).
#
# usage: mmapcache_test.sh BUILD_DIRECTORY
#
# The program checks itself: checksums of all that was read, all unmapped at the end, the limit kept.  This
# script looks at its figures again, so that a run in which nothing happened doesn't pass.
# GREY_TEST_SECONDS (1) is how long each of the three runs reads.
set -u

build=${1:?usage: mmapcache_test.sh BUILD_DIRECTORY}
seconds=${GREY_TEST_SECONDS:-1}
program=$build/examples/mmapcache/mmapcache
[ -x "$program" ] || program=$build/mmapcache
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
    out=$("$program" --seconds "$seconds" "$@") || fail "mmapcache $* ended with status $?"
    echo "$out"
    local mapped unmapped left cycles
    mapped=$(figure 'segments: \([0-9]*\) mapped')
    unmapped=$(figure ', \([0-9]*\) unmapped')
    left=$(figure ', \([0-9]*\) left')
    cycles=$(figure 'collector: \([0-9]*\) cycles')
    [ "${mapped:-0}" -gt 128 ] || fail "$*: only ${mapped:-0} segments were mapped"
    [ "$mapped" = "$unmapped" ] || fail "$*: $mapped were mapped and $unmapped unmapped"
    [ "${left:-1}" = 0 ] || fail "$*: ${left:-?} mappings are left"
    [ "${cycles:-0}" -gt 1 ] || fail "$*: ${cycles:-0} cycles"
}

run --file-size 32m
run --file-size 16m --threads 32 --resident 8 --most-mapped 400
run --file-size 16m --threads 2 --resident 4 --most-mapped 100

"$program" --most-mapped 10 >/dev/null 2>&1
[ $? = 2 ] || fail "a limit that can't be kept was accepted"

[ "$faults" -eq 0 ] && echo "mmapcache: all as expected"
[ "$faults" -eq 0 ]

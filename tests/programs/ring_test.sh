#!/bin/bash
# ring_test.sh -- rings dropped with reads in flight, buffers that come back (FR-10, FR-20, FR-21, FR-32,
# FR-35); buffers that are pinned while only the kernel has them (PN-2, PN-8, PN-9, PN-18, PN-20).
#
# usage: ring_test.sh BUILD_DIRECTORY
#
# The programs check themselves: every word that was read, all rings closed, all buffers back, no descriptor
# and no pin left.  This script looks at their figures again, so that a run in which nothing happened doesn't
# pass. GREY_TEST_SECONDS (1) is how long each run reads.  Skipped (77) where io_uring isn't permitted, except
# ring_pinned, which does without.
set -u

build=${1:?usage: ring_test.sh BUILD_DIRECTORY}
seconds=${GREY_TEST_SECONDS:-1}
program=$build/examples/ring/ring
[ -x "$program" ] || program=$build/ring
pinned=${program}_pinned
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
    [ "$status" -ne 77 ] || exit $((faults > 0 ? 1 : 77))
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

# run_pinned OPTION...
run_pinned() {
    out=$("$pinned" --seconds "$seconds" "$@") || fail "ring_pinned $* ended with status $?"
    echo "$out"
    local buffers left cycles
    buffers=$(figure ' \([0-9]*\) buffers pinned')
    left=$(figure ' \([0-9]*\) pins left')
    cycles=$(figure 'collector: \([0-9]*\) cycles')
    [ "${buffers:-0}" -gt 200 ] || fail "$*: only ${buffers:-0} buffers were pinned"
    [ "${left:-1}" = 0 ] || fail "$*: ${left:-?} pins are left"
    [ "${cycles:-0}" -ge 10 ] || fail "$*: ${cycles:-0} cycles"
}

run_pinned
run_pinned --threads 8 --depth 128
run_pinned --no-uring --threads 2 --depth 64
grep -q 'preadv in threads' <<<"$out" || fail "--no-uring used io_uring"

run
run --threads 8 --depth 8 --buffers 500
run --threads 2 --depth 128 --buffers 1200 --file-size 4

"$program" --buffers 10 >/dev/null 2>&1
[ $? = 2 ] || fail "fewer buffers than can be in use were accepted"

[ "$faults" -eq 0 ] && echo "ring: all as expected"
[ "$faults" -eq 0 ]

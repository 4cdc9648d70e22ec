#!/bin/sh
# faults.sh BUILD_DIR -- tests the tests: each planted mistake (OS_FAULTS in os/os.h) must be caught.
#
# For every fault, the tests that must notice it are run without the fault, when they must pass, and then
# with it, again and again for at most 20 seconds, until one fails.  A fault that nothing notices, or that
# only makes a test hang, is a failure of the suite.
set -u
build=${1:?usage: faults.sh BUILD_DIR}
hooks=$build/tests/hooks
stress=$build/tests/stress
limit=20
log=$(mktemp)
trap 'rm -f "$log"' EXIT
ulimit -c 0

status=0
fails() # what: says so, with what was printed
{
    echo "faults: $1"
    tail -n 12 "$log"
    status=1
}

# caught FAULT COMMAND...: the command passes by itself and fails with the fault.
caught()
{
    fault=$1
    shift
    if ! timeout $limit "$@" >"$log" 2>&1; then
        fails "$fault: without it $* fails too"
        return
    fi
    begin=$(date +%s)
    while [ $(($(date +%s) - begin)) -lt $limit ]; do
        GREY_FAULT=$fault timeout $limit "$@" >"$log" 2>&1
        case $? in
        0) ;;
        124) fails "$fault: $* hangs"; return ;;
        *)
            echo "faults: $fault caught by $(basename "$1") ${2-} in $(($(date +%s) - begin)) s: $(
                grep -m 1 -E 'fatal|internal|scenario|holds|object|ERROR' "$log")"
            return
            ;;
        esac
    done
    fails "$fault is NOT caught by $*"
}

caught NO_DIRTY "$hooks/planted_test" test_stolen_mark
caught NO_SIGNAL_FRAME "$stress/registers_test"
caught EARLY_SWEEP "$hooks/planted_test" test_nothing_swept_before_fence
caught NO_REST "$hooks/planted_test" test_rest_of_a_run
caught ATTACH_IN_HOLD "$hooks/planted_test" test_attach_in_hold
caught NO_BUFFER_COUNT "$hooks/planted_test" test_buffer_counts
caught NO_COPY_COUNT "$hooks/planted_test" test_copies_count
caught NO_FENCE "$hooks/planted_test" test_nothing_swept_before_fence
caught NO_BARRIER "$hooks/hidden_test" test_stack_to_black
caught NO_VECTOR "$stress/registers_test"

# Every name of the table is here.
root=$(cd "$(dirname "$0")/../.." && pwd)
for name in $(sed -n '/define OS_FAULTS/,/^enum/p' "$root/os/os.h" | grep -o 'X([A-Z_]*)' | tr -d 'X()'); do
    grep -q "^caught $name " "$0" || { echo "faults: nobody looks for $name"; status=1; }
done
[ $status = 0 ] && echo "faults: all caught" || echo "faults: FAILED"
exit $status

#!/bin/sh
# bench/smoke.sh BUILD_DIR -- runs every benchmark that was built there once, small, in some seconds.
#
# The figures mean nothing; the checks inside the benchmarks do: it fails if one of them loses an object,
# crashes, hangs or prints no result, and if Grey's programs weren't built.  Not for builds with a
# sanitizer: libgc doesn't work under one.
set -eu
if [ $# -ne 1 ]; then
    echo "usage: $0 BUILD_DIR" >&2
    exit 2
fi
for workload in binary_trees graph cache burst churn fragments footprint handoff threads growth store handshake alloc index death \
    arena pin scan; do
    if [ ! -x "$1/bench/${workload}_grey" ]; then
        echo "smoke.sh: $1/bench/${workload}_grey wasn't built" >&2
        exit 1
    fi
done
if [ -e "$1/bench/liblocks.so" ]; then
    LD_PRELOAD="$1/bench/liblocks.so" "$1/bench/alloc_grey" --quick 2>&1 | grep -q '^page allocator ' || {
        echo "smoke.sh: liblocks.so counted no lock" >&2
        exit 1
    }
fi
exec "$(dirname "$0")/../scripts/bench" --quick --build "$1" grey boehm malloc array tree heap bump avx2 portable

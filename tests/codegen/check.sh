#!/bin/sh
# Compiles the inline barrier and allocator with each compiler, for programs and for shared libraries, and
# has the machine code checked; then shows that the check would notice faults.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

status=0
for compiler in gcc clang; do
    for flags in "-O2 -fno-pie" "-O2 -fPIC" "-O3 -fno-pie"; do
        # Without unwind tables and the like: only the code is of interest.  $flags is several words.
        compile="$compiler -std=gnu11 $flags -fno-asynchronous-unwind-tables -I$root/include -S"
        $compile "$here/store.c" -o "$work/store.s"
        $compile "$here/wrong.c" -o "$work/wrong.s"
        echo "$compiler $flags"
        python3 "$here/check.py" "$work/store.s" || status=1
        python3 "$here/check.py" --wrong "$work/wrong.s" || status=1
    done
done
[ $status = 0 ] && echo "codegen: all as it must be" || echo "codegen: FAILED"
exit $status

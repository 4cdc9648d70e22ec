#!/bin/sh
# Wrong uses of grey.h must not compile, right ones must, in C11 and C++17, with the flags of a program that
# asks for no warnings at all.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
status=0

# compiles language-and-compiler case
compiles() {
    # $1 is several words
    $1 -w -fsyntax-only -I"$root/include" -DCASE="$2" "$here/snippets.h" 2>/dev/null
}

check() {
    cases=$(sed -n 's/^#\(el\)\{0,1\}if CASE == \([0-9]*\)$/\2/p' "$here/snippets.h")
    [ "$(echo "$cases" | wc -l)" -gt 20 ] || { echo "no cases found"; exit 1; }
    for case in $cases; do
        [ "$case" -lt 100 ] || [ "$2" = c++ ] || continue
        if [ "$case" = 0 ]; then
            compiles "$1" 0 || { echo "$1: the right uses are refused"; status=1; }
        elif compiles "$1" "$case"; then
            echo "$1: case $case is not refused"
            status=1
        fi
    done
}

for compiler in gcc clang; do
    check "$compiler -x c -std=gnu11" c
    case $compiler in
    gcc) check "g++ -x c++ -std=gnu++17" c++ ;;
    clang) check "clang++ -x c++ -std=gnu++17" c++ ;;
    esac
done
[ $status = 0 ] && echo "refused: all as it must be" || echo "refused: FAILED"
exit $status

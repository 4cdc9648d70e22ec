# common.sh -- what the scripts share; sourced, with the project's root as working directory.

jobs=${GREY_JOBS:-$(nproc)}

# stage NAME COMMAND...: runs it and says how long it took.  The caller ends on failure (set -e).
stage() {
    local name=$1 started=$SECONDS status=0
    shift
    echo "==== $name"
    "$@" || status=$?
    printf '==== %-40s %4d s  %s\n' "$name" $((SECONDS - started)) \
        "$([ $status = 0 ] && echo ok || echo FAILED)"
    return $status
}

# build PRESET [TARGET...]
build() {
    local preset=$1 log
    shift
    log=$(cmake --preset "$preset" 2>&1) || { echo "$log"; return 1; }
    cmake --build --preset "$preset" -j "$jobs" ${1:+--target "$@"}
}

# ThreadSanitizer of these compilers can't place its shadow where the kernel spreads mappings widely.
fixed_addresses() {
    if [ "$(cat /proc/sys/vm/mmap_rnd_bits 2> /dev/null || echo 28)" -gt 28 ] &&
        setarch "$(uname -m)" -R true 2> /dev/null; then
        setarch "$(uname -m)" -R "$@"
    else
        "$@"
    fi
}

# run_tests PRESET [ctest option...]
run_tests() {
    local preset=$1
    shift
    fixed_addresses ctest --preset "$preset" -j "$jobs" --no-tests=error "$@"
}

/* os/options.h -- what the environment and struct grey_options say.
 *
 * GREY_GC, GREY_MEMLIMIT, GREY_PROCS and GREY_DEBUG are read once, at start; not at all in a set-uid
 * process (TU-7).  GREY_DEBUG's names are one table, from which the parser, docs/tuning.md and the
 * tests are made.
 */
#ifndef GREY_OS_OPTIONS_H
#define GREY_OS_OPTIONS_H

#include "grey.h"

/* name, default, lowest, highest, what it does */
#define OS_DEBUG_FLAGS(X)                                                                                    \
    X(gctrace, 0, 0, 1, "one line on standard error for each cycle")                                         \
    X(gcpacertrace, 0, 0, 1, "two lines on standard error for each cycle: the plan, the outcome")            \
    X(scavtrace, 0, 0, 1, "lines on standard error about memory given back")                                 \
    X(stoptheworld, 0, 0, 2, "hold all threads for the cycle; 2: for its sweep too")                         \
    X(checkmark, 0, 0, 1, "mark again from scratch, all threads held, and compare")                          \
    X(clobberfree, 0, 0, 1, "fill freed objects with 0xdeadbeef")                                            \
    X(invalidptr, 1, 0, 1, "die on a typed slot that points at no span")                                     \
    X(madvdontneed, 1, 0, 1, "0: try MADV_FREE first")                                                       \
    X(prefault, 1, 0, 1, "0: no memory is touched ahead of its use")                                         \
    X(harddecommit, 0, 0, 1, "released pages also become inaccessible")                                      \
    X(disablethp, 0, 0, 1, "no huge pages for the heap")                                                     \
    X(decoratemappings, 1, 0, 1, "name mappings in /proc/self/maps")                                         \
    X(holdround, 32, 0, 1000000, "rounds that were not clean before one is held")                            \
    X(gcstress, 0, 0, 1000000000, "a cycle every N slow paths")                                              \
    X(membarrier, 1, 0, 1, "0: handshakes instead of membarrier")                                            \
    X(smallwbbuf, 0, 0, 1, "grey buffers of 9 entries")                                                      \
    X(autoroots, 0, 0, 1, "scan data and BSS of all loaded objects")                                         \
    X(cgroup, 1, 0, 1, "0: ignore the cgroup's processor quota and memory limit")                            \
    X(arenastrict, 0, 0, 1, "every chunk of a freed arena faults, none is used by the next")                 \
    X(arenafault, -1, 0, 1, "say which arena an access to freed memory was in; -1: unless SIGSEGV is taken") \
    X(pinleak, 1, 0, 2, "a lost pinner's pins are dropped; 1: with a warning; 2: die")                       \
    X(balance, 0, 0, 1, "the goal by the square-root rule of MemBalancer; GREY_GC scales it")                \
    X(workers, 0, 0, 256, "mark workers, without the collector's help; 0: by GREY_PROCS")                    \
    X(simd, 2, 0, 2, "kernels may use 1: AVX2, 2: AVX-512 as well, where there is such a thing; 0: neither")
struct os_debug {
#define X(name, standard, low, high, help) int name;
    OS_DEBUG_FLAGS(X)
#undef X
};
struct os_tuning {
    int percent;         /* -1 = off */
    size_t memory_limit; /* SIZE_MAX = none */
    unsigned processors; /* at least 1 */
    int signal;
};
extern struct os_debug os_debug;   /* written at start, read by all */
extern struct os_tuning os_tuning; /* as started; cycle/ owns the values in force */

/* Fills both from options and environment.  0, EINVAL; *why then says what was wrong. */
int os_options_read(const struct grey_options *options, char *why, size_t why_size);

/* Parts, for tests.  percent: TU-1.  bytes: TU-2, false if malformed.  processors: TU-3, 0 if
 * malformed.  debug: TU-4. */
int os_parse_percent(const char *text);
bool os_parse_bytes(const char *text, size_t *bytes);
unsigned os_parse_processors(const char *text);
void os_parse_debug(const char *text, struct os_debug *out);
unsigned os_allowed_processors(bool cgroup); /* affinity and cgroup v2 cpu.max, at least 1 */
/* The least memory.max of a group and its parents; SIZE_MAX: none. */
size_t os_cgroup_memory(const char *mount, const char *group);
/* What a process in a group of so much may hold by default, given what it holds before it starts (PC-12). */
size_t os_default_limit(size_t cgroup, size_t held);
/* The least quota of a group and its parents, rounded up; 0: none.  mount: where cgroup v2 is. */
unsigned os_cgroup_processors(const char *mount, const char *group);

#endif

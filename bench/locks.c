/* locks.c -- which of Grey's locks a program takes, how often, and how long each is held.
 *
 *     LD_PRELOAD=build/release/bench/liblocks.so build/release/bench/churn_grey --threads 2
 *
 * A machine with two processors can't show what 64 would do to a lock.  But a lock serialises if the time that
 * all threads together want to hold it comes near the time there is; how often a thread takes it for a
 * mebibyte that it allocates, and for how long, can be counted anywhere.  docs/performance.md does the
 * multiplication.
 *
 * It takes the place of the C library's functions and times each hold by the processor's counter of cycles, which
 * costs some 20 ns a hold that are not part of the figure.  A hold longer than 20 us is counted as
 * interrupted and left out: its holder had lost the processor, or was mapping memory.  Grey's locks are known
 * by their rank, which follows the mutex (struct os_lock); the program's own locks are counted under a wrong
 * one, or none.
 */
#include "os/os.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

enum { NESTED = 8 };
static const uint64_t interrupted_ns = 20000;

static const char *const names[OS_RANKS] = {
    [OS_RANK_CONTROL] = "control (the pacer)",
    [OS_RANK_THREADS] = "list of threads",
    [OS_RANK_JOIN] = "created threads",
    [OS_RANK_ROOTS] = "roots",
    [OS_RANK_FOREIGN] = "index of regions",
    [OS_RANK_ARENAS] = "chunks of arenas",
    [OS_RANK_OUTSIDE] = "bounds outside the heap",
    [OS_RANK_TYPES] = "types",
    [OS_RANK_CLASS] = "spans of a layout",
    [OS_RANK_PAGES] = "page allocator",
    [OS_RANK_SPANS] = "span records",
    [OS_RANK_CLEANUPS] = "cleanups",
    [OS_RANK_STATIC_WEAK] = "static weak references",
    [OS_RANK_SLOTS] = "numbered records",
    [OS_RANK_WORK] = "mark blocks",
    [OS_RANK_POOL] = "pools",
    [OS_RANK_PERSISTENT] = "persistent memory",
    [OS_RANK_OS] = "ledger",
};

static struct {
    _Atomic uint64_t taken, waited, interrupted, cycles;
} figures[OS_RANKS];

static __thread struct {
    pthread_mutex_t *mutex;
    uint64_t since;
} held[NESTED];

static int (*real_lock)(pthread_mutex_t *), (*real_trylock)(pthread_mutex_t *),
    (*real_unlock)(pthread_mutex_t *);
static struct timespec began;
static uint64_t began_cycles;
static double cycles_a_ns = 2; /* until the end, good enough to tell an interruption */

static void find(void)
{
    *(void **)&real_trylock = dlsym(RTLD_NEXT, "pthread_mutex_trylock");
    *(void **)&real_unlock = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    *(void **)&real_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
}

static __attribute__((constructor)) void begin(void)
{
    find();
    clock_gettime(CLOCK_MONOTONIC, &began);
    began_cycles = __rdtsc();
}

static enum os_rank rank_of(pthread_mutex_t *mutex) { return ((struct os_lock *)mutex)->rank; }

static void took(pthread_mutex_t *mutex)
{
    for (int i = 0; i < NESTED; i++)
        if (held[i].mutex == NULL) {
            held[i].mutex = mutex;
            held[i].since = __rdtsc();
            return;
        }
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    if (real_lock == NULL)
        find();
    bool waits = real_trylock(mutex) != 0;
    int error = waits ? real_lock(mutex) : 0;
    if (error == 0 && (unsigned)rank_of(mutex) < OS_RANKS) {
        atomic_fetch_add_explicit(&figures[rank_of(mutex)].waited, waits, memory_order_relaxed);
        took(mutex);
    }
    return error;
}

int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    if (real_unlock == NULL)
        find();
    uint64_t now = __rdtsc();
    enum os_rank rank = rank_of(mutex);
    int error = real_unlock(mutex);
    for (int i = 0; i < NESTED; i++) {
        if (held[i].mutex != mutex)
            continue;
        held[i].mutex = NULL;
        uint64_t cycles = now - held[i].since;
        if ((double)cycles > cycles_a_ns * (double)interrupted_ns) {
            atomic_fetch_add_explicit(&figures[rank].interrupted, 1, memory_order_relaxed);
        } else {
            atomic_fetch_add_explicit(&figures[rank].taken, 1, memory_order_relaxed);
            atomic_fetch_add_explicit(&figures[rank].cycles, cycles, memory_order_relaxed);
        }
        break;
    }
    return error;
}

static __attribute__((destructor)) void print(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double ns = (double)(now.tv_sec - began.tv_sec) * 1e9 + (double)(now.tv_nsec - began.tv_nsec);
    double rate = (double)(__rdtsc() - began_cycles) / ns;
    fprintf(stderr, "%-24s %12s %10s %12s %10s %10s\n", "lock", "taken", "waited", "interrupted", "ns each",
            "ms in all");
    for (int i = 0; i < OS_RANKS; i++) {
        uint64_t taken = atomic_load(&figures[i].taken);
        double all = (double)atomic_load(&figures[i].cycles) / rate;
        if (taken != 0)
            fprintf(stderr, "%-24s %12llu %10llu %12llu %10.1f %10.2f\n", names[i], (unsigned long long)taken,
                    (unsigned long long)atomic_load(&figures[i].waited),
                    (unsigned long long)atomic_load(&figures[i].interrupted), all / (double)taken, all / 1e6);
    }
}

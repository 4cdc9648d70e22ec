/* cycle/prefault.c -- the thread that touches free memory before anybody allocates it (SC-11).
 *
 * A heap that grows, for good or from what lives to its goal, takes memory that it never had or gave back.  The first
 * store into a huge page waits while the kernel finds and clears it: 0.2 ms, and 5 ms on a virtual machine whose host
 * has to find it too, which was most of a cache server's p99 (docs/performance.md).  So a thread of the library's does
 * it, a huge page at a time (pages.c), whenever fewer free pages have memory than scavenger_ahead says.  It stops below
 * the memory limit's goal; what it touched and nobody needed the scavenger gives back after the next cycle, as all else
 * that is beyond the retained goal.  (It used to stop at that goal too, and so just where a heap grew fast.)
 *
 * Allocations look at some figures when they leave their slow path, and ring; the word `listening` keeps all but one
 * of them from that.  Both sides are relaxed: a bell that is missed rings at the next slow path, one that rings for
 * nothing wakes the thread for nothing.  Where there was no memory to be had the thread is deaf for a second.
 *
 * It works by turns, and sleeps in between and before the first: half of a processor is enough for 200 MB/s where
 * a huge page takes 5 ms.  Without turns, on two full processors, a cache's capacity fell by a sixth: two threads
 * that share locks wait for each other while a third has the processor of one.  And it was rung for with every
 * 2 MiB, a system call in the middle of an allocation: p99 of pauses at 350,000/s was 290 us, and is 80 as without the thread.
 *
 * It has the weight of the program's threads and gives way to whoever wakes up.  Niced like a mark worker it took
 * half of what the worker gets: cycles lasted longer, and a cache's heap grew by a fifth.  Also, who is niced may be
 * kept waiting in the middle of a fault, and what maps memory next to the heap waits with it; pages.c has the heap's
 * own next chunk mapped before.
 *
 * Fork: it stands still between two huge pages, as the scavenger does.  It ignores holds: it has no object.
 */
#include "cycle/cycle.h"
#include "cycle/scavenger.h"
#include "heap/heap.h"
#include "inspect/gauges.h"
#include "os/options.h"
#include "os/turnstile.h"

static _Atomic uint32_t bell, listening, stopping; /* the thread sleeps on the first; listening: see above */
static struct os_turnstile turnstile;
static pthread_t prefaulter;
static bool running;
static const uint64_t deaf_ns = 1000 * 1000 * 1000;
static const uint64_t turn_ns = 20 * 1000 * 1000; /* four huge pages of the slow kind */

static void ring(void)
{
    atomic_fetch_add_explicit(&bell, 1, memory_order_release);
    os_wake(&bell, 1);
}

static bool is_wanted(void)
{
    return heap_free_bytes() < scavenger_ahead(heap_in_use_bytes()) &&
           scavenging_has_room(SCAVENGER_AHEAD_STEP);
}

void prefault_allocated(void)
{
    if (atomic_load_explicit(&listening, memory_order_relaxed) != 0 && UNLIKELY(is_wanted()) &&
        atomic_exchange_explicit(&listening, 0, memory_order_relaxed) != 0)
        ring();
}

static bool goes_on(void) { return is_wanted() && !atomic_load_explicit(&stopping, memory_order_relaxed); }

/* A turn; false: no memory. */
static bool touch_some(void)
{
    uint64_t until = os_now() + turn_ns;
    bool more = true;
    while (more && goes_on() && os_now() < until && os_turnstile_enter(&turnstile)) {
        uint64_t began = os_thread_cpu();
        size_t bytes = heap_prefault();
        os_turnstile_leave(&turnstile);
        os_count(OS_COUNT_prefaulted_bytes, bytes);
        os_count(OS_COUNT_prefault_ns, os_thread_cpu() - began);
        more = bytes != 0;
    }
    return more;
}

/* Until there is enough; false: no memory.  Nobody but prefault_stop rings meanwhile. */
static bool touch_ahead(uint32_t bell_seen)
{
    bool more = true;
    while (more && goes_on()) {
        os_wait(&bell, bell_seen, turn_ns);
        more = touch_some();
    }
    return more;
}

static void *prefaulter_main(void *unused)
{
    (void)unused;
    os_give_way(-20); /* the nice value that the process has */
    for (;;) {
        /* The bell before what it rings for. */
        uint32_t seen = atomic_load_explicit(&bell, memory_order_acquire);
        if (atomic_load_explicit(&stopping, memory_order_acquire))
            return NULL;
        bool had_memory = touch_ahead(seen);
        atomic_store_explicit(&listening, had_memory, memory_order_relaxed);
        os_wait(&bell, seen, had_memory ? UINT64_MAX : deaf_ns);
    }
}

int prefault_start(void)
{
    if (!os_debug.prefault)
        return 0;
    atomic_store(&stopping, 0);
    int error = os_start_background(&prefaulter, "grey-prefault", prefaulter_main, NULL);
    running = error == 0;
    return error;
}

void prefault_stop(void)
{
    if (!running)
        return;
    atomic_store_explicit(&stopping, 1, memory_order_release);
    ring();
    pthread_join(prefaulter, NULL);
    running = false;
    atomic_store(&listening, 0);
}

void prefault_park(void) { os_turnstile_close(&turnstile); }
void prefault_unpark(void) { os_turnstile_open(&turnstile); }

void prefault_fork_child(void)
{
    os_turnstile_init(&turnstile);
    atomic_store(&listening, 0);
    running = false;
}

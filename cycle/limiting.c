/* cycle/limiting.c -- the one limiter of the process, kept up to date (PC-14).
 *
 * limiter.c says what it does; here is where its readings come from and who takes them.  Whoever comes by
 * when it is due, the collector at a pause point or a thread that is about to assist, updates it: one at a
 * time, and nobody waits.  So while marking goes on it is at most 10 ms old whenever an assist looks at it.
 * Between cycles nobody comes by; the program alone drains it then, and all of that is counted when the next
 * begins.
 */
#include "cycle/cycle.h"
#include "cycle/limiter.h"
#include "inspect/gauges.h"
#include "os/options.h"

static _Atomic uint32_t taken; /* acquire to take, release to give back: the next sees all of the limiter */
static struct limiter limiter; /* whoever has taken it */
static uint64_t own_at_start, all_at_start; /* processor time, ns; the same */
/* Copies for readers that have not taken it; relaxed, each stands alone. */
static _Atomic uint64_t updated_at, last_cycle;
static _Atomic uint32_t on;

bool limiting(void) { return atomic_load_explicit(&on, memory_order_relaxed); }
uint64_t cycle_limiter_last(void) { return atomic_load_explicit(&last_cycle, memory_order_relaxed); }

bool limiting_due(uint64_t now)
{
    uint64_t at = atomic_load_explicit(&updated_at, memory_order_relaxed);
    return now > at && now - at > LIMITER_PERIOD_NS;
}

/* own: processor time of everything that collects; all: of the process.  What idle workers take nobody else
 * wanted, and what scavenging and prefaulting take no cycle will make good, so both are own time and yet not held
 * against the collector. */
static struct limiter_reading read_times(uint64_t *own, uint64_t *all)
{
    struct limiter_reading reading = {.held = os_counter_read(OS_COUNT_held_ns),
                                      .idle_workers = os_counter_read(OS_COUNT_idle_worker_ns)};
    reading.collector = os_counter_read(OS_COUNT_worker_ns) + os_counter_read(OS_COUNT_assist_ns) +
                        os_counter_read(OS_COUNT_handshake_ns) + os_counter_read(OS_COUNT_sweep_ns);
    *own = reading.collector + reading.idle_workers + os_counter_read(OS_COUNT_scavenge_ns) +
           os_counter_read(OS_COUNT_scavenge_assist_ns) + os_counter_read(OS_COUNT_prefault_ns);
    *all = os_process_cpu();
    uint64_t used = *all - all_at_start, by_us = *own - own_at_start;
    reading.program = used > by_us ? used - by_us : 0;
    reading.now = os_now();
    return reading;
}

static void publish(void)
{
    atomic_store_explicit(&updated_at, limiter.last.now, memory_order_relaxed);
    atomic_store_explicit(&last_cycle, limiter.last_cycle, memory_order_relaxed);
    atomic_store_explicit(&on, limiter.limiting, memory_order_relaxed);
}

void limiting_begin(void)
{
    uint64_t own, all;
    own_at_start = all_at_start = 0;
    read_times(&own, &all);
    own_at_start = own;
    all_at_start = all;
    struct limiter_reading reading = read_times(&own, &all);
    limiter_init(&limiter, &reading, os_tuning.processors);
    publish();
    atomic_store_explicit(&taken, 0, memory_order_release);
}

void limiting_look(bool at_once)
{
    if (atomic_exchange_explicit(&taken, 1, memory_order_acquire) != 0)
        return;
    uint64_t own, all;
    struct limiter_reading reading = read_times(&own, &all);
    if (at_once || limiter_is_due(&limiter, reading.now))
        limiter_update(&limiter, &reading, cycle_number());
    publish();
    atomic_store_explicit(&taken, 0, memory_order_release);
}

/* os/events.h -- how the rooms tell inspect/ what happened, without calling up.
 *
 * inspect/ fills the table in at start; before that the functions do nothing.
 */
#ifndef GREY_OS_EVENTS_H
#define GREY_OS_EVENTS_H

#include <stdint.h>
#include <stdbool.h>

/* Why a program thread was held up (behaviour 0.5). */
#define OS_PAUSES(X)                                                                                         \
    X(handshake, "copying the thread's stack")                                                               \
    X(hold, "a held round, autoroots, checkmark, stoptheworld")                                              \
    X(assist, "marking on the program's behalf")                                                             \
    X(scavenge, "giving free memory back before an allocation returns")                                      \
    X(wait, "leaving a blocking region, attach or exit while the collector looks")
enum os_pause_kind {
#define X(name, help) OS_PAUSE_##name,
    OS_PAUSES(X)
#undef X
        OS_PAUSE_KINDS
};

/* One cycle, as gctrace and the trace callback see it; ns and bytes. */
struct os_cycle_event {
    uint64_t number, start_ns;                      /* start: since the library's start */
    uint64_t arm_ns, mark_ns, rescan_ns, finish_ns; /* wall: arm+blacken; roots+mark; rounds; finish */
    uint64_t sweep_ns;                              /* wall, of the previous cycle's rest swept before arm */
    uint64_t rounds, rounds_held, handshakes;
    uint64_t longest_pause_ns, longest_handshake_ns; /* of any thread in this cycle, wall */
    uint64_t assist_cpu_ns, worker_cpu_ns, idle_worker_cpu_ns, handshake_cpu_ns;
    uint64_t live_start, live_end, live_marked, goal, trigger;
    uint64_t stack_bytes, root_bytes;
    uint64_t scanned, planned_work, planned_goal; /* the heap; what the plan had at the start of the cycle */
    double planned_ratio, cons_mark;
    uint64_t marked_objects;
    unsigned threads, workers, processors;
    bool forced, periodic, verify;
    bool limited, limiting; /* the goal was the memory limit's; the limiter is on */
};

struct os_events {
    /* wall: the whole pause; cpu: the part in which this thread had the processor (0 = not measured).
     * Called in handlers: signal-safe. */
    void (*pause)(enum os_pause_kind kind, uint64_t wall_ns, uint64_t cpu_ns);
    void (*cycle)(const struct os_cycle_event *event); /* the collector's thread, no locks held */
};
extern struct os_events os_events;

#endif

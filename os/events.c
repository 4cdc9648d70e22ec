/* os/events.c -- the table through which lower rooms report what happened.
 *
 * The rooms may not call up into inspect/, so they call through this table.  It starts out with
 * functions that do nothing, rather than with NULL: a handshake in a signal handler then needs no test,
 * and the library works with inspect/ left out.  inspect/ fills it in during the start, before any
 * second thread of the library exists; hence no atomics.
 */
#include "os/events.h"

static void ignore_pause(enum os_pause_kind kind, uint64_t wall_ns, uint64_t cpu_ns)
{
    (void)kind;
    (void)wall_ns;
    (void)cpu_ns;
}

static void ignore_cycle(const struct os_cycle_event *event) { (void)event; }

struct os_events os_events = {.pause = ignore_pause, .cycle = ignore_cycle};

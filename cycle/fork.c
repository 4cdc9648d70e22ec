/* cycle/fork.c -- fork at any moment (docs/protocol.md 9; ER-7).
 *
 * prepare: the prefaulter stands between two huge pages; the collector stands at a pause point, at which nobody
 * is held; the gate closes (nobody enters a section), FENCE, nobody else is in a section; workers, sweeper and
 * scavenger stand between two pieces of work; then the library's locks that threads outside sections may hold, in
 * rank order.  The forking thread answers handshakes while it waits, by polling, since it may block all signals; so
 * do threads that wait at the gate: a collector that waits for answers comes to its pause point.
 *
 * child: the forking thread is the only mutator.  The cycle is abandoned, what other threads held is given
 * up, and the library's threads start again when first needed.
 */
#include "arena/arena.h"
#include "barrier/barrier.h"
#include "cycle/cycle.h"
#include "foreign/foreign.h"
#include "mark/mark.h"
#include "mutator/mutator.h"
#include "pin/pin.h"
#include "sweep/cleanups.h"
#include "sweep/specials.h"
#include "sweep/sweep.h"

#include <stdlib.h>

static pthread_mutex_t one_fork = PTHREAD_MUTEX_INITIALIZER;
static bool prepared; /* one_fork */

static void prepare(void)
{
    mutator_lock_answering(&one_fork);
    start_fork_lock();
    prepared = false;
    if (!start_is_up())
        return;
    prepared = true;
    prefault_park(); /* may take milliseconds, in which all others go on */
    control_fork_wait();
    mutator_fork_prepare();
    mark_workers_park();
    sweep_park();
    scavenging_park();
    HOOK(FORK_PREPARE, NULL);
    control_fork_lock();
    mutator_fork_lock();
    roots_lock();
}

static void parent(void)
{
    if (prepared) {
        roots_unlock();
        mutator_fork_parent();
        scavenging_unpark();
        sweep_unpark();
        mark_workers_unpark();
        control_fork_parent();
        prefault_unpark();
    }
    start_fork_parent();
    pthread_mutex_unlock(&one_fork);
}

static void child(void)
{
    pthread_mutex_init(&one_fork, NULL);
    start_fork_child();
    if (!prepared)
        return;
    heap_fork_child();
    work_fork_child();
    mark_fork_child();
    sweep_fork_child();
    scavenging_fork_child();
    prefault_fork_child();
    outside_fork_child();
    foreign_fork_child();
    arena_fork_child();
    pin_fork_child();
    cleanups_fork_child();
    specials_fork_child();
    cycle_abandon();
    mutator_fork_child();
    heap_give_up_building(thread_self());
    control_fork_child();
}

void fork_init(void)
{
    if (pthread_atfork(prepare, parent, child) != 0)
        os_fatal(NULL, "no memory to register what fork needs");
}

/* cycle/fork.c -- fork at any moment (docs/protocol.md 9; ER-7).
 *
 * prepare: the gate closes (nobody enters a section), FENCE, nobody else is in a section; the collector
 * stands at a pause point, workers and sweeper between two pieces of work; then the library's locks that
 * threads outside sections may hold, in rank order.  Threads that wait at the gate still answer
 * handshakes, so a collector that waits for answers comes to its pause point.
 *
 * child: the forking thread is the only mutator.  The cycle is abandoned, what other threads held is given
 * up, and the library's threads start again when first needed.
 */
#include "barrier/barrier.h"
#include "cycle/cycle.h"
#include "mark/mark.h"
#include "mutator/mutator.h"
#include "sweep/sweep.h"

#include <stdlib.h>

static pthread_mutex_t one_fork = PTHREAD_MUTEX_INITIALIZER;
static bool prepared; /* one_fork */

static void prepare(void)
{
    pthread_mutex_lock(&one_fork);
    prepared = false;
    if (!start_is_up())
        return;
    prepared = true;
    control_fork_lock();
    mutator_fork_prepare();
    mark_workers_park();
    sweep_park();
    HOOK(FORK_PREPARE, NULL);
    mutator_fork_lock();
    roots_lock();
}

static void parent(void)
{
    if (!prepared) {
        pthread_mutex_unlock(&one_fork);
        return;
    }
    roots_unlock();
    mutator_fork_parent();
    sweep_unpark();
    mark_workers_unpark();
    control_fork_parent();
    pthread_mutex_unlock(&one_fork);
}

static void child(void)
{
    pthread_mutex_init(&one_fork, NULL);
    if (!prepared)
        return;
    heap_fork_child();
    work_fork_child();
    mark_fork_child();
    sweep_fork_child();
    cycle_abandon();
    mutator_fork_child();
    heap_give_up_building(thread_self());
    control_fork_child();
}

void fork_init(void)
{
    static bool registered;
    if (!registered)
        pthread_atfork(prepare, parent, child);
    registered = true;
}

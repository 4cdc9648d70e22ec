/* tests/hooks/fence_test.c -- FENCE waits for the sections that it found, and for no others.
 *
 * Two threads stand in busy sections when a cycle is armed.  One leaves its section and stands in the next
 * when the other is still in the first: arm is over as soon as that one leaves too, and blacken's FENCE, which
 * finds the later section, waits for it.  A fence that looked at a thread only when it is done with those
 * before it would wait for the later section as well, and with many threads for one section after the other.
 *
 * Requirements: docs/protocol.md 1 (FENCE), TR-4.
 */
#include "mutator/mutator.h"
#include "support_hooks.h"

#include <unistd.h>

static _Atomic int left; /* the first section */

static struct thread *_Atomic actor_blocks[2];
static _Atomic int begun; /* actors */

/* Whether FENCE has looked at both, or, where it is a handshake, asked them. */
static bool both_were_found(void)
{
    bool found = true;
    for (int i = 0; i < 2; i++) {
        struct thread *t = atomic_load(&actor_blocks[i]);
        found &= mutator_membarrier() ? t->fenced == atomic_load(&t->busy) : atomic_load(&t->request) != 0;
    }
    return found;
}

static void refill_twice(void)
{
    atomic_store(&actor_blocks[atomic_fetch_add(&begun, 1)], thread_self());
    HOOKS_CHECK(grey_alloc_leaf(64) != NULL); /* two classes, so each is a refill: a section of its own */
    atomic_fetch_add(&left, 1);
    stage_await(1);
    HOOKS_CHECK(grey_alloc_leaf(1024) != NULL);
}

static void leaves_first(int which)
{
    pthread_t actors[2];
    int in_section[2];
    hooks_up("");
    atomic_store(&left, 0);
    atomic_store(&begun, 0);
    for (int i = 0; i < 2; i++) {
        in_section[i] = stop_at(OS_HOOK_REFILL, NULL);
        actors[i] = actor_start(refill_twice);
        HOOKS_CHECK(stop_reached(in_section[i], PATIENCE_MS));
    }
    int armed = stop_at(OS_HOOK_AFTER_ARM, NULL), black = stop_at(OS_HOOK_AFTER_BLACKEN, NULL);
    cycle_begin();
    while (!both_were_found())
        usleep(1000);
    HOOKS_CHECK(!stop_reached(armed, 100));
    stop_release(in_section[which]);
    while (atomic_load(&left) == 0)
        usleep(1000);
    int later = stop_at(OS_HOOK_REFILL, NULL);
    stage_set(1);
    HOOKS_CHECK(stop_reached(later, PATIENCE_MS));
    HOOKS_CHECK(!stop_reached(armed, 200));
    stop_release(in_section[1 - which]);
    HOOKS_CHECK(stop_reached(armed, PATIENCE_MS));
    stop_release(armed);
    HOOKS_CHECK(!stop_reached(black, 200));
    stop_release(later);
    HOOKS_CHECK(stop_reached(black, PATIENCE_MS));
    stop_release(black);
    for (int i = 0; i < 2; i++)
        actor_join(actors[i]);
    cycle_await(1);
    hooks_down();
}

/* The walk has one of the two orders. */
static void the_older_leaves_first(void **unused)
{
    (void)unused;
    leaves_first(0);
}

static void the_younger_leaves_first(void **unused)
{
    (void)unused;
    leaves_first(1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_older_leaves_first),
        cmocka_unit_test(the_younger_leaves_first),
    };
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}

/* tests/hooks/limit_phase_test.c -- the memory limit, and the goal, while the collector stands still.
 *
 * A collector's thread that waits for its processor stops wherever it is.  At each of these places a program
 * that allocates at full speed must not run away: before marking is over it waits, afterwards it sweeps.  An
 * actor replaces leaves, or loses arenas; the director stops the collector and looks at what is mapped.
 *
 * Requirements: PC-7, PC-8, PC-11, PC-15, SW-1, SW-9, SC-4, UA-17, UA-20, UA-25.
 */
#include "cycle/cycle.h"
#include "inspect/gauges.h"
#include "support_hooks.h"

#include <unistd.h>

static const uint64_t MIB = 1 << 20;

enum { BLOCK = 64 << 10, BLOCKS = (24 << 20) / BLOCK, LIMIT = 64 << 20, STANDS_MS = 300 };
GREY_ROOT(
    struct { void *blocks[BLOCKS]; }, held);

static _Atomic uint64_t allocated;
static _Atomic bool enough;

static void churn(void)
{
    unsigned seed = 1;
    while (!atomic_load(&enough)) {
        seed = seed * 1103515245u + 12345;
        void *block = grey_alloc_leaf(BLOCK);
        HOOKS_CHECK(block != NULL);
        grey_store(&held.blocks[(seed >> 8) % BLOCKS], block);
        atomic_fetch_add(&allocated, BLOCK);
    }
    grey_clear(&held, sizeof(held));
}

/* What may be over the limit: a huge page that comes back whole, and what is taken on the way to the longest
 * wait. */
static const uint64_t slack = 2 * MIB + LIMIT / 8;

static void stands_at(enum os_hook point, bool sweeps)
{
    hooks_up("");
    atomic_store(&enough, false);
    HOOKS_CHECK(grey_set_memory_limit(LIMIT) == SIZE_MAX);
    pthread_t actor = actor_start(churn);
    while (cycles_over() < 3) /* what lives is there, and so are tables */
        usleep(1000);
    for (int round = 0; round < 3; round++) {
        int stop = stop_at(point, NULL);
        HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
        uint64_t began = os_now(), before = atomic_load(&allocated), most = 0, ms = 0;
        /* The first must not take long: what is dead is there to be used. */
        while (ms < (sweeps ? 20000 : STANDS_MS) &&
               !(sweeps && atomic_load(&allocated) - before > 32 * MIB)) {
            uint64_t ready = os_mapped_ready();
            most = ready > most ? ready : most;
            usleep(1000);
            ms = (os_now() - began) / 1000000;
        }
        uint64_t over = cycles_over();
        stop_release(stop);
        while (cycles_over() == over) /* a stop in the same cycle would find it over the limit already */
            usleep(1000);
        /* Each millisecond that a thread waits lets it take a block. */
        if (most > LIMIT + slack + (sweeps ? 0 : ms * BLOCK)) {
            print_message("%.1f MiB ready, after %d ms; %.1f taken\n", (double)most / (double)MIB, (int)ms,
                          (double)(atomic_load(&allocated) - before) / (double)MIB);
            hooks_fail("it runs away");
        }
        HOOKS_CHECK(!sweeps || atomic_load(&allocated) - before > 32 * MIB);
    }
    atomic_store(&enough, true);
    actor_join(actor);
    HOOKS_CHECK(grey_set_memory_limit(SIZE_MAX) == LIMIT);
    hooks_down();
}

static void while_marking(void **unused)
{
    (void)unused;
    stands_at(OS_HOOK_ROUND_START, false);
}

static void closed(void **unused)
{
    (void)unused;
    stands_at(OS_HOOK_CLOSED, false);
}

static void after_finish(void **unused)
{
    (void)unused;
    stands_at(OS_HOOK_AFTER_FINISH, false);
}

/* The sweep is open, and nothing was taken off what lives. */
static void sweep_open_at_first(void **unused)
{
    (void)unused;
    stands_at(OS_HOOK_SWEEP_OPEN, true);
}

/* Without a limit: each turn takes three chunks of 8 MiB and leaves them dead.  Of an arena that is reset the
 * third, with room left, is the next turn's first. */
static _Atomic uint64_t turns;
static void fill(struct grey_arena *arena)
{
    HOOKS_CHECK(arena != NULL);
    for (int i = 0; i < 10; i++)
        HOOKS_CHECK(grey_arena_alloc_leaf(arena, 2 * MIB, 0) != NULL);
    atomic_fetch_add(&turns, 1);
}
static void lose_arenas(void)
{
    while (!atomic_load(&enough))
        fill(grey_arena_new());
}
static void reset_arena(void)
{
    struct grey_arena *arena = grey_arena_new();
    for (; !atomic_load(&enough); grey_arena_reset(arena))
        fill(arena);
    grey_arena_free(arena);
}

/* Past the goal and a tenth it waits in proportion to what it takes, a millisecond for a chunk. */
static void past_the_goal(void (*take)(void), bool periodic)
{
    uint64_t period = atomic_load(&control_period_ns);
    hooks_up("");
    atomic_store(&enough, false);
    HOOKS_CHECK(grey_set_percent(100) == -1);
    cycles_run(1);
    int stop = stop_at(OS_HOOK_ROUND_START, NULL);
    if (periodic)
        atomic_store(&control_period_ns, 1000000);
    else
        cycle_begin();
    HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
    atomic_store(&control_period_ns, period);
    pthread_t actor = actor_start(take);
    uint64_t began = os_now(), before = atomic_load(&turns), taken, ms;
    do {
        usleep(1000);
        taken = atomic_load(&turns) - before;
        ms = (os_now() - began) / 1000000;
    } while (ms < STANDS_MS || (taken == 0 && ms < 20000)); /* it never stops */
    uint64_t by_goal = cycle_goal() / (16 * MIB);
    atomic_store(&enough, true);
    stop_release(stop);
    actor_join(actor);
    if (taken == 0 || taken > by_goal + ms / 2 + 2)
        fail_msg("%llu turns in %llu ms, %llu fit under the goal", (unsigned long long)taken,
                 (unsigned long long)ms, (unsigned long long)by_goal);
    HOOKS_CHECK(grey_set_percent(-1) == 100);
    hooks_down();
}

static void lost(void **unused)
{
    (void)unused;
    past_the_goal(lose_arenas, false);
}

/* What it frees while marking goes on is pending, and takes memory until the end of the cycle (UA-25). */
static void pending(void **unused)
{
    (void)unused;
    past_the_goal(reset_arena, false);
}

/* Which nobody has asked for. */
static void in_a_periodic_cycle(void **unused)
{
    (void)unused;
    past_the_goal(reset_arena, true);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(while_marking),       cmocka_unit_test(closed), cmocka_unit_test(after_finish),
        cmocka_unit_test(sweep_open_at_first), cmocka_unit_test(lost),   cmocka_unit_test(pending),
        cmocka_unit_test(in_a_periodic_cycle),
    };
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}

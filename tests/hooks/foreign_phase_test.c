/* tests/hooks/foreign_phase_test.c -- foreign regions that are added, released and found while a cycle stands
 * at each of its steps, while a marker is inside one, and while the foreign sweep is about to take one.
 *
 * Requirements: FR-8, FR-9, FR-10, FR-21, FR-28, FR-35, FR-37, FR-39, BA-17, MK-20, MK-21, OR-3, OR-10.  A
 * step is held by a stop (support_hooks.h); an actor does there what must not wait for the step to end, with
 * objects that are white in this cycle where colours matter.  clobberfree=1 destroys what is freed too early.
 */
#include "support_foreign.h"
#include "support_heap.h"
#include "support_hooks.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static const struct step {
    enum os_hook point;
    const char *name;
    bool born_black; /* what is added here lives through this cycle's sweep */
} steps[] = {
    {OS_HOOK_AFTER_ARM, "arm", false},       {OS_HOOK_AFTER_BLACKEN, "blacken", true},
    {OS_HOOK_ROOTS, "roots", true},          {OS_HOOK_ROUND_START, "rescan", true},
    {OS_HOOK_ROUND_END, "round over", true}, {OS_HOOK_CLOSED, "closed", true},
    {OS_HOOK_FINISH, "finish", true},        {OS_HOOK_AFTER_FINISH, "after finish", true},
};
enum { STEPS = sizeof(steps) / sizeof(steps[0]) };
enum { LEAFS = 200, SIZE = LEAFS * sizeof(void *), BIG = 1 << 20, NUMBER = 33 };

/* Roots, and no heap objects, lead to regions: a stale word may keep an object, and it its region. */
GREY_ROOT(void *, root);
GREY_ROOT(void *, other_root);
static struct region first, second, victim;
static bool released;

static void up(void)
{
    root = other_root = NULL;
    hooks_up("clobberfree=1");
}

/* From the director, which is no attached thread. */
static void on_thread(void (*fn)(void))
{
    region_thread(fn);
    grey_thread_detach();
}
static bool found(const struct region *region)
{
    bool result = region_found(region);
    grey_thread_detach();
    return result;
}
static void drop_root(void)
{
    grey_store(&root, NULL);
    grey_store(&other_root, NULL);
}

static void await_death(const struct region *region)
{
    for (uint64_t end = os_now() + 20000000000; atomic_load(&region->died) == 0; os_yield())
        HOOKS_CHECK(os_now() < end);
}
/* Cleanups run some time after they were queued; none comes. */
static void await_cleanups(void)
{
    HOOKS_CHECK(grey_cleanup_wait(20000000000));
    grey_thread_detach();
}

static int begin_and_stop(enum os_hook point, const void *what)
{
    int stop = stop_at(point, what);
    cycle_begin();
    HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
    return stop;
}

/* ---- born in each step ----------------------------------------------------------------------------- */

/* On a thread that ends: an actor's registers would keep what it has forgotten. */
static void add_first(void) { region_new(&first, SIZE, 0); }
static void add_and_forget(void)
{
    stage_set(1);
    stage_await(2);
    region_thread(add_first);
    stage_set(3);
    stage_await(4);
}

/* FR-8: done while the step is held.  FR-9, MK-20: not judged by this cycle.  FR-28, OR-10: this cycle's
 * sweep is over when the next is armed.  And judged by the next. */
static void test_born(void **unused)
{
    (void)unused;
    for (int i = 0; i < STEPS; i++) {
        up();
        pthread_t actor = actor_start(add_and_forget);
        stage_await(1);
        int stop = begin_and_stop(steps[i].point, NULL);
        stage_set(2);
        stage_await(3);
        stop_release(stop);
        cycle_await(1);
        stop = begin_and_stop(OS_HOOK_AFTER_ARM, NULL);
        await_cleanups();
        if (steps[i].born_black && atomic_load(&first.died) != 0)
            fail_msg("added at %s, a region died in that cycle", steps[i].name);
        stop_release(stop);
        cycle_await(2);
        cycles_run(1);
        await_cleanups();
        if (atomic_load(&first.died) != 1)
            fail_msg("added at %s, a region died %u times", steps[i].name, atomic_load(&first.died));
        stage_set(4);
        actor_join(actor);
        hooks_down();
    }
}

/* ---- with white contents, a white argument, white neighbours --------------------------------------- */

static uintptr_t hidden_argument;
static uintptr_t hidden_map;

static void note(uintptr_t start, size_t size, void *arg)
{
    (void)start, (void)size;
    HOOKS_CHECK((uintptr_t)arg == ~hidden_argument && heap_leaf_is_intact(arg, NUMBER));
    atomic_fetch_add(&first.died, 1);
}

/* A thread holds LEAFS leafs and an argument, made before the cycle; then the region is all that leads to
 * them, and the root to the region. */
static void publish(void)
{
    void *leafs[LEAFS], *volatile arg = heap_marked_leaf(64, NUMBER);
    for (uint64_t i = 0; i < LEAFS; i++)
        leafs[i] = heap_marked_leaf(64, i);
    stage_set(1);
    stage_await(2);
    void **words = (void **)~hidden_map;
    for (int i = 0; i < LEAFS; i++)
        __atomic_store_n(&words[i], leafs[i], __ATOMIC_RELAXED);
    HOOKS_CHECK(grey_foreign_add(words, SIZE, GREY_FOREIGN_SCAN, note, arg, &first.handle) == 0);
    hidden_argument = ~(uintptr_t)arg;
    arg = NULL;
    memset(leafs, 0, sizeof(leafs));
    __asm__ volatile("" : : "r"(leafs) : "memory");
    grey_store(&root, words);
}
static void publish_and_forget(void)
{
    region_thread(publish);
    stage_set(3);
    stage_await(4);
}
/* The same by raw stores into a region that is registered already (BA-17): any address inside does. */
static void publish_touched(void)
{
    void *leafs[LEAFS], *volatile arg = heap_marked_leaf(64, NUMBER);
    for (uint64_t i = 0; i < LEAFS; i++)
        leafs[i] = heap_marked_leaf(64, i);
    void **words = (void **)~hidden_map;
    HOOKS_CHECK(grey_foreign_add(words, SIZE, GREY_FOREIGN_SCAN, note, arg, &first.handle) == 0);
    hidden_argument = ~(uintptr_t)arg;
    arg = NULL;
    grey_store(&root, words);
    stage_set(1);
    stage_await(2);
    for (int i = 0; i < LEAFS; i++)
        __atomic_store_n(&words[i], leafs[i], __ATOMIC_RELAXED);
    grey_touch((char *)words + SIZE - 1);
    __asm__ volatile("" : : "r"(leafs) : "memory");
}
static void touch_and_forget(void)
{
    region_thread(publish_touched);
    stage_set(3);
    stage_await(4);
}
static void check_contents(void)
{
    void **words = (void **)~hidden_map;
    for (uint64_t i = 0; i < LEAFS; i++)
        HOOKS_CHECK(heap_leaf_is_intact(words[i], i));
    HOOKS_CHECK(heap_leaf_is_intact((void *)~hidden_argument, NUMBER));
}

/* FR-9, FR-10, FR-21.  With another region far below, whose bounds are what the cycle began with. */
static void test_contents(void **unused)
{
    (void)unused;
    for (int i = 0; i < STEPS * 3; i++) {
        bool touched = i >= STEPS * 2;
        up();
        atomic_store(&first.died, 0);
        static char low[64]; /* static data lies below all mappings */
        grey_foreign other = 0;
        if (i >= STEPS && !touched) {
            HOOKS_CHECK(grey_foreign_add(low, sizeof(low), 0, note, NULL, &other) == 0);
            root = low;
        }
        grey_thread_detach();
        hidden_map = ~(uintptr_t)region_map(SIZE, PROT_READ | PROT_WRITE);
        pthread_t actor = actor_start(touched ? touch_and_forget : publish_and_forget);
        stage_await(1);
        int stop = begin_and_stop(steps[i % STEPS].point, NULL);
        if (other != 0)
            HOOKS_CHECK(grey_foreign_release(other));
        grey_thread_detach();
        stage_set(2);
        stage_await(3);
        stop_release(stop);
        cycle_await(1);
        cycles_run(1);
        on_thread(heap_reuse_free_memory);
        on_thread(check_contents);
        HOOKS_CHECK(atomic_load(&first.died) == 0);
        on_thread(drop_root);
        cycles_run(2);
        await_cleanups();
        if (atomic_load(&first.died) != 1)
            fail_msg("%d, at %s: a region died %u times", i / STEPS, steps[i % STEPS].name,
                     atomic_load(&first.died));
        stage_set(4);
        actor_join(actor);
        hooks_down();
    }
}

/* ---- released in each step ------------------------------------------------------------------------- */

static void make_both(void)
{
    region_new(&first, BIG, GREY_FOREIGN_SCAN);
    region_new(&second, SIZE, 0);
    void **words = (void **)(void *)region_start(&first);
    grey_store(&words[BIG / 8 - 1], (void *)region_start(&second));
    grey_store(&root, words);
}
static void release_both(void)
{
    region_thread(make_both);
    stage_set(1);
    stage_await(2);
    HOOKS_CHECK(grey_foreign_release(second.handle) && !grey_foreign_release(second.handle));
    region_unmap(region_start(&second), SIZE);
    stage_set(3);
    HOOKS_CHECK(grey_foreign_release(first.handle) && !grey_foreign_release(first.handle));
    region_unmap(region_start(&first), BIG);
    HOOKS_CHECK(!grey_foreign_find(region_start(&first), NULL, NULL));
    stage_set(4);
    stage_await(5);
}

/* FR-35, FR-39: no step is waited for; nothing reads what was unmapped; no cleanup ever runs. */
static void test_released(void **unused)
{
    (void)unused;
    for (int i = 0; i < STEPS; i++) {
        up();
        pthread_t actor = actor_start(release_both);
        stage_await(1);
        int stop = begin_and_stop(steps[i].point, NULL);
        stage_set(2);
        if (!stage_within(4, 20000))
            fail_msg("a release waits for %s to be over", steps[i].name);
        HOOKS_CHECK(cycles_over() == 0);
        stop_release(stop);
        cycle_await(1);
        on_thread(drop_root);
        cycles_run(2);
        await_cleanups();
        HOOKS_CHECK(atomic_load(&first.died) == 0 && atomic_load(&second.died) == 0);
        stage_set(5);
        actor_join(actor);
        hooks_down();
    }
}

/* ---- a marker inside (FR-39) ----------------------------------------------------------------------- */

/* Stage 3 comes while the marker stands inside; stage 4 may not. */
static void test_scanner_inside(void **unused)
{
    (void)unused;
    up();
    pthread_t actor = actor_start(release_both);
    stage_await(1);
    int at_end = stop_at(OS_HOOK_CLOSED, NULL);
    int inside = begin_and_stop(OS_HOOK_FOREIGN_SCAN, region_start(&first));
    stage_set(2);
    HOOKS_CHECK(stage_within(3, PATIENCE_MS)); /* of the unscanned one it never waits */
    HOOKS_CHECK(!stage_within(4, 200));
    stop_release(inside);
    if (!stage_within(4, 20000))
        fail_msg("a release waits for more than the marker inside");
    HOOKS_CHECK(stop_reached(at_end, PATIENCE_MS));
    HOOKS_CHECK(cycles_over() == 0);
    stop_release(at_end);
    cycle_await(1);
    on_thread(drop_root);
    cycles_run(2);
    await_cleanups();
    HOOKS_CHECK(atomic_load(&first.died) == 0 && atomic_load(&second.died) == 0);
    stage_set(5);
    actor_join(actor);
    hooks_down();
}

/* Marked, and waiting to be scanned behind the one that the marker is in: its release doesn't wait, and
 * the marker passes it by. */
static void make_two_scanned(void)
{
    region_new(&first, BIG, GREY_FOREIGN_SCAN);
    grey_store(&root, region_start(&first));
    region_new(&second, BIG, GREY_FOREIGN_SCAN);
    grey_store(&other_root, region_start(&second));
}
static void release_victim(void) /* the index shows neighbours */
{
    released = grey_foreign_release(victim.handle);
    HOOKS_CHECK(!grey_foreign_release(victim.handle));
    if (released)
        region_unmap(region_start(&victim), victim.size);
}
static void release_queued(void)
{
    region_thread(make_two_scanned);
    stage_set(1);
    stage_await(2);
    region_thread(release_victim);
    stage_set(3);
    stage_await(4);
}
static const void *_Atomic scanned_first;
static void note_first(enum os_hook point, const void *what)
{
    const void *none = NULL;
    if (point == OS_HOOK_FOREIGN_SCAN)
        atomic_compare_exchange_strong(&scanned_first, &none, what);
}
static void test_release_queued(void **unused)
{
    (void)unused;
    up();
    atomic_store(&scanned_first, NULL);
    atomic_store(&hooks_also, note_first);
    pthread_t actor = actor_start(release_queued);
    stage_await(1);
    int inside = begin_and_stop(OS_HOOK_FOREIGN_SCAN, NULL);
    bool is_first = atomic_load(&scanned_first) == region_start(&first);
    struct region *other = is_first ? &second : &first;
    victim.hidden = other->hidden;
    victim.handle = other->handle;
    victim.size = other->size;
    stage_set(2);
    HOOKS_CHECK(stage_within(3, 20000) && released);
    stop_release(inside);
    cycle_await(1);
    atomic_store(&hooks_also, NULL);
    HOOKS_CHECK(found(is_first ? &first : &second));
    on_thread(drop_root);
    cycles_run(2);
    await_cleanups();
    HOOKS_CHECK(atomic_load(&other->died) == 0);
    HOOKS_CHECK(atomic_load(&(is_first ? &first : &second)->died) == 1);
    stage_set(4);
    actor_join(actor);
    hooks_down();
}

/* ---- in the foreign sweep -------------------------------------------------------------------------- */

static void make_dead_and_living(void)
{
    region_new(&victim, SIZE, 0);
    region_new(&first, SIZE, 0);
    grey_store(&root, region_start(&first));
}
/* While the sweep is about to take the victim. */
static void meanwhile(void)
{
    region_thread(make_dead_and_living);
    stage_set(1);
    stage_await(2);
    region_thread(release_victim);
    HOOKS_CHECK(region_found(&first));
    region_thread(add_first); /* nothing leads to what is first now: it is new, and the sweep spares it */
    stage_set(3);
    stage_await(4);
}

/* FR-37: exactly one winner.  FR-8, FR-9: what is added now is not swept by this sweep. */
static void test_sweep(void **unused)
{
    (void)unused;
    up();
    pthread_t actor = actor_start(meanwhile);
    stage_await(1);
    int stop = begin_and_stop(OS_HOOK_FOREIGN_SWEEP, region_start(&victim));
    grey_foreign living = first.handle;
    stage_set(2);
    if (!stage_within(3, 20000))
        fail_msg("add or release waits for the foreign sweep");
    stop_release(stop);
    cycle_await(1);
    stop = begin_and_stop(OS_HOOK_AFTER_ARM, NULL);
    await_cleanups();
    HOOKS_CHECK(atomic_load(&victim.died) == (released ? 0 : 1));
    HOOKS_CHECK(atomic_load(&first.died) == 0);
    HOOKS_CHECK(grey_foreign_release(living)); /* the root's */
    grey_thread_detach();
    stop_release(stop);
    cycle_await(2);
    cycles_run(1);
    await_death(&first);
    await_cleanups();
    HOOKS_CHECK(atomic_load(&first.died) == 1);
    HOOKS_CHECK(atomic_load(&victim.died) == (released ? 0 : 1));
    stage_set(4);
    actor_join(actor);
    hooks_down();
}

/* Released between CLOSED and the sweep: the sweep finds nothing there any more. */
static void release_the_dead(void)
{
    region_thread(make_dead_and_living);
    stage_set(1);
    stage_await(2);
    region_thread(release_victim);
    stage_set(3);
    stage_await(4);
}
static void test_release_the_dead(void **unused)
{
    (void)unused;
    static const enum os_hook points[] = {OS_HOOK_CLOSED, OS_HOOK_FINISH, OS_HOOK_AFTER_FINISH};
    for (int i = 0; i < 3; i++) {
        up();
        pthread_t actor = actor_start(release_the_dead);
        stage_await(1);
        int stop = begin_and_stop(points[i], NULL);
        stage_set(2);
        stage_await(3);
        stop_release(stop);
        cycle_await(1);
        cycles_run(1);
        await_cleanups();
        HOOKS_CHECK(atomic_load(&victim.died) == (released ? 0 : 1));
        HOOKS_CHECK(atomic_load(&first.died) == 0 && found(&first));
        stage_set(4);
        actor_join(actor);
        hooks_down();
    }
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_born),
        cmocka_unit_test(test_contents),
        cmocka_unit_test(test_released),
        cmocka_unit_test(test_scanner_inside),
        cmocka_unit_test(test_release_queued),
        cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_release_the_dead),
    };
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}

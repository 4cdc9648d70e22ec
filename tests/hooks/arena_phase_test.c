/* tests/hooks/arena_phase_test.c -- arenas that are freed, lost and pointed to while a cycle stands at each
 * of its steps, while a marker is inside a chunk, and while chunks are let out of quarantine.
 *
 * Requirements: UA-18, UA-20, UA-22 to UA-26, UA-28, UA-35, UA-37, OR-3, OR-9; docs/protocol.md 5.  A step
 * is held by a stop (support_hooks.h); what happens there is done by threads that end at once, so that no
 * stack keeps an address that it only had in passing, and figures are exact.  Whether memory is accessible
 * is asked of the kernel, which answers EFAULT instead of a signal.  clobberfree=1 destroys what is freed
 * too early.
 */
#include "support_foreign.h"
#include "support_heap.h"
#include "support_hooks.h"

#include "arena/chunks.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct step {
    enum os_hook point;
    const char *name;
    bool on; /* the phase: what is freed here has to wait */
} steps[] = {
    {OS_HOOK_AFTER_ARM, "arm", true},        {OS_HOOK_AFTER_BLACKEN, "blacken", true},
    {OS_HOOK_ROOTS, "roots", true},          {OS_HOOK_ROUND_START, "rescan", true},
    {OS_HOOK_ROUND_END, "round over", true}, {OS_HOOK_CLOSED, "closed", true},
    {OS_HOOK_FINISH, "finish", true},        {OS_HOOK_AFTER_FINISH, "after finish", false},
};
enum { STEPS = sizeof(steps) / sizeof(steps[0]) };
enum { LEAFS = 200, MIB = 1 << 20, CHUNK = 8 * MIB };

struct item {
    void *leaf, *other;
    uint64_t number;
};
GREY_TYPE(item_type, struct item, leaf, other);

GREY_ROOT(struct grey_arena *, handle);       /* of the arena that a scenario is about */
GREY_ROOT(struct grey_arena *, other_handle); /* of one that lives */
GREY_ROOT(void *, root);
static uintptr_t hidden; /* ~ the address of the arena's first object, an array of items */
static int pipe_ends[2];

/* ---- what a scenario is made of ---------------------------------------------------------------------- */

/* From the director, which is no attached thread. */
static void on_thread(void (*fn)(void))
{
    region_thread(fn);
    grey_thread_detach();
}

static void up(void)
{
    handle = other_handle = NULL;
    root = NULL;
    hooks_up("clobberfree=1,arenafault=1");
}

static struct item *items(void) { return (struct item *)~hidden; }
static char *chunk(void) { return (char *)(~hidden & ~(uintptr_t)(CHUNK - 1)); }

static bool byte_is_readable(const char *p)
{
    char byte;
    errno = 0;
    bool can = syscall(SYS_write, pipe_ends[1], p, 1) == 1;
    HOOKS_CHECK(can ? syscall(SYS_read, pipe_ends[0], &byte, 1) == 1 : errno == EFAULT);
    return can;
}

/* The whole chunk, or nothing of it. */
static bool readable(void)
{
    bool can = byte_is_readable(chunk());
    HOOKS_CHECK(byte_is_readable(chunk() + CHUNK - 1) == can &&
                byte_is_readable(chunk() + CHUNK / 2 + 1) == can);
    return can;
}

static struct grey_stats figures(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    HOOKS_CHECK(grey_stats_read(&stats) == 0);
    return stats;
}

/* Not under ASan, where the chunk that was in use is freed as well (UA-29). */
static void expect_figures(const char *when, uint64_t pending, uint64_t quarantined, uint64_t ready)
{
    struct grey_stats stats = figures();
    if (!OS_ASAN && (stats.arena_chunks_pending != pending || stats.arena_chunks_quarantined != quarantined ||
                     stats.arena_chunks_ready != ready))
        fail_msg("%s: %llu pending, %llu in quarantine, %llu ready; expected %llu, %llu, %llu", when,
                 (unsigned long long)stats.arena_chunks_pending,
                 (unsigned long long)stats.arena_chunks_quarantined,
                 (unsigned long long)stats.arena_chunks_ready, (unsigned long long)pending,
                 (unsigned long long)quarantined, (unsigned long long)ready);
}

/* Of a scenario with one chunk to be freed. */
static void expect(const char *when, uint64_t pending, uint64_t quarantined, uint64_t ready)
{
    enum chunk_state state = pending != 0 ? CHUNK_PENDING : quarantined != 0 ? CHUNK_QUARANTINE : CHUNK_READY;
    uint32_t number = (uint32_t)((size_t)(chunk() - arena_space.base) / ARENA_CHUNK);
    if (pending + quarantined + ready != 0 && chunk_state(chunk_at(number)) != state)
        fail_msg("%s: the chunk's state is %u, expected %u", when, chunk_state(chunk_at(number)), state);
    expect_figures(when, pending, quarantined, ready);
}

static int begin_and_stop(enum os_hook point, const void *what)
{
    int stop = stop_at(point, what);
    cycle_begin();
    HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
    return stop;
}

/* The cycles so far are over, what they do after finish too: the next is armed.  Looks, and lets it go to
 * its end. */
static void at_next_arm(void (*look)(const char *when), const char *when)
{
    uint64_t over = cycles_over();
    int stop = begin_and_stop(OS_HOOK_AFTER_ARM, NULL);
    look(when);
    stop_release(stop);
    cycle_await(over + 1);
}

/* An array of items that lead to leafs which nothing else leads to. */
static struct item *new_items(struct grey_arena *arena)
{
    struct item *array = grey_arena_new_array(arena, &item_type, LEAFS);
    HOOKS_CHECK(array != NULL);
    for (uint64_t i = 0; i < LEAFS; i++) {
        array[i].number = i;
        grey_store(&array[i].leaf, heap_marked_leaf(64, i));
    }
    return array;
}

static void check_items(void)
{
    for (uint64_t i = 0; i < LEAFS; i++)
        HOOKS_CHECK(items()[i].number == i && heap_leaf_is_intact(items()[i].leaf, i));
}

/* So many chunks are full, another has begun. */
static void make_with(int chunks)
{
    struct grey_arena *arena = grey_arena_new();
    HOOKS_CHECK(arena != NULL);
    struct item *first = new_items(arena);
    for (int i = 0; i < 8 * chunks; i++)
        HOOKS_CHECK(grey_arena_alloc_leaf(arena, MIB - (i % 8 == 0 ? sizeof(struct item) * LEAFS : 0), 0) !=
                    NULL);
    HOOKS_CHECK(grey_arena_alloc_leaf(arena, MIB, 0) != NULL);
    hidden = ~(uintptr_t)first;
    grey_store(&handle, arena);
}
static void make(void) { make_with(1); }
static void make_three(void) { make_with(3); }

static void free_it(void)
{
    grey_arena_free(handle);
    grey_store(&handle, NULL);
}
static void reset_it(void) { grey_arena_reset(handle); }
static void lose_it(void) { grey_store(&handle, NULL); }
static void free_on_thread(void) { region_thread(free_it); }

/* The addresses are used again, and hold nothing (UA-9). */
static void take_again(void)
{
    struct grey_arena *arena = grey_arena_new();
    for (int i = 0; i < 40; i++) {
        char *p = grey_arena_alloc_leaf(arena, MIB, 0);
        HOOKS_CHECK(p != NULL);
        if (p < chunk() || p >= chunk() + CHUNK)
            continue;
        for (size_t at = 0; at < MIB; at += 8)
            HOOKS_CHECK(*(uint64_t *)(void *)(p + at) == 0);
        grey_arena_free(arena);
        return;
    }
    hooks_fail("a ready chunk is not used again");
}

/* ---- freed in each step -------------------------------------------------------------------------------- */

static void look_faulted(const char *when)
{
    expect(when, 0, 1, 0);
    HOOKS_CHECK(!readable());
}
static void look_ready(const char *when)
{
    expect(when, 0, 0, 1);
    HOOKS_CHECK(!readable());
}

/* Sweeps what is free of the leafs' class, and overwrites it. */
static void reuse_leafs(void)
{
    for (int i = 0; i < 20000; i++)
        memset(grey_alloc_leaf(64), 0xee, 64);
}

/* UA-23: the phase decides.  UA-24, OR-3: before the next may be armed.  UA-26, OR-9: the first whole cycle
 * that finds no pointer lets it go. */
static void freed_in_step(const struct step *step, void (*how)(void))
{
    up();
    on_thread(make);
    expect("made", 0, 0, 0);
    HOOKS_CHECK(figures().arena_chunks_active == 2);
    int stop = begin_and_stop(step->point, NULL);
    on_thread(how);
    expect(step->name, step->on, !step->on, 0);
    HOOKS_CHECK(figures().arena_chunks_reusable == !OS_ASAN && figures().arena_chunks_active == 0);
    HOOKS_CHECK(readable() == step->on);
    if (step->on)
        check_items(); /* kept alive and scanned, also if nobody has marked them yet */
    grey_thread_detach();
    int faulting = step->on ? stop_at(OS_HOOK_ARENA_FAULT, chunk()) : -1;
    stop_release(stop);
    cycle_await(1);
    if (step->on) { /* what it leads to isn't swept before it faults */
        HOOKS_CHECK(stop_reached(faulting, 20000) && readable());
        on_thread(reuse_leafs);
        on_thread(check_items);
        stop_release(faulting);
    }
    at_next_arm(look_faulted, step->name);
    at_next_arm(look_ready, step->name);
    on_thread(take_again);
    hooks_down();
}

static void test_freed(void **unused)
{
    (void)unused;
    for (int i = 0; i < STEPS; i++) {
        freed_in_step(&steps[i], free_it);
        freed_in_step(&steps[i], reset_it);
    }
}

/* Between cycles: at once; and the next one is the first whole one. */
static void test_freed_between(void **unused)
{
    (void)unused;
    up();
    on_thread(make);
    on_thread(free_it);
    look_faulted("between");
    cycles_run(1);
    at_next_arm(look_ready, "between");
    on_thread(take_again);
    hooks_down();
}

/* ---- freed while a cycle begins ------------------------------------------------------------------------ */

/* UA-23: to read the phase and to fault is one section, so arm waits for it (mr_noregion).  The chunk was
 * faulted in this cycle, then, and it is the next that may let it go. */
static void test_racing_arm(void **unused)
{
    (void)unused;
    up();
    on_thread(make);
    int faulting = stop_at(OS_HOOK_ARENA_FAULT, chunk());
    pthread_t actor = actor_start(free_on_thread);
    HOOKS_CHECK(stop_reached(faulting, 20000) && readable());
    int armed = stop_at(OS_HOOK_AFTER_ARM, NULL);
    cycle_begin();
    HOOKS_CHECK(!stop_reached(armed, 300));
    stop_release(faulting);
    HOOKS_CHECK(stop_reached(armed, PATIENCE_MS));
    look_faulted("armed");
    stop_release(armed);
    actor_join(actor);
    cycle_await(1);
    at_next_arm(look_faulted, "the cycle that began meanwhile");
    at_next_arm(look_ready, "the next");
    hooks_down();
}

/* A cycle comes between two chunks of one arena: the first has faulted, the others wait. */
static void test_between_chunks(void **unused)
{
    (void)unused;
    up();
    on_thread(make_three);
    int first = stop_at(OS_HOOK_ARENA_FAULT, NULL);
    pthread_t actor = actor_start(free_on_thread);
    HOOKS_CHECK(stop_reached(first, PATIENCE_MS));
    expect_figures("nothing freed", 0, 0, 0);
    int second = stop_at(OS_HOOK_ARENA_FREE, NULL); /* before the next chunk */
    stop_release(first);
    HOOKS_CHECK(stop_reached(second, PATIENCE_MS));
    expect_figures("one freed", 0, 1, 0);
    int armed = begin_and_stop(OS_HOOK_AFTER_BLACKEN, NULL);
    stop_release(second);
    actor_join(actor);
    expect_figures("all freed", 2, 1, 0);
    stop_release(armed);
    cycle_await(1);
    int stop = begin_and_stop(OS_HOOK_AFTER_ARM, NULL);
    expect_figures("after the cycle", 0, 2, 1); /* it was the first one's whole cycle */
    stop_release(stop);
    cycle_await(2);
    stop = begin_and_stop(OS_HOOK_AFTER_ARM, NULL);
    expect_figures("after the next", 0, 0, 3);
    stop_release(stop);
    cycle_await(3);
    hooks_down();
}

/* ---- a marker inside ----------------------------------------------------------------------------------- */

/* protocol.md 5, mr_faultnow: what a tracer is reading stays readable until finish, and what it leads to is
 * kept through this cycle. */
static void freed_under_marker(void (*how)(void), bool lost)
{
    up();
    on_thread(make);
    int inside = begin_and_stop(OS_HOOK_ARENA_SCAN, chunk());
    on_thread(how);
    expect("a marker is inside", !lost, 0, 0);
    HOOKS_CHECK(readable());
    int closed = stop_at(OS_HOOK_CLOSED, NULL), finish = stop_at(OS_HOOK_FINISH, NULL);
    stop_release(inside);
    HOOKS_CHECK(stop_reached(closed, 20000) && readable());
    check_items();
    stop_release(closed);
    HOOKS_CHECK(stop_reached(finish, 20000) && readable());
    expect("finish", !lost, 0, 0);
    grey_thread_detach();
    stop_release(finish);
    cycle_await(1);
    if (lost) /* while its handle was marked: the next cycle finds it */
        cycles_run(1);
    at_next_arm(look_faulted, "after the cycle");
    at_next_arm(look_ready, "after the next");
    hooks_down();
}

static void test_under_marker(void **unused)
{
    (void)unused;
    freed_under_marker(free_it, false);
    freed_under_marker(reset_it, false);
}

/* ---- pointers that are left behind --------------------------------------------------------------------- */

static uintptr_t hidden_place; /* ~ of the slot that has the pointer */
static struct region place_region;
static atomic_uint scans_of_chunk;

static void count_scans(enum os_hook point, const void *what)
{
    if (point == OS_HOOK_ARENA_SCAN && (uintptr_t)what - (uintptr_t)chunk() < CHUNK)
        atomic_fetch_add(&scans_of_chunk, 1);
}

static void leave_in_root(void) { grey_store(&root, (void *)items()); }
static void leave_last_byte(void) { grey_store(&root, (void *)(chunk() + CHUNK - 1)); }
static void drop_root(void) { grey_store(&root, NULL); }

static void leave_in_typed(void)
{
    struct item *object = grey_new(&item_type);
    grey_store(&object->other, (void *)&items()[7].number);
    grey_store(&root, (void *)object);
}
static void leave_in_untyped(void)
{
    void **object = grey_alloc(100 * sizeof(void *));
    grey_store(&object[93], (void *)((char *)items() + 12345));
    grey_store(&root, (void *)object);
}
static void leave_in_large(void)
{
    void **object = grey_alloc(3 * MIB);
    grey_store(&object[3 * MIB / 8 - 1], (void *)items());
    grey_store(&root, (void *)object);
}
static void drop_object_slot(void)
{
    grey_clear(root, grey_size(root) < 64 ? sizeof(struct item) : grey_size(root));
    grey_store(&root, NULL);
}

static void leave_in_arena(void)
{
    struct grey_arena *arena = grey_arena_new();
    struct item *object = grey_arena_new_object(arena, &item_type);
    grey_store(&object->other, (void *)items());
    hidden_place = ~(uintptr_t)&object->other;
    grey_store(&other_handle, arena);
}
static void drop_arena_slot(void) { grey_store((void **)~hidden_place, NULL); }

static void leave_in_region(void)
{
    region_new(&place_region, MIB, GREY_FOREIGN_SCAN);
    void **words = (void **)(void *)region_start(&place_region);
    grey_store(&words[MIB / 8 - 1], (void *)items());
    grey_store(&root, (void *)words);
}
static void drop_region_slot(void)
{
    void **words = (void **)(void *)region_start(&place_region);
    grey_store(&words[MIB / 8 - 1], NULL);
}
static void release_region(void)
{
    HOOKS_CHECK(grey_foreign_release(place_region.handle));
    region_unmap(region_start(&place_region), MIB);
    grey_store(&root, NULL);
}

static void no_cleanup(void *arg) { (void)arg; }
static void leave_as_argument(void)
{
    grey_cleanup handle_of;
    void *object = grey_alloc(64);
    HOOKS_CHECK(grey_cleanup_add(object, no_cleanup, items(), &handle_of) == 0);
    hidden_place = handle_of;
    grey_store(&root, object);
}
static void drop_argument(void)
{
    HOOKS_CHECK(grey_cleanup_stop(hidden_place));
    grey_store(&root, NULL);
}

static const struct place {
    const char *name;
    void (*leave)(void), (*drop)(void), (*end)(void);
} places[] = {
    {"a root", leave_in_root, drop_root, NULL},
    {"a root, the last byte", leave_last_byte, drop_root, NULL},
    {"a typed object", leave_in_typed, drop_object_slot, NULL},
    {"an untyped object", leave_in_untyped, drop_object_slot, NULL},
    {"a large object", leave_in_large, drop_object_slot, NULL},
    {"another arena", leave_in_arena, drop_arena_slot, NULL},
    {"a foreign region", leave_in_region, drop_region_slot, release_region},
    {"a cleanup's argument", leave_as_argument, drop_argument, NULL},
};

/* UA-26, UA-35: kept for as long as the pointer is there, never read, free after the first cycle without. */
static void test_pointer_left(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        up();
        on_thread(make);
        on_thread(places[i].leave);
        on_thread(free_it);
        atomic_store(&scans_of_chunk, 0);
        atomic_store(&hooks_also, count_scans);
        for (int cycle = 0; cycle < 4; cycle++)
            at_next_arm(look_faulted, places[i].name);
        HOOKS_CHECK(atomic_load(&scans_of_chunk) == 0);
        on_thread(places[i].drop);
        cycles_run(1);
        at_next_arm(look_ready, places[i].name);
        if (places[i].end != NULL)
            on_thread(places[i].end);
        on_thread(take_again);
        hooks_down();
    }
}

static size_t held_offset;
static void hold_on_stack(void)
{
    const char *volatile held = chunk() + held_offset;
    stage_set(1);
    stage_await(2);
    HOOKS_CHECK(held == chunk() + held_offset);
}

/* On a stack, the address one past the end too. */
static void test_pointer_on_stack(void **unused)
{
    static const size_t offsets[] = {0, 1, CHUNK / 2 + 13, CHUNK - 1, CHUNK};
    (void)unused;
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        up();
        on_thread(make);
        held_offset = offsets[i];
        pthread_t actor = actor_start(hold_on_stack);
        stage_await(1);
        on_thread(free_it);
        for (int cycle = 0; cycle < 3; cycle++)
            at_next_arm(look_faulted, "held on a stack");
        stage_set(2);
        actor_join(actor);
        cycles_run(1);
        at_next_arm(look_ready, "dropped from a stack");
        hooks_down();
    }
}

/* ---- seen by the barrier only -------------------------------------------------------------------------- */

/* The marker has been at the root before, and finds nothing there afterwards. */
static void store_and_clear(void)
{
    grey_store(&root, (void *)&items()[3]);
    grey_store(&root, NULL);
}
static void move_and_clear(void)
{
    void *from = items();
    grey_move(&root, &from, sizeof(root));
    grey_clear(&root, sizeof(root));
}
static void exchange_and_clear(void)
{
    HOOKS_CHECK(grey_exchange(&root, (void *)items()) == NULL);
    grey_store(&root, NULL);
}
static void pass_it(void) { grey_pass(items()); }
static void nothing(void) {}

/* protocol.md 2.3, 5: the barrier colours it, and so that cycle leaves it in quarantine.  The one that has
 * nothing stored shows that it would have gone. */
static void test_barrier_only(void **unused)
{
    static void (*const ways[])(void) = {nothing, store_and_clear, move_and_clear, exchange_and_clear,
                                         pass_it};
    (void)unused;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        for (int late = 0; late < 2; late++) {
            up();
            on_thread(make);
            on_thread(free_it);
            int stop = begin_and_stop(late ? OS_HOOK_ROUND_END : OS_HOOK_ROUND_START, NULL);
            on_thread(ways[i]);
            stop_release(stop);
            cycle_await(1);
            at_next_arm(i == 0 ? look_ready : look_faulted, "stored while marking");
            at_next_arm(look_ready, "the next cycle");
            hooks_down();
        }
}

/* ---- lost handles -------------------------------------------------------------------------------------- */

static void look_lost(const char *when)
{
    struct grey_stats stats = figures();
    if (stats.arenas != 0 || stats.arena_chunks_active != 0)
        fail_msg("%s: an arena whose handle is lost lives", when);
}

/* UA-20: by the cycle that begins after it was lost at the latest.  Until it faults everything is there;
 * then what it leads to was traced in that same cycle. */
static void test_lost(void **unused)
{
    (void)unused;
    for (int i = 0; i < STEPS; i++) {
        up();
        on_thread(make);
        int stop = begin_and_stop(steps[i].point, NULL);
        on_thread(lose_it);
        HOOKS_CHECK(readable());
        check_items();
        grey_thread_detach();
        stop_release(stop);
        cycle_await(1);
        stop = begin_and_stop(OS_HOOK_FINISH, NULL);
        if (readable())
            check_items();
        grey_thread_detach();
        stop_release(stop);
        cycle_await(2);
        at_next_arm(look_lost, steps[i].name);
        cycles_run(2);
        at_next_arm(look_ready, steps[i].name);
        HOOKS_CHECK(figures().arena_chunks_reusable == !OS_ASAN);
        hooks_down();
    }
    freed_under_marker(lose_it, true);
}

/* ---- reusable ------------------------------------------------------------------------------------------ */

static void make_small(void)
{
    struct grey_arena *arena = grey_arena_new();
    hidden = ~(uintptr_t)new_items(arena);
    grey_store(&handle, arena);
}

/* The next arena goes on behind what is there, and takes it along when it is full. */
static void fill_up(void)
{
    struct grey_arena *arena = grey_arena_new();
    char *p = grey_arena_alloc_leaf(arena, MIB, 0);
    HOOKS_CHECK(p >= chunk() && p < chunk() + CHUNK);
    check_items();
    for (int i = 0; i < 8; i++)
        HOOKS_CHECK(grey_arena_alloc_leaf(arena, MIB, 0) != NULL);
    grey_arena_free(arena);
}

/* UA-22, UA-28, UA-20: freed or lost in each step, the chunk that was in use stays readable, with what it
 * leads to, until it is full and freed. */
static void test_reusable(void **unused)
{
    (void)unused;
    if (OS_ASAN)
        skip();
    for (int i = 0; i < 2 * STEPS; i++) {
        up();
        on_thread(make_small);
        int stop = begin_and_stop(steps[i / 2].point, NULL);
        on_thread(i % 2 == 0 ? free_it : lose_it);
        stop_release(stop);
        cycle_await(1);
        cycles_run(3);
        on_thread(heap_reuse_free_memory);
        HOOKS_CHECK(figures().arena_chunks_reusable == 1 && figures().arenas == 0);
        on_thread(check_items);
        on_thread(fill_up);
        int armed = begin_and_stop(OS_HOOK_AFTER_ARM, NULL);
        HOOKS_CHECK(!readable());
        uint64_t over = cycles_over();
        stop_release(armed);
        cycle_await(over + 1);
        hooks_down();
    }
}

/* ---- while chunks are let out of quarantine ------------------------------------------------------------ */

static uintptr_t hidden_before; /* the chunk that is being judged */

/* Faults now, with this cycle's number: not for this sweep to let go.  And allocation goes on beside it. */
static void free_and_make(void)
{
    free_it();
    struct grey_arena *arena = grey_arena_new();
    for (int i = 0; i < 20; i++)
        HOOKS_CHECK(grey_arena_alloc_leaf(arena, MIB, 0) != NULL);
    grey_store(&other_handle, arena);
}

static void test_during_sweep(void **unused)
{
    (void)unused;
    up();
    on_thread(make);
    on_thread(free_it);
    hidden_before = hidden;
    on_thread(make);
    HOOKS_CHECK(((~hidden ^ ~hidden_before) & ~(uintptr_t)(CHUNK - 1)) != 0); /* another chunk */
    int stop = begin_and_stop(OS_HOOK_ARENA_SWEEP, (void *)(~hidden_before & ~(uintptr_t)(CHUNK - 1)));
    expect_figures("being judged", 0, 1, 0);
    on_thread(free_and_make);
    expect_figures("another freed", 0, 2, 0);
    HOOKS_CHECK(!readable());
    stop_release(stop);
    cycle_await(1);
    stop = begin_and_stop(OS_HOOK_AFTER_ARM, NULL);
    expect_figures("after the sweep", 0, 1, 1);
    HOOKS_CHECK(!readable());
    stop_release(stop);
    cycle_await(2);
    stop = begin_and_stop(OS_HOOK_AFTER_ARM, NULL);
    expect_figures("after the next", 0, 0, 2);
    stop_release(stop);
    cycle_await(3);
    hooks_down();
}

/* -------------------------------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_freed),
        cmocka_unit_test(test_freed_between),
        cmocka_unit_test(test_racing_arm),
        cmocka_unit_test(test_between_chunks),
        cmocka_unit_test(test_under_marker),
        cmocka_unit_test(test_pointer_left),
        cmocka_unit_test(test_pointer_on_stack),
        cmocka_unit_test(test_barrier_only),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_reusable),
        cmocka_unit_test(test_during_sweep),
    };
    if (pipe(pipe_ends) != 0)
        return 1;
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}

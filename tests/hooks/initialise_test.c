/* tests/hooks/initialise_test.c -- zero-initialise versus clear: what memory holds when the collector first
 * finds it, and when it is emptied under the collector's eyes.
 *
 * Requirements: UM-13, UM-14, UM-15, BA-2.  Fresh memory is not in a valid state until its allocation is
 * complete, and whoever has its address only by chance must not find it before.  Memory that holds pointers
 * is emptied by grey_clear, so that a marker never meets half a word; but there is nothing in a cleared
 * slot that the barrier would have to see: what was in it is kept by whoever took it out, and a plain clear
 * loses nothing either.
 */
#include "support_foreign.h"
#include "support_heap.h"
#include "support_hooks.h"

#include <pthread.h>
#include <string.h>

enum { LEAFS = 200, LARGE = 3 << 20 };

struct slots {
    void *slot[LEAFS];
};
GREY_TYPE(slots_type, struct slots, GREY_ARRAY(slot, LEAFS));
struct pointer {
    void *to;
};
GREY_TYPE(pointer_type, struct pointer, to);

GREY_ROOT(void *, root);
GREY_ROOT(uintptr_t, chance); /* an address that is no pointer yet */

static void on_thread(void (*fn)(void))
{
    region_thread(fn);
    grey_thread_detach();
}

static void up(const char *debug)
{
    root = NULL;
    chance = 0;
    hooks_up(debug);
}

/* ---- a large object that is found by chance ----------------------------------------------------------- */

static uintptr_t hidden;

/* Memory that was used: every word leads to a place where no object is, for which a marker would die in a
 * typed object (MK-14). */
static void make_dirty(void)
{
    uintptr_t *words = grey_alloc_leaf(LARGE);
    HOOKS_CHECK(words != NULL);
    hidden = ~(uintptr_t)words;
    for (size_t i = 0; i < LARGE / sizeof(void *); i++)
        words[i] = (uintptr_t)words + (i % (LARGE / 2)) * 2 + 1;
}

static void make_typed(void)
{
    struct pointer *array = grey_new_array(&pointer_type, LARGE / sizeof(void *));
    HOOKS_CHECK(array != NULL);
    for (size_t i = 0; i < LARGE / sizeof(void *); i++)
        HOOKS_CHECK(array[i].to == NULL);
    grey_store(&root, (void *)array);
    hidden = ~(uintptr_t)array;
}
static void make_untyped(void)
{
    uintptr_t *array = grey_alloc(LARGE);
    HOOKS_CHECK(array != NULL);
    for (size_t i = 0; i < LARGE / sizeof(uintptr_t); i++)
        HOOKS_CHECK(array[i] == 0);
    grey_store(&root, (void *)array);
    hidden = ~(uintptr_t)array;
}

static _Atomic uintptr_t about_to_be;
static void note_place(enum os_hook point, const void *what)
{
    if (point == OS_HOOK_LARGE_BEFORE_PUBLISH)
        atomic_store(&about_to_be, (uintptr_t)what);
}
static void *make_on_actor(void *fn)
{
    region_thread(*(void (**)(void))fn);
    grey_thread_detach();
    return NULL;
}

/* UM-15: until it is published there is no object, whatever leads there; a whole cycle passes. */
static void found_by_chance(void (*make)(void))
{
    up("invalidptr=1");
    on_thread(make_dirty);
    cycles_run(2);
    atomic_store(&hooks_also, note_place);
    int stop = stop_at(OS_HOOK_LARGE_BEFORE_PUBLISH, NULL);
    pthread_t thread;
    HOOKS_CHECK(pthread_create(&thread, NULL, make_on_actor, &make) == 0);
    HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
    uintptr_t place = atomic_load(&about_to_be);
    HOOKS_CHECK(place == ~hidden);
    hidden = 0;
    chance = place + 64;
    HOOKS_CHECK(grey_base((void *)place) == NULL && grey_size((void *)place) == 0);
    grey_thread_detach();
    cycles_run(2);
    HOOKS_CHECK(grey_base((void *)place) == NULL);
    grey_thread_detach();
    stop_release(stop);
    HOOKS_CHECK(pthread_join(thread, NULL) == 0);
    HOOKS_CHECK(~hidden == place);
    cycles_run(2);
    HOOKS_CHECK(grey_base((void *)place) == (void *)place && grey_size((void *)place) >= LARGE);
    grey_thread_detach();
    hooks_down();
}

static void test_found_by_chance(void **unused)
{
    (void)unused;
    found_by_chance(make_typed);
    found_by_chance(make_untyped);
}

/* ---- slots that are emptied in each step --------------------------------------------------------------- */

static const enum os_hook steps[] = {OS_HOOK_AFTER_ARM,   OS_HOOK_AFTER_BLACKEN, OS_HOOK_ROOTS,
                                     OS_HOOK_ROUND_START, OS_HOOK_ROUND_END,     OS_HOOK_CLOSED,
                                     OS_HOOK_FINISH,      OS_HOOK_AFTER_FINISH};
enum { STEPS = sizeof(steps) / sizeof(steps[0]), WAYS = 3 };
static int way;

static void make_slots(void)
{
    struct slots *slots = grey_new(&slots_type);
    for (uint64_t i = 0; i < LEAFS; i++)
        grey_store(&slots->slot[i], heap_marked_leaf(64, i));
    grey_store(&root, (void *)slots);
}

static void empty(struct slots *slots)
{
    if (way == 0)
        grey_clear(slots, sizeof(*slots));
    else if (way == 1) /* plain, but whole words */
        for (int i = 0; i < LEAFS; i++)
            __atomic_store_n(&slots->slot[i], NULL, __ATOMIC_RELAXED);
    else
        memset(slots, 0, sizeof(*slots));
}

/* Takes all leafs out, before or after the marker was there. */
static void take_out(void)
{
    void *volatile taken[LEAFS];
    stage_set(1);
    stage_await(2);
    struct slots *slots = root;
    for (int i = 0; i < LEAFS; i++)
        taken[i] = slots->slot[i];
    empty(slots);
    stage_set(3);
    stage_await(4);
    region_thread(heap_reuse_free_memory);
    for (uint64_t i = 0; i < LEAFS; i++)
        HOOKS_CHECK(slots->slot[i] == NULL && heap_leaf_is_intact(taken[i], i));
    for (int i = 0; i < LEAFS; i++)
        taken[i] = NULL;
}

/* UM-13, UM-14, BA-2 */
static void test_emptied(void **unused)
{
    (void)unused;
    for (int i = 0; i < STEPS * WAYS; i++) {
        way = i / STEPS;
        up("clobberfree=1");
        on_thread(make_slots);
        pthread_t actor = actor_start(take_out);
        stage_await(1);
        int stop = stop_at(steps[i % STEPS], NULL);
        cycle_begin();
        HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
        stage_set(2);
        stage_await(3);
        stop_release(stop);
        cycle_await(1);
        cycles_run(1);
        stage_set(4);
        actor_join(actor);
        hooks_down();
    }
}

/* ---- under a marker that never stops ------------------------------------------------------------------- */

static atomic_bool over;
static void *run_cycles(void *unused)
{
    while (!atomic_load(&over))
        grey_collect();
    grey_thread_detach();
    return unused;
}

static void *leafs_of_two[2];         /* a registered root */
static struct slots *_Atomic watched; /* is in the root too */

/* Another reader than the marker, which would take half a word for a pointer to something else. */
static void *watch(void *unused)
{
    while (!atomic_load(&over)) {
        struct slots *slots = atomic_load(&watched);
        for (int i = 0; slots != NULL && i < LEAFS; i++) {
            void *word = __atomic_load_n(&slots->slot[i], __ATOMIC_RELAXED);
            HOOKS_CHECK(word == NULL || word == leafs_of_two[0] || word == leafs_of_two[1]);
        }
    }
    return unused;
}

/* Typed slots are filled, moved and cleared while cycles run back to back. */
static void fill_and_clear(void)
{
    struct slots *slots = grey_new(&slots_type), *others = grey_new(&slots_type);
    grey_store(&root, (void *)slots);
    for (uint64_t i = 0; i < 2; i++)
        grey_store(&leafs_of_two[i], heap_marked_leaf(64, i));
    atomic_store(&watched, slots);
    for (uint64_t end = os_now() + 700000000; os_now() < end;) {
        for (uint64_t i = 0; i < LEAFS; i++)
            grey_store(&slots->slot[i], leafs_of_two[i % 2]);
        size_t from = os_now() % LEAFS / 2;
        grey_move(&others->slot[0], &slots->slot[from], (LEAFS - from) * sizeof(void *));
        for (uint64_t i = from; i < LEAFS; i++)
            HOOKS_CHECK(others->slot[i - from] == leafs_of_two[i % 2]);
        grey_clear(slots, sizeof(*slots));
        grey_move(slots, others, sizeof(*slots));
        grey_clear(&others->slot[0], (LEAFS - from) * sizeof(void *));
        HOOKS_CHECK(heap_leaf_is_intact(leafs_of_two[0], 0) && heap_leaf_is_intact(leafs_of_two[1], 1));
    }
}

/* UM-13 */
static void test_never_half(void **unused)
{
    (void)unused;
    pthread_t cycles, watcher;
    up("invalidptr=1");
    HOOKS_CHECK(grey_root_add(leafs_of_two, sizeof(leafs_of_two)) == 0);
    grey_thread_detach();
    atomic_store(&over, false);
    atomic_store(&watched, NULL);
    HOOKS_CHECK(pthread_create(&cycles, NULL, run_cycles, NULL) == 0);
    HOOKS_CHECK(pthread_create(&watcher, NULL, watch, NULL) == 0);
    on_thread(fill_and_clear);
    atomic_store(&over, true);
    HOOKS_CHECK(pthread_join(cycles, NULL) == 0 && pthread_join(watcher, NULL) == 0);
    HOOKS_CHECK(cycles_over() > 1);
    HOOKS_CHECK(grey_root_remove(leafs_of_two, sizeof(leafs_of_two)) == 0);
    grey_thread_detach();
    hooks_down();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_found_by_chance), cmocka_unit_test(test_emptied),
                                       cmocka_unit_test(test_never_half)};
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}

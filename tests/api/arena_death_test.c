/* tests/api/arena_death_test.c -- what arenas keep alive, and when their chunks go.
 *
 * Requirements: UA-19 .. UA-27, UA-35, ER-7.  No cycles but those that the test asks for, and objects are
 * handled by threads that exist only for that (support_death.h), so numbers are exact.  A debug mode may
 * begin cycles of its own: then a free may find one under way, and what is freed faults a cycle later.
 */
#include "support_child.h"
#include "support_death.h"
#include "support_heap.h"

#include "os/options.h"
#include "os/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK = 8 << 20, STEP = 64 << 10 };

struct node {
    void *pointer;
    uintptr_t number;
};
GREY_TYPE(node_type, struct node, pointer);
struct links {
    void *pointer[STEP / sizeof(void *)];
};
GREY_TYPE(links_type, struct links, GREY_ARRAY(pointer, STEP / sizeof(void *)));
struct numbers { /* the first word only is a pointer */
    void *pointer;
    uintptr_t number[STEP / sizeof(void *) - 1];
};
GREY_TYPE(numbers_type, struct numbers, pointer);
GREY_TYPE_LEAF(plain_type, struct numbers);

GREY_ROOT(struct grey_arena *, kept);
GREY_ROOT(void *, holder);
static uintptr_t hidden;

static void collect(int times)
{
    for (int i = 0; i < times; i++)
        death_cycle();
}

static uint64_t quarantined(void) { return heap_figures().arena_chunks_quarantined; }

static void make(void *unused)
{
    (void)unused;
    grey_store(&kept, grey_arena_new());
    CHILD_CHECK(kept != NULL);
}
static void let_go(void *unused)
{
    (void)unused;
    grey_arena_free(kept);
    grey_store(&kept, NULL);
}
static void lose(void *unused)
{
    (void)unused;
    grey_store(&kept, NULL);
}

/* Exactly so many chunks of it become full. */
static void fill(uintptr_t chunks)
{
    for (size_t i = 0; i < chunks * (CHUNK / STEP); i++)
        CHILD_CHECK(grey_arena_new_object(kept, &links_type) != NULL);
}

/* Everything is gone; what is left of others' chunks is reusable. */
static void forget(void)
{
    grey_store(&kept, NULL);
    grey_store(&holder, NULL);
    collect(3);
    deaths_reset();
    struct grey_stats figures = heap_figures();
    assert_int_equal(figures.arenas, 0);
    assert_int_equal(figures.arena_chunks_active, 0);
    assert_int_equal(figures.arena_chunks_pending, 0);
    assert_int_equal(figures.arena_chunks_quarantined, 0);
}

/* ---- liveness (TestUserArenaLiveness, UA-20, UA-21) ---------------------------------------------------- */

/* The first object of a chunk holds a heap object that counts its death. */
static void make_with_death(void *fresh)
{
    if (fresh != NULL)
        make(NULL);
    struct node *node = grey_arena_new_object(kept, &node_type);
    CHILD_CHECK(node != NULL);
    grey_store(&node->pointer, grey_alloc(32));
    CHILD_CHECK(grey_cleanup_add(node->pointer, count_death, NULL, NULL) == 0);
}
static void fill_three(void *unused)
{
    (void)unused;
    fill(3);
}

static void lives_as_long_as_the_chunk(void (*end)(void *))
{
    apart(make_with_death, kept == NULL ? &kept : NULL);
    collect(2);
    assert_int_equal(deaths_of(0, 1), 0);
    apart(fill_three, NULL);
    collect(2);
    assert_int_equal(deaths_of(0, 1), 0);
    assert_true(heap_figures().arena_chunks_active >= 3);
    apart(end, NULL);
    collect(3);
    assert_int_equal(deaths_of(0, 1), 1);
    forget();
}

static void liveness_freed(void **unused)
{
    (void)unused;
    lives_as_long_as_the_chunk(let_go);
}
static void liveness_lost(void **unused)
{
    (void)unused;
    lives_as_long_as_the_chunk(lose);
}

/* ---- pointer bits (TestUserArenaClearsPointerBits, UA-19) ---------------------------------------------- */

static void make_large(void *unused)
{
    (void)unused;
    void *large = grey_alloc(CHUNK);
    CHILD_CHECK(large != NULL && grey_cleanup_add(large, count_death, NULL, NULL) == 0);
    hidden = HIDE(large);
}
static void fill_with_numbers(void *type)
{
    grey_store(&kept, grey_arena_new());
    for (size_t i = 0; i < 2 * (CHUNK / STEP); i++) {
        struct numbers *numbers = grey_arena_new_object(kept, type);
        CHILD_CHECK(numbers != NULL && numbers->pointer == NULL);
        for (size_t k = 0; k < STEP / sizeof(void *) - 1; k++)
            numbers->number[k] = (uintptr_t)SHOW(hidden);
    }
}

static void pointer_bits_are_cleared(const struct grey_type *type)
{
    apart(make, NULL);
    apart(fill_three, NULL);
    apart(let_go, NULL);
    collect(2);
    assert_true(heap_figures().arena_chunks_ready >= 2);
    apart(make_large, NULL);
    apart(fill_with_numbers, (void *)(uintptr_t)type);
    collect(2);
    assert_int_equal(deaths_of(0, 1), 1);
    apart(let_go, NULL);
    forget();
}

static void clears_pointer_bits(void **unused)
{
    (void)unused;
    pointer_bits_are_cleared(&plain_type);
    pointer_bits_are_cleared(&numbers_type);
}

/* ---- quarantine (UA-23 .. UA-26, UA-35) ---------------------------------------------------------------- */

/* A pointer into the first chunk, in the heap. */
static void hold_one(void *unused)
{
    (void)unused;
    make(NULL);
    struct node *in_arena = grey_arena_new_object(kept, &node_type);
    struct node *in_heap = grey_new(&node_type);
    CHILD_CHECK(in_arena != NULL && in_heap != NULL);
    grey_store(&in_heap->pointer, (void *)in_arena);
    grey_store(&holder, (void *)in_heap);
    fill(3);
}
static void drop(void *unused)
{
    (void)unused;
    grey_store(&holder, NULL);
}

static void a_pointer_keeps_the_addresses(void **unused)
{
    (void)unused;
    apart(hold_one, NULL);
    assert_int_equal(quarantined(), 0);
    uint64_t live = heap_figures().heap_live;
    apart(let_go, NULL);
    collect(1);                                                          /* if a cycle was on at the free */
    assert_true(live - heap_figures().heap_live >= 3 * (uint64_t)CHUNK); /* UA-25 */
    for (int i = 0; i < 4; i++) {
        collect(1);
        assert_int_equal(quarantined(), 1);
    }
    apart(drop, NULL);
    collect(2);
    assert_int_equal(quarantined(), 0);
    forget();
}

/* The same, held by an object of another arena. */
static void hold_from_an_arena(void *unused)
{
    hold_one(unused);
    struct grey_arena *freed = kept;
    make(NULL);
    struct node *node = grey_arena_new_object(kept, &node_type);
    grey_store(&node->pointer, ((struct node *)holder)->pointer);
    grey_store(&holder, NULL);
    grey_arena_free(freed);
}

static void a_pointer_in_another_arena(void **unused)
{
    (void)unused;
    apart(hold_from_an_arena, NULL);
    for (int i = 0; i < 4; i++) {
        collect(2);
        assert_int_equal(quarantined(), 1);
    }
    apart(lose, NULL); /* that is found dead by one cycle, and what it held is free after the next */
    if (!OS_ASAN && !os_debug.arenastrict) { /* what was in its chunk stays with that (UA-28) */
        collect(2);
        assert_int_equal(quarantined(), 1);
        apart(make, NULL);
        apart(fill_three, NULL);
        apart(let_go, NULL);
    }
    collect(3);
    assert_int_equal(quarantined(), 0);
    forget();
}

/* ---- lost handles (UA-20) ------------------------------------------------------------------------------ */

static void lost(void **unused)
{
    (void)unused;
    struct grey_stats before = heap_figures();
    apart(make, NULL);
    apart(fill_three, NULL);
    collect(2);
    struct grey_stats figures = heap_figures();
    assert_int_equal(figures.arenas - before.arenas, 1);
    apart(lose, NULL);
    collect(2);
    figures = heap_figures();
    assert_int_equal(figures.arenas, before.arenas);
    assert_int_equal(figures.arena_chunks_active, 0);
    forget();
}

/* A pointer to an object doesn't hold the arena. */
static void hold_object_only(void *unused)
{
    (void)unused;
    make(NULL);
    grey_store(&holder, grey_arena_new_object(kept, &node_type));
    CHILD_CHECK(holder != NULL);
    fill(1);
    grey_store(&kept, NULL);
}

static void objects_do_not_hold_it(void **unused)
{
    (void)unused;
    apart(hold_object_only, NULL);
    collect(2);
    assert_int_equal(heap_figures().arenas, 0);
    assert_int_equal(quarantined(), 1);
    forget();
}

/* Thousands of handles that nobody frees, cycles as they come: chunks go back to work. */
enum { BATCHES = 20, A_BATCH = 300 };
static void make_and_drop(void *unused)
{
    (void)unused;
    for (int i = 0; i < BATCHES * A_BATCH; i++) {
        struct grey_arena *arena = grey_arena_new();
        CHILD_CHECK(arena != NULL);
        struct node *node = grey_arena_new_object(arena, &node_type);
        CHILD_CHECK(node != NULL);
        node->number = (uintptr_t)i;
        /* On a busy machine the collector may not have had a processor for a while. */
        uint64_t cycles = heap_figures().cycles;
        for (int ms = 0; i % A_BATCH == 0 && heap_figures().cycles == cycles && ms < 200; ms++)
            usleep(1000);
    }
}

static void many_lost(void **unused)
{
    (void)unused;
    grey_set_percent(100);
    apart(make_and_drop, NULL);
    grey_set_percent(-1);
    struct grey_stats figures = heap_figures();
    uint64_t chunks = figures.arena_chunks_active + figures.arena_chunks_reusable +
                      figures.arena_chunks_pending + figures.arena_chunks_quarantined +
                      figures.arena_chunks_ready;
    assert_true(chunks < BATCHES * A_BATCH / 2);
    forget();
}

/* ---- at random ----------------------------------------------------------------------------------------- */

enum { THREADS = 3, ROUNDS = 60 };

/* Arenas with lists whose nodes hold heap objects, while cycles run: nothing is lost, nothing is mixed up. */
static void *use_arenas(void *arg)
{
    CHILD_CHECK(grey_thread_attach() == 0);
    unsigned seed = (unsigned)(uintptr_t)arg;
    struct grey_arena *arena = grey_arena_new();
    for (int round = 0; round < ROUNDS; round++) {
        CHILD_CHECK(arena != NULL);
        struct node *first = NULL;
        int n = rand_r(&seed) % 20000;
        for (int i = 0; i < n; i++) {
            struct node *node = grey_arena_new_object(arena, &node_type);
            CHILD_CHECK(node != NULL);
            struct node *in_heap = grey_new(&node_type);
            CHILD_CHECK(in_heap != NULL);
            in_heap->number = (uintptr_t)i;
            grey_store(&in_heap->pointer, (void *)first);
            grey_store(&node->pointer, (void *)in_heap);
            first = node;
            if (rand_r(&seed) % 100 == 0)
                CHILD_CHECK(grey_arena_alloc_leaf(arena, (size_t)rand_r(&seed) % 100000, 0) != NULL);
        }
        for (int i = n; i-- != 0;) {
            struct node *in_heap = first->pointer;
            CHILD_CHECK(in_heap->number == (uintptr_t)i);
            first = in_heap->pointer;
        }
        CHILD_CHECK(first == NULL);
        switch (rand_r(&seed) % 3) {
        case 0:
            grey_arena_reset(arena);
            break;
        case 1:
            grey_arena_free(arena);
            arena = grey_arena_new();
            break;
        default: /* lost */
            arena = grey_arena_new();
        }
    }
    grey_arena_free(arena);
    return NULL;
}

static void at_random(void **unused)
{
    (void)unused;
    const char *given = getenv("GREY_TEST_SEED");
    uintptr_t seed = given != NULL ? strtoul(given, NULL, 10) : (uintptr_t)&unused >> 4;
    print_message("GREY_TEST_SEED=%u\n", (unsigned)seed);
    pthread_t threads[THREADS];
    grey_set_percent(50);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_arenas, (void *)((unsigned)seed + i)), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
    assert_int_equal(grey_verify(2), 0);
    grey_set_percent(-1);
    collect(3); /* what chunks on the reuse list lead to stays in quarantine (UA-28) */
    struct grey_stats figures = heap_figures();
    assert_int_equal(figures.arenas, 0);
    assert_int_equal(figures.arena_chunks_active, 0);
    assert_int_equal(figures.arena_chunks_pending, 0);
}

/* ---- fork ---------------------------------------------------------------------------------------------- */

enum { FORKS = 20 };
static _Atomic int forking;

/* Frees, resets and loses arenas of several chunks until told to stop. */
static void *churn(void *unused)
{
    (void)unused;
    CHILD_CHECK(grey_thread_attach() == 0);
    struct grey_arena *arena = grey_arena_new();
    for (int i = 0; atomic_load(&forking); i++) {
        for (int k = 0; k < 10; k++)
            CHILD_CHECK(grey_arena_alloc_leaf(arena, 2 << 20, 0) != NULL);
        grey_arena_reset(arena);
        if (i % 3 == 0)
            grey_arena_free(arena);
        if (i % 3 != 1)
            arena = grey_arena_new();
        CHILD_CHECK(arena != NULL);
    }
    grey_arena_free(arena);
    return NULL;
}

/* What the other threads had is found lost; the forking thread's arena goes on. */
static void in_child(void)
{
    struct node *node = grey_arena_new_object(kept, &node_type);
    CHILD_CHECK(node != NULL && ((struct node *)holder)->number == 77);
    fill(2);
    for (int i = 0; i < 3; i++)
        grey_collect();
    struct grey_stats figures = heap_figures();
    CHILD_CHECK(figures.arena_chunks_pending == 0);
    CHILD_CHECK(figures.arenas <= 4); /* words left on this stack may hold those of others */
    CHILD_CHECK(((struct node *)holder)->number == 77);
    grey_arena_free(kept);
    _exit(0);
}

/* In a blocking region, as a program should wait.  While the kernel takes a child's entries out of /proc the
 * parent answers no signal, and where somebody else looks at them that was seen to take 50 s; without a region
 * no cycle ends for so long, and what the others lose in it takes up all addresses of chunks. */
static int wait_for_child(void *child)
{
    int status = -1;
    CHILD_CHECK(waitpid(*(const pid_t *)child, &status, 0) == *(const pid_t *)child);
    return status;
}

static void forks(void **unused)
{
    (void)unused;
    if (OS_ASAN || OS_TSAN)
        skip(); /* their allocators and threads don't survive a fork of several threads */
    pthread_t threads[THREADS];
    make(NULL);
    struct node *node = grey_arena_new_object(kept, &node_type);
    node->number = 77;
    grey_store(&holder, (void *)node);
    grey_set_percent(100);
    atomic_store(&forking, 1);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, NULL), 0);
    for (int i = 0; i < FORKS; i++) {
        usleep(2000);
        pid_t child = fork();
        if (child == 0)
            in_child();
        if (child < 0)
            fail_msg("no fork: error %d", errno);
        assert_int_equal(grey_blocking_call(wait_for_child, &child), 0);
    }
    atomic_store(&forking, 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
    grey_set_percent(-1);
    grey_arena_free(kept);
    grey_store(&kept, NULL);
    grey_store(&holder, NULL);
    collect(3);
    assert_int_equal(heap_figures().arenas, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(liveness_freed),
        cmocka_unit_test(liveness_lost),
        cmocka_unit_test(clears_pointer_bits),
        cmocka_unit_test(a_pointer_keeps_the_addresses),
        cmocka_unit_test(a_pointer_in_another_arena),
        cmocka_unit_test(lost),
        cmocka_unit_test(objects_do_not_hold_it),
        cmocka_unit_test(many_lost),
        cmocka_unit_test(at_random),
        cmocka_unit_test(forks),
    };
    return cmocka_run_group_tests_name("arena_death", tests, death_init, NULL);
}

/* tests/stress/arena_churn_test.c -- arenas that are filled, linked, freed, lost, reset, cloned and handed
 * on at random moments of endless cycles (UA-18 .. UA-28, UA-35, UA-36, OR-9).
 *
 * Each thread has some arenas.  In each is a list of nodes that know themselves (support_stress.h), each
 * node with a list of heap nodes that nothing else leads to, sometimes a large leaf object, which fills
 * chunks quickly, and sometimes an edge across to a node of another arena.  An arena that goes leaves
 * pointers behind: in heap objects, on the stack, in other arenas and in clones.  Those are never followed,
 * but the collector meets them in every cycle; whether an edge may be followed is known by the generation
 * of the arena that it leads to, a number that is never used twice.
 *
 * A chunk that is read after it faulted ends the program; one that is used again too early holds nodes that
 * differ from what edges expect; a heap object that only an arena held shows in its list.  In the end, with
 * all arenas gone and nothing left to point to them, every chunk must be out of quarantine.
 */
#include "support_stress.h"

#include "os/options.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORKERS = 3, SLOTS = 4, LEFT = 32, CLONES = 8, STALE = 16, NODES_MOST = 60, PARTS = 2 };
enum { LARGEST = 2 << 20, CHUNK = 8 << 20, SAMPLES = 16 };

struct item {
    struct node node; /* edge 0: the next item; edge 1: a list in the heap */
    unsigned char *filler;
    uint64_t filler_size;
    struct item *across;
    uint64_t across_generation, across_serial;
};
GREY_TYPE(item_type, struct item, GREY_ARRAY(node.edge, NODE_EDGES), filler, across);

/* An arena and who is in it. */
struct known {
    uint64_t generation; /* 0: there is none */
    size_t nodes;
};
struct held { /* in a registered root */
    struct grey_arena *arena;
    struct node *list;
};

struct worker {
    uint64_t random, deadline;
    struct held held[SLOTS];
    void *left[LEFT]; /* heap objects with pointers to what may be gone */
    struct item *clones[CLONES];
    struct known known[SLOTS];
    uint64_t clone_serial[CLONES];
    uint64_t made, freed, lost, reset, handed, cloned;
};
enum { ROOT_BYTES = offsetof(struct worker, known) };

static _Atomic uint64_t generations;

/* ---- one arena ----------------------------------------------------------------------------------------- */

static void check_filler(const struct item *item, bool fresh)
{
    size_t size = item->filler_size;
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t at = i * (size - 1) / (SAMPLES - 1);
        STRESS_CHECK(item->filler[at] == (fresh ? 0 : (unsigned char)item->node.serial),
                     "byte %zu of %zu of an arena's leaf %p is %d", at, size, (void *)item->filler,
                     item->filler[at]);
    }
}

static void add_filler(struct worker *w, struct grey_arena *arena, struct item *item)
{
    unsigned bits = stress_below(&w->random, 8) == 0 ? 20 : (unsigned)stress_below(&w->random, 20);
    item->filler_size = ((size_t)1 << bits) + stress_below(&w->random, (uint64_t)1 << bits);
    unsigned char *filler = grey_arena_alloc_leaf(arena, item->filler_size, 0);
    STRESS_CHECK(filler != NULL, "no %llu bytes", (unsigned long long)item->filler_size);
    grey_store(&item->filler, filler);
    check_filler(item, true); /* UA-9 */
    for (size_t i = 0; i < SAMPLES; i++)
        filler[i * (item->filler_size - 1) / (SAMPLES - 1)] = (unsigned char)item->node.serial;
}

static int slot_of(const struct worker *w, uint64_t generation)
{
    for (int i = 0; i < SLOTS; i++)
        if (generation != 0 && w->known[i].generation == generation)
            return i;
    return -1;
}

static void add_across(struct worker *w, struct item *item)
{
    int other = (int)stress_below(&w->random, SLOTS);
    struct item *to = (struct item *)w->held[other].list;
    if (to == NULL)
        return;
    item->across_generation = w->known[other].generation;
    item->across_serial = to->node.serial;
    grey_store(&item->across, to);
}

static void grow(struct worker *w, int slot)
{
    struct grey_arena *arena = w->held[slot].arena;
    if (w->known[slot].nodes == NODES_MOST)
        return;
    struct item *item = grey_arena_new_object(arena, &item_type);
    STRESS_CHECK(item != NULL && grey_in_arena(item), "no item");
    STRESS_CHECK(item->filler == NULL && item->across == NULL && item->across_generation == 0,
                 "new object %p is not zeroed", (void *)item);
    node_fill(&item->node, w->known[slot].generation);
    node_link(&item->node, 0, w->held[slot].list);
    node_link(&item->node, 1, list_new(&w->random, stress_below(&w->random, 6), 3));
    if (stress_below(&w->random, 2) == 0)
        add_filler(w, arena, item);
    if (stress_below(&w->random, 2) == 0)
        add_across(w, item);
    grey_store(&w->held[slot].list, &item->node);
    w->known[slot].nodes++;
}

static void check_item(const struct worker *w, const struct item *item)
{
    STRESS_CHECK(grey_in_arena(item), "%p is in no arena", (const void *)item);
    list_check(node_follow(&item->node, 1));
    if (item->filler != NULL)
        check_filler(item, false);
    if (slot_of(w, item->across_generation) < 0)
        return;
    node_check(&item->across->node);
    STRESS_CHECK(item->across->node.serial == item->across_serial, "an edge across leads to another node");
}

static void check(const struct worker *w, int slot)
{
    size_t nodes = 0;
    const struct node *node = w->held[slot].list;
    if (node != NULL)
        node_check(node);
    for (; node != NULL; node = node_follow(node, 0), nodes++) {
        STRESS_CHECK(node->tag == w->known[slot].generation, "a node of another arena is in the list");
        check_item(w, (const struct item *)node);
    }
    STRESS_CHECK(nodes == w->known[slot].nodes, "%zu of %zu nodes are there", nodes, w->known[slot].nodes);
}

/* Makes some of it bigger, by large steps: a chunk is 8 MiB. */
static void fill(struct worker *w, int slot)
{
    uint64_t n = 1 + stress_below(&w->random, 12);
    while (n-- != 0)
        grow(w, slot);
    if (stress_below(&w->random, 4) == 0)
        for (int i = 0; i < 4; i++) {
            unsigned char *p = grey_arena_alloc_leaf(w->held[slot].arena, LARGEST, 0);
            STRESS_CHECK(p != NULL && p[0] == 0 && p[LARGEST - 1] == 0, "no large object");
            p[0] = p[LARGEST - 1] = 0xff;
        }
}

/* ---- pointers that stay -------------------------------------------------------------------------------- */

static struct item *any_item(struct worker *w, int slot)
{
    struct node *node = w->held[slot].list;
    for (uint64_t n = stress_below(&w->random, 8); n != 0 && node != NULL && node->edge[0] != NULL; n--)
        node = node_follow(node, 0);
    return (struct item *)node;
}

static void leave_pointers(struct worker *w, int slot, void *volatile *stale)
{
    struct item *item = any_item(w, slot);
    if (item == NULL)
        return;
    void **object = grey_alloc(8 * sizeof(void *));
    STRESS_CHECK(object != NULL, "out of memory");
    grey_store(&object[stress_below(&w->random, 8)], (void *)((char *)item + stress_below(&w->random, 64)));
    grey_store(&w->left[stress_below(&w->random, LEFT)], (void *)object);
    stale[stress_below(&w->random, STALE)] = &item->across;
    int other = (int)stress_below(&w->random, SLOTS);
    struct item *from = other != slot ? any_item(w, other) : NULL;
    if (from != NULL && slot_of(w, from->across_generation) < 0) {
        from->across_generation = w->known[slot].generation;
        from->across_serial = item->node.serial;
        grey_store(&from->across, item);
    }
    if (stress_below(&w->random, 4) == 0)
        stale[stress_below(&w->random, STALE)] = NULL;
    if (stress_below(&w->random, 4) == 0)
        grey_store(&w->left[stress_below(&w->random, LEFT)], NULL);
}

/* UA-36: a copy in the heap, with the list that its original led to. */
static void clone_one(struct worker *w, int slot)
{
    uint64_t i = stress_below(&w->random, CLONES);
    struct item *item = any_item(w, slot);
    if (item == NULL)
        return;
    struct item *copy = grey_arena_clone(item, &item_type, 1);
    STRESS_CHECK(copy != NULL && copy != item && !grey_in_arena(copy), "no copy of %p", (void *)item);
    STRESS_CHECK(memcmp(copy, item, sizeof(*copy)) == 0, "the copy of %p differs", (void *)item);
    w->clone_serial[i] = copy->node.serial;
    grey_store(&w->clones[i], copy);
    w->cloned++;
}

static void check_clone(const struct worker *w, uint64_t i)
{
    struct item *copy = w->clones[i];
    if (copy == NULL)
        return;
    STRESS_CHECK(copy->node.serial == w->clone_serial[i], "a clone changed");
    list_check(node_follow(&copy->node, 1));
}

/* ---- the ways of arenas -------------------------------------------------------------------------------- */

static void forget(struct worker *w, int slot)
{
    grey_store(&w->held[slot].list, NULL);
    w->known[slot] = (struct known){0, 0};
}

static void make(struct worker *w, int slot)
{
    struct grey_arena *arena = grey_arena_new();
    STRESS_CHECK(arena != NULL, "no arena");
    grey_store(&w->held[slot].arena, arena);
    w->known[slot].generation = atomic_fetch_add(&generations, 1) + 1;
    w->made++;
}

static void free_one(struct worker *w, int slot)
{
    grey_arena_free(w->held[slot].arena);
    grey_store(&w->held[slot].arena, NULL);
    forget(w, slot);
    w->freed++;
}

static void lose(struct worker *w, int slot)
{
    forget(w, slot);
    grey_store(&w->held[slot].arena, NULL);
    w->lost++;
}

static void reset(struct worker *w, int slot)
{
    grey_arena_reset(w->held[slot].arena);
    forget(w, slot);
    w->known[slot].generation = atomic_fetch_add(&generations, 1) + 1;
    w->reset++;
}

/* One arena is always on its way from one thread to another. */
static struct {
    struct held held; /* a registered root */
    struct known known;
} mailbox;
static pthread_mutex_t mailbox_lock = PTHREAD_MUTEX_INITIALIZER;

static void hand_on(struct worker *w, int slot)
{
    pthread_mutex_lock(&mailbox_lock);
    struct held taken = mailbox.held;
    struct known known = mailbox.known;
    grey_store(&mailbox.held.arena, w->held[slot].arena);
    grey_store(&mailbox.held.list, w->held[slot].list);
    mailbox.known = w->known[slot];
    grey_store(&w->held[slot].arena, taken.arena);
    grey_store(&w->held[slot].list, taken.list);
    w->known[slot] = known;
    pthread_mutex_unlock(&mailbox_lock);
    w->handed++;
}

static void one_step(struct worker *w, void *volatile *stale)
{
    int slot = (int)stress_below(&w->random, SLOTS);
    if (w->held[slot].arena == NULL)
        make(w, slot);
    uint64_t dice = stress_below(&w->random, 20);
    if (dice < 8)
        fill(w, slot);
    else if (dice < 11)
        check(w, slot);
    else if (dice < 13)
        clone_one(w, slot);
    else if (dice < 15)
        hand_on(w, slot);
    if (dice < 15)
        return;
    check(w, slot);
    leave_pointers(w, slot, stale);
    if (dice < 18)
        free_one(w, slot);
    else if (dice == 18)
        lose(w, slot);
    else
        reset(w, slot);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    void *volatile stale[STALE] = {NULL};
    STRESS_CHECK(grey_root_add(w, ROOT_BYTES) == 0, "no root");
    while (stress_now() < w->deadline) {
        one_step(w, stale);
        check_clone(w, stress_below(&w->random, CLONES));
    }
    for (int i = 0; i < SLOTS; i++) {
        check(w, i);
        if (w->held[i].arena != NULL && stress_below(&w->random, 2) == 0)
            free_one(w, i);
        else
            lose(w, i);
    }
    STRESS_CHECK(grey_root_remove(w, ROOT_BYTES) == 0, "no such root");
    return NULL;
}

/* ---- the tests ----------------------------------------------------------------------------------------- */

static struct grey_stats figures(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    assert_int_equal(grey_stats_read(&stats), 0);
    return stats;
}

/* Chunks on the reuse list are roots, with the pointers that were left in them (UA-28).  Fills them up, and
 * a new one, in which there are none, and frees them. */
static void *use_up_reusable(void *unused)
{
    struct grey_arena *arena = grey_arena_new();
    int beyond = 0;
    while (beyond < CHUNK / LARGEST + 1) {
        beyond = figures().arena_chunks_reusable == 0 ? beyond + 1 : 0;
        STRESS_CHECK(arena != NULL && grey_arena_alloc_leaf(arena, LARGEST, 0) != NULL, "no large object");
    }
    grey_arena_free(arena);
    return unused;
}

/* Nobody holds anything: a few cycles later nothing is pending or in quarantine (UA-20, UA-24, UA-26). */
static void assert_all_gone(void)
{
    struct grey_stats stats = figures();
    pthread_t thread;
    grey_collect();
    grey_collect(); /* the handles that were lost */
    assert_int_equal(grey_thread_create(&thread, NULL, use_up_reusable, NULL), 0);
    assert_int_equal(grey_thread_join(thread, NULL), 0);
    for (int i = 0; i < 5; i++) {
        grey_collect();
        stats = figures();
        if (stats.arenas + stats.arena_chunks_pending + stats.arena_chunks_quarantined == 0)
            break;
    }
    fprintf(stderr, "%llu chunks are reusable, %llu ready\n", (unsigned long long)stats.arena_chunks_reusable,
            (unsigned long long)stats.arena_chunks_ready);
    assert_int_equal(stats.arenas, 0);
    assert_int_equal(stats.arena_chunks_active, 0);
    assert_int_equal(stats.arena_chunks_pending, 0);
    assert_int_equal(stats.arena_chunks_quarantined, 0);
    assert_int_equal(stats.arena_chunks_reusable, os_debug.arenastrict || OS_ASAN ? 0 : 1);
    assert_true(stats.arena_chunks_ready > 0);
}

static void test_churn(void **state)
{
    static struct worker workers[WORKERS];
    pthread_t threads[WORKERS];
    struct worker sum = {0};
    uint64_t deadline = stress_deadline(PARTS);
    (void)state;
    assert_int_equal(grey_root_add(&mailbox.held, sizeof(mailbox.held)), 0);
    stress_cycles_start();
    for (int i = 0; i < WORKERS; i++) {
        workers[i].random = stress_seed() + (uint64_t)i * 7919;
        workers[i].deadline = deadline;
        assert_int_equal(grey_thread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
        sum.made += workers[i].made;
        sum.freed += workers[i].freed;
        sum.lost += workers[i].lost;
        sum.reset += workers[i].reset;
        sum.handed += workers[i].handed;
        sum.cloned += workers[i].cloned;
    }
    uint64_t cycles = stress_cycles_stop();
    fprintf(stderr,
            "%llu cycles; %llu arenas made, %llu freed, %llu lost, %llu reset, %llu handed on, %llu clones\n",
            (unsigned long long)cycles, (unsigned long long)sum.made, (unsigned long long)sum.freed,
            (unsigned long long)sum.lost, (unsigned long long)sum.reset, (unsigned long long)sum.handed,
            (unsigned long long)sum.cloned);
    assert_true(cycles > 0 && sum.made > 0);
    grey_store(&mailbox.held.arena, NULL);
    grey_store(&mailbox.held.list, NULL);
    assert_int_equal(grey_verify(2), 0);
    assert_all_gone();
    assert_int_equal(grey_root_remove(&mailbox.held, sizeof(mailbox.held)), 0);
}

/* Thousands of arenas that nobody frees: cycles begin by themselves often enough (UA-17, UA-20). */
static void *lose_many(void *arg)
{
    uint64_t most = 0, *result = arg, deadline = stress_deadline(PARTS);
    for (; stress_now() < deadline; result[0]++) {
        struct grey_arena *arena = grey_arena_new();
        STRESS_CHECK(arena != NULL, "no arena");
        for (int i = 0; i < 5; i++) {
            unsigned char *p = grey_arena_alloc_leaf(arena, LARGEST, 0);
            STRESS_CHECK(p != NULL && p[0] == 0, "no large object");
            p[0] = 1;
        }
        struct grey_stats stats = figures();
        uint64_t bytes =
            (stats.arena_chunks_active + stats.arena_chunks_reusable + stats.arena_chunks_pending) * CHUNK;
        most = bytes > most ? bytes : most;
    }
    result[1] = most;
    return NULL;
}

static void test_lost_handles(void **state)
{
    static uint64_t result[2];
    pthread_t thread;
    (void)state;
    assert_int_equal(grey_thread_create(&thread, NULL, lose_many, result), 0);
    assert_int_equal(grey_thread_join(thread, NULL), 0);
    fprintf(stderr, "%llu handles lost, at most %llu MiB at a time\n", (unsigned long long)result[0],
            (unsigned long long)(result[1] >> 20));
    /* How far it gets before a cycle ends depends on who gets a processor; not on how many were lost
     * before. */
    assert_true(result[1] <= ((uint64_t)2 << 30) + result[0] * 2 * CHUNK / 8);
    assert_all_gone();
}

int main(void)
{
    stress_seed();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_churn), cmocka_unit_test(test_lost_handles)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/stress/support_regions.c -- see support_regions.h.
 *
 * Every region has a life, a record outside the heap: made by grey_foreign_add, ended by its cleanup or by a
 * release that returned true, never by both (FR-25, FR-37).  Its memory carries a seal, made from its address
 * and the life's serial number, which its cleanup destroys before the memory is handed out again, at once and
 * while that cleanup still runs (FR-32): whoever holds a pointer to a region that died too early finds
 * another seal, or a range that the index does not know.  Pointers go from hand to hand by every call that
 * moves pointers; scanned regions hold lists of heap nodes, and each other in rings (FR-21, FR-22).  Regions
 * touch their neighbours, by chance and often (FR-7).  In the end all of them must have ended.
 */
#include "support_regions.h"
#include "support_foreign.h"
#include "support_stress.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum {
    THREADS = 4,
    LIVES = 1 << 15,
    PLACES = 1024,
    PLACE = 16 << 10,
    SHARED = 48,
    MAILBOXES = 8,
    TABLE = 64
};
enum { LINKS = 4, LIST = 20, TAG = 7 };
static const uint64_t MAGIC = 0x7265670a00000000;

enum state { UNUSED, LIVES_ON, ENDED };
struct life {
    _Atomic uint32_t state;
    uint32_t place;
    uint64_t serial;
    uintptr_t hidden; /* ~start */
    size_t size;
    grey_foreign handle;
};
/* In the region, from the first multiple of 16 on, if it is big enough for it. */
struct seal {
    uint64_t magic, serial, scanned;
    grey_foreign handle;      /* of a scanned region */
    uint64_t expect[LINKS];   /* of a node: its serial */
    struct node *node[LINKS]; /* of a scanned region: lists */
    void *region;             /* of a scanned region: into another, or NULL */
    uint64_t region_serial;
};
enum { SEALED_FROM = sizeof(struct seal) + 32 };

struct box {
    void *pointer;
};
GREY_TYPE(box_type, struct box, pointer);
/* An argument that is a heap object (FR-10). */
struct argument {
    uint64_t magic;
    struct life *life;
};
GREY_TYPE_LEAF(argument_type, struct argument);

GREY_ROOT(void *[SHARED], shared); /* each is the one pointer to its region, or ring */
GREY_ROOT(struct box *, boxes);    /* TABLE of them */
static _Atomic uintptr_t mailboxes[MAILBOXES];

static char *places;
static _Atomic uint64_t serials, added, died, released, races_won, races_lost;
static _Atomic bool in_child; /* its other threads are gone, with locks that they had */

/* ---- lives and places: two free lists, oldest first ------------------------------------------------ */

static struct life lives[LIVES];
struct queue {
    pthread_mutex_t lock;
    uint32_t *entry, first, count, most;
};
static uint32_t life_entries[LIVES], place_entries[PLACES];
static struct queue free_lives = {PTHREAD_MUTEX_INITIALIZER, life_entries, 0, 0, LIVES};
static struct queue free_places = {PTHREAD_MUTEX_INITIALIZER, place_entries, 0, 0, PLACES};

static void put(struct queue *queue, uint32_t value)
{
    pthread_mutex_lock(&queue->lock);
    queue->entry[(queue->first + queue->count++) % queue->most] = value;
    pthread_mutex_unlock(&queue->lock);
}
static bool get(struct queue *queue, uint32_t *value)
{
    pthread_mutex_lock(&queue->lock);
    bool any = queue->count != 0;
    if (any) {
        *value = queue->entry[queue->first];
        queue->first = (queue->first + 1) % queue->most;
        queue->count--;
    }
    pthread_mutex_unlock(&queue->lock);
    return any;
}

/* ---- seals ----------------------------------------------------------------------------------------- */

static struct seal *seal_at(uintptr_t start) { return (struct seal *)((start + 15) & ~(uintptr_t)15); }

/* The seal of the region that p, which the caller holds, points into; NULL: it is too small for one. */
static struct seal *check(const void *p)
{
    uintptr_t start = 0;
    size_t size = 0;
    STRESS_CHECK(grey_foreign_find(p, &start, &size), "%p is held, and its region is gone", p);
    STRESS_CHECK((uintptr_t)p - start < size, "%p finds [%#lx, %zu)", p, (unsigned long)start, size);
    if (size < SEALED_FROM)
        return NULL;
    struct seal *seal = seal_at(start);
    STRESS_CHECK(seal->magic == (MAGIC ^ seal->serial ^ start), "%p is held, and its region died: seal %#llx",
                 p, (unsigned long long)seal->magic);
    return seal;
}

/* All that a scanned region leads to, at most a ring of n. */
static void check_deep(const void *p, int n)
{
    while (p != NULL && n-- > 0) {
        struct seal *seal = check(p);
        if (seal == NULL || !seal->scanned)
            return;
        for (int i = 0; i < LINKS; i++) {
            struct node *list = __atomic_load_n(&seal->node[i], __ATOMIC_ACQUIRE);
            STRESS_CHECK((list != NULL) == (seal->expect[i] != 0), "a link of a region");
            if (list == NULL)
                continue;
            STRESS_CHECK(list->serial == seal->expect[i], "a region leads to another list");
            STRESS_CHECK(list_check(list) == LIST, "a list in a region became shorter");
        }
        p = __atomic_load_n(&seal->region, __ATOMIC_ACQUIRE);
        struct seal *next = p != NULL ? check(p) : NULL;
        STRESS_CHECK(next == NULL || next->serial == seal->region_serial, "a region leads to another region");
    }
}

/* ---- birth and end --------------------------------------------------------------------------------- */

static void end_of(struct life *life, uintptr_t start)
{
    struct seal *seal = seal_at(start);
    if (life->size >= SEALED_FROM) {
        STRESS_CHECK(seal->magic == (MAGIC ^ life->serial ^ start), "the seal of a region that ends");
        memset(seal, 0xdd, sizeof(*seal));
    }
    uint32_t place = life->place;
    put(&free_lives, (uint32_t)(life - lives));
    put(&free_places, place);
}

static void region_ends(struct life *life, uintptr_t start, size_t size)
{
    STRESS_CHECK(start == ~life->hidden && size == life->size, "a cleanup got [%#lx, %zu), not [%#lx, %zu)",
                 (unsigned long)start, size, (unsigned long)~life->hidden, life->size);
    STRESS_CHECK(!grey_foreign_find((void *)start, NULL, NULL), "a region is found in its cleanup");
    STRESS_CHECK(!grey_foreign_release(life->handle), "a region is released in its cleanup");
    uint32_t state = LIVES_ON;
    STRESS_CHECK(atomic_compare_exchange_strong(&life->state, &state, ENDED), "a region ends in state %u",
                 state);
    if (atomic_load(&in_child))
        return;
    atomic_fetch_add(&died, 1);
    uint64_t random = life->serial;
    end_of(life, start);
    /* FR-29 */
    if (stress_below(&random, 16) == 0)
        list_check(list_new(&random, 50, TAG));
    if (stress_below(&random, 64) == 0)
        grey_collect_start();
}
static void plain_cleanup(uintptr_t start, size_t size, void *life) { region_ends(life, start, size); }
static void heap_cleanup(uintptr_t start, size_t size, void *argument)
{
    struct argument *object = argument;
    STRESS_CHECK(object->magic == MAGIC, "an argument died before its cleanup ran");
    region_ends(object->life, start, size);
    STRESS_CHECK(object->magic == MAGIC, "an argument died while its cleanup ran");
}

static struct life *new_life(uint64_t *random, size_t least)
{
    uint32_t number, place;
    if (!get(&free_places, &place))
        return NULL;
    if (!get(&free_lives, &number)) {
        put(&free_places, place);
        return NULL;
    }
    struct life *life = &lives[number];
    /* From the place's first byte to its last, often: neighbours touch. */
    size_t offset = stress_below(random, 2) == 0 ? 0 : stress_below(random, 64);
    size_t size = PLACE - offset;
    if (stress_below(random, 3) != 0)
        size = least + stress_below(random, stress_below(random, 2) == 0 ? 64 : size - least);
    life->place = place;
    life->hidden = ~(uintptr_t)(places + (size_t)place * PLACE + offset);
    life->size = size;
    life->serial = atomic_fetch_add(&serials, 1) + 1;
    atomic_store(&life->state, LIVES_ON);
    return life;
}

static struct seal *fill(struct life *life, char *start, bool scan)
{
    memset(start, 0, life->size);
    if (life->size < SEALED_FROM)
        return NULL;
    struct seal *seal = seal_at((uintptr_t)start);
    seal->serial = life->serial;
    seal->scanned = scan;
    seal->magic = MAGIC ^ life->serial ^ (uintptr_t)start;
    return seal;
}

static void add(struct life *life, char *start, bool scan, uint64_t *random)
{
    grey_foreign_fn *fn = plain_cleanup;
    void *arg = life;
    if (stress_below(random, 4) == 0) {
        struct argument *object = grey_new(&argument_type);
        STRESS_CHECK(object != NULL, "out of memory");
        object->magic = MAGIC;
        object->life = life;
        arg = object;
        fn = heap_cleanup;
    }
    int error = grey_foreign_add(start, life->size, scan ? GREY_FOREIGN_SCAN : 0, fn, arg, &life->handle);
    STRESS_CHECK(error == 0, "grey_foreign_add: %d", error);
    STRESS_CHECK(grey_foreign_add(start, 1, 0, plain_cleanup, NULL, NULL) == EEXIST, "an overlap");
    atomic_fetch_add(&added, 1);
}

/* An address inside, which the caller then holds; NULL: no place is free. */
static char *new_plain(uint64_t *random)
{
    struct life *life = new_life(random, 1);
    if (life == NULL)
        return NULL;
    char *start = (char *)~life->hidden;
    size_t size = life->size;
    fill(life, start, false);
    add(life, start, false, random);
    return start + (stress_below(random, 2) == 0 ? size - 1 : stress_below(random, size));
}

/* With lists in it, half of them there before it is registered (FR-9), the others stored after. */
static struct seal *new_scanned(uint64_t *random)
{
    struct life *life = new_life(random, SEALED_FROM);
    if (life == NULL)
        return NULL;
    struct seal *seal = fill(life, (char *)~life->hidden, true);
    struct node *before = list_new(random, LIST, TAG), *after = list_new(random, LIST, TAG);
    seal->expect[0] = before->serial;
    __atomic_store_n(&seal->node[0], before, __ATOMIC_RELAXED);
    add(life, (char *)~life->hidden, true, random);
    grey_keep_alive(before);
    seal->handle = life->handle;
    seal->expect[LINKS - 1] = after->serial;
    grey_store(&seal->node[LINKS - 1], after);
    return seal;
}

/* Scanned regions that lead around; the first. */
static void *new_ring(uint64_t *random)
{
    struct seal *first = new_scanned(random), *last = first;
    if (first == NULL)
        return NULL;
    for (uint64_t n = stress_below(random, 4); n > 0; n--) {
        struct seal *seal = new_scanned(random);
        if (seal == NULL)
            break;
        last->region_serial = seal->serial;
        grey_store(&last->region, (void *)seal);
        last = seal;
    }
    last->region_serial = first->serial;
    grey_store(&last->region, (void *)first);
    return first;
}

/* ---- what threads do ------------------------------------------------------------------------------- */

static void *new_any(uint64_t *random)
{
    return stress_below(random, 3) == 0 ? new_ring(random) : new_plain(random);
}

/* Held on the stack only. */
static void alone(uint64_t *random)
{
    void *p = new_any(random);
    if (p == NULL)
        return;
    for (uint64_t n = stress_below(random, 5); n > 0; n--) {
        list_check(list_new(random, 20, TAG));
        check_deep(p, 6);
    }
}

/* What was in the slot is this thread's alone: it may change it. */
static void share(uint64_t *random)
{
    uint64_t i = stress_below(random, SHARED);
    void *taken = grey_exchange(&shared[i], new_any(random));
    if (taken == NULL)
        return;
    check_deep(taken, 6);
    struct seal *seal = check(taken);
    if (seal != NULL && seal->scanned) {
        uint64_t k = stress_below(random, LINKS);
        struct node *list = stress_below(random, 3) == 0 ? NULL : list_new(random, LIST, TAG);
        seal->expect[k] = list != NULL ? list->serial : 0;
        grey_store(&seal->node[k], list);
        check_deep(taken, 6);
    }
    void *none = NULL;
    if (stress_below(random, 2) == 0)
        grey_compare_exchange(&shared[i], &none, taken);
}

/* Through boxes, and tables of boxes that move. */
static void box(uint64_t *random)
{
    struct box *table = grey_new_array(&box_type, TABLE), *copy = grey_new_array(&box_type, TABLE);
    for (int i = 0; i < 4; i++)
        grey_store(&table[stress_below(random, TABLE)].pointer, new_any(random));
    grey_move(copy, table + TABLE / 2, sizeof(*table) * TABLE / 2);
    grey_move(copy + TABLE / 2, table, sizeof(*table) * TABLE / 2);
    grey_clear(table, sizeof(*table) * TABLE);
    list_check(list_new(random, 20, TAG));
    for (int i = 0; i < TABLE; i++)
        if (copy[i].pointer != NULL) {
            check_deep(copy[i].pointer, 6);
            grey_store(&boxes[stress_below(random, TABLE)].pointer, copy[i].pointer);
        }
    void *p = __atomic_load_n(&boxes[stress_below(random, TABLE)].pointer, __ATOMIC_ACQUIRE);
    if (p != NULL)
        check(p);
    grey_store(&boxes[stress_below(random, TABLE)].pointer, NULL);
}

/* BA-17, into a new object */
static void store_raw(uint64_t *random)
{
    void *p = new_any(random);
    struct box *object = grey_new(&box_type);
    __atomic_store_n(&object->pointer, p, __ATOMIC_RELAXED);
    grey_touch(object);
    grey_keep_alive(p);
    p = NULL;
    stress_wipe_stack();
    list_check(list_new(random, 20, TAG));
    if (object->pointer != NULL)
        check_deep(object->pointer, 6);
}

static void send(uint64_t *random)
{
    uint64_t i = stress_below(random, MAILBOXES);
    uintptr_t none = 0;
    void *p = new_any(random);
    if (p == NULL || !atomic_compare_exchange_strong(&mailboxes[i], &none, (uintptr_t)p))
        return;
    grey_pass(p);
    for (int n = 0; n < 200 && atomic_load(&mailboxes[i]) == (uintptr_t)p; n++)
        sched_yield();
    uintptr_t back = (uintptr_t)p;
    atomic_compare_exchange_strong(&mailboxes[i], &back, 0);
    grey_keep_alive(p);
}
static void receive(uint64_t *random)
{
    void *p = (void *)atomic_exchange(&mailboxes[stress_below(random, MAILBOXES)], 0);
    if (p != NULL)
        check_deep(p, 6);
}

/* Released while it is held: all is known. */
static void release_held(uint64_t *random)
{
    struct life *life = new_life(random, 1);
    if (life == NULL)
        return;
    char *start = (char *)~life->hidden;
    bool scan = stress_below(random, 2) == 0;
    fill(life, start, scan);
    add(life, start, scan, random);
    check(start);
    if (stress_below(random, 2) == 0)
        list_check(list_new(random, 20, TAG));
    STRESS_CHECK(grey_foreign_release(life->handle), "a region that is held cannot be released");
    STRESS_CHECK(!grey_foreign_release(life->handle), "a region was released twice");
    STRESS_CHECK(!grey_foreign_find(start, NULL, NULL), "a released region is found");
    uint32_t state = LIVES_ON;
    STRESS_CHECK(atomic_compare_exchange_strong(&life->state, &state, ENDED), "released and dead");
    atomic_fetch_add(&released, 1);
    end_of(life, (uintptr_t)start);
}

/* Dropped, then released: a race with the foreign sweep.  A life that ended is another's after a while, so
 * everything is read before. */
__attribute__((noinline)) static struct life *drop_one(uint64_t *random, grey_foreign *handle)
{
    struct life *life = new_life(random, SEALED_FROM);
    if (life == NULL)
        return NULL;
    char *start = (char *)~life->hidden;
    fill(life, start, true);
    add(life, start, stress_below(random, 2) == 0, random);
    *handle = life->handle;
    grey_keep_alive(start);
    return life;
}
static void release_dropped(uint64_t *random)
{
    grey_foreign handle = 0;
    struct life *life = drop_one(random, &handle);
    if (life == NULL)
        return;
    stress_wipe_stack();
    for (uint64_t n = stress_below(random, 40); n > 0; n--) {
        list_check(list_new(random, 10, TAG));
        sched_yield();
    }
    if (!grey_foreign_release(handle)) {
        atomic_fetch_add(&races_lost, 1);
        return;
    }
    uint32_t state = LIVES_ON;
    STRESS_CHECK(atomic_compare_exchange_strong(&life->state, &state, ENDED),
                 "a region was released and its cleanup ran: state %u", state);
    atomic_fetch_add(&races_won, 1);
    atomic_fetch_add(&released, 1);
    end_of(life, ~life->hidden);
}

/* Nobody holds these: anything may be found there, but only what can be. */
static void find_any(uint64_t *random)
{
    for (int i = 0; i < 100; i++) {
        uintptr_t start = 0, p = (uintptr_t)places + stress_below(random, (uint64_t)PLACES * PLACE);
        size_t size = 0;
        if (!grey_foreign_find((void *)p, &start, &size))
            continue;
        uintptr_t place = (uintptr_t)places + (p - (uintptr_t)places) / PLACE * PLACE;
        STRESS_CHECK(p - start < size && start >= place && start + size <= place + PLACE,
                     "%#lx finds [%#lx, %zu)", (unsigned long)p, (unsigned long)start, size);
    }
    STRESS_CHECK(!grey_foreign_release(stress_random(random) | 1ull << 63), "a made-up handle");
}

struct worker {
    uint64_t random, deadline, operations;
};

static void *work(void *arg)
{
    static void (*const operations[])(uint64_t *) = {
        alone, share, share, share, box, send, receive, release_held, release_dropped, find_any, store_raw};
    struct worker *w = arg;
    for (; stress_now() < w->deadline; w->operations++) {
        operations[stress_below(&w->random, sizeof(operations) / sizeof(operations[0]))](&w->random);
        stress_wipe_stack();
    }
    return NULL;
}

/* ---- all of them ----------------------------------------------------------------------------------- */

static pthread_t threads[THREADS];
static struct worker workers[THREADS];
static struct grey_stats at_start;

static struct grey_stats figures(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    assert_int_equal(grey_stats_read(&stats), 0);
    return stats;
}

/* Where places begin is the address of a region: it may be on no stack that stays. */
static void map_places(void) { places = region_map((size_t)PLACES * PLACE, PROT_READ | PROT_WRITE); }
static void make_boxes(void)
{
    struct box *table = grey_new_array(&box_type, TABLE);
    grey_store(&boxes, table);
}
static struct region other; /* elsewhere */
static uint64_t other_died;
static void make_other(void) { region_new(&other, 4096, 0); }
static void drop_all(void)
{
    for (int i = 0; i < SHARED; i++)
        grey_store(&shared[i], NULL);
    grey_store(&boxes, NULL);
}

uint64_t regions_start(void)
{
    region_thread(map_places);
    for (uint32_t i = 0; i < LIVES; i++)
        put(&free_lives, i);
    for (uint32_t i = 0; i < PLACES; i++)
        put(&free_places, i);
    region_thread(make_boxes);
    at_start = figures();
    uint64_t seed = stress_seed(), deadline = stress_deadline(1);
    stress_cycles_start();
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.random = seed + (uint64_t)i * 7919, .deadline = deadline};
        assert_int_equal(grey_thread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    return deadline;
}

/* Everything that was added has ended, once, and the places are free again. */
void regions_end(void)
{
    uint64_t operations = 0;
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
        operations += workers[i].operations;
    }
    uint64_t cycles = stress_cycles_stop();
    for (int i = 0; i < MAILBOXES; i++)
        assert_true(atomic_load(&mailboxes[i]) == 0);
    assert_int_equal(grey_verify(2), 0);
    region_thread(drop_all);
    region_settle();
    /* A cleanup thread's stack may have an old address of what is another region by now: it gets new ones. */
    for (int i = 0; i < 20 && atomic_load(&added) != atomic_load(&died) + atomic_load(&released); i++) {
        region_thread(make_other);
        region_settle();
        other_died += atomic_load(&other.died);
    }
    fprintf(stderr,
            "%llu operations, %llu cycles: %llu regions, %llu died, %llu released; races won %llu, "
            "lost %llu\n",
            (unsigned long long)operations, (unsigned long long)cycles, (unsigned long long)added,
            (unsigned long long)died, (unsigned long long)released, (unsigned long long)races_won,
            (unsigned long long)races_lost);
    struct grey_stats stats = figures();
    assert_true(atomic_load(&added) == atomic_load(&died) + atomic_load(&released));
    assert_true(stats.foreign_regions == at_start.foreign_regions);
    assert_true(stats.foreign_bytes == at_start.foreign_bytes);
    assert_true(stats.foreign_died - at_start.foreign_died == atomic_load(&died) + other_died);
    assert_true(free_places.count == PLACES && free_lives.count == LIVES);
    assert_true(operations > 0 && cycles > 1 && atomic_load(&died) > 0 && atomic_load(&released) > 0);
}

void regions_check(const void *p) { check_deep(p, 6); }

void regions_check_shared(void)
{
    for (int i = 0; i < SHARED; i++)
        check_deep(__atomic_load_n(&shared[i], __ATOMIC_ACQUIRE), 6);
}

void *regions_new(uint64_t *random, grey_foreign *handle)
{
    struct seal *seal = new_scanned(random);
    if (seal != NULL)
        *handle = seal->handle;
    return seal;
}

void regions_in_child(void) { atomic_store(&in_child, true); }

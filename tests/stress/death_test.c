/* tests/stress/death_test.c -- threads make objects, attach what is to happen at their death, and let them
 * go, under endless cycles.
 *
 * A ledger outside the heap says of each object whether its owner has let it go, and what was attached, has
 * run, or was stopped.  So whatever runs knows whether it may: nothing before the owner let go (CF-1, CF-15),
 * nothing twice, nothing that was stopped (CF-7), a cleanup after the finalizer (CF-8), with argument and
 * contents whole (CF-5, CF-17).  A weak reference gives the object while its owner has it, an intact one
 * afterwards, or NULL and then for ever, and NULL once anything has run (CF-21, CF-22); the owner may take
 * back what he gets by one.  In the end everything has run or was stopped, but for what a stale word on some
 * stack keeps.
 */
#include "support_stress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, SLOTS = 64, OLD = 128, CLEANUPS = 4, THINGS = 1 << 20, SHARED = 128, LIFE = 20000 };
/* What stale words may keep, of all that was made. */
enum { KEPT_MOST = 64 };

struct entry {
    _Atomic uint32_t owned;          /* cleared before the owner lets go */
    _Atomic uint32_t ran, stopped;   /* a bit for each cleanup */
    _Atomic uint32_t set, finalized; /* finalizers: how many were set, and have run */
    uint32_t cleanups;               /* owner */
    grey_cleanup handle[CLEANUPS];   /* owner */
};
static struct entry *ledger; /* by number; not in the heap */
static _Atomic uint32_t n_things;
static _Atomic uint64_t n_ran, n_gets, n_nulls, n_taken_back;

struct thing {
    uint64_t number, seal; /* ~address */
    struct node *list;
};
struct ticket { /* a cleanup's argument */
    uint64_t number, bit, seal;
    struct node *list;
};
GREY_TYPE(thing_type, struct thing, list);
GREY_TYPE(ticket_type, struct ticket, list);

GREY_ROOT(struct grey_weak *[SHARED], shared); /* stored and read by all */

struct slots { /* a worker's, in the heap */
    struct thing *thing[SLOTS];
    struct grey_weak *weak[SLOTS];
    struct grey_weak *old[OLD];
};
GREY_TYPE(slots_type, struct slots, GREY_ARRAY(thing, SLOTS), GREY_ARRAY(weak, SLOTS), GREY_ARRAY(old, OLD));

struct worker {
    uint64_t random;
    uint32_t old_number[OLD]; /* of the thing behind old[i]; 0: none */
    bool old_null[OLD];
};

static void thing_check(const struct thing *thing, uint64_t number)
{
    STRESS_CHECK(grey_base(thing) == thing, "thing %llu is no object", (unsigned long long)number);
    STRESS_CHECK(thing->number == number && thing->seal == ~(uint64_t)(uintptr_t)thing,
                 "thing %llu was overwritten", (unsigned long long)number);
    list_check(thing->list);
}

/* ---- what runs --------------------------------------------------------------------------------------- */

static void on_cleanup(void *arg)
{
    struct ticket *ticket = arg;
    STRESS_CHECK(ticket->seal == ~(uint64_t)(uintptr_t)ticket && ticket->number < THINGS,
                 "a cleanup's argument was overwritten");
    struct entry *entry = &ledger[ticket->number];
    uint32_t bit = 1u << ticket->bit;
    STRESS_CHECK(atomic_load(&entry->owned) == 0, "a cleanup of a thing that is reachable");
    STRESS_CHECK(!(atomic_fetch_or(&entry->ran, bit) & bit), "a cleanup ran twice");
    STRESS_CHECK(!(atomic_load(&entry->stopped) & bit), "a stopped cleanup ran");
    STRESS_CHECK(atomic_load(&entry->set) == atomic_load(&entry->finalized),
                 "a cleanup before the finalizer");
    list_check(ticket->list);
    atomic_fetch_add(&n_ran, 1);
}

static void on_finalize(void *object)
{
    struct thing *thing = object;
    STRESS_CHECK(thing->number < THINGS, "a finalizer's object was overwritten");
    struct entry *entry = &ledger[thing->number];
    thing_check(thing, thing->number);
    STRESS_CHECK(atomic_load(&entry->owned) == 0, "a finalizer of a thing that is reachable");
    STRESS_CHECK(atomic_load(&entry->ran) == 0, "a finalizer after a cleanup");
    uint32_t n = atomic_fetch_add(&entry->finalized, 1) + 1;
    STRESS_CHECK(n == atomic_load(&entry->set), "a finalizer that was not set");
    if (n == 1 && thing->number % 3 == 0) { /* once more */
        atomic_fetch_add(&entry->set, 1);
        STRESS_CHECK(grey_set_finalizer(thing, on_finalize) == 0, "no second finalizer");
    }
    atomic_fetch_add(&n_ran, 1);
}

/* ---- operations -------------------------------------------------------------------------------------- */

static struct thing *thing_new(struct worker *w, uint64_t number)
{
    struct thing *thing;
    switch (stress_below(&w->random, 40)) {
    case 0:
        thing = grey_alloc(40000 + stress_below(&w->random, 100000));
        break;
    case 1:
    case 2:
    case 3:
    case 4:
        thing = grey_alloc(sizeof(*thing) + stress_below(&w->random, 2000));
        break;
    default:
        thing = grey_new(&thing_type);
    }
    STRESS_CHECK(thing != NULL, "no memory");
    thing->number = number;
    thing->seal = ~(uint64_t)(uintptr_t)thing;
    grey_store(&thing->list, list_new(&w->random, 1 + stress_below(&w->random, 5), 1));
    return thing;
}

static void add_cleanup(struct worker *w, struct thing *thing)
{
    struct entry *entry = &ledger[thing->number];
    if (entry->cleanups == CLEANUPS)
        return;
    struct ticket *ticket = grey_new(&ticket_type);
    STRESS_CHECK(ticket != NULL, "no memory");
    ticket->number = thing->number;
    ticket->bit = entry->cleanups;
    ticket->seal = ~(uint64_t)(uintptr_t)ticket;
    grey_store(&ticket->list, list_new(&w->random, 1 + stress_below(&w->random, 5), 2));
    char *at = (char *)thing + stress_below(&w->random, sizeof(*thing));
    STRESS_CHECK(grey_cleanup_add(at, on_cleanup, ticket, &entry->handle[entry->cleanups]) == 0,
                 "no cleanup");
    entry->cleanups++;
}

static void let_go(struct worker *w, struct slots *slots, size_t i)
{
    struct thing *thing = slots->thing[i];
    if (thing == NULL)
        return;
    thing_check(thing, thing->number);
    size_t k = stress_below(&w->random, OLD);
    /* Most stay until they are NULL: a cycle takes long. */
    if (slots->weak[i] != NULL &&
        (w->old_number[k] == 0 || w->old_null[k] || stress_below(&w->random, 64) == 0)) {
        w->old_number[k] = (uint32_t)thing->number;
        w->old_null[k] = false;
        grey_store(&slots->old[k], slots->weak[i]);
    }
    grey_store(&slots->weak[i], NULL);
    atomic_store(&ledger[thing->number].owned, 0);
    grey_store(&slots->thing[i], NULL);
}

static void make(struct worker *w, struct slots *slots, size_t i)
{
    let_go(w, slots, i);
    uint32_t number = atomic_fetch_add(&n_things, 1);
    if (number >= THINGS)
        return;
    struct thing *thing = thing_new(w, number);
    atomic_store(&ledger[number].owned, 1);
    grey_store(&slots->thing[i], thing);
    for (uint64_t n = stress_below(&w->random, CLEANUPS); n != 0; n--)
        add_cleanup(w, thing);
    if (stress_below(&w->random, 2) != 0) {
        grey_store(&slots->weak[i], grey_weak_new(thing));
        STRESS_CHECK(slots->weak[i] != NULL, "no weak reference");
    }
}

static void change_finalizer(struct thing *thing)
{
    struct entry *entry = &ledger[thing->number];
    if (atomic_load(&entry->finalized) != 0)
        return; /* taken back from one: it has its course */
    if (atomic_load(&entry->set) != 0) {
        STRESS_CHECK(grey_set_finalizer(thing, on_finalize) == EEXIST, "set twice");
        STRESS_CHECK(grey_set_finalizer(thing, NULL) == 0, "not cleared");
        atomic_store(&entry->set, 0);
    } else {
        atomic_store(&entry->set, 1);
        STRESS_CHECK(grey_set_finalizer(thing, on_finalize) == 0, "no finalizer");
    }
}

static void stop_one(struct worker *w, uint64_t number, bool held)
{
    struct entry *entry = &ledger[number];
    if (entry->cleanups == 0)
        return;
    uint32_t k = (uint32_t)stress_below(&w->random, entry->cleanups), bit = 1u << k;
    bool before = atomic_load(&entry->stopped) & bit;
    bool stopped = grey_cleanup_stop(entry->handle[k]);
    STRESS_CHECK(!held || stopped == !before, "stopping a cleanup of a thing that is held");
    STRESS_CHECK(!(stopped && before), "stopped twice");
    /* What could not be stopped any more is queued, and a wait that begins now waits for it (CF-7, CF-13). */
    if (!stopped && !before && stress_below(&w->random, 4) == 0) {
        STRESS_CHECK(grey_cleanup_wait(-1), "a wait without end has ended");
        STRESS_CHECK(atomic_load(&entry->ran) & bit, "not stopped, not run, and nothing waits");
    }
    if (stopped)
        STRESS_CHECK(!((atomic_fetch_or(&entry->stopped, bit) | atomic_load(&entry->ran)) & bit),
                     "stopped, and has run");
}

static void use(struct worker *w, struct slots *slots, size_t i)
{
    struct thing *thing = slots->thing[i];
    if (thing == NULL)
        return;
    thing_check(thing, thing->number);
    if (slots->weak[i] != NULL) {
        STRESS_CHECK(grey_weak_get(slots->weak[i]) == thing, "a weak reference to a thing that is held");
        STRESS_CHECK(grey_weak_new(thing) == slots->weak[i], "another weak reference to the same thing");
    }
    switch (stress_below(&w->random, 4)) {
    case 0:
        add_cleanup(w, thing);
        break;
    case 1:
        change_finalizer(thing);
        break;
    case 2:
        stop_one(w, thing->number, true);
        break;
    default:
        if (slots->weak[i] != NULL)
            grey_store(&shared[stress_below(&w->random, SHARED)], slots->weak[i]);
    }
    grey_keep_alive(thing);
}

/* A thing of this owner that was let go. */
static void use_old(struct worker *w, struct slots *slots, size_t k)
{
    uint32_t number = w->old_number[k];
    if (number == 0)
        return;
    struct entry *entry = &ledger[number];
    bool over = atomic_load(&entry->ran) != 0 || atomic_load(&entry->finalized) != 0;
    struct thing *thing = grey_weak_get(slots->old[k]);
    atomic_fetch_add(&n_gets, 1);
    if (thing == NULL) {
        atomic_fetch_add(&n_nulls, 1);
        w->old_null[k] = true;
        if (stress_below(&w->random, 4) == 0)
            stop_one(w, number, false);
        return;
    }
    STRESS_CHECK(!over, "a weak reference after something has run");
    STRESS_CHECK(!w->old_null[k], "a weak reference came back");
    thing_check(thing, number);
    size_t i = stress_below(&w->random, SLOTS);
    if (stress_below(&w->random, 2) != 0 && slots->thing[i] == NULL) { /* taken back */
        atomic_store(&entry->owned, 1);
        grey_store(&slots->thing[i], thing);
        grey_store(&slots->weak[i], slots->old[k]);
        w->old_number[k] = 0;
        atomic_fetch_add(&n_taken_back, 1);
    }
}

static void use_shared(struct worker *w)
{
    struct grey_weak *weak =
        __atomic_load_n(&shared[stress_below(&w->random, SHARED)], __ATOMIC_ACQUIRE); /* others store */
    struct thing *thing = grey_weak_get(weak);
    if (thing == NULL)
        return;
    thing_check(thing, thing->number);
    STRESS_CHECK(grey_weak_get(weak) == thing, "a weak reference changed while its thing was held");
    STRESS_CHECK(atomic_load(&ledger[thing->number].ran) == 0, "a cleanup of a thing that a thread holds");
}

/* ---- the test ---------------------------------------------------------------------------------------- */

/* One life of a worker: a new thread each time, so that what it held is gone for certain. */
static void *live(void *arg)
{
    struct worker *w = arg;
    struct slots *slots = grey_new(&slots_type);
    STRESS_CHECK(slots != NULL, "no memory");
    memset(w->old_number, 0, sizeof(w->old_number));
    for (int n = 0; n < LIFE; n++) {
        size_t i = stress_below(&w->random, SLOTS), k = stress_below(&w->random, OLD);
        switch (stress_below(&w->random, 8)) {
        case 0:
        case 1:
            make(w, slots, i);
            break;
        case 2:
            let_go(w, slots, i);
            break;
        case 3:
            use_shared(w);
            break;
        case 4:
        case 5:
            use_old(w, slots, k);
            break;
        default:
            use(w, slots, i);
        }
        if (stress_below(&w->random, 100) == 0)
            grey_cleanup_run(5);
    }
    for (size_t i = 0; i < SLOTS; i++)
        let_go(w, slots, i);
    return NULL;
}

static uint64_t deadline;
static void *worker_main(void *arg)
{
    pthread_t thread;
    while (stress_now() < deadline && atomic_load(&n_things) < THINGS) {
        STRESS_CHECK(grey_thread_create(&thread, NULL, live, arg) == 0, "no thread");
        STRESS_CHECK(grey_thread_join(thread, NULL) == 0, "no join");
    }
    return NULL;
}

/* Cleanups and finalizers that were attached, not stopped, and have not run. */
static uint64_t outstanding(void)
{
    uint64_t sum = 0;
    uint32_t n = atomic_load(&n_things);
    for (uint32_t i = 1; i < n && i < THINGS; i++) {
        struct entry *entry = &ledger[i];
        uint32_t over = atomic_load(&entry->ran) | atomic_load(&entry->stopped);
        sum += entry->cleanups - (uint32_t)__builtin_popcount(over);
        sum += atomic_load(&entry->set) - atomic_load(&entry->finalized);
    }
    return sum;
}

static void test_death(void **state)
{
    (void)state;
    static struct worker workers[THREADS];
    pthread_t threads[THREADS];
    ledger = calloc(THINGS, sizeof(*ledger));
    assert_non_null(ledger);
    atomic_store(&n_things, 1);
    uint64_t seed = stress_seed();
    deadline = stress_deadline(1);
    stress_cycles_start();
    for (int i = 0; i < THREADS; i++) {
        workers[i].random = seed + (uint64_t)i * 7919;
        assert_int_equal(pthread_create(&threads[i], NULL, worker_main, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
    uint64_t cycles = stress_cycles_stop();
    for (int i = 0; i < SHARED; i++)
        grey_store(&shared[i], NULL);
    uint64_t left = outstanding();
    for (int i = 0; i < 20 && left != 0; i++) {
        stress_wipe_stack();
        grey_collect();
        assert_true(grey_cleanup_wait(-1));
        left = outstanding();
    }
    assert_int_equal(grey_verify(2), 0);
    fprintf(stderr,
            "%u things, %llu callbacks, %llu outstanding, %llu gets, %llu NULL, %llu taken back, "
            "%llu cycles\n",
            atomic_load(&n_things), (unsigned long long)n_ran, (unsigned long long)left,
            (unsigned long long)n_gets, (unsigned long long)n_nulls, (unsigned long long)n_taken_back,
            (unsigned long long)cycles);
    assert_true(left <= KEPT_MOST);
    assert_true(atomic_load(&n_ran) > 0 && cycles > 1);
    free(ledger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_death)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/unit/slots_test.c -- tables of numbered records by themselves.
 *
 * Each handle that a table gave out is kept for the whole test, so that the claims about handles that are
 * stale, made up or given twice are checked against all there ever were.  The refusals of memory need the
 * planted failures of a test build.
 *
 * Requirements: FR-38, CF-7 (a handle names one thing for ever), OS-16 (a refusal changes nothing), OS-21
 * (figures), TR-7.  Seed: GREY_TEST_SEED or the clock; printed.
 */
#include "heap/slots.h"
#include "os/options.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct record {
    struct slot slot;
    _Atomic uint64_t owner;
    uint64_t words[4];
};
enum { WORDS = 4, STEP = 256 << 10 };

static struct slots table;
static uint64_t state;

/* splitmix64 */
static uint64_t next_random(uint64_t *from)
{
    uint64_t z = *from += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void start(uint32_t most)
{
    assert_int_equal(slots_init(&table, sizeof(struct record), most, OS_FOREIGN), 0);
}

static void stop(void)
{
    slots_shutdown(&table);
    assert_int_equal(os_mapped(OS_FOREIGN), 0);
}

static struct record *take(void) { return (struct record *)(void *)slots_take(&table); }
static uint64_t publish(struct record *record) { return slots_publish(&table, &record->slot); }
static struct record *find(uint64_t handle) { return (struct record *)(void *)slots_find(&table, handle); }
static void give_back(struct record *record) { slots_give_back(&table, &record->slot); }
static uint32_t in_use(void) { return atomic_load(&table.in_use); }

static void a_life(void **unused)
{
    (void)unused;
    start(100);
    assert_int_equal(slots_end(&table), 1);
    struct record *record = take();
    assert_non_null(record);
    assert_int_equal(slots_index(&table, &record->slot), 1);
    assert_ptr_equal(slots_at(&table, 1), record);
    assert_int_equal(slots_end(&table), 2);
    assert_null(find(1)); /* not published */
    assert_int_equal(publish(record), 1);
    assert_ptr_equal(find(1), record);
    assert_int_equal(in_use(), 1);
    memset(record->words, 0xa5, sizeof(record->words));
    give_back(record);
    assert_null(find(1));
    assert_int_equal(in_use(), 0);
    struct record *again = take();
    assert_ptr_equal(again, record);
    for (int i = 0; i < WORDS; i++)
        assert_int_equal(again->words[i], 0);
    assert_null(find(1));
    uint64_t handle = publish(again);
    assert_int_equal(handle, 1ull << 32 | 1);
    assert_null(find(1));
    assert_ptr_equal(find(handle), again);
    give_back(again);
    stop();
}

static void made_up_handles(void **unused)
{
    (void)unused;
    start(100000);
    enum { N = 1000 };
    struct record *records[N];
    for (int i = 0; i < N; i++) {
        records[i] = take();
        publish(records[i]);
    }
    for (int i = 0; i < N; i += 2)
        give_back(records[i]);
    assert_null(find(0));
    assert_null(find(1ull << 32));
    assert_null(find(UINT64_MAX));
    assert_null(find(UINT32_MAX));
    assert_null(find(slots_end(&table)));
    for (uint64_t i = 0; i < N; i++) {
        if (i % 2 == 0)
            assert_null(find(i + 1)); /* stale */
        else
            assert_ptr_equal(find(i + 1), records[i]);
        assert_null(find(1ull << 32 | (i + 1))); /* its next use, which has not come */
        assert_null(find(UINT64_MAX << 32 | (i + 1)));
    }
    for (int i = 0; i < 100000; i++) {
        uint64_t guess = (next_random(&state) & 0xffffffff000003ffu) | 1ull
                                                                           << 32; /* a later use; none came */
        assert_null(find(guess));
    }
    stop();
    assert_null(find(2)); /* and none when the table is gone */
}

/* The oldest free record is used first, so that a handle's number of uses grows as slowly as it can. */
static void oldest_first(void **unused)
{
    (void)unused;
    start(100);
    struct record *records[5];
    for (int i = 0; i < 5; i++)
        records[i] = take();
    static const int order[] = {3, 0, 4, 1, 2};
    for (int i = 0; i < 5; i++)
        give_back(records[order[i]]);
    for (int i = 0; i < 5; i++)
        assert_ptr_equal(take(), records[order[i]]);
    assert_int_equal(slots_end(&table), 6);
    stop();
}

/* A random life of many handles against a list of all that were ever given. */
static void against_a_model(void **unused)
{
    (void)unused;
    enum { LIVE = 300, STEPS = 60000 };
    struct given {
        uint64_t handle;
        struct record *record; /* NULL: given back */
    } *all = calloc(STEPS, sizeof(*all));
    assert_non_null(all);
    size_t n = 0, live_at[LIVE], n_live = 0;
    start(LIVE);
    for (int step = 0; step < STEPS; step++) {
        uint64_t random = next_random(&state);
        if (n_live < LIVE && (n_live == 0 || random % 2 == 0)) {
            struct record *record = take();
            assert_non_null(record);
            all[n] = (struct given){publish(record), record};
            record->words[0] = all[n].handle;
            live_at[n_live++] = n++;
        } else {
            size_t which = (random >> 8) % n_live;
            struct given *given = &all[live_at[which]];
            live_at[which] = live_at[--n_live];
            give_back(given->record);
            given->record = NULL;
        }
        const struct given *any = &all[(random >> 32) % n];
        assert_ptr_equal(find(any->handle), any->record);
        assert_int_equal(in_use(), n_live);
    }
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(find(all[i].handle), all[i].record);
        if (all[i].record != NULL)
            assert_int_equal(all[i].record->words[0], all[i].handle); /* given once: nobody wrote over it */
    }
    free(all);
    stop();
}

/* Records straddle the steps in which the table grows; what is there stays where it is. */
static void growth(void **unused)
{
    (void)unused;
    enum { N = 40000 };
    assert_true(STEP % sizeof(struct record) != 0);
    start(N);
    size_t before = os_mapped(OS_FOREIGN);
    for (uint64_t i = 1; i <= N; i++) {
        struct record *record = take();
        assert_non_null(record);
        for (int w = 0; w < WORDS; w++) {
            assert_int_equal(record->words[w], 0);
            record->words[w] = i * WORDS + (uint64_t)w;
        }
        assert_int_equal(publish(record), i);
    }
    size_t grown = os_mapped(OS_FOREIGN) - before;
    assert_true(grown >= N * sizeof(struct record) && grown <= N * sizeof(struct record) + 2 * STEP);
    assert_null(take()); /* all that there may be */
    assert_int_equal(in_use(), N);
    for (uint64_t i = 1; i <= N; i++)
        for (int w = 0; w < WORDS; w++)
            assert_int_equal(find(i)->words[w], i * WORDS + (uint64_t)w);
    give_back(find(77));
    assert_int_equal(slots_index(&table, &take()->slot), 77);
    assert_null(take());
    stop();
}

/* FR-38: a record that has had all its handles is not used again. */
static void last_use(void **unused)
{
    (void)unused;
    start(3);
    struct record *record = take();
    give_back(record);
    record->slot.used = UINT32_MAX; /* as after 2^32 - 1 uses; free, so nobody looks */
    assert_ptr_equal(take(), record);
    uint64_t handle = publish(record);
    assert_int_equal(handle, 0xffffffff00000001u);
    assert_ptr_equal(find(handle), record);
    give_back(record);
    assert_null(find(handle));
    for (uint64_t i = 2; i <= 3; i++)
        assert_int_equal(publish(take()), i);
    assert_null(take());
    assert_null(find(1)); /* its first handle does not come again */
    assert_int_equal(in_use(), 2);
    stop();
}

#ifdef GREY_HOOKS
static void fill_the_first_step(void)
{
    while (((size_t)slots_end(&table) + 1) * sizeof(struct record) <= STEP)
        assert_non_null(take());
}

/* OS-16: every call that growth makes may fail; afterwards all is as before, and the next try succeeds. */
static void refusals(int harddecommit, unsigned calls)
{
    os_debug.harddecommit = harddecommit;
    for (unsigned nth = 1; nth <= calls; nth++) {
        for (int retry = 0; retry < 2; retry++) {
            start(100000);
            fill_the_first_step();
            uint32_t end = slots_end(&table), used = in_use();
            os_fail_mapping(nth, ENOMEM);
            assert_null(take());
            os_fail_mapping(0, 0);
            assert_int_equal(slots_end(&table), end);
            assert_int_equal(in_use(), used);
            if (retry) {
                struct record *record = take();
                assert_non_null(record);
                memset(record->words, 1, sizeof(record->words)); /* it is really there */
                assert_int_equal(publish(record), end);
            }
            stop();
        }
    }
    os_debug.harddecommit = 0;
}

static void refused_memory(void **unused)
{
    (void)unused;
    refusals(0, 1);
    refusals(1, 2); /* making it accessible is a call of its own */
    os_fail_mapping(1, ENOMEM);
    assert_int_equal(slots_init(&table, sizeof(struct record), 100, OS_FOREIGN), ENOMEM);
    os_fail_mapping(0, 0);
    assert_null(find(1));
    stop();
}
#endif

/* ---- several at once ----------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 20000, HELD = 16 };
struct taker {
    pthread_t thread;
    uint64_t number, seed;
    uint64_t handles[ROUNDS];
    uint32_t wrong; /* findings; cmocka's checks are the main thread's */
};
static struct taker takers[THREADS];
static _Atomic uint64_t last_given; /* a handle of any thread's */

static void *taker_main(void *arg)
{
    struct taker *me = arg;
    struct record *held[HELD] = {NULL};
    uint64_t handle_of[HELD] = {0};
    for (int i = 0; i < ROUNDS; i++) {
        unsigned at = (unsigned)(next_random(&me->seed) % HELD);
        if (held[at] != NULL) {
            me->wrong += find(handle_of[at]) != held[at];
            me->wrong += atomic_exchange(&held[at]->owner, 0) != me->number;
            give_back(held[at]);
            me->wrong += find(handle_of[at]) != NULL;
        }
        held[at] = take();
        me->wrong += atomic_exchange(&held[at]->owner, me->number) != 0; /* nobody else has it */
        me->handles[i] = handle_of[at] = publish(held[at]);
        /* Somebody else's, who may be giving it back: found or not, but never as another record. */
        uint64_t other = atomic_exchange(&last_given, handle_of[at]);
        struct record *found = find(other);
        me->wrong += found != NULL && slots_index(&table, &found->slot) != (uint32_t)other;
    }
    for (int at = 0; at < HELD; at++)
        if (held[at] != NULL)
            give_back(held[at]);
    return NULL;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void many_takers(void **unused)
{
    (void)unused;
    static uint64_t all[THREADS * ROUNDS];
    start(THREADS * HELD);
    atomic_store(&last_given, 0);
    for (uint64_t i = 0; i < THREADS; i++) {
        takers[i].number = i + 1;
        takers[i].seed = next_random(&state);
        assert_int_equal(pthread_create(&takers[i].thread, NULL, taker_main, &takers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(takers[i].thread, NULL);
        assert_int_equal(takers[i].wrong, 0);
        memcpy(all + i * ROUNDS, takers[i].handles, sizeof(takers[i].handles));
    }
    assert_int_equal(in_use(), 0);
    qsort(all, THREADS * ROUNDS, sizeof(all[0]), compare);
    for (int i = 1; i < THREADS * ROUNDS; i++)
        assert_true(all[i] != all[i - 1]); /* FR-38: none given twice */
    for (int i = 0; i < THREADS * ROUNDS; i++)
        assert_null(find(all[i]));
    stop();
}

int main(void)
{
    const char *text = getenv("GREY_TEST_SEED");
    state = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2654435761u ^ (uint64_t)getpid();
    print_message("GREY_TEST_SEED=%llu\n", (unsigned long long)state);
    os_memory_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_life),          cmocka_unit_test(made_up_handles), cmocka_unit_test(oldest_first),
        cmocka_unit_test(against_a_model), cmocka_unit_test(growth),          cmocka_unit_test(last_use),
#ifdef GREY_HOOKS
        cmocka_unit_test(refused_memory),
#endif
        cmocka_unit_test(many_takers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

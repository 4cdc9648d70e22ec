/* tests/unit/index_test.c -- the range index and its epochs (FR-2, FR-5, FR-7, FR-16..FR-18).
 *
 * The index alone, against a model (index_model.h), with memory and without, and with readers that spin
 * beside a writer.  Nodes that were given back are overwritten and, under AddressSanitizer, poisoned, so a
 * reader who still uses one is noticed.  GREY_TEST_SECONDS says how long the readers spin (2).
 */
#include "support_os.h"

#include "foreign/epoch.h"
#include "foreign/index.h"
#include "heap/unmanaged.h"
#include "index_model.h"

#include <pthread.h>

static struct index ranges;
static struct model model;

static int begin(void **state)
{
    (void)state;
    os_memory_init();
    assert_int_equal(epoch_init(), 0);
    index_init(&ranges);
    model.count = 0;
    return 0;
}

static int end(void **state)
{
    (void)state;
    index_clear(&ranges);
    epoch_shutdown();
    persistent_shutdown();
    assert_int_equal(os_mapped(OS_FOREIGN), 0);
    return 0;
}

static void insert(uintptr_t start, uintptr_t end_of, int expected)
{
    assert_int_equal(model_insert(&model, &ranges, start, end_of, (uint32_t)(start * 31)), expected);
}

/* ---- single operations ------------------------------------------------------------------------------- */

/* FR-2, FR-7: ranges that touch stay two, at every byte. */
static void neighbours(void **state)
{
    (void)state;
    struct index_range range;
    assert_false(index_find(&ranges, 100, &range));
    assert_false(index_next(&ranges, 0, &range));
    insert(100, 200, 0);
    insert(200, 201, 0); /* one byte */
    insert(201, 4097, 0);
    insert(99, 100, 0);
    insert(4099, 4100, 0);
    for (uintptr_t p = 90; p < 4110; p++)
        model_look(&model, &ranges, p);
    assert_true(model_remove(&model, &ranges, 200));
    assert_false(model_remove(&model, &ranges, 200));
    assert_false(model_remove(&model, &ranges, 150)); /* inside is not its start */
    for (uintptr_t p = 90; p < 4110; p++)
        model_look(&model, &ranges, p);
    model_look_everywhere(&model, &ranges);
}

/* FR-5: one byte is enough, and what was there stays. */
static void overlaps(void **state)
{
    (void)state;
    insert(1000, 2000, 0);
    insert(3000, 3001, 0);
    static const struct index_range wrong[] = {{1000, 2000, 0}, {999, 1001, 0},  {1999, 2001, 0},
                                               {1500, 1501, 0}, {500, 5000, 0},  {1000, 1001, 0},
                                               {1999, 2000, 0}, {2999, 3001, 0}, {3000, 3001, 0},
                                               {3000, 9000, 0}, {1, 3001, 0},    {0, UINTPTR_MAX, 0}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        insert(wrong[i].start, wrong[i].end, EEXIST);
    assert_int_equal(ranges.count, 2);
    model_look_everywhere(&model, &ranges);
    insert(2000, 3000, 0);
    insert(3001, 3002, 0);
    insert(0, 1000, 0);
    model_look_everywhere(&model, &ranges);
}

/* FR-2: terabytes, and the ends of the address space. */
static void enormous(void **state)
{
    (void)state;
    const uintptr_t tib = (uintptr_t)1 << 40;
    insert(0, 1, 0);
    insert(tib, 17 * tib + 3, 0);
    insert(17 * tib + 3, 17 * tib + 4, 0);
    insert(UINTPTR_MAX - 1, UINTPTR_MAX, 0);
    insert((uintptr_t)1 << 63, UINTPTR_MAX - 1, 0);
    insert(UINTPTR_MAX - 5, UINTPTR_MAX, EEXIST);
    for (uintptr_t p = tib; p < 17 * tib; p += tib - 1)
        model_look(&model, &ranges, p);
    model_look_everywhere(&model, &ranges);
    while (model.count != 0)
        assert_true(model_remove(&model, &ranges, model.range[model.count / 2].start));
    assert_int_equal(ranges.depth, 0);
    insert(0, UINTPTR_MAX, 0);
    model_look_everywhere(&model, &ranges);
}

/* ThreadSanitizer has nothing to find where there is one thread, and looks at every word that the model moves: it gets
 * a part of these. */
#ifdef __SANITIZE_THREAD__
enum { LESS = 8 };
#else
enum { LESS = 1 };
#endif

/* Every order of growth and of shrinking, across all depths. */
static void orders(void **state)
{
    (void)state;
    enum { N = 5000, STRIDE = 7919 }; /* no common divisor */
    for (int order = 0; order < 9; order += LESS) {
        for (size_t k = 0; k < N; k++) {
            size_t i = order % 3 == 0 ? k : order % 3 == 1 ? N - 1 - k : k * STRIDE % N;
            insert(16 + i * 16, 32 + i * 16 - (i & 7), 0);
            if (k % 501 == 0)
                model_look_everywhere(&model, &ranges);
        }
        assert_in_range(ranges.depth, 4, 6);
        for (size_t k = 0; k < N; k++) {
            size_t i = order / 3 == 0 ? k : order / 3 == 1 ? N - 1 - k : k * STRIDE % N;
            assert_true(model_remove(&model, &ranges, 16 + i * 16));
            if (k % 501 == 0)
                model_look_everywhere(&model, &ranges);
        }
        assert_int_equal(ranges.depth, 0);
        assert_null(atomic_load(&ranges.root));
    }
}

/* Ranges that reach beyond separators which older ranges left behind. */
static void across_separators(void **state)
{
    (void)state;
    enum { N = 3000 };
    for (unsigned gap = 2; gap < 40; gap = gap * 3 / 2 + 1) {
        for (uintptr_t i = 1; i <= N; i++)
            insert(i * 100, i * 100 + 50, 0);
        for (uintptr_t i = 1; i <= N; i++) {
            if (i % gap != 0)
                assert_true(model_remove(&model, &ranges, i * 100));
        }
        for (uintptr_t i = gap; i + gap <= N; i += gap) {
            insert(i * 100 + 49, i * 100 + 80, EEXIST);
            insert(i * 100 + 50, (i + gap) * 100 + 1, EEXIST);
            insert(i * 100 + 50 + i % 3, (i + gap) * 100 - i % 2, 0);
        }
        model_look_everywhere(&model, &ranges);
        while (model.count != 0)
            assert_true(model_remove(&model, &ranges, model.range[model.count - 1].start));
    }
}

/* ---- against the model ------------------------------------------------------------------------------- */

struct random_kind {
    uintptr_t low, span, size; /* of addresses; of ranges */
    size_t most;               /* ranges */
};

static void random_step(const struct random_kind *kind, uint64_t *random, unsigned inserts)
{
    uintptr_t p = kind->low + support_random(random) % kind->span;
    uint64_t what = support_random(random) % 100;
    if (what < inserts && model.count < kind->most) {
        uintptr_t size = 1 + support_random(random) % kind->size;
        uintptr_t room = kind->low + kind->span - p;
        model_insert(&model, &ranges, p, p + (size < room ? size : room), (uint32_t)what);
    } else if (what < 80 && model.count != 0) {
        assert_true(model_remove(&model, &ranges, model.range[support_random(random) % model.count].start));
    } else if (what < 85) {
        model_remove(&model, &ranges, p);
    } else {
        model_look(&model, &ranges, p);
        if (model.count != 0)
            model_look_around(&model, &ranges, support_random(random) % model.count);
    }
}

static const struct random_kind kinds[] = {
    {0, 40, 5, 40},
    {5, 3000, 3, 3000},
    {0x7f0000000000, 1 << 20, 600, 4000},
    {1, UINTPTR_MAX - 1, (uintptr_t)1 << 50, 6000},
    {0x10000, (uintptr_t)1 << 46, 1 << 20, 12000},
};

static void random_operations(void **state)
{
    (void)state;
    uint64_t random = support_seed();
    for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
        for (unsigned i = 0; i < 60000 / LESS; i++) {
            random_step(&kinds[k], &random, i / (10000 / LESS) % 2 == 0 ? 65 : 25);
            if (i % 64 == 0)
                index_check(&ranges);
            if (i % 5000 == 0)
                model_look_everywhere(&model, &ranges);
        }
        model_look_everywhere(&model, &ranges);
        index_clear(&ranges);
        model.count = 0;
    }
}

/* ---- without memory ---------------------------------------------------------------------------------- */

#ifdef GREY_HOOKS
/* A reader inside keeps nodes from coming back, so that memory has to be asked for, and is refused. */
static void refused_memory(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct epoch_reader *reader = epoch_reader_new();
    os_fail_mapping(1, ENOMEM);
    insert(100, 101, ENOMEM);
    assert_int_equal(ranges.depth, 0);
    for (uintptr_t i = 1; i <= N; i++)
        insert(i * 100, i * 100 + 50, 0);
    epoch_enter(reader);
    uintptr_t spare = (N + 10) * 100; /* takes what is left */
    int error = 0;
    while (error == 0) {
        os_fail_mapping(1, ENOMEM);
        error = model_insert(&model, &ranges, spare, spare + 1, 7);
        spare += 100;
    }
    assert_int_equal(error, ENOMEM);
    model_look_everywhere(&model, &ranges); /* it lost nothing */
    assert_int_equal(ranges.in_place, 0);
    size_t kept = ranges.available;
    for (uintptr_t i = 1; i <= N; i++) {
        if (i % 50 == 0)
            continue;
        os_fail_mapping(1, ENOMEM);
        assert_true(model_remove(&model, &ranges, i * 100));
        assert_false(model_remove(&model, &ranges, i * 100));
    }
    assert_int_equal(ranges.in_place, N - N / 50);
    assert_int_equal(ranges.available, kept);
    os_fail_mapping(0, 0);
    model_look_everywhere(&model, &ranges);
    epoch_leave(reader);
    epoch_reader_give_back(reader);

    /* And then there is memory: into what was emptied, far across it, and removal of the rest. */
    for (uintptr_t i = 50; i + 50 <= N; i += 50) {
        if (i % 100 == 0) {
            insert(i * 100 + 50, (i + 50) * 100, 0);
        } else {
            for (uintptr_t j = i + 1; j < i + 47; j += 3)
                insert(j * 100 + 3, j * 100 + 200, 0);
        }
        model_look_everywhere(&model, &ranges);
    }
    while (model.count != 0)
        assert_true(model_remove(&model, &ranges, model.range[model.count / 2].start));
    index_check(&ranges);
}

static void random_refusals(void **state)
{
    (void)state;
    uint64_t random = support_seed();
    struct epoch_reader *reader = epoch_reader_new();
    for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
        size_t in_place = 0;
        for (unsigned i = 0; i < 30000; i++) {
            bool hold = i / 1500 % 2 == 1;
            if (i % 1500 == 0 && hold)
                epoch_enter(reader);
            if (i % 1500 == 0 && i != 0 && !hold)
                epoch_leave(reader);
            os_fail_mapping(hold ? 1 : 0, hold ? ENOMEM : 0);
            random_step(&kinds[k], &random, i / 5000 % 2 == 0 ? 65 : 25);
            if (i % 64 == 0)
                index_check(&ranges);
            if (i % 1500 == 1499)
                model_look_everywhere(&model, &ranges);
        }
        os_fail_mapping(0, 0);
        epoch_leave(reader);
        in_place += ranges.in_place;
        assert_true(in_place != 0);
        model_look_everywhere(&model, &ranges);
        index_clear(&ranges);
        model.count = 0;
    }
    epoch_reader_give_back(reader);
}
#endif

/* ---- epochs ------------------------------------------------------------------------------------------ */

static ck_epoch_entry_t entries[200];
static unsigned given_back;
static void count_given_back(ck_epoch_entry_t *entry)
{
    (void)entry;
    given_back++;
}

static void retire_all(void)
{
    given_back = 0;
    for (size_t i = 0; i < sizeof(entries) / sizeof(*entries); i++)
        epoch_retire(&entries[i], count_given_back);
}

/* FR-18: nothing is given back that a reader may see; all is when he has left. */
static void epoch_waits_for_readers(void **state)
{
    (void)state;
    enum { N = sizeof(entries) / sizeof(*entries) };
    struct epoch_reader *reader = epoch_reader_new(), *other = epoch_reader_new();
    assert_ptr_not_equal(reader, other);
    retire_all();
    assert_true(given_back >= N / 2); /* by itself, some at a time */
    epoch_poll();
    assert_int_equal(given_back, N);
    epoch_enter(reader);
    retire_all();
    for (int i = 0; i < 10; i++) {
        epoch_enter(other); /* who comes and goes doesn't matter */
        epoch_poll();
        epoch_leave(other);
        epoch_poll();
    }
    assert_int_equal(given_back, 0);
    epoch_leave(reader);
    epoch_poll();
    assert_int_equal(given_back, N);
    epoch_reader_give_back(reader);
    assert_ptr_equal(epoch_reader_new(), reader); /* records are reused */
}

/* Two readers who are never both outside: what was retired comes back nevertheless. */
static void epoch_relay(void **state)
{
    (void)state;
    struct epoch_reader *reader[2] = {epoch_reader_new(), epoch_reader_new()};
    epoch_enter(reader[0]);
    retire_all();
    for (int i = 1; i < 10; i++) {
        epoch_enter(reader[i & 1]);
        epoch_leave(reader[~i & 1]);
        epoch_poll();
    }
    assert_int_equal(given_back, sizeof(entries) / sizeof(*entries));
    epoch_leave(reader[1]);
}

static void forked(void *arg)
{
    epoch_fork_child();
    if (given_back != sizeof(entries) / sizeof(*entries))
        os_fatal(NULL, "not given back");
    struct epoch_reader *reader = epoch_reader_new();
    if (reader != arg)
        os_fatal(NULL, "not reused");
    epoch_enter(reader);
    epoch_leave(reader);
    model_look_everywhere(&model, &ranges);
}

static void epoch_survives_fork(void **state)
{
    (void)state;
    struct epoch_reader *reader = epoch_reader_new();
    for (uintptr_t i = 1; i <= 500; i++)
        insert(i * 100, i * 100 + 50, 0);
    epoch_enter(reader);
    retire_all();
    const struct child_end *child = run_child(forked, reader);
    if (child->status != 0)
        fail_msg("%s", child->message);
    epoch_leave(reader);
}

static void clear_too_early(void *arg)
{
    epoch_enter(arg);
    for (uintptr_t i = 1; i <= 2; i++)
        index_insert(&ranges, i * 100, i * 100 + 50, 0);
    index_clear(&ranges);
}

static void clear_wants_no_readers(void **state)
{
    (void)state;
    assert_dies(clear_too_early, epoch_reader_new(), "still read");
}

/* ---- readers and a writer ---------------------------------------------------------------------------- */

/* One slot in four holds a range that stays; the writer inserts and removes the others.  A slot's count tells
 * what a reader may expect: it is odd while the slot changes. */
enum { SLOTS = 4096, SLOT = 64, READERS = 2, STABLE = 4 };
static const uintptr_t spin_base = 0x7f1234567000;
static _Atomic uint32_t slot_changes[SLOTS]; /* % 4: absent, being inserted, present, being removed */
static atomic_bool spin_stop;
static _Atomic uint64_t spin_lookups;

static uintptr_t slot_start(unsigned i) { return spin_base + (uintptr_t)i * SLOT; }

static void look_up_stable(unsigned i, uint64_t *random)
{
    struct index_range range;
    uintptr_t start = slot_start(i), p = start + 1 + support_random(random) % SLOT;
    p = p >= start + SLOT ? start : p;
    MODEL_CHECK(index_find(&ranges, p, &range));
    MODEL_CHECK(range.start == start && range.end == start + SLOT && range.value == i);
    MODEL_CHECK(index_next(&ranges, p, &range) && range.start == start);
    MODEL_CHECK(index_next(&ranges, start - 1, &range) && range.end >= start && range.start <= start);
}

static void look_up_changing(unsigned i)
{
    struct index_range range;
    uintptr_t start = slot_start(i);
    uint32_t before = atomic_load(&slot_changes[i]);
    bool found = index_find(&ranges, start + SLOT / 2, &range);
    if (found)
        MODEL_CHECK(range.start <= start + SLOT / 2 && start + SLOT / 2 < range.end && range.value == i);
    if (atomic_load(&slot_changes[i]) == before && before % 2 == 0)
        MODEL_CHECK(found == (before % 4 == 2));
}

static void *spin(void *arg)
{
    uint64_t random = (uint64_t)(uintptr_t)arg, lookups = 0;
    struct epoch_reader *reader = epoch_reader_new();
    while (!atomic_load(&spin_stop)) {
        if (support_random(&random) % 1024 == 0) {
            epoch_reader_give_back(reader);
            reader = epoch_reader_new();
        }
        epoch_enter(reader);
        for (uint64_t n = support_random(&random) % 64; n-- > 0; lookups++) {
            unsigned i = (unsigned)(support_random(&random) % SLOTS);
            if (i % STABLE == 0)
                look_up_stable(i, &random);
            else
                look_up_changing(i);
        }
        epoch_leave(reader);
    }
    epoch_reader_give_back(reader);
    atomic_fetch_add(&spin_lookups, lookups);
    return NULL;
}

/* The range lies anywhere around the slot's middle, so that separators have to move. */
static void toggle(unsigned i, uintptr_t start[SLOTS], uint64_t *random)
{
    uint32_t changes = atomic_load(&slot_changes[i]);
    atomic_store(&slot_changes[i], changes + 1);
    if (changes % 4 == 2) {
        MODEL_CHECK(index_remove(&ranges, start[i]));
    } else {
        start[i] = slot_start(i) + support_random(random) % (SLOT / 2 + 1);
        uintptr_t last = slot_start(i) + SLOT / 2 + support_random(random) % (SLOT / 2);
        MODEL_CHECK(index_insert(&ranges, start[i], last + 1, i) == 0);
    }
    atomic_store(&slot_changes[i], changes + 2);
}

static uint64_t churn(uint64_t until, uint64_t *random)
{
    static uintptr_t start[SLOTS];
    uint64_t changes = 0;
    while (os_now() < until) {
        /* Here and there, then all of an area: few changes a leaf, then splits and merges on every level. */
        uint64_t first = support_random(random) % SLOTS, n = 1 + support_random(random) % 1500;
        bool scattered = support_random(random) % 2, absent = support_random(random) % 2;
        for (uint64_t k = 0; k < n; k++) {
            unsigned i = (unsigned)((scattered ? support_random(random) : first + k) % SLOTS);
            if (i % STABLE == 0 || (!scattered && absent != (atomic_load(&slot_changes[i]) % 4 == 0)))
                continue;
            toggle(i, start, random);
            changes++;
        }
        index_check(&ranges);
    }
    return changes;
}

static void readers_beside_a_writer(void **state)
{
    (void)state;
    const char *seconds = getenv("GREY_TEST_SECONDS");
    uint64_t random = support_seed();
    uint64_t until = os_now() + (uint64_t)((seconds != NULL ? strtod(seconds, NULL) : 2) * 1e9);
    pthread_t threads[READERS];
    for (unsigned i = 0; i < SLOTS; i += STABLE)
        assert_int_equal(index_insert(&ranges, slot_start(i), slot_start(i) + SLOT, i), 0);
    for (uintptr_t i = 0; i < READERS; i++) {
        void *seed = (void *)(uintptr_t)support_random(&random);
        assert_int_equal(pthread_create(&threads[i], NULL, spin, seed), 0);
    }
    uint64_t changes = churn(until, &random);
    atomic_store(&spin_stop, true);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    print_message("%llu lookups beside %llu changes, %zu nodes\n", (unsigned long long)spin_lookups,
                  (unsigned long long)changes, ranges.available + ranges.retired);
    assert_true(spin_lookups != 0 && changes != 0);
    epoch_poll();
    assert_int_equal(ranges.retired, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(neighbours),
        TEST(overlaps),
        TEST(enormous),
        TEST(orders),
        TEST(across_separators),
        TEST(random_operations),
#ifdef GREY_HOOKS
        TEST(refused_memory),
        TEST(random_refusals),
#endif
        TEST(epoch_waits_for_readers),
        TEST(epoch_relay),
        TEST(epoch_survives_fork),
        TEST(clear_wants_no_readers),
        TEST(readers_beside_a_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

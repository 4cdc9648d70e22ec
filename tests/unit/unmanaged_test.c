/* tests/unit/unmanaged_test.c -- persistent memory and pools.
 *
 * Requirements: UM-1, UM-3 to UM-8, UM-16, and of os/ the accounting that they rest on (OS-21).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support_os.h"

#include "heap/unmanaged.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static const size_t chunk_bytes = (size_t)256 << 10, large_bytes = (size_t)64 << 10;

static bool all_zero(const void *p, size_t size)
{
    const unsigned char *bytes = p;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

/* Each test begins and ends with nothing mapped, so a leak of any test is seen. */
static int nothing_mapped(void **state)
{
    (void)state;
    persistent_shutdown();
    if (os_mapped_total() != 0 || os_mapped_ready() != 0)
        return -1;
    return 0;
}

/* ---- persistent ------------------------------------------------------------------------------------- */

static void persistent_alignment_table(void **state)
{
    static const size_t sizes[] = {1, 7, 8, 9, 24, 100, 4096, 8192, 65535, 65536, 65537, 300000};
    (void)state;
    for (size_t alignment = 0; alignment <= 8192; alignment = alignment == 0 ? 1 : 2 * alignment) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            char *p = persistent_alloc(sizes[i], alignment, OS_SPANS);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % (alignment == 0 ? 8 : alignment), 0);
            assert_true(all_zero(p, sizes[i])); /* UM-4 */
            memset(p, 0xee, sizes[i]);          /* so an overlap with the next one is seen */
            assert_true(persistent_contains(p));
            assert_true(persistent_contains(p + sizes[i] - 1));
        }
    }
}

/* Every alignment with every size up to some, interleaved at random, so that each follows each other:
 * aligned, zero, never overlapping, and counted to the byte. */
static void persistent_every_alignment_and_size(void **state)
{
    enum { ALIGNMENTS = 15, SIZES = 160, ALL = ALIGNMENTS * SIZES };
    static struct request {
        unsigned char *got;
        size_t size, alignment;
        unsigned char mark;
    } requests[ALL];
    uint64_t seed = support_seed();
    (void)state;
    for (size_t i = 0; i < ALL; i++) {
        /* the last ones straddle the border of 64 KiB */
        size_t n = i % SIZES, size = n < SIZES - 8 ? n + 1 : large_bytes - 4 + (n - (SIZES - 8));
        size_t alignment = i / SIZES == 0 ? 0 : (size_t)1 << (i / SIZES - 1);
        requests[i] = (struct request){NULL, size, alignment, (unsigned char)(1 + i % 255)};
    }
    for (size_t i = ALL - 1; i > 0; i--) {
        size_t j = support_random(&seed) % (i + 1);
        struct request other = requests[i];
        requests[i] = requests[j];
        requests[j] = other;
    }
    size_t asked = 0;
    for (size_t i = 0; i < ALL; i++) {
        struct request *r = &requests[i];
        asked += r->size;
        r->got = persistent_alloc(r->size, r->alignment, OS_MARK);
        assert_non_null(r->got);
        assert_int_equal((uintptr_t)r->got % (r->alignment == 0 ? 8 : r->alignment), 0);
        assert_true(all_zero(r->got, r->size)); /* UM-4 */
        memset(r->got, r->mark, r->size);
        assert_int_equal(os_mapped(OS_MARK), asked); /* exactly what was asked for */
    }
    for (size_t i = 0; i < ALL; i++)
        for (size_t at = 0; at < requests[i].size; at++)
            if (requests[i].got[at] != requests[i].mark)
                fail_msg("%zu bytes aligned to %zu were overwritten", requests[i].size,
                         requests[i].alignment);
    for (int class = 0; class < OS_CLASSES; class ++)
        if (class != OS_MARK && class != OS_PERSISTENT)
            assert_int_equal(os_mapped((enum os_class) class), 0);
}

/* UM-3: chunks of 256 KiB, packed; from 64 KiB on straight from the operating system. */
static void persistent_large_boundary(void **state)
{
    (void)state;
    assert_non_null(persistent_alloc(8, 0, OS_SPANS));
    assert_int_equal(os_mapped_total(), chunk_bytes);
    char *below = persistent_alloc(large_bytes - 1, 1, OS_SPANS);
    assert_int_equal(os_mapped_total(), chunk_bytes);
    char *next = persistent_alloc(1, 1, OS_SPANS);
    assert_ptr_equal(next, below + large_bytes - 1); /* packed */
    assert_non_null(persistent_alloc(large_bytes, 0, OS_SPANS));
    size_t total = os_mapped_total();
    assert_true(total >= chunk_bytes + large_bytes);
    assert_true(total <= chunk_bytes + large_bytes + 2 * os_page_size());
    /* and the current chunk goes on being used */
    assert_ptr_equal(persistent_alloc(1, 1, OS_SPANS), next + 1);
    /* three more of nearly 64 KiB do not fit into its rest */
    for (int i = 0; i < 3; i++)
        assert_non_null(persistent_alloc(large_bytes - 1, 1, OS_SPANS));
    assert_int_equal(os_mapped_total(), total + chunk_bytes);
}

/* OS-21, UM-3: the bytes move to the class that asked; the sum stays. */
static void persistent_accounting(void **state)
{
    (void)state;
    assert_non_null(persistent_alloc(1000, 0, OS_SPANS));
    assert_non_null(persistent_alloc(500, 0, OS_MARK));
    assert_non_null(persistent_alloc(24, 0, OS_PERSISTENT));
    assert_non_null(persistent_alloc(large_bytes, 0, OS_MARK));
    assert_int_equal(os_mapped(OS_SPANS), 1000);
    assert_int_equal(os_mapped(OS_MARK), 500 + large_bytes);
    assert_int_equal(os_mapped_ready(), os_mapped_total());
    assert_int_equal(os_mapped(OS_PERSISTENT) + 1500 + large_bytes, os_mapped_total());
    persistent_shutdown();
    for (int class = 0; class < OS_CLASSES; class ++)
        assert_int_equal(os_mapped((enum os_class) class), 0);
}

static void persistent_contains_only_its_own(void **state)
{
    int local = 0;
    (void)state;
    assert_false(persistent_contains(&local));
    assert_false(persistent_contains(NULL));
    char *p = persistent_alloc(64, 0, OS_SPANS);
    char *q = os_alloc(chunk_bytes, OS_BITS);
    assert_true(persistent_contains(p));
    assert_false(persistent_contains(q));
    persistent_shutdown();
    assert_false(persistent_contains(p)); /* by address only: p is gone */
    os_free(q, chunk_bytes, OS_BITS, chunk_bytes, chunk_bytes);
}

static void ask_persistent(void *arg)
{
    const size_t *request = arg;
    persistent_alloc(request[0], request[1], (enum os_class)request[2]);
}

static void persistent_misuse_dies(void **state)
{
    (void)state;
    assert_dies(ask_persistent, (size_t[]){0, 8, OS_SPANS},
                "grey: internal: persistent allocation of 0 bytes");
    assert_dies(ask_persistent, (size_t[]){8, 24, OS_SPANS}, "with alignment 24");
    assert_dies(ask_persistent, (size_t[]){8, 16384, OS_SPANS}, "with alignment 16384");
    assert_dies(ask_persistent, (size_t[]){8, 8, OS_CLASSES}, "without a class");
}

/* A refusal is the caller's to report, and changes nothing. */
static void persistent_refused(void **state)
{
    (void)state;
    char *before = persistent_alloc(8, 8, OS_SPANS);
    size_t total = os_mapped_total();
    errno = 0;
    assert_null(persistent_alloc(SIZE_MAX - 100, 0, OS_SPANS));
    assert_int_equal(errno, ENOMEM);
    errno = 0;
    assert_null(persistent_alloc((size_t)1 << 47, 0, OS_SPANS));
    assert_int_equal(errno, ENOMEM);
#ifdef GREY_HOOKS
    os_fail_mapping(1, ENOMEM);
    assert_null(persistent_alloc(large_bytes, 0, OS_SPANS));
#endif
    assert_int_equal(os_mapped_total(), total);
    assert_int_equal(os_mapped(OS_SPANS), 8);
    assert_ptr_equal(persistent_alloc(8, 8, OS_SPANS), before + 8);
}

enum { THREADS = 4, REQUESTS = 3000 };

struct asker {
    pthread_t thread;
    uint64_t seed;
    unsigned char mark;
    unsigned char *got[REQUESTS];
    unsigned short size[REQUESTS];
};

static void *ask_often(void *arg)
{
    struct asker *asker = arg;
    for (int i = 0; i < REQUESTS; i++) {
        asker->size[i] = (unsigned short)(1 + support_random(&asker->seed) % 700);
        asker->got[i] =
            persistent_alloc(asker->size[i], (size_t)1 << support_random(&asker->seed) % 8, OS_SPANS);
        if (asker->got[i] == NULL || !all_zero(asker->got[i], asker->size[i]) ||
            !persistent_contains(asker->got[i])) /* UM-5: while others push chunks */
            return asker;
        memset(asker->got[i], asker->mark, asker->size[i]);
    }
    return NULL;
}

static void persistent_from_many_threads(void **state)
{
    static struct asker askers[THREADS];
    uint64_t seed = support_seed();
    size_t sum = 0;
    (void)state;
    for (int i = 0; i < THREADS; i++) {
        askers[i].seed = support_random(&seed);
        askers[i].mark = (unsigned char)(i + 1);
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_often, &askers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        assert_int_equal(pthread_join(askers[i].thread, &failed), 0);
        assert_null(failed);
    }
    for (int i = 0; i < THREADS; i++) {
        for (int j = 0; j < REQUESTS; j++) {
            sum += askers[i].size[j];
            for (int k = 0; k < askers[i].size[j]; k++)
                assert_int_equal(askers[i].got[j][k], askers[i].mark); /* nobody else's */
        }
    }
    assert_int_equal(os_mapped(OS_SPANS), sum);
}

/* ---- pools ------------------------------------------------------------------------------------------ */

static unsigned first_uses;

static void count_first_use(void *slot)
{
    first_uses++;
    *(uint64_t *)((char *)slot + 8) = 0x600d;
}

/* UM-6: reuse is LIFO, first use is called once a slot. */
static void pool_reuses_last_freed_first(void **state)
{
    struct pool pool;
    void *slots[100];
    (void)state;
    first_uses = 0;
    pool_init(&pool, 48, OS_POOL, count_first_use);
    pool.keep_dirty = true;
    for (int i = 0; i < 100; i++)
        assert_non_null(slots[i] = pool_alloc(&pool));
    assert_int_equal(first_uses, 100);
    assert_int_equal(pool.in_use, 100 * 48);
    for (int i = 0; i < 100; i++)
        pool_free(&pool, slots[i]);
    assert_int_equal(pool.in_use, 0);
    for (int i = 99; i >= 0; i--) {
        assert_ptr_equal(pool_alloc(&pool), slots[i]);
        assert_int_equal(((uint64_t *)slots[i])[1], 0x600d); /* kept: no first use again */
    }
    assert_int_equal(first_uses, 100);
    assert_int_equal(pool.in_use, 100 * 48);
    assert_non_null(pool_alloc(&pool));
    assert_int_equal(first_uses, 101);
}

/* UM-1, UM-16: what is freed goes to nobody but its pool, and never back to the system, so a reader that is
 * late still reads a slot.  The count and the figure tell use from room (UM-6). */
static void pool_never_gives_back(void **state)
{
    enum { SLOTS = 2000 };
    static uint64_t *slots[SLOTS];
    struct pool pool, other;
    (void)state;
    pool_init(&pool, 40, OS_POOL, NULL);
    pool_init(&other, 40, OS_SPANS, NULL);
    for (int round = 0; round < 3; round++) {
        size_t mapped = os_mapped_total();
        for (int i = 0; i < SLOTS; i++) {
            assert_non_null(slots[i] = pool_alloc(&pool));
            slots[i][4] = (uint64_t)i;
        }
        assert_int_equal(pool.in_use, SLOTS * 40);
        assert_true(round == 0 || os_mapped_total() == mapped);
        mapped = os_mapped_total();
        size_t room = os_mapped(OS_POOL), ready = os_mapped_ready();
        for (int i = 0; i < SLOTS; i++)
            pool_free(&pool, slots[i]);
        assert_int_equal(pool.in_use, 0);
        assert_int_equal(os_mapped_total(), mapped);
        assert_int_equal(os_mapped_ready(), ready);
        assert_int_equal(os_mapped(OS_POOL), room);
        for (int i = 0; i < SLOTS; i++) {
            assert_true(persistent_contains(slots[i]));
            assert_int_equal(slots[i][4], i); /* only the first word is the free list's (UM-7) */
        }
    }
    uint64_t *foreign = pool_alloc(&other); /* another pool of the same size: not one of those */
    for (int i = 0; i < SLOTS; i++)
        assert_ptr_not_equal(foreign, slots[i]);
}

/* UM-7: zeroed on reuse, or only the first word overwritten when asked to keep. */
static void pool_zeroes_on_reuse(void **state)
{
    static const size_t sizes[] = {8, 16, 40, 1024, 16384};
    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (int keep = 0; keep < 2; keep++) {
            struct pool pool;
            pool_init(&pool, sizes[i], OS_POOL, NULL);
            pool.keep_dirty = keep;
            unsigned char *slot = pool_alloc(&pool);
            assert_true(all_zero(slot, sizes[i])); /* fresh */
            memset(slot, 0xab, sizes[i]);
            pool_free(&pool, slot);
            uint64_t first;
            memcpy(&first, slot, sizeof(first));
            assert_int_not_equal(first, 0xabababababababab); /* overwritten */
            assert_ptr_equal(pool_alloc(&pool), slot);
            if (!keep)
                assert_true(all_zero(slot, sizes[i]));
            for (size_t j = 8; keep && j < sizes[i]; j++)
                assert_int_equal(slot[j], 0xab);
        }
    }
}

/* UM-6: at least a pointer; chunks of 16 KiB rounded down to whole objects; slots don't overlap. */
static void pool_sizes(void **state)
{
    static const size_t table[][2] = {{1, 8},     {8, 8},       {9, 16},       {24, 24},
                                      {100, 104}, {5000, 5000}, {16384, 16384}};
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct pool pool;
        size_t size = table[i][1], in_chunk = 16384 / size;
        persistent_shutdown();
        pool_init(&pool, table[i][0], OS_POOL, NULL);
        assert_int_equal(pool.size, size);
        for (size_t n = 1; n <= 2 * in_chunk; n++) {
            char *slot = pool_alloc(&pool);
            assert_int_equal((uintptr_t)slot % 8, 0);
            assert_true(all_zero(slot, size));
            memset(slot, 0x5a, size);
            assert_int_equal(pool.in_use, n * size);
            assert_int_equal(os_mapped(OS_POOL), (n + in_chunk - 1) / in_chunk * in_chunk * size);
        }
    }
}

static void make_pool(void *arg)
{
    struct pool pool;
    pool_init(&pool, *(size_t *)arg, OS_POOL, NULL);
}

static void use_uninitialised(void *arg)
{
    struct pool pool = {0};
    if (arg == NULL)
        pool_alloc(&pool);
    else
        pool_free(&pool, arg);
}

static void free_too_many(void *arg)
{
    struct pool pool;
    (void)arg;
    pool_init(&pool, 32, OS_POOL, NULL);
    void *slot = pool_alloc(&pool), *other = pool_alloc(&pool);
    pool_free(&pool, slot);
    pool_free(&pool, other);
    pool_free(&pool, slot);
}

static void pool_misuse_dies(void **state)
{
    size_t too_large = 16385;
    (void)state;
    assert_dies(make_pool, &too_large, "grey: internal: pool of objects of 16385 bytes");
    assert_dies(use_uninitialised, NULL, "grey: internal: pool used before its init");
    assert_dies(use_uninitialised, &too_large, "grey: internal: pool used before its init");
    assert_dies(free_too_many, NULL, "more slots freed than were allocated");
}

static struct os_lock pool_lock = OS_LOCK_INIT(OS_RANK_POOL);

static void use_unlocked(void *arg)
{
    struct pool pool;
    pool_init(&pool, 32, OS_POOL, NULL);
    pool.lock = &pool_lock;
    if (arg != NULL) {
        os_lock(&pool_lock);
        pool_free(&pool, pool_alloc(&pool));
        os_unlock(&pool_lock);
        _exit(23);
    }
    pool_alloc(&pool);
}

/* UM-6: the caller locks. */
static void pool_wants_its_lock_held(void **state)
{
    (void)state;
    assert_int_equal(run_child(use_unlocked, (void *)1)->status, 23);
#ifdef GREY_ASSERTS
    assert_dies(use_unlocked, NULL, "os_lock_held");
#endif
}

#ifdef GREY_HOOKS
static void pool_refused(void **state)
{
    struct pool pool;
    (void)state;
    pool_init(&pool, 64, OS_POOL, count_first_use);
    first_uses = 0;
    os_fail_mapping(1, ENOMEM);
    assert_null(pool_alloc(&pool));
    assert_int_equal(pool.in_use, 0);
    assert_int_equal(first_uses, 0);
    assert_non_null(pool_alloc(&pool));
    assert_int_equal(pool.in_use, 64);
}
#endif

/* Random allocs and frees against a model: no slot is handed out twice, the count is exact. */
static void pool_random(void **state)
{
    enum { SLOTS = 500 };
    static uint64_t *held[SLOTS];
    struct pool pool;
    uint64_t seed = support_seed();
    size_t n = 0;
    (void)state;
    pool_init(&pool, 72, OS_POOL, NULL);
    for (int step = 0; step < 50000; step++) {
        uint64_t dice = support_random(&seed);
        if (n < SLOTS && (n == 0 || dice % 2 == 0)) {
            held[n] = pool_alloc(&pool);
            assert_true(all_zero(held[n], 72));
            for (int i = 0; i < 9; i++)
                held[n][i] = (uintptr_t)held[n] + (uint64_t)i;
            n++;
        } else {
            size_t victim = dice / 2 % n;
            for (int i = 0; i < 9; i++)
                assert_int_equal(held[victim][i], (uintptr_t)held[victim] + (uint64_t)i);
            pool_free(&pool, held[victim]);
            held[victim] = held[--n];
        }
        assert_int_equal(pool.in_use, n * 72);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, nothing_mapped, nothing_mapped)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(persistent_alignment_table),
        TEST(persistent_every_alignment_and_size),
        TEST(persistent_large_boundary),
        TEST(persistent_accounting),
        TEST(persistent_contains_only_its_own),
        TEST(persistent_misuse_dies),
        TEST(persistent_refused),
        TEST(persistent_from_many_threads),
        TEST(pool_reuses_last_freed_first),
        TEST(pool_never_gives_back),
        TEST(pool_zeroes_on_reuse),
        TEST(pool_sizes),
        TEST(pool_misuse_dies),
        TEST(pool_wants_its_lock_held),
#ifdef GREY_HOOKS
        TEST(pool_refused),
#endif
        TEST(pool_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/api/stats_test.c -- struct grey_stats against what the program does (TR-5 .. TR-7, AL-16).
 *
 * A figure is exact when no thread runs.  The collector may still be at work when a call of the program
 * has returned (a cycle that a debug mode began, release of free pages), so tests that compare figures
 * wait until the figures are at rest.
 */
#include "grey.h"
#include "support_heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct grey_stats read_stats(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    assert_int_equal(grey_stats_read(&stats), 0);
    return stats;
}

__attribute__((noinline)) static void make_garbage(size_t count, size_t size)
{
    for (size_t i = 0; i < count; i++) {
        char *p = grey_alloc_leaf(size);
        assert_non_null(p);
        *p = 1;
    }
}

static void check_relations(const struct grey_stats *s)
{
    assert_int_equal(s->size, sizeof(*s));
    assert_true(s->forced_cycles <= s->cycles);
    assert_true(s->freed_bytes <= s->allocated_bytes);
    assert_true(s->freed_objects <= s->allocated_objects);
    assert_true(s->metadata <= s->mapped);
    assert_true(s->released <= s->mapped - s->metadata);
    assert_true(s->pause_p50_ns <= s->pause_p99_ns);
    assert_true(s->pause_p99_ns <= s->pause_p9999_ns);
    assert_true(s->pause_p9999_ns <= s->pause_max_ns);
    assert_true(s->pause_max_ns <= 10000000000u);
    assert_true(s->heap_objects <= UINT64_C(1) << 40);
}

/* TU-6, 0.3: unknown sizes. */
static void wrong_arguments(void **unused)
{
    (void)unused;
    assert_int_equal(grey_stats_read(NULL), EINVAL);
    static const size_t sizes[] = {0, 1, sizeof(struct grey_stats) - 8, sizeof(struct grey_stats) + 8,
                                   SIZE_MAX};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct grey_stats stats, copy;
        memset(&stats, 0xa5, sizeof(stats));
        stats.size = sizes[i];
        copy = stats;
        assert_int_equal(grey_stats_read(&stats), EINVAL);
        assert_memory_equal(&stats, &copy, sizeof(stats));
    }
}

static void *read_unattached(void *result)
{
    *(struct grey_stats *)result = read_stats();
    return grey_tls_.thread;
}

/* AL-16: reading does not attach. */
static void does_not_attach(void **unused)
{
    (void)unused;
    struct grey_stats before = heap_figures_at_rest(), inside;
    pthread_t thread;
    void *attached;
    assert_int_equal(pthread_create(&thread, NULL, read_unattached, &inside), 0);
    assert_int_equal(pthread_join(thread, &attached), 0);
    assert_null(attached);
    assert_int_equal(inside.threads, before.threads);
}

static void counts_allocation(void **unused)
{
    (void)unused;
    grey_collect();
    struct grey_stats before = heap_figures_at_rest();
    make_garbage(10000, 64);
    struct grey_stats after = heap_figures_at_rest();
    assert_int_equal(after.allocated_objects - before.allocated_objects, 10000);
    assert_int_equal(after.allocated_bytes - before.allocated_bytes, 10000 * 64);
    check_relations(&after);
}

static void counts_frees(void **unused)
{
    (void)unused;
    grey_collect();
    struct grey_stats before = heap_figures_at_rest();
    make_garbage(20000, 64);
    grey_collect();
    grey_collect(); /* what was born in a cycle is judged by the next */
    struct grey_stats after = heap_figures_at_rest();
    assert_in_range(after.freed_objects - before.freed_objects, 18000, UINT64_MAX);
    assert_in_range(after.freed_bytes - before.freed_bytes, 18000 * 64, UINT64_MAX);
    assert_int_equal(after.heap_objects, after.allocated_objects - after.freed_objects);
    check_relations(&after);
}

/* MK-17, TR-14 */
static void counts_forced_cycles(void **unused)
{
    (void)unused;
    struct grey_stats before = heap_figures_at_rest();
    for (int i = 0; i < 5; i++)
        grey_collect();
    struct grey_stats after = heap_figures_at_rest();
    assert_in_range(after.forced_cycles - before.forced_cycles, 5, 6);
    assert_in_range(after.cycles - before.cycles, 5, UINT64_MAX);
    /* each cycle has a round, and the caller answers it (protocol.md 1.4) */
    assert_in_range(after.rescan_rounds - before.rescan_rounds, 5, UINT64_MAX);
    assert_in_range(after.handshakes - before.handshakes, 5, UINT64_MAX);
    check_relations(&after);
}

static atomic_bool stop;

static void *load(void *unused)
{
    (void)unused;
    void **kept = grey_alloc(128 * sizeof(void *));
    for (unsigned i = 0; !atomic_load(&stop); i++) {
        void *p = i % 64 == 0 ? grey_alloc(1 << 16) : grey_alloc(16 + i % 512);
        assert_non_null(p);
        grey_store(&kept[i % 128], p);
    }
    return NULL;
}

/* TR-5: ten readings under load, and at least 100 more until cycles have run. */
static void cumulative_under_load(void **unused)
{
    (void)unused;
    static const size_t rising[] = {
#define FIELD(name) offsetof(struct grey_stats, name)
        FIELD(cycles),       FIELD(forced_cycles), FIELD(allocated_bytes), FIELD(allocated_objects),
        FIELD(freed_bytes),  FIELD(freed_objects), FIELD(pause_count),     FIELD(pause_total_ns),
        FIELD(pause_max_ns), FIELD(assist_ns),     FIELD(worker_ns),       FIELD(sweep_ns),
        FIELD(handshakes),   FIELD(rescan_rounds),
#undef FIELD
    };
    pthread_t threads[2];
    atomic_store(&stop, false);
    for (int i = 0; i < 2; i++)
        assert_int_equal(grey_thread_create(&threads[i], NULL, load, NULL), 0);
    struct grey_stats before = read_stats();
    uint64_t first_cycle = before.cycles;
    for (int i = 0; i < 110 || before.cycles < first_cycle + 3; i++) {
        if (i % 20 == 10)
            grey_collect();
        struct grey_stats now = read_stats();
        check_relations(&now);
        for (size_t f = 0; f < sizeof(rising) / sizeof(rising[0]); f++) {
            uint64_t old, new;
            memcpy(&old, (char *)&before + rising[f], sizeof(old));
            memcpy(&new, (char *)&now + rising[f], sizeof(new));
            if (new < old)
                fail_msg("the field at offset %zu went from %llu to %llu", rising[f], (unsigned long long)old,
                         (unsigned long long)new);
        }
        before = now;
        usleep(1000);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
    assert_true(before.pause_count > 0 && before.pause_total_ns >= before.pause_max_ns);
}

/* grey.h: what this release does not have says so. */
static void later_calls_say_so(void **unused)
{
    (void)unused;
    assert_int_equal(grey_heap_profile_write(STDOUT_FILENO), ENOSYS);
    assert_int_equal(grey_heap_why(&stop, STDOUT_FILENO), ENOSYS);
    errno = 0;
    grey_set_trace(NULL, NULL);
    assert_int_equal(errno, ENOSYS);
}

int main(void)
{
    if (grey_init(NULL) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_arguments),      cmocka_unit_test(does_not_attach),
        cmocka_unit_test(counts_allocation),    cmocka_unit_test(counts_frees),
        cmocka_unit_test(counts_forced_cycles), cmocka_unit_test(cumulative_under_load),
        cmocka_unit_test(later_calls_say_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

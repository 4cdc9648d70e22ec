/* tests/api/collect_test.c -- collection as a program sees it: what is unreachable goes, what is reachable
 * stays, by every way that reachability is defined; and the calls that ask for cycles and tune them.
 *
 * Requirements: MK-11, MK-16, MK-17, MK-20, MK-22, PC-2, PC-13, SC-7, AL-20, FR-23's rule for stacks (D-4).
 */
#include "support_child.h"
#include "support_heap.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct node {
    struct node *left, *right;
    void *leaf;
    uint64_t number;
};
GREY_TYPE(node_type, struct node, left, right, leaf);
GREY_ROOT(void *, any);

__attribute__((noinline)) static struct node *build(int depth, uint64_t *count)
{
    struct node *node = grey_new(&node_type);
    assert_non_null(node);
    node->number = (*count)++;
    grey_store(&node->leaf, heap_marked_leaf(32, node->number));
    if (depth > 0) {
        grey_store(&node->left, build(depth - 1, count));
        grey_store(&node->right, build(depth - 1, count));
    }
    return node;
}

static uint64_t check(const struct node *node)
{
    if (node == NULL)
        return 0;
    assert_true(heap_leaf_is_intact(node->leaf, node->number));
    return 1 + check(node->left) + check(node->right);
}

enum { TREES = 200 };
GREY_ROOT(
    struct { struct node *trees[TREES]; }, forest);

/* Small ones: a word on some stack may keep a whole tree. */
__attribute__((noinline)) static uint64_t build_forest(void)
{
    uint64_t count = 0;
    for (int i = 0; i < TREES; i++) {
        struct node *root = build(5, &count);
        grey_store(&forest.trees[i], root);
    }
    return count;
}
__attribute__((noinline)) static uint64_t check_forest(void)
{
    uint64_t count = 0;
    for (int i = 0; i < TREES; i++)
        count += check(forest.trees[i]);
    return count;
}
__attribute__((noinline)) static uint64_t add_up_addresses(void)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < TREES; i++)
        sum += (i + 1) * (uintptr_t)forest.trees[i]->left->right;
    return sum;
}
__attribute__((noinline)) static void close_rings(void)
{
    for (int i = 0; i < TREES; i++)
        grey_store(&forest.trees[i]->left->left->left, forest.trees[i]);
}

/* Live data survives many cycles at the same addresses (AL-20); dropped, it goes, rings too. */
static void trees_live_and_die(void **unused)
{
    (void)unused;
    uint64_t count = build_forest(), addresses = add_up_addresses();
    for (int i = 0; i < 10; i++) {
        grey_collect();
        heap_reuse_free_memory();
        assert_int_equal(check_forest(), count);
        assert_int_equal(add_up_addresses(), addresses);
    }
    close_rings();
    heap_collect_twice();
    struct grey_stats before = heap_figures();
    grey_clear(&forest, sizeof(forest));
    heap_assert_freed(&before, 2 * count * 8 / 10); /* each such word keeps a whole tree */
}

/* ---- what keeps an object ------------------------------------------------------------------------------ */

enum { N = 300 };

/* From a stack: at the start, inside, one past the end (D-4).  The word is the only one. */
__attribute__((noinline)) static void hold_on_stack(size_t size, size_t offset)
{
    char *volatile words[N];
    for (uint64_t i = 0; i < N; i++)
        words[i] = (char *)heap_marked_leaf(size, i) + offset;
    heap_collect_twice();
    heap_reuse_free_memory();
    for (uint64_t i = 0; i < N; i++)
        if (!heap_leaf_is_intact(words[i] - offset, i))
            fail_msg("%zu bytes, held at offset %zu: object %d died", size, offset, (int)i);
}

static void kept_by_stack_words(void **unused)
{
    (void)unused;
    static const size_t sizes[] = {16, 48, 512, 8192};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        hold_on_stack(sizes[s], 0);
        hold_on_stack(sizes[s], 1);
        hold_on_stack(sizes[s], sizes[s] / 2);
        hold_on_stack(sizes[s], sizes[s] - 1);
        hold_on_stack(sizes[s], sizes[s]); /* one past the end; the cell is exactly that long */
    }
}

__attribute__((noinline)) static void hold_in_memory(void **words, size_t size, size_t offset)
{
    for (uint64_t i = 0; i < N; i++)
        grey_store(&words[i], (char *)heap_marked_leaf(size, i) + offset);
}

/* From heap objects, typed or not, and from roots: any byte of it. */
static void kept_by_interior_words(void **unused)
{
    (void)unused;
    static const size_t offsets[] = {0, 1, 8, 40, 63};
    for (size_t o = 0; o < sizeof(offsets) / sizeof(offsets[0]); o++) {
        grey_store(&any, grey_alloc(N * sizeof(void *)));
        hold_in_memory(any, 64, offsets[o]);
        heap_collect_twice();
        heap_reuse_free_memory();
        for (uint64_t i = 0; i < N; i++)
            assert_true(heap_leaf_is_intact(((char **)any)[i] - offsets[o], i));
        struct grey_stats before = heap_figures();
        grey_clear(any, N * sizeof(void *)); /* a word on some stack may keep the array */
        heap_assert_freed(&before, N);
    }
}

/* Not by leaf objects, nor by memory that grey does not know (UM-9). */
static void not_kept_from_elsewhere(void **unused)
{
    (void)unused;
    void **libc = calloc(N, sizeof(void *));
    heap_collect_twice();
    struct grey_stats before = heap_figures();
    hold_in_memory(libc, 64, 0);
    heap_assert_freed(&before, N);
    memset(libc, 0, N * sizeof(void *));
    free(libc);
    grey_store(&any, grey_zalloc_leaf(N * sizeof(void *)));
    before = heap_figures();
    hold_in_memory(any, 64, 0);
    heap_assert_freed(&before, N);
    memset(any, 0, N * sizeof(void *));
    grey_store(&any, NULL);
}

/* MK-22: alive up to the call, though only its bytes are used before. */
__attribute__((noinline)) static void keep_alive_to_the_call(void)
{
    uint64_t *object = grey_alloc_leaf(64), *inside = object + 3;
    uint64_t *volatile hidden = (uint64_t *)~(uintptr_t)inside;
    *object = 77;
    inside = NULL;
    heap_collect_twice();
    heap_reuse_free_memory();
    inside = (uint64_t *)~(uintptr_t)hidden;
    assert_int_equal(inside[-3], 77);
    grey_keep_alive(object);
}
static void kept_alive(void **unused)
{
    (void)unused;
    for (int i = 0; i < 20; i++)
        keep_alive_to_the_call();
}

/* ---- asking for cycles --------------------------------------------------------------------------------- */

static void *collect_ten_times(void *unused)
{
    (void)unused;
    for (int i = 0; i < 10; i++) {
        /* a cycle that began after the call: what is dropped now is gone then */
        uint64_t before = heap_figures().cycles;
        grey_collect();
        if (heap_figures().cycles <= before)
            return NULL;
    }
    return (void *)1;
}

/* MK-17: many callers may share a cycle, each waits for one that began after its call. */
static void collected_from_many_threads(void **unused)
{
    (void)unused;
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    struct grey_stats before = heap_figures();
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(grey_thread_create(&threads[i], NULL, collect_ten_times, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        assert_int_equal(grey_thread_join(threads[i], &result), 0);
        assert_non_null(result);
    }
    struct grey_stats after = heap_figures();
    assert_in_range(after.forced_cycles - before.forced_cycles, 10, 10 * THREADS + 1);
}

/* ---- a kernel that changes its mind ---------------------------------------------------------------------- */

static bool filter_membarrier(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof program[0], program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) == 0;
}

static _Atomic bool refused_enough;

static void *allocate_meanwhile(void *unused)
{
    while (!refused_enough)
        check(build(3, &(uint64_t){0}));
    return unused;
}

static void *compute_meanwhile(void *unused)
{
    while (!refused_enough)
        ;
    return unused;
}

/* From one cycle to the next membarrier is refused, to all threads: each FENCE is a handshake then. */
static void membarrier_is_refused(void)
{
    uint64_t count = build_forest();
    pthread_t threads[2];
    CHILD_CHECK(grey_thread_create(&threads[0], NULL, allocate_meanwhile, NULL) == 0);
    CHILD_CHECK(grey_thread_create(&threads[1], NULL, compute_meanwhile, NULL) == 0);
    grey_collect();
    if (filter_membarrier()) { /* else filters are not for us here */
        CHILD_CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) == -1 && errno == ENOMEM);
        struct grey_stats before = heap_figures();
        for (int i = 0; i < 5; i++)
            grey_collect();
        heap_reuse_free_memory();
        CHILD_CHECK(heap_figures().cycles >= before.cycles + 5);
        CHILD_CHECK(check_forest() == count);
    }
    refused_enough = true;
    for (int i = 0; i < 2; i++)
        CHILD_CHECK(grey_thread_join(threads[i], NULL) == 0);
}

static void goes_on_without_membarrier(void **unused)
{
    (void)unused;
    child_passes("membarrier_is_refused", NULL);
}

static bool wait_for_cycles(uint64_t number)
{
    for (int i = 0; i < 2000; i++) {
        if (heap_figures().cycles >= number)
            return true;
        usleep(5000);
    }
    return false;
}

static void started_and_not_waited_for(void **unused)
{
    (void)unused;
    for (int i = 0; i < 10; i++) {
        struct grey_stats before = heap_figures_at_rest();
        grey_collect_start();
        assert_true(wait_for_cycles(before.cycles + 1));
        assert_true(heap_figures().forced_cycles > before.forced_cycles);
    }
}

static void percent_round_trips(void **unused)
{
    (void)unused;
    int first = grey_set_percent(123);
    for (int i = 0; i < 123; i++) {
        assert_int_equal(grey_set_percent(i), i == 0 ? 123 : i - 1);
        assert_non_null(grey_alloc(100));
    }
    assert_int_equal(grey_set_percent(-100), 122);
    assert_int_equal(grey_set_percent(-1), -1);
    assert_int_equal(grey_set_percent(2147483647), -1);
    assert_int_equal(grey_set_percent(first), 2147483647);
}

__attribute__((noinline)) static void make_garbage(size_t bytes)
{
    for (size_t done = 0; done < bytes; done += 1024)
        assert_non_null(grey_alloc_leaf(1024));
}

/* PC-2, PC-13.  gcstress asks for cycles by itself, so then there is nothing to see. */
static void off_means_off(void **unused)
{
    (void)unused;
    const char *debug = getenv("GREY_DEBUG");
    if (debug != NULL && strstr(debug, "gcstress") != NULL)
        skip();
    int old = grey_set_percent(-1);
    struct grey_stats before = heap_figures_at_rest();
    make_garbage(64 << 20);
    assert_int_equal(heap_figures_at_rest().cycles, before.cycles);
    grey_collect(); /* forced ones run all the same */
    assert_true(heap_figures().cycles > before.cycles);
    /* back on: allocation alone starts them */
    grey_set_percent(100);
    before = heap_figures_at_rest();
    for (int i = 0; i < 100 && heap_figures().cycles == before.cycles; i++)
        make_garbage(8 << 20);
    assert_true(heap_figures().cycles > before.cycles);
    assert_int_equal(heap_figures().forced_cycles, before.forced_cycles);
    grey_set_percent(old);
}

/* Off waits for running marking to end: afterwards no phase is on. */
static void off_waits_for_marking(void **unused)
{
    (void)unused;
    build_forest();
    for (int i = 0; i < 50; i++) {
        grey_collect();
        uint64_t cycles = heap_figures().cycles;
        grey_collect_start();
        while (__atomic_load_n(&grey_phase_, __ATOMIC_ACQUIRE) == 0 && heap_figures().cycles == cycles)
            ;
        grey_set_percent(-1);
        assert_int_equal(__atomic_load_n(&grey_phase_, __ATOMIC_ACQUIRE), 0);
        grey_set_percent(100);
    }
    grey_clear(&forest, sizeof(forest));
}

/* ---- memory given back --------------------------------------------------------------------------------- */

static void hold_many(void)
{
    grey_store(&any, grey_alloc(32 * sizeof(void *)));
    for (int i = 0; i < 32; i++) {
        char *block = grey_alloc_leaf(1 << 20);
        memset(block, 1, 1 << 20);
        grey_store(&((void **)any)[i], block);
    }
}

static size_t resident(void)
{
    unsigned long size, pages;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu %lu", &size, &pages), 2);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* SC-7, TestFreeOSMemory: 32 MiB dropped, at least half of it comes back; and can be used again. */
static void trimmed(void **unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++) {
        grey_trim();
        hold_many();
        size_t full = resident();
        uint64_t before = heap_figures().released;
        grey_store(&any, NULL);
        heap_wipe_stack();
        grey_trim();
        heap_wipe_stack();
        grey_trim();
        assert_true(heap_figures().released >= before + (16 << 20));
        assert_true(resident() + (16 << 20) <= full);
    }
}

static const struct child_case cases[] = {{"membarrier_is_refused", membarrier_is_refused}};

int main(int argc, char **argv)
{
    CHILD_MAIN(argc, argv, cases);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trees_live_and_die),
        cmocka_unit_test(kept_by_stack_words),
        cmocka_unit_test(kept_by_interior_words),
        cmocka_unit_test(not_kept_from_elsewhere),
        cmocka_unit_test(kept_alive),
        cmocka_unit_test(collected_from_many_threads),
        cmocka_unit_test(goes_on_without_membarrier),
        cmocka_unit_test(started_and_not_waited_for),
        cmocka_unit_test(percent_round_trips),
        cmocka_unit_test(off_means_off),
        cmocka_unit_test(off_waits_for_marking),
        cmocka_unit_test(trimmed),
    };
    return cmocka_run_group_tests_name("collect", tests, NULL, NULL);
}

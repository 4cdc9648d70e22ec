/* tests/unit/os_states_test.c -- the four states of memory: every transition, and the figures they move.
 *
 * Requirements: OS-1 to OS-7, OS-13, OS-21.  The transitions are one table, each call in each state; the
 * illegal ones must die in debug builds (OS-3) and name the state that they found, each in a child of its
 * own.  The figures are also checked by a random walk against a model, and in debug builds against the
 * ledger.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support_os.h"

#include "os/ledger.h"
#include "os/os.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static const size_t block = GREY_PAGE; /* a multiple of the kernel's page on x86-64 */

static int nothing_mapped(void **state)
{
    (void)state;
    os_memory_init();
    return os_mapped_total() == 0 && os_mapped_ready() == 0 ? 0 : -1;
}

static void must(bool done)
{
    if (!done)
        _exit(66);
}

/* ---- the table of OS-2 ------------------------------------------------------------------------------- */

enum state { NONE, RESERVED, PREPARED, READY, STATES };
static const char *const state_names[STATES] = {"None", "Reserved", "Prepared", "Ready"};

static void *make(enum state state, size_t size)
{
    char *p = os_reserve(NULL, size);
    must(p != NULL);
    if (state == NONE)
        os_unreserve(p, size);
    if (state >= PREPARED)
        must(os_map(p, size, OS_HEAP, NULL) == 0);
    if (state == READY)
        must(os_used(p, size, size) == 0);
    return p;
}

static void do_map(char *p, size_t n) { must(os_map(p, n, OS_HEAP, NULL) == 0); }
static void do_used(char *p, size_t n) { must(os_used(p, n, n) == 0); }
static void do_used_again(char *p, size_t n) { must(os_used(p, n, 0) == 0); }
static void do_unused(char *p, size_t n) { os_unused(p, n); }
static void do_fault(char *p, size_t n) { os_fault(p, n, OS_HEAP); }
static void do_unreserve(char *p, size_t n) { os_unreserve(p, n); }
static void do_free_ready(char *p, size_t n) { os_free(p, n, OS_HEAP, n, n); }
static void do_free_prepared(char *p, size_t n) { os_free(p, n, OS_HEAP, n, 0); }
static void do_free_reserved(char *p, size_t n) { os_free(p, n, OS_HEAP, 0, 0); }

/* What an illegal call must say of the range.  used and free take several states and are told how much of the
 * range is in which: there the amount is what is wrong. */
#define NO "which is None"
#define RS "which is Reserved"
#define PR "which is Prepared"
#define RD "which is Ready"
#define N_READY "another amount is Ready"
#define N_PREPARED "another amount is Prepared"
#define N_MAPPED "another amount is mapped"
#define LEGAL NULL

static const struct operation {
    const char *name;
    void (*run)(char *p, size_t n);
    const char *wrong[STATES];
} operations[] = {
    /*                               None Reserved Prepared Ready */
    {"map", do_map, {NO, LEGAL, PR, RD}},
    {"used", do_used, {NO, RS, LEGAL, N_PREPARED}},
    {"used", do_used_again, {NO, RS, N_PREPARED, LEGAL}}, /* OS-6: harmless */
    {"unused", do_unused, {NO, RS, PR, LEGAL}},
    {"fault", do_fault, {"of another class", "of another class", PR, LEGAL}},
    {"unreserve", do_unreserve, {NO, LEGAL, PR, RD}},
    {"free", do_free_ready, {NO, N_READY, N_READY, LEGAL}},
    {"free", do_free_prepared, {NO, N_MAPPED, LEGAL, N_READY}},
    {"free", do_free_reserved, {NO, LEGAL, N_MAPPED, N_READY}},
};

struct attempt {
    const struct operation *operation;
    enum state state;
};

static void try_operation(void *arg)
{
    const struct attempt *attempt = arg;
    attempt->operation->run(make(attempt->state, 4 * block), 4 * block);
}

static void every_transition(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(operations); i++) {
        for (int s = NONE; s < STATES; s++) {
            struct attempt attempt = {&operations[i], (enum state)s};
            bool legal = operations[i].wrong[s] == LEGAL;
#ifndef GREY_ASSERTS
            if (!legal)
                continue; /* only debug builds notice */
#endif
            const struct child_end *end = run_child(try_operation, &attempt);
            char expected[64];
            snprintf(expected, sizeof(expected), "grey: internal: illegal transition: %s of",
                     operations[i].name);
            bool right = legal ? end->status == 0 && end->message[0] == '\0'
                               : end->signal == SIGABRT && strstr(end->message, expected) != NULL &&
                                     strstr(end->message, operations[i].wrong[s]) != NULL;
            if (!right)
                fail_msg("%s (%zu) in %s: signal %d, status %d, \"%s\"", operations[i].name, i,
                         state_names[s], end->signal, end->status, end->message);
        }
    }
}

#ifdef GREY_ASSERTS
/* Two blocks Reserved, two Prepared, two Ready, in one reservation of six. */
static char *make_mixed(void)
{
    char *p = make(RESERVED, 6 * block);
    must(os_map(p + 2 * block, 4 * block, OS_HEAP, NULL) == 0);
    must(os_used(p + 4 * block, 2 * block, 2 * block) == 0);
    return p;
}

/* What is tried on make_mixed()'s p, the words that it must die with. */
#define MIXED(X)                                                                                             \
    X("map reaches into Prepared", "map of", os_map(p, 3 * block, OS_HEAP, NULL))                            \
    X("used reaches into Reserved", "used of", os_used(p + block, 3 * block, 2 * block))                     \
    X("used with a wrong count", "used of", os_used(p + 2 * block, 2 * block, block))                        \
    X("used counts Ready as Prepared", "used of", os_used(p + 2 * block, 4 * block, 4 * block))              \
    X("unused reaches into Prepared", "unused of", os_unused(p + 3 * block, 2 * block))                      \
    X("unused reaches into None", "which is None", os_unused(p + 5 * block, (size_t)1 << 40))                \
    X("fault of another class", "of another class", os_fault(p + 4 * block, block, OS_BITS))                 \
    X("free of a part", "not what was reserved",                                                             \
      os_free(p + 2 * block, 4 * block, OS_HEAP, 4 * block, 2 * block))                                      \
    X("free says too much is Ready", "another amount is Ready",                                              \
      os_free(p, 6 * block, OS_HEAP, 4 * block, 3 * block))                                                  \
    X("free says too little is mapped", "another amount is mapped",                                          \
      os_free(p, 6 * block, OS_HEAP, 3 * block, 2 * block))                                                  \
    X("free of another class", "of another class", os_free(p, 6 * block, OS_BITS, 4 * block, 2 * block))     \
    X("unreserve of a part", "not what was reserved", os_unreserve(p, block))                                \
    X("unreserve reaches into mapped", "unreserve of", os_unreserve(p, 6 * block))

static void do_mixed(void *arg)
{
    char *p = make_mixed();
    int number = *(const int *)arg;
#define X(what, message, call)                                                                               \
    if (number-- == 0)                                                                                       \
        call;
    MIXED(X)
#undef X
}

/* Neighbours, but reserved by two calls: the first address of one and the end of the other. */
static void unreserve_two(void *arg)
{
    char *q = make(RESERVED, 2 * block);
    (void)arg;
    os_unreserve(q, 2 * block);
    must(os_reserve(q, block) == q && os_reserve(q + block, block) == q + block);
    os_unreserve(q, 2 * block);
}

static void mixed_ranges_die(void **state)
{
    static const char *const messages[][2] = {
#define X(what, message, call) {what, message},
        MIXED(X)
#undef X
    };
    (void)state;
    for (int i = 0; i < (int)LENGTH(messages); i++) {
        const struct child_end *end = run_child(do_mixed, &i);
        if (end->signal != SIGABRT || strstr(end->message, "illegal transition") == NULL ||
            strstr(end->message, messages[i][1]) == NULL)
            fail_msg("%s: signal %d, \"%s\"", messages[i][0], end->signal, end->message);
    }
    assert_dies(unreserve_two, NULL, "not what was reserved");
}
#endif

/* These die in every build: OS-5 (no statistic), OS-7, OS-17. */
#define FATAL(X)                                                                                             \
    X("unused of 4096 bytes: not whole pages", os_unused(p + 8, 4096))                                       \
    X("unused of 4104 bytes: not whole pages", os_unused(p, 4096 + 8))                                       \
    X("unused of 0 bytes: not whole pages", os_unused(p, 0))                                                 \
    X("collapse of 4096 bytes: not whole pages", os_collapse(p + 8, 4096))                                   \
    X("without a class", os_alloc(4096, OS_CLASSES))                                                         \
    X("reserve with alignment 12288", os_reserve_aligned(NULL, &size, 3 * 4096))                             \
    X("alloc of 100 bytes: not whole pages", os_alloc(100, OS_HEAP))                                         \
    X("negative", os_recount(OS_POOL, OS_HEAP, 1)) /* nothing is counted there */

static void do_fatal(void *arg)
{
    char *p = make(READY, 4 * block);
    size_t size = 4096;
    int number = *(const int *)arg;
#define X(message, call)                                                                                     \
    if (number-- == 0)                                                                                       \
        call;
    FATAL(X)
#undef X
}

static void always_fatal(void **state)
{
    static const char *const messages[] = {
#define X(message, call) message,
        FATAL(X)
#undef X
    };
    (void)state;
    for (int i = 0; i < (int)LENGTH(messages); i++)
        assert_dies(do_fatal, &i, messages[i]);
}

/* ---- figures ----------------------------------------------------------------------------------------- */

struct figures {
    size_t heap, bits, ready;
};

static void assert_figures(struct figures expected)
{
    size_t sum = 0;
    assert_int_equal(os_mapped(OS_HEAP), expected.heap);
    assert_int_equal(os_mapped(OS_BITS), expected.bits);
    assert_int_equal(os_mapped_ready(), expected.ready);
    for (int i = 0; i < OS_CLASSES; i++)
        sum += os_mapped((enum os_class)i);
    assert_int_equal(os_mapped_total(), sum); /* OS-21 */
#ifdef GREY_ASSERTS
    size_t mapped, ready;
    ledger_totals(&mapped, &ready);
    assert_int_equal(mapped, sum);
    assert_int_equal(ready, expected.ready);
#endif
}

/* OS-4, OS-5, OS-6, one by one. */
static void figures_of_each_transition(void **state)
{
    (void)state;
    char *p = os_reserve(NULL, 10 * block);
    assert_figures((struct figures){0, 0, 0});
    assert_int_equal(os_map(p, 8 * block, OS_HEAP, NULL), 0);
    assert_figures((struct figures){8 * block, 0, 0});
    assert_int_equal(os_used(p, 4 * block, 4 * block), 0);
    assert_figures((struct figures){8 * block, 0, 4 * block});
    assert_int_equal(os_used(p + 2 * block, 4 * block, 2 * block), 0); /* half Ready already */
    assert_figures((struct figures){8 * block, 0, 6 * block});
    assert_int_equal(os_used(p, 6 * block, 0), 0);
    assert_figures((struct figures){8 * block, 0, 6 * block});
    os_unused(p + block, block);
    assert_figures((struct figures){8 * block, 0, 5 * block});
    os_fault(p + 2 * block, 2 * block, OS_HEAP);
    assert_figures((struct figures){6 * block, 0, 3 * block});
    assert_int_equal(os_map(p + 2 * block, block, OS_HEAP, NULL), 0);
    assert_figures((struct figures){7 * block, 0, 3 * block});
    char *q = os_alloc(3 * block, OS_BITS);
    assert_figures((struct figures){7 * block, 3 * block, 6 * block});
    os_recount(OS_BITS, OS_HEAP, block);
    assert_int_equal(os_mapped(OS_HEAP), 8 * block);
    assert_int_equal(os_mapped(OS_BITS), 2 * block);
    os_recount(OS_HEAP, OS_BITS, block);
    os_free(q, 3 * block, OS_BITS, 3 * block, 3 * block);
    assert_figures((struct figures){7 * block, 0, 3 * block});
    os_free(p, 10 * block, OS_HEAP, 7 * block, 3 * block);
    assert_figures((struct figures){0, 0, 0});
}

/* A random walk over blocks of one reservation, with a model of each block's state. */
static void figures_random(void **state)
{
    enum { BLOCKS = 64, STEPS = 4000 };
    enum state model[BLOCKS];
    size_t mapped = 0, ready = 0;
    uint64_t seed = support_seed();
    (void)state;
    char *p = os_reserve(NULL, BLOCKS * block);
    for (int i = 0; i < BLOCKS; i++)
        model[i] = RESERVED;
    for (int step = 0; step < STEPS; step++) {
        size_t at = support_random(&seed) % BLOCKS, n = 1;
        size_t most = 1 + support_random(&seed) % 8;
        while (n < most && at + n < BLOCKS && model[at + n] == model[at])
            n++;
        char *q = p + at * block;
        enum state to = RESERVED;
        if (model[at] == RESERVED) {
            assert_int_equal(os_map(q, n * block, OS_HEAP, NULL), 0);
            mapped += n * block;
            to = PREPARED;
        } else if (model[at] == PREPARED) {
            assert_int_equal(os_used(q, n * block, n * block), 0);
            ready += n * block;
            to = READY;
            memset(q, 0x11, n * block); /* it can be used */
        } else if (support_random(&seed) % 3 != 0) {
            os_unused(q, n * block);
            ready -= n * block;
            to = PREPARED;
        } else {
            os_fault(q, n * block, OS_HEAP);
            ready -= n * block;
            mapped -= n * block;
        }
        for (size_t i = 0; i < n; i++)
            model[at + i] = to;
        assert_figures((struct figures){mapped, 0, ready});
    }
    os_free(p, BLOCKS * block, OS_HEAP, mapped, ready);
    assert_figures((struct figures){0, 0, 0});
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, nothing_mapped, nothing_mapped)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_transition),
#ifdef GREY_ASSERTS
        TEST(mixed_ranges_die),
#endif
        TEST(always_fatal),     TEST(figures_of_each_transition), TEST(figures_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

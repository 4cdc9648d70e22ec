/* tests/api/foreign_keep_test.c -- what keeps a foreign region alive, and what does not.
 *
 * Requirements: FR-10, FR-19, FR-20, FR-21, FR-23, FR-24, MK-9, ER-9.  Every keeper is tried with pointers to
 * the first, a middle and the last byte, and with the two addresses beside the region, and then dropped.  All
 * of that is done on threads that end (support_foreign.h), so a region that must die dies, in two cycles at
 * the latest (MK-21).  Registers: tests/hooks/foreign_hidden_test.c.
 */
#include "support_child.h"
#include "support_foreign.h"
#include "support_heap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
enum { SIZE = 4096, BIG = 1 << 20, WORDS = BIG / 8 };

GREY_ROOT(void *, root);
static struct region kept, second;
static void drop_roots(void) { grey_store(&root, NULL); }

struct record {
    uint64_t number;
    void *pointer;
    uint64_t same; /* no pointer field */
};
GREY_TYPE(record_type, struct record, pointer);

/* ---- by what it is kept ---------------------------------------------------------------------------- */

static void **unmanaged; /* BIG bytes */
static long at;          /* what is held is the region's start plus this */
static char *held(void) { return region_start(&kept) + at; }

static void by_root(void) { grey_store(&root, held()); }
static void by_typed(void)
{
    struct record *object = grey_new(&record_type);
    grey_store(&object->pointer, (void *)held());
    grey_store(&root, object);
}
static void by_untyped(void)
{
    void **object = grey_alloc(200);
    grey_store(&object[24], (void *)held());
    grey_store(&root, object);
}
static void by_large(void)
{
    void **object = grey_alloc(BIG);
    grey_store(&object[WORDS - 1], (void *)held());
    grey_store(&root, object);
}
static void by_list(void)
{
    for (int i = 0; i < 500; i++) {
        struct record *object = grey_new(&record_type);
        grey_store(&object->pointer, i == 0 ? (void *)held() : root);
        grey_store(&root, object);
    }
}
static void by_move(void)
{
    void *from[3] = {NULL, held(), NULL};
    void **object = grey_alloc(sizeof(from));
    grey_move(object, from, sizeof(from));
    grey_store(&root, object);
}
static void by_exchange(void)
{
    struct record *object = grey_new(&record_type);
    void *none = NULL;
    grey_exchange(&object->pointer, (void *)&none);
    grey_exchange(&object->pointer, (void *)NULL);
    assert_true(grey_compare_exchange(&object->pointer, &none, (void *)held()));
    grey_store(&root, object);
}
static void by_raw_store(void)
{
    struct record *object = grey_new(&record_type);
    grey_store(&root, object);
    char *p = held();
    __atomic_store_n(&object->pointer, (void *)p, __ATOMIC_RELAXED);
    grey_touch(object);
    grey_keep_alive(p);
}
static void by_registered_root(void)
{
    assert_int_equal(grey_root_add(unmanaged, SIZE), 0);
    grey_store(&unmanaged[SIZE / 8 - 1], (void *)held());
}
static void no_registered_root(void)
{
    assert_int_equal(grey_root_remove(unmanaged, SIZE), 0);
    unmanaged[SIZE / 8 - 1] = NULL;
}
static void by_scanned_region(void)
{
    region_new(&second, SIZE, GREY_FOREIGN_SCAN);
    void **words = (void **)(void *)region_start(&second);
    grey_store(&root, words);
    grey_store(&words[SIZE / 8 - 1], (void *)held());
}
/* FR-9: contents of before; FR-21: more than one piece. */
static void by_contents(void)
{
    void **words = (void **)(void *)region_map(BIG, PROT_READ | PROT_WRITE);
    char *p = held();
    words[WORDS - 1] = p;
    region_add(&second, words, BIG, GREY_FOREIGN_SCAN);
    grey_store(&root, words);
    grey_keep_alive(p);
}
/* FR-20: arguments are roots, also for regions. */
static _Atomic unsigned arguments_used;
static void use_argument(uintptr_t start, size_t size, void *arg)
{
    (void)start, (void)size;
    if (arg == held() && atomic_load(&kept.died) == 0)
        atomic_fetch_add(&arguments_used, 1);
}
static void by_argument(void)
{
    char *start = region_map(SIZE, PROT_READ | PROT_WRITE);
    assert_int_equal(grey_foreign_add(start, SIZE, 0, use_argument, held(), NULL), 0);
    grey_store(&root, start);
}
static void use_cleanup_argument(void *arg) { use_argument(0, 0, arg); }
static void by_cleanup_argument(void)
{
    void *object = grey_alloc(64);
    assert_int_equal(grey_cleanup_add(object, use_cleanup_argument, held(), NULL), 0);
    grey_store(&root, object);
}
static void drop_and_expect_use(void)
{
    atomic_store(&arguments_used, 0);
    drop_roots();
}

/* ---- threads that hold it on a stack --------------------------------------------------------------- */

enum { STARTS, HOLDS, ENDS };
static _Atomic int step;
static pthread_t holder;

static int await_end(void *unused)
{
    (void)unused;
    while (atomic_load(&step) != ENDS)
        usleep(100);
    return 0;
}
static void *hold_in_a_call(void *unused)
{
    (void)unused;
    void *volatile local = held();
    atomic_store(&step, HOLDS);
    grey_blocking_call(await_end, NULL);
    local = NULL;
    return local;
}
static void *hold_and_run(void *unused)
{
    (void)unused;
    void *volatile local = held();
    atomic_store(&step, HOLDS);
    while (atomic_load(&step) != ENDS)
        grey_safepoint();
    local = NULL;
    return local;
}
/* Nobody runs on it, so it is scanned whole (ER-9). */
static void *hold_on_registered_stack(void *unused)
{
    (void)unused;
    assert_int_equal(grey_stack_add(unmanaged, unmanaged + SIZE / 8), 0);
    unmanaged[SIZE / 8 - 3] = held();
    atomic_store(&step, HOLDS);
    grey_blocking_call(await_end, NULL);
    unmanaged[SIZE / 8 - 3] = NULL;
    assert_int_equal(grey_stack_remove(unmanaged), 0);
    return NULL;
}
static void start_holder(void *(*fn)(void *))
{
    atomic_store(&step, STARTS);
    assert_int_equal(grey_thread_create(&holder, NULL, fn, NULL), 0);
    while (atomic_load(&step) != HOLDS)
        grey_safepoint();
}
static void end_holder(void)
{
    atomic_store(&step, ENDS);
    assert_int_equal(grey_thread_join(holder, NULL), 0);
}
static void by_blocked_stack(void) { start_holder(hold_in_a_call); }
static void by_running_stack(void) { start_holder(hold_and_run); }
static void by_registered_stack(void) { start_holder(hold_on_registered_stack); }

/* MK-9: what a thread returned, and nobody has joined yet. */
static void *return_it(void *unused)
{
    (void)unused;
    return held();
}
static void by_result(void)
{
    assert_int_equal(grey_thread_create(&holder, NULL, return_it, NULL), 0);
    usleep(50000); /* most likely it is over; if not, it does the same on its stack */
}
static void take_result(void)
{
    void *result = NULL;
    assert_int_equal(grey_thread_join(holder, &result), 0);
    assert_ptr_equal(result, held());
}

/* ---- all of them ----------------------------------------------------------------------------------- */

struct keeper {
    const char *name;
    void (*keep)(void), (*drop)(void);
    enum { HEAP, STACK, RESULT } kind; /* on a stack one past the end counts (FR-23) */
};
static const struct keeper keepers[] = {
    {"a root", by_root, drop_roots, HEAP},
    {"a typed object", by_typed, drop_roots, HEAP},
    {"an untyped object", by_untyped, drop_roots, HEAP},
    {"the last word of a large object", by_large, drop_roots, HEAP},
    {"a list", by_list, drop_roots, HEAP},
    {"grey_move", by_move, drop_roots, HEAP},
    {"grey_compare_exchange", by_exchange, drop_roots, HEAP},
    {"grey_touch", by_raw_store, drop_roots, HEAP},
    {"a registered root", by_registered_root, no_registered_root, HEAP},
    {"a scanned region", by_scanned_region, drop_roots, HEAP},
    {"what a scanned region had", by_contents, drop_roots, HEAP},
    {"a region's argument", by_argument, drop_and_expect_use, HEAP},
    {"a cleanup's argument", by_cleanup_argument, drop_and_expect_use, HEAP},
    {"the stack of a blocked thread", by_blocked_stack, end_holder, STACK},
    {"the stack of a running thread", by_running_stack, end_holder, STACK},
    {"a registered stack", by_registered_stack, end_holder, STACK},
    {"the result of a thread", by_result, take_result, RESULT},
};
static const struct keeper *chosen;
static void (*not_kept)(void);

/* One thread registers and keeps, so that the region is held in between. */
static void make_and_keep(void)
{
    region_new(&kept, SIZE, 0);
    char *start = region_start(&kept);
    (chosen != NULL ? chosen->keep : not_kept)();
    grey_keep_alive(start);
}
static void drop_chosen(void) { chosen->drop(); }

static void end_of_keeping(void)
{
    bool argument = chosen->drop == drop_and_expect_use && atomic_load(&kept.died) == 0;
    region_thread(drop_chosen);
    region_settle();
    region_settle(); /* an argument is kept until its cleanup has returned */
    region_assert_died(&kept);
    assert_true(!argument || atomic_load(&arguments_used) == 1);
}

/* FR-19: any byte keeps the whole. */
static void kept_by(void **unused)
{
    (void)unused;
    static const long inside[] = {0, SIZE / 2 + 1, SIZE - 1};
    for (size_t i = 0; i < LENGTH(keepers); i++)
        for (size_t k = 0; k < LENGTH(inside); k++) {
            chosen = &keepers[i];
            at = inside[k];
            region_thread(make_and_keep);
            region_settle();
            if (atomic_load(&kept.died) != 0)
                fail_msg("%s with byte %ld did not keep a region", chosen->name, at);
            region_settle();
            region_assert_lives(&kept);
            end_of_keeping();
        }
}

/* FR-23: half-open, but for one past the end on a stack. */
static void addresses_beside(void **unused)
{
    (void)unused;
    static const long beside[] = {-1, SIZE};
    for (size_t i = 0; i < LENGTH(keepers); i++)
        for (size_t k = 0; k < LENGTH(beside); k++) {
            chosen = &keepers[i];
            if (chosen->kind == RESULT) /* it may still be on a stack */
                continue;
            at = beside[k];
            region_thread(make_and_keep);
            region_settle();
            bool lives = atomic_load(&kept.died) == 0, should = chosen->kind == STACK && at == SIZE;
            if (lives != should)
                fail_msg("%s with byte %ld: the region %s", chosen->name, at, lives ? "lives" : "died");
            end_of_keeping();
        }
}

/* ---- by what it is not kept ------------------------------------------------------------------------ */

static void *not_a_root;
static void by_nothing(void) {}
static void by_static_data(void) { not_a_root = held(); }
static void by_malloc(void)
{
    unmanaged[0] = held(); /* nor a mapping of the program's */
    void **block = malloc(64);
    assert_non_null(block);
    block[0] = held();
    not_a_root = block;
}
static void by_leaf(void)
{
    void **leaf = grey_zalloc_leaf(64);
    leaf[0] = held();
    grey_store(&root, leaf);
}
static void by_other_field(void)
{
    struct record *object = grey_new(&record_type);
    object->number = object->same = (uintptr_t)held();
    grey_store(&root, object);
}
static void by_unscanned_region(void)
{
    region_new(&second, SIZE, 0);
    void **words = (void **)(void *)region_start(&second);
    words[0] = words[SIZE / 8 - 1] = held();
    grey_store(&root, words);
}
/* FR-21: aligned words wholly inside. */
static void by_odd_words(void)
{
    char *start = region_map(SIZE, PROT_READ | PROT_WRITE);
    void *p = held();
    memcpy(start, &p, sizeof(p));                    /* begins before the region */
    memcpy(start + 100, &p, sizeof(p));              /* not aligned */
    memcpy(start + SIZE - sizeof(p), &p, sizeof(p)); /* ends behind it */
    region_add(&second, start + 1, SIZE - 2, GREY_FOREIGN_SCAN);
    grey_store(&root, start + 1);
}
static void by_itself(void) { *(void **)(void *)region_start(&kept) = held(); }

/* FR-20, FR-24 */
static void not_kept_by(void **unused)
{
    (void)unused;
    static const struct {
        const char *name;
        void (*keep)(void);
    } ways[] = {
        {"nothing", by_nothing},
        {"static data", by_static_data},
        {"malloc memory", by_malloc},
        {"a leaf object", by_leaf},
        {"a field that is no pointer", by_other_field},
        {"an unscanned region", by_unscanned_region},
        {"words that are not wholly inside", by_odd_words},
        {"itself", by_itself},
    };
    for (size_t i = 0; i < LENGTH(ways); i++) {
        chosen = NULL;
        not_kept = ways[i].keep;
        at = 8;
        region_thread(make_and_keep);
        region_settle();
        if (atomic_load(&kept.died) != 1)
            fail_msg("%s kept a region", ways[i].name);
        if (not_kept == by_unscanned_region || not_kept == by_odd_words)
            region_assert_lives(&second);
        region_thread(drop_roots);
        region_settle();
    }
    unmanaged[0] = NULL;
    free(not_a_root);
}

static int get_memory(void **unused)
{
    (void)unused;
    unmanaged = (void **)(void *)region_map(BIG, PROT_READ | PROT_WRITE);
    return grey_thread_attach();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_by),
        cmocka_unit_test(addresses_beside),
        cmocka_unit_test(not_kept_by),
    };
    return cmocka_run_group_tests_name("foreign memory: what keeps it", tests, get_memory, NULL);
}

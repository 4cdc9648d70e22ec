/* tests/api/foreign_cleanup_test.c -- the cleanups of foreign regions: their argument, what they may do, when
 * they run.
 *
 * Requirements: FR-10, FR-25, FR-26, FR-29, FR-30, FR-32, FR-33, OR-3, OR-5, OR-6, CF-12, CF-13, D-16.  What
 * every cleanup must find is checked by region_dies (support_foreign.h).
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
enum { SIZE = 4096 };

GREY_ROOT(void *, root);
static struct region kept, second;
static void drop_root(void) { grey_store(&root, NULL); }

struct record {
    uint64_t number;
    void *pointer;
};
GREY_TYPE(record_type, struct record, pointer);

/* ---- the argument ---------------------------------------------------------------------------------- */

enum { NUMBER = 77 };
static _Atomic uintptr_t hidden_argument;
static _Atomic int argument_checked;
static void argument_freed(void *unused)
{
    (void)unused;
    atomic_fetch_add(&argument_checked, 10);
}
/* Kept by the entry alone while the cleanup runs: what it holds itself is complemented. */
static void slow_cleanup(uintptr_t start, size_t size, void *arg)
{
    (void)start, (void)size;
    atomic_store(&hidden_argument, ~(uintptr_t)arg);
    arg = NULL;
    heap_wipe_stack();
    while (atomic_load(&argument_checked) == 0)
        grey_safepoint();
}
static void make_with_argument(void)
{
    void *arg = heap_marked_leaf(64, NUMBER);
    assert_int_equal(grey_cleanup_add(arg, argument_freed, NULL, NULL), 0);
    char *start = region_map(SIZE, PROT_READ | PROT_WRITE);
    assert_int_equal(grey_foreign_add(start, SIZE, 0, slow_cleanup, arg, NULL), 0);
    atomic_store(&hidden_argument, ~(uintptr_t)arg);
    grey_store(&root, start);
}
static void check_argument(void)
{
    assert_true(heap_leaf_is_intact((void *)~atomic_load(&hidden_argument), NUMBER));
}
/* FR-10 */
static void argument_is_a_root(void **unused)
{
    (void)unused;
    atomic_store(&argument_checked, 0);
    region_thread(make_with_argument);
    region_settle();
    region_thread(heap_reuse_free_memory);
    region_thread(check_argument);
    atomic_store(&hidden_argument, 0);
    region_thread(drop_root);
    grey_collect();
    while (atomic_load(&hidden_argument) == 0)
        usleep(1000);
    assert_false(grey_cleanup_wait(0)); /* it runs */
    region_thread(heap_reuse_free_memory);
    region_thread(check_argument);
    assert_int_equal(atomic_load(&argument_checked), 0);
    atomic_store(&argument_checked, 1);
    assert_true(grey_cleanup_wait(-1));
    region_settle();
    assert_int_equal(atomic_load(&argument_checked), 11); /* then it dies */
}

/* ---- what a cleanup may do (FR-29) ----------------------------------------------------------------- */

#define INSIST(x)                                                                                            \
    do {                                                                                                     \
        if (!(x)) {                                                                                          \
            fprintf(stderr, "%s:%d: in a cleanup: %s\n", __FILE__, __LINE__, #x);                            \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static void unmap_it(struct region *region) { region_unmap(region_start(region), region->size); }
static void add_another(struct region *region)
{
    (void)region;
    region_new(&second, SIZE, GREY_FOREIGN_SCAN);
}
static void release_another(struct region *region)
{
    (void)region;
    INSIST(grey_foreign_release(second.handle));
    INSIST(!grey_foreign_release(second.handle));
}
static void allocate_and_collect(struct region *region)
{
    (void)region;
    INSIST(grey_thread_attach() == EALREADY);
    void **list = NULL;
    for (int i = 0; i < 20000; i++) {
        void **cell = grey_alloc(64);
        INSIST(cell != NULL);
        grey_store(&cell[0], (void *)list);
        list = cell;
    }
    grey_collect();
    grey_collect();
    int n = 0;
    for (; list != NULL; list = (void **)list[0])
        n++;
    INSIST(n == 20000);
    INSIST(!grey_cleanup_wait(-1)); /* CF-13 */
    INSIST(!grey_cleanup_wait(0));
}
/* FR-33: no resurrection; the same range is another region. */
static void add_it_again(struct region *region)
{
    region_add(&second, region_start(region), region->size, 0);
    grey_store(&root, region_start(region));
}

static void (*chosen_cleanup)(struct region *);
static void make_for_cleanup(void)
{
    if (chosen_cleanup == release_another) {
        region_new(&second, SIZE, 0);
        grey_store(&root, region_start(&second));
    }
    kept.also = chosen_cleanup;
    region_new(&kept, SIZE, 0);
}

static void in_cleanups(void **unused)
{
    (void)unused;
    static void (*const cleanups[])(struct region *) = {unmap_it, add_another, release_another,
                                                        allocate_and_collect, add_it_again};
    for (size_t i = 0; i < LENGTH(cleanups); i++) {
        chosen_cleanup = cleanups[i];
        atomic_store(&second.died, 0);
        region_thread(make_for_cleanup);
        region_settle();
        region_settle();
        region_assert_died(&kept);
        kept.also = NULL;
        if (chosen_cleanup == add_it_again)
            region_assert_lives(&second);
        region_thread(drop_root);
        region_settle();
        assert_int_equal(atomic_load(&second.died),
                         chosen_cleanup == add_another || chosen_cleanup == add_it_again);
    }
}

/* FR-32: unmapped, handed out and added by another thread, all before the cleanup returns. */
static _Atomic int handed_out;
static void hand_out(struct region *region)
{
    void *fresh = mmap(region_start(region), region->size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); /* away and back in one step */
    INSIST(fresh == region_start(region));
    atomic_store(&handed_out, 1);
    while (atomic_load(&handed_out) != 2)
        grey_safepoint();
    INSIST(grey_foreign_find(fresh, NULL, NULL));
    INSIST(!grey_foreign_release(region->handle));
}
static void make_to_hand_out(void)
{
    kept.also = hand_out;
    region_new(&kept, SIZE, 0);
}
static void add_handed_out(void)
{
    region_add(&second, region_start(&kept), SIZE, GREY_FOREIGN_SCAN);
    grey_store(&root, region_start(&kept) + SIZE / 2);
}
static void same_range_again(void **unused)
{
    (void)unused;
    atomic_store(&handed_out, 0);
    region_thread(make_to_hand_out);
    grey_collect();
    grey_collect();
    while (atomic_load(&handed_out) != 1)
        usleep(1000);
    region_thread(add_handed_out);
    grey_collect();
    grey_collect();
    region_assert_lives(&second);
    atomic_store(&handed_out, 2);
    region_settle();
    kept.also = NULL;
    region_assert_died(&kept);
    region_assert_lives(&second);
    region_thread(drop_root);
    region_settle();
    region_assert_died(&kept);
    region_assert_died(&second);
}

/* ---- finalizers ------------------------------------------------------------------------------------ */

static _Atomic int order, finalized_at, cleaned_at, region_died_at;
static void finalized(void *object)
{
    INSIST(((struct record *)object)->pointer == region_start(&kept)); /* and what it leads to is there */
    INSIST(grey_foreign_find(((struct record *)object)->pointer, NULL, NULL));
    atomic_store(&finalized_at, atomic_fetch_add(&order, 1) + 1);
}
static void cleaned(void *unused)
{
    (void)unused;
    atomic_store(&cleaned_at, atomic_fetch_add(&order, 1) + 1);
}
static void note_death(struct region *region)
{
    (void)region;
    atomic_store(&region_died_at, atomic_fetch_add(&order, 1) + 1);
}
static void make_finalized(void)
{
    kept.also = note_death;
    region_new(&kept, SIZE, 0);
    struct record *object = grey_new(&record_type);
    grey_store(&object->pointer, (void *)region_start(&kept));
    assert_int_equal(grey_set_finalizer(object, finalized), 0);
    assert_int_equal(grey_cleanup_add(object, cleaned, NULL, NULL), 0);
    grey_store(&root, object);
}
/* FR-30, OR-5 */
static void after_finalizers(void **unused)
{
    (void)unused;
    atomic_store(&order, 0);
    atomic_store(&finalized_at, 0);
    atomic_store(&cleaned_at, 0);
    atomic_store(&region_died_at, 0);
    region_thread(make_finalized);
    region_settle();
    assert_int_equal(atomic_load(&order), 0);
    region_thread(drop_root);
    grey_collect();
    assert_true(grey_cleanup_wait(-1));
    assert_int_equal(atomic_load(&finalized_at), 1);
    region_settle();
    region_settle();
    kept.also = NULL;
    region_assert_died(&kept);
    assert_int_equal(atomic_load(&finalized_at), 1);
    assert_true(atomic_load(&cleaned_at) > 1 && atomic_load(&region_died_at) > 1);
}

/* CF-6, CF-14, CF-26 */
static void no_specials(void)
{
    region_new(&kept, SIZE, 0);
    char *p = region_start(&kept) + 8;
    assert_int_equal(grey_cleanup_add(p, free, NULL, NULL), ENOTSUP);
    assert_int_equal(grey_set_finalizer(p, free), ENOTSUP);
    errno = 0;
    assert_null(grey_weak_new(p));
    assert_int_equal(errno, ENOTSUP);
}
static void foreign_memory_has_no_specials(void **unused)
{
    (void)unused;
    region_thread(no_specials);
    region_settle();
    region_assert_died(&kept);
}

static int attach(void **unused)
{
    (void)unused;
    return grey_thread_attach();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(argument_is_a_root),
        cmocka_unit_test(in_cleanups),
        cmocka_unit_test(same_range_again),
        cmocka_unit_test(after_finalizers),
        cmocka_unit_test(foreign_memory_has_no_specials),
    };
    return cmocka_run_group_tests_name("foreign memory: cleanups", tests, attach, NULL);
}

/* tests/api/pin_lost_test.c -- pinners that nobody holds any more, pins before and after the library's life.
 *
 * Requirements: PN-12 .. PN-14, TU-8, ER-7.  Each in a process of its own: a warning is to be read, a fatal
 * message ends it.
 */
#include "os/os.h"
#include "support_child.h"
#include "support_death.h"
#include "support_heap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct cell {
    void *next;
    uintptr_t number;
};
GREY_TYPE(cell_type, struct cell, next);

GREY_ROOT(struct grey_pinner *[2], pinner);
static uintptr_t hidden;
static int static_object = 3;

static struct cell *cell_new(uintptr_t number)
{
    struct cell *cell = grey_new(&cell_type);
    CHILD_CHECK(cell != NULL);
    cell->number = number;
    CHILD_CHECK(grey_cleanup_add(cell, count_death, (void *)number, NULL) == 0);
    return cell;
}
static void unpin_one(void *i) { grey_unpin(pinner[(uintptr_t)i]); }
static void check_count(void *count)
{
    CHILD_CHECK(grey_pin_count(SHOW(hidden)) == (size_t)count);
    CHILD_CHECK(grey_is_pinned(SHOW(hidden)) == (count != NULL));
}
static void pin_by_two(void *unused)
{
    (void)unused;
    struct cell *cell = cell_new(0);
    hidden = HIDE(cell);
    for (int i = 0; i < 2; i++) {
        grey_store(&pinner[i], grey_pinner_new());
        CHILD_CHECK(pinner[i] != NULL && grey_pin(pinner[i], cell) == 0);
    }
}

/* ---- lost pinners (PN-12 .. PN-14) ------------------------------------------------------------------- */

static void **in_libc;
static void lose_pinners(void *n)
{
    in_libc = malloc(sizeof(*in_libc));
    struct cell *cell = cell_new(0);
    hidden = HIDE(cell);
    for (uintptr_t i = 0; i < (uintptr_t)n; i++) {
        struct grey_pinner *lost = grey_pinner_new();
        CHILD_CHECK(lost != NULL && grey_pin(lost, cell) == 0);
        for (uintptr_t k = 0; k < i; k++)
            CHILD_CHECK(grey_pin(lost, cell_new(1)) == 0);
        *in_libc = lost; /* keeps nothing (PN-13) */
    }
}
static void drop_lost(int lost, size_t pinned)
{
    death_init(NULL);
    apart(lose_pinners, (void *)(uintptr_t)lost);
    CHILD_CHECK(heap_figures().pins == pinned + (size_t)lost - 1);
    /* The cycle that finds them still keeps what they had pinned; the next one doesn't. */
    CHILD_CHECK(death_cycle() == 0);
    CHILD_CHECK(heap_figures().pins == 0);
    apart(check_count, NULL);
    CHILD_CHECK(death_settle() == pinned);
    free(in_libc);
}
static void lose_one(void) { drop_lost(1, 1); }
static void lose_many(void) { drop_lost(40, 1 + 40 * 39 / 2); }

static void lost_pinners(void **unused)
{
    (void)unused;
    static const char text[] = "found leaking pinned pointer; forgot to unpin?";
    static const char *const silent[] = {"GREY_DEBUG=pinleak=0", NULL};
    static const char *const warns[] = {"GREY_DEBUG=pinleak=1", NULL};
    static const char *const standard[] = {"GREY_DEBUG", NULL};
    static const char *const dies[] = {"GREY_DEBUG=pinleak=2", NULL};
    const struct child_end *end = child_run("lose_many", silent);
    assert_int_equal(end->status, 0);
    assert_null(strstr(end->message, text));
    for (int i = 0; i < 2; i++) {
        end = child_run("lose_many", i == 0 ? warns : standard);
        assert_int_equal(end->status, 0);
        int warnings = 0;
        for (const char *at = end->message; (at = strstr(at, text)) != NULL; at++)
            warnings++;
        assert_int_equal(warnings, 40); /* one a pinner */
        assert_non_null(strstr(end->message, "0x"));
    }
    child_passes("lose_one", warns);
    child_dies("lose_one", dies, text);
}

static void lose_empty(void *unused)
{
    (void)unused;
    struct cell *cell = cell_new(0);
    for (int i = 0; i < 1000; i++) {
        struct grey_pinner *lost = grey_pinner_new();
        CHILD_CHECK(grey_pin(lost, cell) == 0);
        grey_unpin(lost);
        CHILD_CHECK(grey_pin(lost, &static_object) == 0);
    }
}
static void lose_empty_pinners(void)
{
    death_init(NULL);
    apart(lose_empty, NULL);
    CHILD_CHECK(death_settle() == 1);
}
/* An empty pinner is nobody's loss. */
static void empty_pinners_are_no_leak(void **unused)
{
    (void)unused;
    static const char *const dies[] = {"GREY_DEBUG=pinleak=2", NULL};
    child_passes("lose_empty_pinners", dies);
}

/* ---- processes of their own -------------------------------------------------------------------------- */

/* TU-8: answers without starting the library. */
static void before_start(void)
{
    CHILD_CHECK(grey_is_pinned(&static_object) && !grey_is_pinned(NULL));
    CHILD_CHECK(grey_pin_count(&static_object) == 0);
    grey_unpin(NULL);
    CHILD_CHECK(grey_pin(NULL, &static_object) == EINVAL);
    CHILD_CHECK(grey_init(NULL) == 0); /* so it was not up */
    struct grey_pinner *mine = grey_pinner_new();
    void *object = grey_alloc(100);
    CHILD_CHECK(grey_pin(mine, object) == 0 && grey_is_pinned(object));
    grey_shutdown(); /* with a pin that is set */
    CHILD_CHECK(grey_is_pinned(&static_object) && heap_figures().pins == 0);
    grey_unpin(NULL);
    object = grey_alloc(100); /* up again */
    mine = grey_pinner_new();
    CHILD_CHECK(!grey_is_pinned(object) && grey_pin(mine, object) == 0 && grey_pin_count(object) == 1);
    grey_unpin(mine);
}

static void unpin_a_cell(void) { grey_unpin(grey_alloc(100)); }
static void pin_with_a_cell(void)
{
    char *cell = grey_alloc(100);
    grey_pin((struct grey_pinner *)(void *)(cell + 16), cell);
}
static void unpin_static(void) { grey_unpin((struct grey_pinner *)(void *)&static_object); }
static void unpin_after_shutdown(void)
{
    struct grey_pinner *mine = grey_pinner_new();
    CHILD_CHECK(grey_pin(mine, mine) == 0);
    grey_shutdown();
    grey_unpin(mine);
}

static void no_pinners(void **unused)
{
    (void)unused;
    child_dies("unpin_a_cell", NULL, "what is no pinner");
    child_dies("pin_with_a_cell", NULL, "what is no pinner");
    child_dies("unpin_static", NULL, "what is no pinner");
    child_dies("unpin_after_shutdown", NULL, "what is no pinner");
}

static void before_and_after(void **unused)
{
    (void)unused;
    child_passes("before_start", NULL);
}

static void fork_with_pins(void)
{
    death_init(NULL);
    apart(pin_by_two, NULL);
    pid_t child = fork();
    if (child == 0) {
        CHILD_CHECK(death_settle() == 0);
        check_count((void *)2);
        unpin_one(NULL);
        check_count((void *)1);
        unpin_one((void *)1);
        CHILD_CHECK(death_settle() == 1);
        _exit(0);
    }
    int status;
    CHILD_CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    CHILD_CHECK(death_settle() == 0);
    check_count((void *)2);
    unpin_one(NULL);
    unpin_one((void *)1);
    CHILD_CHECK(death_settle() == 1);
}
static void pins_in_a_forked_child(void **unused)
{
    (void)unused;
#if OS_ASAN || OS_TSAN
    skip(); /* they do not survive it */
#endif
    child_passes("fork_with_pins", NULL);
}

int main(int argc, char **argv)
{
    static const struct child_case cases[] = {
        {"lose_one", lose_one},
        {"lose_many", lose_many},
        {"lose_empty_pinners", lose_empty_pinners},
        {"before_start", before_start},
        {"unpin_a_cell", unpin_a_cell},
        {"pin_with_a_cell", pin_with_a_cell},
        {"unpin_static", unpin_static},
        {"unpin_after_shutdown", unpin_after_shutdown},
        {"fork_with_pins", fork_with_pins},
    };
    CHILD_MAIN(argc, argv, cases);
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(lost_pinners),
        cmocka_unit_test(empty_pinners_are_no_leak),
        cmocka_unit_test(no_pinners),
        cmocka_unit_test(before_and_after),
        cmocka_unit_test(pins_in_a_forked_child),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

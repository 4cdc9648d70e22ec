/* tests/hooks/verify_test.c -- the checkers, checked: a program with one missing barrier is caught and named.
 *
 * Requirements: TR-11, BA-13, MK-21.  A hook makes the mistake certain: when the first round of a cycle
 * starts, everything that the roots lead to is black; there, in the middle of the cycle, a white object whose
 * only reference is hidden is stored into a black one without the barrier, as a program with a raw store
 * would.  Nobody will look at the slot again.  grey_verify must report exactly these objects, each with its
 * holder and slot, and checkmark=1 must end the program; with the barrier there is nothing to report.
 */
#include "support_child.h"
#include "support_heap.h"
#include "support_hooks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLOTS = 8, SIZE = 96 };

static void **holder; /* the black object; also in the root below */
GREY_ROOT(void *, root);
static void *root_slot[1]; /* registered memory: black after the roots phase */
static uintptr_t hidden[SLOTS + 1];
static atomic_bool armed, with_touch;

/* White when the cycle begins, and seen by nobody: the addresses are complemented. */
__attribute__((noinline)) static void make_objects(void)
{
    void **object = grey_alloc(SLOTS * sizeof(void *));
    HOOKS_CHECK(object != NULL);
    grey_store(&root, object);
    holder = object;
    for (int i = 0; i <= SLOTS; i++) {
        void *white = grey_alloc(SIZE);
        HOOKS_CHECK(white != NULL);
        hidden[i] = ~(uintptr_t)white;
    }
}

/* The collector's thread, at the start of the first round: the missing barrier. */
static void store_raw(enum os_hook point, const void *what)
{
    (void)what;
    bool expected = true;
    if (point != OS_HOOK_ROUND_START || !atomic_compare_exchange_strong(&armed, &expected, false))
        return;
    for (int i = 0; i < SLOTS; i++)
        __atomic_store_n((uintptr_t *)(void *)&holder[i], ~hidden[i], __ATOMIC_RELAXED);
    __atomic_store_n((uintptr_t *)(void *)&root_slot[0], ~hidden[SLOTS], __ATOMIC_RELAXED);
}

static void prepare(void)
{
    HOOKS_CHECK(grey_set_percent(-1) != -2); /* cycles begin when asked for */
    HOOKS_CHECK(grey_root_add(root_slot, sizeof(root_slot)) == 0);
    make_objects();
    heap_wipe_stack();
    atomic_store(&armed, true);
    atomic_store(&os_hook_function, store_raw);
}

static char *read_back(FILE *file)
{
    static char text[16384];
    rewind(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    return text;
}

static void named(void)
{
    FILE *file = tmpfile();
    HOOKS_CHECK(file != NULL);
    prepare();
    size_t found = grey_verify(fileno(file));
    CHILD_CHECK(!atomic_load(&armed));
    const char *text = read_back(file);
    fputs(text, stderr);
    CHILD_CHECK(found == SLOTS + 1);
    char line[300];
    for (int i = 0; i < SLOTS; i++) {
        snprintf(line, sizeof(line),
                 "object 0x%lx of %d bytes is reachable but not marked: held by object %p in slot %p (offset "
                 "%zu)\n",
                 (unsigned long)~hidden[i], SIZE, (void *)holder, (void *)&holder[i], i * sizeof(void *));
        CHILD_CHECK(strstr(text, line) != NULL);
    }
    snprintf(line, sizeof(line),
             "object 0x%lx of %d bytes is reachable but not marked: held by a registered root, slot %p\n",
             (unsigned long)~hidden[SLOTS], SIZE, (void *)root_slot);
    CHILD_CHECK(strstr(text, line) != NULL);
    /* and a heap without such stores has nothing to report */
    grey_clear(holder, SLOTS * sizeof(void *));
    grey_clear(root_slot, sizeof(root_slot));
    CHILD_CHECK(grey_verify(fileno(file)) == 0);
    fclose(file);
}

static void checked_at_every_cycle(void)
{
    prepare();
    grey_collect();
    CHILD_CHECK(!"lives");
}

/* ---- the same store, made good ------------------------------------------------------------------------- */

static atomic_int turn; /* 1: the collector stands at the round; 2: the store was made */

static void let_store(enum os_hook point, const void *what)
{
    (void)what;
    bool expected = true;
    if (point != OS_HOOK_ROUND_START || !atomic_compare_exchange_strong(&armed, &expected, false))
        return;
    atomic_store(&turn, 1);
    while (atomic_load(&turn) != 2)
        ;
}

/* An attached thread, while the collector stands there: by the barrier, or raw and then grey_touch. */
static void *store_rightly(void *unused)
{
    (void)unused;
    grey_thread_attach();
    while (atomic_load(&turn) != 1)
        ;
    for (int i = 0; i < SLOTS; i++) {
        void *white = (void *)~hidden[i];
        if (atomic_load(&with_touch))
            __atomic_store_n(&holder[i], white, __ATOMIC_RELAXED);
        else
            grey_store(&holder[i], white);
    }
    if (atomic_load(&with_touch))
        grey_touch(holder);
    atomic_store(&turn, 2);
    return NULL;
}

static void stored_rightly(void)
{
    pthread_t thread;
    prepare();
    atomic_store(&os_hook_function, let_store);
    atomic_store(&turn, 0);
    CHILD_CHECK(grey_thread_create(&thread, NULL, store_rightly, NULL) == 0);
    CHILD_CHECK(grey_verify(2) == 0);
    CHILD_CHECK(grey_thread_join(thread, NULL) == 0);
    CHILD_CHECK(!atomic_load(&armed));
    heap_reuse_free_memory();
    for (int i = 0; i < SLOTS; i++)
        CHILD_CHECK(grey_base(holder[i]) == holder[i] && *(uint64_t *)holder[i] == 0);
}
static void stored_by_touch(void)
{
    atomic_store(&with_touch, true);
    stored_rightly();
}

/* ---- tests --------------------------------------------------------------------------------------------- */

static void missing_barrier_is_named(void **unused)
{
    (void)unused;
    child_passes("named", NULL);
}

static void missing_barrier_is_fatal(void **unused)
{
    (void)unused;
    const char *const environment[] = {"GREY_DEBUG=checkmark=1,membarrier=0", NULL};
    child_dies("checked_at_every_cycle", environment, "reachable objects were not marked");
    const struct child_end *end = child_run("checked_at_every_cycle", environment);
    assert_non_null(strstr(end->message, "is reachable but not marked: held by object 0x"));
    assert_non_null(strstr(end->message, "grey: internal: checkmark: 9 reachable objects"));
    assert_non_null(strstr(end->message, "[phase rescan, thread "));
}

static void right_stores_are_not_reported(void **unused)
{
    (void)unused;
    child_passes("stored_rightly", NULL);
    child_passes("stored_by_touch", NULL);
}

int main(int argc, char **argv)
{
    static const struct child_case cases[] = {
        {"named", named},
        {"checked_at_every_cycle", checked_at_every_cycle},
        {"stored_rightly", stored_rightly},
        {"stored_by_touch", stored_by_touch},
    };
    CHILD_MAIN(argc, argv, cases);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_barrier_is_named),
        cmocka_unit_test(missing_barrier_is_fatal),
        cmocka_unit_test(right_stores_are_not_reported),
    };
    return cmocka_run_group_tests_name("verify", tests, NULL, NULL);
}

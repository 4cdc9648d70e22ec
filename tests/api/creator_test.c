/* tests/api/creator_test.c -- what a new thread does not hold: pointers of other threads.
 *
 * Its stack may be one of a thread that ended, with all that was on it; clone gives it its creator's
 * registers, and glibc saves the callee-saved ones on the new stack; and the argument goes to the thread, once.
 * None of these may keep an object for as long as the thread lives.
 * Requirements: MK-10, ER-5a.
 */
#include "support_death.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

static atomic_bool may_end, dropped;
static pthread_t child;

/* Says so only inside the region, where the stack above counts and no register: a thread that loses its processor
 * on the way may still have in one what it was called with. */
static int wait_blocked(void *unused)
{
    (void)unused;
    atomic_store(&dropped, true);
    while (!atomic_load(&may_end))
        usleep(1000);
    return 0;
}
/* Waits with the argument forgotten: it isn't used any more. */
static void *wait_for_end(void *arg)
{
    (void)arg;
    grey_blocking_call(wait_blocked, NULL);
    return NULL;
}

static void *mortal(size_t index)
{
    void *object = grey_alloc(64);
    assert_non_null(object);
    assert_int_equal(grey_cleanup_add(object, count_death, (void *)index, NULL), 0);
    return object;
}

/* A thread that is over, and had the object all over its stack. */
static void *litter(void *object)
{
    void *volatile words[1 << 10];
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        words[i] = object;
    return NULL;
}
/* Has room in its frame that it never writes to, but at one place. */
static void *wait_with_room(void *unused)
{
    (void)unused;
    volatile char room[2048];
    room[0] = 0;
    __asm__ volatile("" : : "r"(room) : "memory");
    grey_blocking_call(wait_blocked, NULL);
    __asm__ volatile("" : : "r"(room) : "memory");
    return NULL;
}
static void create_on_an_old_stack(void *unused)
{
    (void)unused;
    pthread_t before;
    assert_int_equal(grey_thread_create(&before, NULL, litter, mortal(0)), 0);
    assert_int_equal(grey_thread_join(before, NULL), 0);
    assert_int_equal(grey_thread_create(&child, NULL, wait_with_room, NULL), 0);
}

static void create_with_argument(void *unused)
{
    (void)unused;
    assert_int_equal(grey_thread_create(&child, NULL, wait_for_end, mortal(0)), 0);
}

static void assert_dies(void (*create)(void *))
{
    deaths_reset();
    atomic_store(&may_end, false);
    atomic_store(&dropped, false);
    apart(create, NULL);
    while (!atomic_load(&dropped))
        usleep(1000);
    death_settle();
    assert_int_equal(deaths_of(0, 1), 1);
    atomic_store(&may_end, true);
    assert_int_equal(grey_thread_join(child, NULL), 0);
}

static void an_old_stack(void **unused)
{
    (void)unused;
    for (int i = 0; i < 20; i++)
        assert_dies(create_on_an_old_stack);
}
static void argument_of_a_thread(void **unused)
{
    (void)unused;
    for (int i = 0; i < 20; i++)
        assert_dies(create_with_argument);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_old_stack),
        cmocka_unit_test(argument_of_a_thread),
    };
    return cmocka_run_group_tests(tests, death_init, NULL);
}

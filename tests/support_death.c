/* tests/support_death.c -- see support_death.h. */
#include "support_death.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

struct call {
    void (*fn)(void *arg);
    void *arg;
};

static void *thread_main(void *arg)
{
    struct call *call = arg;
    if (grey_thread_attach() != 0)
        return arg;
    call->fn(call->arg);
    return NULL;
}

/* By pthread_create: arg may be any word, and the caller only waits. */
void apart(void (*fn)(void *arg), void *arg)
{
    struct call call = {fn, arg};
    pthread_t thread;
    void *result;
    assert_int_equal(pthread_create(&thread, NULL, thread_main, &call), 0);
    assert_int_equal(grey_thread_join(thread, &result), 0);
    assert_null(result);
}

static void run_all(void *ran) { *(size_t *)ran = grey_cleanup_run(SIZE_MAX); }

size_t death_cycle(void)
{
    size_t ran;
    grey_collect();
    apart(run_all, &ran);
    return ran;
}

size_t death_settle(void)
{
    size_t sum = 0;
    for (int quiet = 0; quiet < 2;) { /* one cycle may have begun before the last death */
        size_t ran = death_cycle();
        quiet = ran == 0 ? quiet + 1 : 0;
        sum += ran;
    }
    return sum;
}

int death_init(void **state)
{
    (void)state;
    grey_set_percent(-1);
    return grey_cleanup_fd() >= 0 ? 0 : -1;
}

_Atomic unsigned deaths[DEATHS];

void count_death(void *index) { atomic_fetch_add(&deaths[(uintptr_t)index], 1); }

unsigned deaths_of(size_t from, size_t to)
{
    unsigned sum = 0;
    for (size_t i = from; i < to; i++)
        sum += atomic_load(&deaths[i]);
    return sum;
}

void deaths_reset(void)
{
    for (size_t i = 0; i < DEATHS; i++)
        atomic_store(&deaths[i], 0);
}

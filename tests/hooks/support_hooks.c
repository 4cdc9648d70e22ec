/* tests/hooks/support_hooks.c -- see support_hooks.h. */
#include "support_hooks.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STOPS = 8 };
static const uint64_t patience_ns = PATIENCE_MS * 1000000ull;

static void nap(void)
{
    struct timespec time = {0, 20000};
    nanosleep(&time, NULL);
}

void hooks_fail(const char *what)
{
    fprintf(stderr, "scenario failed: %s\n", what);
    abort();
}

/* ---- stops -------------------------------------------------------------------------------------------- */

enum { STOP_OFF, STOP_ARMED, STOP_REACHED, STOP_RELEASED };
static struct stop {
    _Atomic int point;
    const void *_Atomic what;
    _Atomic int state;
} stops[STOPS];
static _Atomic unsigned passed[OS_HOOK_COUNT];
void (*_Atomic hooks_also)(enum os_hook point, const void *what);

static void on_hook(enum os_hook point, const void *what)
{
    atomic_fetch_add(&passed[point], 1);
    void (*also)(enum os_hook, const void *) = atomic_load(&hooks_also);
    if (also != NULL)
        also(point, what);
    for (int i = 0; i < STOPS; i++) {
        int armed = STOP_ARMED;
        const void *only = atomic_load(&stops[i].what);
        if (atomic_load(&stops[i].state) != STOP_ARMED || atomic_load(&stops[i].point) != (int)point ||
            (only != NULL && only != what) ||
            !atomic_compare_exchange_strong(&stops[i].state, &armed, STOP_REACHED))
            continue;
        while (atomic_load(&stops[i].state) == STOP_REACHED)
            nap();
        atomic_store(&stops[i].state, STOP_OFF);
    }
}

int stop_at(enum os_hook point, const void *what)
{
    for (int i = 0; i < STOPS; i++)
        if (atomic_load(&stops[i].state) == STOP_OFF) {
            atomic_store(&stops[i].point, (int)point);
            atomic_store(&stops[i].what, what);
            atomic_store(&stops[i].state, STOP_ARMED);
            return i;
        }
    hooks_fail("too many stops");
}

bool stop_reached(int stop, unsigned ms)
{
    for (uint64_t end = os_now() + ms * 1000000ull; atomic_load(&stops[stop].state) != STOP_REACHED; nap())
        if (os_now() > end)
            return false;
    return true;
}

void stop_release(int stop)
{
    int state = STOP_REACHED;
    if (!atomic_compare_exchange_strong(&stops[stop].state, &state, STOP_RELEASED) && state == STOP_ARMED &&
        !atomic_compare_exchange_strong(&stops[stop].state, &state, STOP_OFF))
        atomic_store(&stops[stop].state, STOP_RELEASED); /* reached just now */
}

unsigned hooks_passed(enum os_hook point) { return atomic_load(&passed[point]); }

/* ---- the library --------------------------------------------------------------------------------------- */

static _Atomic int stage;
static uint64_t cycles_before; /* of earlier lives of the library */

uint64_t cycles_over(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    grey_stats_read(&stats);
    return stats.cycles - cycles_before;
}

void hooks_up(const char *debug)
{
    static char both[512];
    const char *environment = getenv("GREY_DEBUG");
    snprintf(both, sizeof(both), "%s%s%s", environment != NULL ? environment : "",
             environment != NULL ? "," : "", debug);
    struct grey_options options = GREY_OPTIONS_INIT;
    options.percent = -1;
    options.debug = both;
    HOOKS_CHECK(grey_init(&options) == 0);
    for (int i = 0; i < OS_HOOK_COUNT; i++)
        atomic_store(&passed[i], 0);
    atomic_store(&stage, 0);
    cycles_before = 0;
    cycles_before = cycles_over();
    atomic_store(&os_hook_function, on_hook);
}

void hooks_down(void)
{
    atomic_store(&hooks_also, NULL);
    HOOKS_CHECK(grey_verify(2) == 0);
    grey_shutdown();
    atomic_store(&os_hook_function, NULL);
}

void cycle_begin(void) { grey_collect_start(); }

void cycle_await(uint64_t number)
{
    for (uint64_t end = os_now() + patience_ns; cycles_over() < number; nap())
        if (os_now() > end)
            hooks_fail("a cycle does not end");
}

void cycles_run(unsigned n)
{
    uint64_t over = cycles_over();
    for (unsigned i = 1; i <= n; i++) {
        cycle_begin();
        cycle_await(over + i);
    }
}

/* ---- actors -------------------------------------------------------------------------------------------- */

void stage_set(int to) { atomic_store(&stage, to); }

bool stage_within(int at, unsigned ms)
{
    for (uint64_t end = os_now() + ms * 1000000ull; atomic_load(&stage) < at; nap())
        if (os_now() > end)
            return false;
    return true;
}

void stage_await(int at)
{
    if (!stage_within(at, (unsigned)(patience_ns / 1000000)))
        hooks_fail("a stage is not reached");
}

static void *act(void *fn)
{
    HOOKS_CHECK(grey_thread_attach() == 0);
    ((void (*)(void))fn)();
    HOOKS_CHECK(grey_thread_detach() == 0);
    return NULL;
}

pthread_t actor_start(void (*fn)(void))
{
    pthread_t thread;
    HOOKS_CHECK(pthread_create(&thread, NULL, act, (void *)fn) == 0);
    return thread;
}

void actor_join(pthread_t actor) { HOOKS_CHECK(pthread_join(actor, NULL) == 0); }

/* ---- objects ------------------------------------------------------------------------------------------- */

GREY_TYPE(cell_type, struct cell, next, other);

struct cell *cells_new(size_t n)
{
    struct cell *list = NULL;
    for (size_t i = 0; i < n; i++) {
        struct cell *cell = grey_new(&cell_type);
        HOOKS_CHECK(cell != NULL);
        cell->number = i;
        cell->check = ~(uint64_t)(uintptr_t)cell;
        grey_store(&cell->next, list);
        list = cell;
    }
    return list;
}

void cells_check(const struct cell *list, size_t n)
{
    size_t length = 0;
    for (; list != NULL; list = list->next) {
        if (grey_base(list) != list || list->check != ~(uint64_t)(uintptr_t)list)
            hooks_fail("an object was lost");
        HOOKS_CHECK(list->number == n - 1 - length);
        length++;
    }
    HOOKS_CHECK(length == n);
}

__attribute__((noinline)) void wipe_stack(void)
{
    volatile char waste[8192];
    for (size_t i = 0; i < sizeof(waste); i++)
        waste[i] = 0;
    __asm__ volatile("xor %%eax, %%eax\nxor %%ecx, %%ecx\nxor %%edx, %%edx\nxor %%esi, %%esi\n"
                     "xor %%edi, %%edi\nxor %%r8, %%r8\nxor %%r9, %%r9\nxor %%r10, %%r10\nxor %%r11, %%r11"
                     :
                     :
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11");
}

int hooks_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("hooks", tests, n, NULL, NULL);
}

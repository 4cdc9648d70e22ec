/* tests/hooks/prefault_phase_test.c -- a huge page that is about to be touched ahead of its use, and everybody else.
 *
 * The thread that does it stops between the moment in which it took the block and its first store.  An actor grows
 * the heap meanwhile, cycles run, free memory is given back, somebody forks.
 *
 * Requirements: SC-11, AL-5, AL-22, SC-7, ER-7.
 */
#include "inspect/gauges.h"
#include "support_hooks.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MIB = 1 << 20, PIECE = 64 << 10, PIECES = (512 << 20) / PIECE, WELL = 42 };
static const size_t block_size = 2 * MIB;

GREY_ROOT(
    struct { void *piece[PIECES]; }, held);
static int n_held;
static _Atomic(const char *) block; /* that the thread has taken */

static void note_block(enum os_hook point, const void *what)
{
    if (point == OS_HOOK_PREFAULT)
        atomic_store(&block, what);
}

static bool in_block(const char *p)
{
    const char *start = atomic_load(&block);
    return start != NULL && p + PIECE > start && p < start + block_size;
}

static const char *hold_one(void)
{
    HOOKS_CHECK(n_held < PIECES);
    char *p = grey_alloc(PIECE);
    HOOKS_CHECK(p != NULL);
    for (int i = 0; i < PIECE; i += 8)
        HOOKS_CHECK(*(uint64_t *)(p + i) == 0);
    *(int *)p = n_held;
    grey_store(&held.piece[n_held++], p);
    return p;
}

static void hold(size_t bytes)
{
    for (size_t i = 0; i < bytes / PIECE; i++)
        hold_one();
}

static bool has_memory(const char *start)
{
    unsigned char present[512];
    HOOKS_CHECK(mincore((void *)start, block_size, present) == 0);
    size_t n = 0;
    for (size_t i = 0; i < sizeof(present); i++)
        n += present[i] & 1;
    HOOKS_CHECK(n == 0 || n == sizeof(present)); /* before the first store, or after the last */
    return n != 0;
}

static int taken(void)
{
    n_held = 0;
    atomic_store(&block, NULL);
    hooks_up("");
    atomic_store(&hooks_also, note_block);
    return stop_at(OS_HOOK_PREFAULT, NULL);
}

static void all_over(void)
{
    for (int i = 0; i < n_held; i++)
        HOOKS_CHECK(*(int *)held.piece[i] == i);
    grey_clear(&held, sizeof(held));
    hooks_down();
}

/* ---- others go around it ------------------------------------------------------------------------------- */

static void grow(void)
{
    hold(128 * MIB); /* below 64 MiB nothing is touched ahead */
    stage_set(1);
    stage_await(2);
    for (int i = 0; i < 24 * MIB / PIECE; i++)
        HOOKS_CHECK(!in_block(hold_one()));
    for (int i = n_held - 12 * MIB / PIECE; i < n_held; i++)
        grey_store(&held.piece[i], NULL);
    n_held -= 12 * MIB / PIECE;
    grey_trim();
    stage_set(3);
    stage_await(4);
    /* Free as any other now, the lowest first: hold_one finds it zeroed. */
    while (!in_block(hold_one()))
        ;
}

static void others_go_around(void **unused)
{
    (void)unused;
    int stop = taken();
    pthread_t actor = actor_start(grow);
    HOOKS_CHECK(stop_reached(stop, 20000) && stage_within(1, PATIENCE_MS));
    const char *start = atomic_load(&block);
    HOOKS_CHECK(((uintptr_t)start & (block_size - 1)) == 0);
    stage_set(2);
    HOOKS_CHECK(stage_within(3, PATIENCE_MS));
    cycles_run(2);
    HOOKS_CHECK(!has_memory(start));
    uint64_t before = os_counter_read(OS_COUNT_prefaulted_bytes);
    atomic_store(&hooks_also, NULL); /* in_block goes on asking about this one */
    stop_release(stop);
    for (int ms = 0; os_counter_read(OS_COUNT_prefaulted_bytes) == before; ms++) {
        HOOKS_CHECK(ms < 20000);
        usleep(1000);
    }
    HOOKS_CHECK(has_memory(start));
    stage_set(4);
    actor_join(actor);
    all_over();
}

/* ---- a fork waits for it -------------------------------------------------------------------------------- */

/* The child has the whole heap, of which the block is a free part. */
static void live_as_child(void)
{
    alarm(60);
    HOOKS_CHECK(heap_in_use_bytes() + heap_free_bytes() + heap_released_bytes() == os_mapped(OS_HEAP));
    grey_collect();
    hold(64 * MIB);
    HOOKS_CHECK(grey_verify(2) == 0);
    for (int i = 0; i < n_held; i++)
        HOOKS_CHECK(*(int *)held.piece[i] == i);
    _exit(WELL);
}

static void grow_and_fork(void)
{
    hold(128 * MIB);
    stage_await(1);
    pid_t child = fork();
    HOOKS_CHECK(child >= 0);
    if (child == 0)
        live_as_child();
    stage_set(2);
    int status = 0;
    HOOKS_CHECK(waitpid(child, &status, 0) == child);
    HOOKS_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == WELL);
}

static void fork_waits(void **unused)
{
    (void)unused;
    if (OS_ASAN || OS_TSAN)
        skip(); /* their allocators and threads don't survive a fork of several threads */
    int stop = taken();
    pthread_t actor = actor_start(grow_and_fork);
    HOOKS_CHECK(stop_reached(stop, PATIENCE_MS));
    stage_set(1);
    HOOKS_CHECK(!stage_within(2, 200));
    stop_release(stop);
    HOOKS_CHECK(stage_within(2, PATIENCE_MS));
    actor_join(actor);
    all_over();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_go_around),
        cmocka_unit_test(fork_waits),
    };
    return hooks_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}

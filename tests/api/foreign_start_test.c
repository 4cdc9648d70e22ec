/* tests/api/foreign_start_test.c -- foreign memory as the first thing a program does, and the last: first
 * calls, shutdown, calls from where they are not allowed; each in a process of its own.
 *
 * Requirements: FR-34, FR-38, AL-16, ER-6, TU-8.
 */
#include "support_child.h"
#include "support_foreign.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 4096 };

static void never(uintptr_t start, size_t size, void *arg)
{
    (void)arg;
    fprintf(stderr, "cleanup of %#lx, %zu, which was released\n", (unsigned long)start, size);
    abort();
}

static struct region unrun[3];

static void first_call_adds(void)
{
    static char data[64];
    grey_foreign handle = 0;
    struct grey_stats stats = GREY_STATS_INIT;
    CHILD_CHECK(grey_foreign_add(data, 64, 0, never, NULL, &handle) == 0 && handle != 0);
    CHILD_CHECK(grey_stats_read(&stats) == 0 && stats.threads >= 1 && stats.foreign_regions == 1);
    CHILD_CHECK(grey_foreign_release(handle));
}
static void first_call_finds(void)
{
    CHILD_CHECK(!grey_foreign_find(unrun, NULL, NULL));
    CHILD_CHECK(!grey_foreign_find(NULL, NULL, NULL));
}
static void first_call_releases(void)
{
    CHILD_CHECK(!grey_foreign_release(0));
    CHILD_CHECK(!grey_foreign_release(1));
    CHILD_CHECK(!grey_foreign_release(UINT64_MAX));
}
static void first_call_counts(void)
{
    grey_external_add(1000);
    grey_external_add(-1000);
}

/* ER-6: gone with the library, which runs no cleanups (FR-34); and it starts anew. */
static void shut_down(void)
{
    static char data[3][64];
    void *volatile held_here[3] = {data[0], data[1], data[2]};
    grey_foreign handle = 0;
    struct grey_stats stats = GREY_STATS_INIT;
    for (int life = 0; life < 3; life++) {
        for (int i = 0; i < 3; i++)
            CHILD_CHECK(grey_foreign_add(data[i], 64, i == 2, never, grey_alloc(64), &handle) == 0);
        CHILD_CHECK(held_here[0] == data[0]);
        grey_shutdown();
        CHILD_CHECK(!grey_foreign_release(handle));
        CHILD_CHECK(!grey_foreign_find(data, NULL, NULL));
        CHILD_CHECK(grey_stats_read(&stats) == 0 && stats.foreign_regions == 0 && stats.foreign_bytes == 0);
        grey_shutdown();
    }
}

/* FR-34: found dead, queued, and never run. */
static void make_unrun(void)
{
    for (int i = 0; i < 3; i++)
        region_new(&unrun[i], SIZE, 0);
}
static void shut_down_with_a_queue(void)
{
    CHILD_CHECK(grey_cleanup_fd() >= 0); /* Grey's threads run nothing from here on */
    region_thread(make_unrun);
    grey_collect();
    grey_collect();
    struct grey_stats stats = GREY_STATS_INIT;
    CHILD_CHECK(grey_stats_read(&stats) == 0 && stats.foreign_died == 3 && stats.foreign_regions == 0);
    CHILD_CHECK(!grey_cleanup_wait(0));
    grey_shutdown();
    grey_collect();
    usleep(50000);
    for (int i = 0; i < 3; i++)
        CHILD_CHECK(atomic_load(&unrun[i].died) == 0);
}

static char memory[SIZE];
static int add_blocked(void *unused)
{
    (void)unused;
    grey_foreign_add(memory, SIZE, 0, never, NULL, NULL);
    return 0;
}
static void add_in_a_region(void) { grey_blocking_call(add_blocked, NULL); }
static int release_blocked(void *handle)
{
    grey_foreign_release(*(grey_foreign *)handle);
    return 0;
}
static void release_in_a_region(void)
{
    grey_foreign handle = 0;
    CHILD_CHECK(grey_foreign_add(memory, SIZE, 0, never, NULL, &handle) == 0);
    grey_blocking_call(release_blocked, &handle);
}

static void in_children(void **unused)
{
    (void)unused;
    child_passes("first_call_adds", NULL);
    child_passes("first_call_finds", NULL);
    child_passes("first_call_releases", NULL);
    child_passes("first_call_counts", NULL);
    child_passes("shut_down", NULL);
    child_passes("shut_down_with_a_queue", NULL);
    child_dies("add_in_a_region", NULL, "in a blocking region");
    child_dies("release_in_a_region", NULL, "in a blocking region");
}

int main(int argc, char **argv)
{
    static const struct child_case cases[] = {
        {"first_call_adds", first_call_adds},
        {"first_call_finds", first_call_finds},
        {"first_call_releases", first_call_releases},
        {"first_call_counts", first_call_counts},
        {"shut_down", shut_down},
        {"shut_down_with_a_queue", shut_down_with_a_queue},
        {"add_in_a_region", add_in_a_region},
        {"release_in_a_region", release_in_a_region},
    };
    CHILD_MAIN(argc, argv, cases);
    const struct CMUnitTest tests[] = {cmocka_unit_test(in_children)};
    return cmocka_run_group_tests_name("foreign memory: start and end of the library", tests, NULL, NULL);
}

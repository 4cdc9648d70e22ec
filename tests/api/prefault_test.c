/* tests/api/prefault_test.c -- free memory is touched before it is allocated, and only where that helps.
 *
 * Each case runs in a process of its own, since what a heap retains depends on all that was there before.
 *
 * Requirements: SC-11, OS-9, SC-7.
 */
#include "support_child.h"
#include "support_heap.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t MIB = 1 << 20;

enum { BLOCK = 64 << 10, BLOCKS = (512 << 20) / BLOCK };
GREY_ROOT(
    struct { void *blocks[BLOCKS]; }, held);

/* Zeroed, and then not. */
static void hold(int from, int to)
{
    for (int i = from; i < to; i++) {
        uint64_t *block = grey_alloc(BLOCK);
        CHILD_CHECK(block != NULL);
        for (size_t word = 0; word < BLOCK / sizeof(uint64_t); word += 8)
            CHILD_CHECK(block[word] == 0);
        memset(block, 1, BLOCK);
        grey_store(&held.blocks[i], block);
    }
}

static uint64_t metric(const char *name)
{
    struct grey_metric value;
    CHILD_CHECK(grey_metric_read(name, &value) == 0);
    return value.u64;
}
static uint64_t touched(void) { return metric("/gc/scavenge/prefaulted:bytes"); }
static uint64_t spare(void) { return metric("/memory/classes/heap/free:bytes"); }

static bool has_thread(const char *name)
{
    DIR *tasks = opendir("/proc/self/task");
    CHILD_CHECK(tasks != NULL);
    bool found = false;
    for (const struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char path[300], is[32] = "";
        snprintf(path, sizeof(path), "/proc/self/task/%s/comm", task->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL)
            continue;
        found |= fgets(is, sizeof(is), file) != NULL && strncmp(is, name, strlen(name)) == 0;
        fclose(file);
    }
    closedir(tasks);
    return found;
}

/* What is free but has memory is a thirty-second of the heap at most, or 32 MiB, and what threads left of a huge page. */
static void heap_grows(void)
{
    CHILD_CHECK(grey_set_percent(-1) >= 0);
    for (int i = 0; i < BLOCKS; i += 64) {
        hold(i, i + 64);
        CHILD_CHECK(spare() <= 36 * MIB);
    }
    for (int ms = 0; touched() < 2 * MIB; ms++) { /* on one processor it may begin only now */
        CHILD_CHECK(ms < 20000);
        usleep(1000);
    }
    CHILD_CHECK(has_thread("grey-prefault"));
    /* What was given back may be touched again, and is zeroed again. */
    grey_clear(&held.blocks[BLOCKS / 2], BLOCKS / 2 * sizeof(void *));
    heap_wipe_stack();
    heap_collect_twice();
    grey_trim();
    CHILD_CHECK(spare() <= 16 * MIB);
    hold(BLOCKS / 2, BLOCKS);
}

static void small_heap(void)
{
    CHILD_CHECK(grey_set_percent(-1) >= 0);
    hold(0, (int)(40 * MIB / BLOCK));
    usleep(50000);
    CHILD_CHECK(touched() == 0);
}

static void turned_off(void)
{
    CHILD_CHECK(grey_set_percent(-1) >= 0);
    hold(0, BLOCKS);
    CHILD_CHECK(touched() == 0);
    CHILD_CHECK(!has_thread("grey-prefault"));
}

/* The limit's goal is 95 percent of it: beyond that nothing is touched that nobody asked for. */
static void at_the_limit(void)
{
    CHILD_CHECK(grey_set_percent(-1) >= 0);
    hold(0, (int)(240 * MIB / BLOCK));
    grey_set_memory_limit(250 * MIB);
    usleep(50000);
    uint64_t before = touched();
    hold((int)(240 * MIB / BLOCK), (int)(256 * MIB / BLOCK));
    usleep(50000);
    CHILD_CHECK(touched() <= before + 2 * MIB); /* one may have been under way */
}

static const struct child_case cases[] = {
    {"heap_grows", heap_grows},
    {"small_heap", small_heap},
    {"turned_off", turned_off},
    {"at_the_limit", at_the_limit},
};

static const char *const as_it_is[] = {NULL};

static void ahead_of_growth(void **unused)
{
    (void)unused;
    child_passes("heap_grows", as_it_is);
}

static void not_in_a_small_heap(void **unused)
{
    (void)unused;
    child_passes("small_heap", as_it_is);
}

static void not_if_turned_off(void **unused)
{
    (void)unused;
    static char debug[256];
    const char *set = getenv("GREY_DEBUG");
    snprintf(debug, sizeof(debug), "GREY_DEBUG=%s%sprefault=0", set != NULL ? set : "",
             set != NULL ? "," : "");
    child_passes("turned_off", (const char *const[]){debug, NULL});
}

static void not_at_the_limit(void **unused)
{
    (void)unused;
    child_passes("at_the_limit", as_it_is);
}

int main(int argc, char **argv)
{
    CHILD_MAIN(argc, argv, cases);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ahead_of_growth),
        cmocka_unit_test(not_in_a_small_heap),
        cmocka_unit_test(not_if_turned_off),
        cmocka_unit_test(not_at_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

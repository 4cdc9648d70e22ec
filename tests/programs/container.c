/* tests/programs/container.c -- a program whose live set nearly fills its container (PC-12).
 *
 *     container [entries|blocks] [seconds] [MiB that live]        entries, 60 and 150 if left out
 *
 * Two threads replace a live set again and again, as fast as they can: "entries" with a key of 64 B and a
 * value of up to 8 KiB, as a cache server has them, or "blocks" of 64 KiB with garbage of all sizes between
 * them, which is the harder one: a whole heap of it is allocated several times a second.  What is held is
 * looked at before it is replaced.  Once in five seconds a line says what Grey holds.  scripts/container runs it in a
 * cgroup with memory.max, where a process that takes too much is killed; the program is told nothing.
 *
 * Ends with status 0; 1: an object was lost or memory refused.
 */
#include "grey.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 2, BLOCK = 64 << 10, LEAST = 64, MIB = 1 << 20 };

struct entry {
    unsigned char *key, *value; /* filled with what tells the place */
    size_t size;                /* of the value; the key has LEAST */
};
GREY_TYPE(entry_type, struct entry, key, value);

GREY_ROOT(void **, table);
static size_t places;
static bool blocks;
static _Atomic bool enough;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "container: %s\n", what);
    exit(1);
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* ---- what is held -------------------------------------------------------------------------------------- */

static unsigned char *new_filled(size_t place, size_t size)
{
    unsigned char *bytes = grey_alloc_leaf(size);
    if (bytes == NULL)
        fail("no memory");
    memset(bytes, (int)(place % 251), size);
    return bytes;
}

static void check_filled(const unsigned char *bytes, size_t place, size_t size)
{
    if (bytes[0] != place % 251 || bytes[size / 2] != place % 251 || bytes[size - 1] != place % 251)
        fail("an object was lost");
}

static void replace_entry(size_t place, uint64_t *state)
{
    struct entry *old = table[place];
    if (old != NULL) {
        check_filled(old->key, place, LEAST);
        check_filled(old->value, place, old->size);
    }
    size_t size = (size_t)LEAST << next_random(state) % 7; /* many are small, most bytes in large ones */
    size += next_random(state) % size;
    struct entry *entry = grey_new(&entry_type);
    if (entry == NULL)
        fail("no memory");
    entry->size = size;
    grey_store(&entry->key, new_filled(place, LEAST));
    grey_store(&entry->value, new_filled(place, size));
    grey_store(&table[place], (void *)entry);
}

static void replace_block(size_t place, uint64_t *state)
{
    if (table[place] != NULL)
        check_filled(table[place], place, BLOCK);
    size_t size = next_random(state) % 16 == 0 ? 300 << 10 : next_random(state) % BLOCK + 1;
    char *garbage = grey_alloc_leaf(size);
    if (garbage == NULL)
        fail("no memory");
    garbage[0] = garbage[size - 1] = 1;
    grey_store(&table[place], (void *)new_filled(place, BLOCK));
}

/* Each thread has places of its own: first + n * THREADS. */
static void replace(size_t place, uint64_t *state)
{
    if (blocks)
        replace_block(place, state);
    else
        replace_entry(place, state);
}

static void *churn(void *arg)
{
    size_t first = *(size_t *)arg;
    uint64_t state = first + 1;
    while (!atomic_load_explicit(&enough, memory_order_relaxed)) /* only ends the loop */
        replace(next_random(&state) % (places / THREADS) * THREADS + first, &state);
    return NULL;
}

/* ---- what is looked at --------------------------------------------------------------------------------- */

static struct grey_stats figures(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    if (grey_stats_read(&stats) != 0)
        fail("no figures");
    return stats;
}

static double mib(uint64_t bytes) { return (double)bytes / MIB; }

/* At first all of the live set comes from here; what replaces it is of the same sizes on average. */
static void fill(size_t live)
{
    uint64_t state = 42;
    grey_store(&table, (void **)grey_alloc(live / 1024 * sizeof(void *)));
    size_t each = blocks ? live / BLOCK : 64; /* a block's garbage does not live */
    uint64_t before = figures().allocated_bytes;
    do
        for (size_t i = 0; i < each; i++)
            replace(places++, &state);
    while (figures().allocated_bytes - before < live);
    places = places / THREADS * THREADS;
}

/* A line every five seconds, and where more is held than ever and the limit is passed: should the process be
 * killed for it, the last line tells. */
static void watch(int seconds, size_t limit)
{
    uint64_t most = 0, told = limit == SIZE_MAX ? SIZE_MAX / 2 : limit;
    struct timespec pause = {.tv_nsec = 5000000};
    for (int i = 0; i < seconds * 200; i++) {
        struct grey_stats stats = figures();
        uint64_t ready = stats.mapped - stats.released;
        most = ready > most ? ready : most;
        if (i % 1000 == 999 || ready > told + 2 * MIB)
            printf("%3d s: %.1f MiB live, %.1f held, at most %.1f; %" PRIu64 " cycles, %.0f MiB allocated\n",
                   i / 200 + 1, mib(stats.heap_live), mib(ready), mib(most), stats.cycles,
                   mib(stats.allocated_bytes));
        told = ready > told + 2 * MIB ? ready : told;
        fflush(stdout);
        nanosleep(&pause, NULL);
    }
}

int main(int argc, char **argv)
{
    blocks = argc > 1 && strcmp(argv[1], "blocks") == 0;
    int seconds = argc > 2 ? atoi(argv[2]) : 60;
    size_t live = (argc > 3 ? strtoul(argv[3], NULL, 10) : 150) * MIB;
    size_t limit = grey_set_memory_limit(0);
    if (limit == SIZE_MAX)
        printf("no limit was found\n");
    else
        printf("limit found: %.1f MiB\n", mib(limit));
    fill(live);
    printf("%zu places, %.1f MiB allocated\n", places, mib(figures().allocated_bytes));
    pthread_t threads[THREADS];
    size_t first[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        first[i] = i;
        if (grey_thread_create(&threads[i], NULL, churn, &first[i]) != 0)
            fail("no thread");
    }
    watch(seconds, limit);
    atomic_store(&enough, true);
    for (size_t i = 0; i < THREADS; i++)
        grey_thread_join(threads[i], NULL);
    printf("longest pause %.3f ms, p99.99 %.3f ms, of %" PRIu64 "\n", (double)figures().pause_max_ns / 1e6,
           (double)figures().pause_p9999_ns / 1e6, figures().pause_count);
    return 0;
}

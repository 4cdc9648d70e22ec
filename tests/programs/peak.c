/* tests/programs/peak.c -- how memory comes back after a peak (SC-1, SC-2).
 *
 *     peak [MiB at the peak] [MiB that stay]        2048 and 100 if left out
 *
 * Fills the heap with touched objects of 4 KiB, drops all but the last part, collects once, and then does nothing
 * for ten seconds but print what the process holds and what it has used of a processor since the collection.
 */
#include "grey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OBJECT = 4096, EACH = 250 };

GREY_ROOT(void **, table);

static double resident_mib(void)
{
    unsigned long size, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%lu %lu", &size, &pages) != 2)
        exit(1);
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

static double processor_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

__attribute__((noinline)) static void fill(size_t n)
{
    void **all = grey_alloc(n * sizeof(void *));
    grey_store(&table, all);
    for (size_t i = 0; i < n; i++) {
        void *object = grey_alloc_leaf(OBJECT);
        if (object == NULL)
            exit(1);
        memset(object, 1, OBJECT);
        grey_store(&table[i], object);
    }
}

int main(int argc, char **argv)
{
    size_t peak = argc > 1 ? strtoul(argv[1], NULL, 10) : 2048,
           stay = argc > 2 ? strtoul(argv[2], NULL, 10) : 100;
    size_t n = (peak << 20) / OBJECT, keep = (stay << 20) / OBJECT;
    fill(n);
    printf("%.0f MiB at the peak\n", resident_mib());
    for (size_t i = 0; i + keep < n; i++)
        grey_store(&table[i], NULL);
    grey_collect();
    double began = processor_time();
    for (int ms = 0; ms <= 10000; ms += EACH) {
        if (ms % 1000 == 0 || ms < 1000)
            printf("%5.2f s: %.0f MiB, %.2f %% of a processor\n", ms / 1000.0, resident_mib(),
                   ms == 0 ? 0.0 : 100 * (processor_time() - began) / (ms / 1000.0));
        usleep(EACH * 1000);
    }
    return 0;
}

/* pin.c -- handles and pins (Grey only: nobody else has them).
 *
 * held: looking up one of a thousand handles, in random order, as an event loop does with its epoll_data.
 * hold: making a handle and dropping it.  pin: pinning an object and unpinning it, one pinner.
 */
#include "bench.h"
#include "grey.h"

#include <stdlib.h>

enum { HANDLES = 1000 };

static void print(const char *metric, double ns, const struct bench_section *section)
{
    bench_print(&(struct bench_result){"pin", "grey", metric, "ns", BENCH_LOWER, ns}, section, "one_thread");
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    size_t n = options.quick ? 10000 : 5000000;
    static grey_handle handles[HANDLES];
    static uint16_t order[4096];
    uint64_t random = options.seed;
    for (size_t i = 0; i < HANDLES; i++) {
        uint64_t *object = grey_zalloc_leaf(64);
        BENCH_CHECK(object != NULL);
        *object = i;
        handles[i] = grey_hold(object);
        BENCH_CHECK(handles[i] != 0);
    }
    for (size_t i = 0; i < 4096; i++)
        order[i] = (uint16_t)bench_below(&random, HANDLES);
    struct bench_section section;
    bench_begin(&section);
    for (size_t i = 0; i < n; i++) {
        const uint64_t *object = grey_held(handles[order[i % 4096]]);
        BENCH_CHECK(*object == order[i % 4096]);
    }
    bench_end(&section);
    print("held", (double)section.wall_ns / (double)n, &section);

    void *object = grey_zalloc_leaf(64);
    bench_begin(&section);
    for (size_t i = 0; i < n / 10; i++)
        BENCH_CHECK(grey_drop(grey_hold(object)));
    bench_end(&section);
    print("hold", (double)section.wall_ns / (double)(n / 10), &section);

    struct grey_pinner *pinner = grey_pinner_new();
    BENCH_CHECK(pinner != NULL);
    bench_begin(&section);
    for (size_t i = 0; i < n / 10; i++) {
        BENCH_CHECK(grey_pin(pinner, object) == 0);
        grey_unpin(pinner);
    }
    bench_end(&section);
    print("pin", (double)section.wall_ns / (double)(n / 10), &section);
    grey_keep_alive(pinner);
    grey_keep_alive(object);
    return 0;
}

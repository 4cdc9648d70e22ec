/* scan.c -- the kernels (mark/filter.c, sweep/words.c) and what they are worth to a collection.
 *
 *     grey      the fastest that this processor has
 *     avx2      at most AVX2
 *     portable  those without vector instructions
 *
 * filter: the conservative filter over blocks of random words of which 0, 10 or 100 % point into the heap, at
 * random places; 16 KiB again and again, and 256 MiB once.  In GB/s.
 *
 * sweep: the eight mark words of a page become its allocation words.  Pages that are empty, full, all dead,
 * with 64-byte cells of which half are dead, and with 1 KiB cells of which half are; 128 pages again and
 * again, and those of 1 GiB of heap after something else has been in the cache.  In ns a page.
 *
 * mark: a collection, one worker, of 256 MiB of untyped objects of 512 bytes, 4 KiB and 256 KiB with as many
 * pointers as above, to random objects.  In GB/s.
 *
 * Processor time throughout: another program's time slice is no property of a loop.
 */
#include "bench.h"
#include "grey.h"
#include "mark/filter.h"
#include "sweep/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(PEER_PORTABLE)
#define PEER_NAME "portable"
enum { LEVEL = OS_SIMD_PORTABLE };
#elif defined(PEER_AVX2)
#define PEER_NAME "avx2"
enum { LEVEL = OS_SIMD_AVX2 };
#else
#define PEER_NAME "grey"
enum { LEVEL = OS_SIMD_AVX512 };
#endif

enum { PIECE = 64, HOT_BYTES = 16 << 10, HOT_PAGES = 128, PAGES = (1 << 30) / 8192 };

static const unsigned percents[] = {0, 10, 100};
static uint64_t state;

static enum os_simd level(void)
{
    enum os_simd supported = os_simd_supported();
    return supported < (enum os_simd)LEVEL ? supported : (enum os_simd)LEVEL;
}

static void *pages_new(size_t size)
{
    size_t huge = 2 << 20, whole = (size + huge - 1) & ~(huge - 1);
    char *p = mmap(NULL, whole + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    BENCH_CHECK(p != MAP_FAILED);
    p = (char *)(((uintptr_t)p + huge - 1) & ~(huge - 1));
    madvise(p, whole, MADV_HUGEPAGE);
    return p;
}

static struct bench_result result(const char *metric, const char *unit, enum bench_better better,
                                  double value)
{
    return (struct bench_result){"scan", PEER_NAME, metric, unit, better, value};
}

/* A word that points nowhere: a number, as programs have them. */
static uintptr_t no_pointer(void) { return bench_random(&state) >> 40; }

/* ---- filter ----------------------------------------------------------------------------------------- */

static void filter_block(const uintptr_t *at, size_t bytes, size_t rounds, unsigned percent, size_t expected,
                         const struct filter_bounds *bounds, const char *name)
{
    filter_function *filter = filter_kernel(level());
    static uintptr_t out[PIECE];
    size_t words = bytes / sizeof(uintptr_t), found = 0;
    struct bench_section section;
    bench_begin(&section);
    for (size_t round = 0; round < rounds; round++)
        for (size_t i = 0; i < words; i += PIECE)
            found += filter(bounds, at + i, PIECE, out);
    bench_end(&section);
    BENCH_CHECK(found == expected * rounds);
    struct bench_result rate =
        result("filter", "GB/s", BENCH_HIGHER, (double)bytes * (double)rounds / (double)section.cpu_ns);
    bench_print(&rate, &section, "block=%s,pointers=%u", name, percent);
}

static void run_filter(const struct bench_options *options)
{
    const struct filter_bounds bounds = {(uintptr_t)1 << 40, (size_t)1 << 30, {0, 0}};
    size_t bytes = options->quick ? 4 << 20 : 256 << 20, words = bytes / sizeof(uintptr_t);
    uintptr_t *at = pages_new(bytes);
    for (size_t p = 0; p < sizeof(percents) / sizeof(percents[0]); p++) {
        size_t expected = 0, expected_hot = 0;
        for (size_t i = 0; i < words; i++) {
            bool pointer = bench_below(&state, 100) < percents[p];
            at[i] = pointer ? bounds.base + bench_below(&state, 1 << 30) : no_pointer();
            expected += pointer;
            expected_hot += pointer && i < HOT_BYTES / sizeof(uintptr_t);
        }
        size_t rounds = options->quick ? 100 : 50000;
        filter_block(at, HOT_BYTES, rounds, percents[p], expected_hot, &bounds, "16KiB");
        filter_block(at, bytes, options->quick ? 1 : 4, percents[p], expected, &bounds, "256MiB");
    }
}

/* ---- sweep ------------------------------------------------------------------------------------------ */

static const char *const page_kinds[] = {"empty", "full", "dead", "mixed", "sparse"};

static uint32_t fill_page(struct page_bits *bits, size_t kind)
{
    uint64_t cells = kind == 0 ? 0 : kind == 4 ? 1 : 0x1111111111111111;
    uint32_t live = 0;
    for (int w = 0; w < 8; w++) {
        uint64_t mark = kind == 1 ? cells : kind >= 3 ? cells & bench_random(&state) : 0;
        bits->word[w].alloc = cells;
        bits->word[w].mark = mark;
        live += (uint32_t)__builtin_popcountll(mark);
    }
    return live;
}

/* The median round: others' time slices are not in it. */
static void sweep_hot(const struct bench_options *options, struct page_bits *bits,
                      const struct page_bits *filled, size_t kind, uint32_t live)
{
    enum { ROUNDS = 20000 };
    static double ns[ROUNDS];
    sweep_function *sweep = sweep_kernel(level());
    size_t rounds = options->quick ? 100 : ROUNDS;
    struct bench_section section;
    bench_begin(&section);
    for (size_t i = 0; i < rounds; i++) {
        memcpy(bits, filled, HOT_PAGES * sizeof(*bits));
        uint64_t start = bench_now(); /* some 0.2 ns a page */
        uint32_t found = sweep(bits, HOT_PAGES);
        ns[i] = (double)(bench_now() - start) / HOT_PAGES;
        BENCH_CHECK(found == live);
    }
    bench_end(&section);
    struct bench_result time = result("sweep", "ns/page", BENCH_LOWER, bench_quantile(ns, rounds, 0.5));
    bench_print(&time, &section, "pages=%s,cache=hot", page_kinds[kind]);
}

static void run_sweep(const struct bench_options *options)
{
    size_t pages = options->quick ? PAGES / 64 : PAGES, other = options->quick ? 4 << 20 : 256 << 20;
    struct page_bits *bits = pages_new(pages * sizeof(*bits));
    struct page_bits *filled = pages_new(HOT_PAGES * sizeof(*filled));
    char *wipe = pages_new(other);
    for (size_t kind = 0; kind < sizeof(page_kinds) / sizeof(page_kinds[0]); kind++) {
        uint32_t live = 0;
        for (size_t i = 0; i < HOT_PAGES; i++)
            live += fill_page(&filled[i], kind);
        sweep_hot(options, bits, filled, kind, live);
        live = 0;
        for (size_t i = 0; i < pages; i++)
            live += fill_page(&bits[i], kind);
        memset(wipe, (int)kind, other);
        struct bench_section section;
        bench_begin(&section);
        uint32_t found = sweep_kernel(level())(bits, (uint32_t)pages);
        bench_end(&section);
        BENCH_CHECK(found == live);
        double ns = (double)section.cpu_ns / (double)pages;
        struct bench_result time = result("sweep", "ns/page", BENCH_LOWER, ns);
        bench_print(&time, &section, "pages=%s,cache=cold", page_kinds[kind]);
    }
}

/* ---- mark ------------------------------------------------------------------------------------------- */

static uintptr_t **blocks;

static void fill_heap(size_t n, size_t words, unsigned percent)
{
    for (size_t i = 0; i < n; i++)
        for (size_t w = 0; w < words; w++)
            if (bench_below(&state, 100) < percent)
                grey_store((void **)&blocks[i][w], (void *)blocks[bench_below(&state, (uint32_t)n)]);
            else
                blocks[i][w] = no_pointer();
}

static void run_mark(const struct bench_options *options)
{
    static const size_t sizes[] = {512, 4 << 10, 256 << 10};
    size_t bytes = options->mib != 0 ? options->mib << 20 : options->quick ? 4 << 20 : 256 << 20;
    char debug[64];
    struct grey_options start = GREY_OPTIONS_INIT;
    snprintf(debug, sizeof(debug), "workers=1,simd=%d", (int)level());
    start.debug = debug;
    start.percent = -1;
    BENCH_CHECK(grey_init(&start) == 0);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        size_t n = bytes / sizes[s];
        blocks = calloc(n, sizeof(*blocks));
        BENCH_CHECK(blocks != NULL && grey_root_add(blocks, n * sizeof(*blocks)) == 0);
        for (size_t i = 0; i < n; i++)
            BENCH_CHECK((blocks[i] = grey_alloc(sizes[s])) != NULL);
        for (size_t p = 0; p < sizeof(percents) / sizeof(percents[0]); p++) {
            fill_heap(n, sizes[s] / sizeof(uintptr_t), percents[p]);
            struct bench_section section;
            bench_begin(&section);
            grey_collect();
            bench_end(&section);
            for (size_t i = 0; i < n; i++)
                BENCH_CHECK(grey_size(blocks[i]) >= sizes[s]);
            struct bench_result rate =
                result("mark", "GB/s", BENCH_HIGHER, (double)bytes / (double)section.cpu_ns);
            bench_print(&rate, &section, "object=%zu,pointers=%u", sizes[s], percents[p]);
        }
        BENCH_CHECK(grey_root_remove(blocks, n * sizeof(*blocks)) == 0);
        free(blocks);
        grey_collect();
    }
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    state = options.seed;
#if defined(PEER_AVX2)
    if (os_simd_supported() < OS_SIMD_AVX2)
        bench_fail("this processor has no AVX2");
#endif
    const char *variant = options.variant;
    if (variant == NULL || strcmp(variant, "filter") == 0)
        run_filter(&options);
    else if (strcmp(variant, "sweep") == 0)
        run_sweep(&options);
    else if (strcmp(variant, "mark") == 0)
        run_mark(&options);
    else
        bench_fail("no variant %s: filter, sweep, mark", variant);
    return 0;
}

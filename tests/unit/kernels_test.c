/* tests/unit/kernels_test.c -- the vector kernels beside the portable ones, and those beside a model.
 *
 * Filter (mark/filter.c): every length up to 300 words at every alignment, blocks and buffers that end where
 * memory does, words on both sides of each bound; and a thread and a signal handler that store meanwhile, so
 * that a word which is read in parts or twice shows.  Sweep (sweep/words.c): random pages, a mark where
 * nothing is allocated, and a thread that reads meanwhile.  What this processor or this build hasn't got is
 * skipped, and said.
 *
 * Requirements: TU-4 (simd), SW-1, MK-3 (large blocks in pieces).
 * Seed: GREY_TEST_SEED or the clock; printed.
 */
#include "mark/filter.h"
#include "os/options.h"
#include "sweep/words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

enum { LENGTH_MAX = 300, AREA = 16 << 10, PAGES = 20, RACE_MS = 300 };

static uint64_t seed, state;

static uint64_t next_random(void) /* splitmix64 */
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* AREA bytes with nothing mapped before and behind; zeroed. */
static char *area_new(void)
{
    size_t page = 64 << 10; /* at least the system's */
    char *all = mmap(NULL, AREA + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(all != MAP_FAILED);
    assert_int_equal(mprotect(all + page, AREA, PROT_READ | PROT_WRITE), 0);
    return all + page;
}
static void area_free(char *area)
{
    size_t page = 64 << 10;
    assert_int_equal(munmap(area - page, AREA + 2 * page), 0);
}

/* The test's parameter; skipped if the kernel isn't there. */
static enum os_simd level(void **given)
{
    static const char *const names[] = {"portable", "AVX2", "AVX-512"};
    enum os_simd wanted = *(const enum os_simd *)*given;
    if (wanted > os_simd_supported()) {
        printf("kernels_test: %s isn't tested: %s\n", names[wanted],
               OS_SIMD_KERNELS ? "this processor hasn't got it" : "this build has no vector kernels");
        skip();
    }
    return wanted;
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the filter: what it finds ---------------------------------------------------------------------- */

static bool model_keeps(const struct filter_bounds *bounds, uintptr_t word)
{
    if (word >= bounds->base && word - bounds->base < bounds->extent)
        return true;
    return word >= bounds->outside.low && word - bounds->outside.low < bounds->outside.length;
}

/* What the library's addresses are like, and what only arithmetic tells apart: bounds on both sides of where
 * a signed comparison turns. */
static struct filter_bounds some_bounds(unsigned kind)
{
    struct filter_bounds bounds = {0x4000000000, (size_t)1 << 30, {0, 0}};
    if (kind == 1) /* above the heap */
        bounds.outside = (struct outside){0x7f0000000000, 1 << 20};
    else if (kind == 2) /* below it, at the start of memory */
        bounds.outside = (struct outside){0x1000, 8};
    else if (kind == 3) /* the heap is within */
        bounds.outside = (struct outside){0x1000, 0x7fffffffe000};
    else if (kind == 4) /* no heap yet */
        bounds = (struct filter_bounds){0x4000000000, 0, {0x5000, 1}};
    else if (kind == 5)
        bounds = (struct filter_bounds){((uintptr_t)1 << 63) - 4096, 8192, {(uintptr_t)1 << 62, 16}};
    else if (kind == 6) {
        bounds.base = next_random() >> (1 + next_random() % 40);
        bounds.extent = next_random() >> (1 + next_random() % 60);
        bounds.outside.low = next_random() >> (1 + next_random() % 40);
        bounds.outside.length = next_random() >> (1 + next_random() % 60);
    }
    return bounds;
}
enum { BOUNDS_KINDS = 7 };

enum words { WORDS_NONE, WORDS_FEW, WORDS_HALF, WORDS_ALL, WORDS_EDGES, WORDS_KINDS };

static uintptr_t edge_word(const struct filter_bounds *bounds)
{
    const uintptr_t low = bounds->outside.low, high = low + bounds->outside.length;
    const uintptr_t edges[] = {bounds->base - 1,
                               bounds->base,
                               bounds->base + bounds->extent - 1,
                               bounds->base + bounds->extent,
                               low - 1,
                               low,
                               high - 1,
                               high,
                               0,
                               UINTPTR_MAX,
                               ((uintptr_t)1 << 63) - 1,
                               (uintptr_t)1 << 63,
                               bounds->base ^ (uintptr_t)1 << 63,
                               next_random()};
    return edges[next_random() % (sizeof(edges) / sizeof(edges[0]))];
}

static uintptr_t some_word(const struct filter_bounds *bounds, enum words kind)
{
    static const unsigned percent[] = {
        [WORDS_NONE] = 0, [WORDS_FEW] = 10, [WORDS_HALF] = 50, [WORDS_ALL] = 100};
    if (kind == WORDS_EDGES)
        return edge_word(bounds);
    if (next_random() % 100 >= percent[kind])
        return 0x900000000000 + (next_random() & 0xffffff); /* beyond all of the plain bounds */
    if (bounds->outside.length != 0 && (bounds->extent == 0 || next_random() % 8 == 0))
        return bounds->outside.low + next_random() % bounds->outside.length;
    return bounds->base + (bounds->extent != 0 ? next_random() % bounds->extent : 0);
}

/* One call beside the model and the portable kernel.  at: in the area; out ends where memory does. */
static void check_filter(enum os_simd simd, const struct filter_bounds *bounds, uintptr_t *at, size_t n,
                         enum words kind, char *buffers)
{
    uintptr_t expected[LENGTH_MAX], reference[LENGTH_MAX];
    uintptr_t *out = (uintptr_t *)(buffers + AREA) - n;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        at[i] = some_word(bounds, kind);
        if (model_keeps(bounds, at[i]))
            expected[count++] = at[i];
    }
    size_t found = filter_kernel(simd)(bounds, at, n, out);
    size_t plain = filter_kernel(OS_SIMD_PORTABLE)(bounds, at, n, reference);
    if (found != count || plain != count || memcmp(out, expected, count * sizeof(uintptr_t)) != 0 ||
        memcmp(reference, expected, count * sizeof(uintptr_t)) != 0)
        fail_msg("%zu words at %p, words %d: %zu found, %zu by the portable kernel, not %zu; seed %llu", n,
                 (void *)at, (int)kind, found, plain, count, (unsigned long long)seed);
}

static void filter_finds_the_same(void **given)
{
    enum os_simd simd = level(given);
    char *area = area_new(), *buffers = area_new();
    for (unsigned b = 0; b < BOUNDS_KINDS; b++)
        for (size_t n = 0; n <= LENGTH_MAX; n++)
            for (size_t alignment = 0; alignment < 8; alignment++) {
                struct filter_bounds bounds = some_bounds(b);
                enum words kind = (enum words)(next_random() % WORDS_KINDS);
                check_filter(simd, &bounds, (uintptr_t *)area + alignment, n, kind, buffers);
                kind = (enum words)((n + alignment) % WORDS_KINDS);
                check_filter(simd, &bounds, (uintptr_t *)(area + AREA) - n, n, kind, buffers);
            }
    area_free(area);
    area_free(buffers);
}

/* ---- the filter beside stores ----------------------------------------------------------------------- */

/* Two words that are candidates and one that isn't; any mixture of their halves is none of the three. */
static const struct filter_bounds race_bounds = {0x4000000000, (size_t)1 << 36, {0, 0}};
static const uintptr_t race_words[3] = {0x4111111110, 0x4c22222220, 0x7f0333333330};
enum { RACE_WORDS = 128, ALARM_US = 50 };

static uintptr_t *race_at;
static _Atomic bool race_over;

static void *store_all_the_time(void *unused)
{
    (void)unused;
    for (size_t i = 0; !atomic_load_explicit(&race_over, memory_order_relaxed); i++)
        __atomic_store_n(&race_at[i * 7 % RACE_WORDS], race_words[i % 3], __ATOMIC_RELAXED);
    return NULL;
}

/* Between any two instructions of the kernel, on one processor too. */
static void store_all_at_once(int signal)
{
    static size_t calls;
    (void)signal;
    calls++;
    for (size_t i = 0; i < RACE_WORDS; i++)
        __atomic_store_n(&race_at[i], race_words[calls % 3], __ATOMIC_RELAXED);
}

static void alarms(bool on)
{
    const struct sigaction action = {.sa_handler = on ? store_all_at_once : SIG_IGN};
    const struct itimerval interval = {{0, on ? ALARM_US : 0}, {0, on ? ALARM_US : 0}};
    if (on)
        assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &interval, NULL), 0);
    if (!on)
        assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
}

static void filter_reads_once_and_whole(void **given)
{
    enum os_simd simd = level(given);
    char *area = area_new();
    race_at = (uintptr_t *)area + 5;
    for (size_t i = 0; i < RACE_WORDS; i++)
        race_at[i] = race_words[i % 3];
    atomic_store(&race_over, false);
    sigset_t alarm, before;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, &before); /* the other thread doesn't take it */
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, store_all_the_time, NULL), 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    alarms(true);
    uintptr_t wrong = 0;
    for (uint64_t end = now_ms() + RACE_MS; now_ms() < end;)
        for (int i = 0; i < 1000; i++) {
            uintptr_t out[RACE_WORDS];
            size_t count = filter_kernel(simd)(&race_bounds, race_at, RACE_WORDS, out);
            for (size_t k = 0; k < count; k++)
                if (out[k] != race_words[0] && out[k] != race_words[1])
                    wrong = out[k];
        }
    alarms(false);
    atomic_store(&race_over, true);
    pthread_join(thread, NULL);
    if (wrong != 0)
        fail_msg("%zx was found, which nobody stored or is no candidate", (size_t)wrong);
    area_free(area);
}

/* ---- sweeping --------------------------------------------------------------------------------------- */

enum page_kind { PAGE_EMPTY, PAGE_FULL, PAGE_DEAD, PAGE_MIXED, PAGE_ONE, PAGE_KINDS };

static uint64_t some_mark(enum page_kind kind, uint64_t alloc)
{
    uint64_t one = (uint64_t)1 << next_random() % 64;
    return kind == PAGE_FULL    ? alloc
           : kind == PAGE_MIXED ? alloc & next_random()
           : kind == PAGE_ONE   ? alloc & one
                                : 0;
}

static void fill_page(struct page_bits *bits)
{
    enum page_kind kind = (enum page_kind)(next_random() % PAGE_KINDS);
    for (int w = 0; w < 8; w++) {
        uint64_t cells = next_random() & 1 ? UINT64_MAX : next_random() & next_random();
        bits->word[w].alloc = kind == PAGE_EMPTY || next_random() % 8 == 0 ? 0 : cells;
        bits->word[w].mark = some_mark(kind, bits->word[w].alloc);
    }
}

/* The pages' bits end where memory does. */
static void sweep_moves_marks(void **given)
{
    enum os_simd simd = level(given);
    char *area = area_new();
    for (int round = 0; round < 20000; round++) {
        uint32_t pages = (uint32_t)(next_random() % (PAGES + 1)), live = 0;
        struct page_bits *bits = (struct page_bits *)(area + AREA) - pages, before[PAGES], untouched = {0};
        for (uint32_t i = 0; i < pages; i++) {
            fill_page(&bits[i]);
            for (int w = 0; w < 8; w++)
                live += (uint32_t)__builtin_popcountll(bits[i].word[w].mark);
        }
        fill_page(&bits[-1]);
        memcpy(&untouched, &bits[-1], sizeof(untouched));
        memcpy(before, bits, pages * sizeof(*bits));
        assert_int_equal(sweep_kernel(simd)(bits, pages), live);
        for (uint32_t i = 0; i < pages; i++)
            for (int w = 0; w < 8; w++) {
                assert_true(bits[i].word[w].alloc == before[i].word[w].mark);
                assert_true(bits[i].word[w].mark == 0);
            }
        assert_memory_equal(&untouched, &bits[-1], sizeof(untouched));
    }
    area_free(area);
}

static void sweep_notices_a_wrong_mark(void **given)
{
    enum os_simd simd = level(given);
    for (int round = 0; round < 2000; round++) {
        struct page_bits bits[PAGES] __attribute__((aligned(64)));
        uint32_t pages = 1 + (uint32_t)(next_random() % PAGES);
        for (uint32_t i = 0; i < pages; i++)
            fill_page(&bits[i]);
        size_t at = next_random() % (8 * pages);
        uint64_t bit = (uint64_t)1 << next_random() % 64, mark = bits[at / 8].word[at % 8].mark | bit;
        bits[at / 8].word[at % 8].mark = mark;
        bits[at / 8].word[at % 8].alloc &= ~bit;
        assert_int_equal(sweep_kernel(simd)(bits, pages), SWEEP_WRONG);
        assert_true(bits[at / 8].word[at % 8].mark == mark);
        assert_true((bits[at / 8].word[at % 8].alloc & bit) == 0);
    }
}

static const uint64_t swept_from = UINT64_MAX, swept_to = 0x0123456789abcdef;
struct look {
    struct page_bits *bits;
    _Atomic bool over;
    uint64_t torn; /* the first */
};

static void *look_all_the_time(void *arg)
{
    struct look *look = arg;
    for (size_t i = 0; !atomic_load_explicit(&look->over, memory_order_relaxed); i++) {
        uint64_t word = atomic_load_explicit(&look->bits[i / 8 % 4].word[i % 8].alloc, memory_order_acquire);
        if (word != swept_from && word != swept_to && look->torn == 0)
            look->torn = word;
    }
    return NULL;
}

static void sweep_stores_whole_words(void **given)
{
    enum os_simd simd = level(given);
    struct page_bits bits[4] __attribute__((aligned(64)));
    struct look look = {bits, false, 0};
    memset(bits, 0xff, sizeof(bits));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, look_all_the_time, &look), 0);
    for (uint64_t end = now_ms() + RACE_MS; now_ms() < end;)
        for (int round = 0; round < 1000; round++) {
            for (int i = 0; i < 32; i++) {
                atomic_store_explicit(&bits[i / 8].word[i % 8].alloc, swept_from, memory_order_release);
                atomic_store_explicit(&bits[i / 8].word[i % 8].mark, swept_to, memory_order_relaxed);
            }
            assert_int_equal(sweep_kernel(simd)(bits, 4), 32 * __builtin_popcountll(swept_to));
        }
    atomic_store(&look.over, true);
    pthread_join(thread, NULL);
    if (look.torn != 0)
        fail_msg("an allocation word was seen as %llx", (unsigned long long)look.torn);
}

/* ---- the choice ------------------------------------------------------------------------------------- */

/* TU-4: simd says what may be used at most; what isn't there is never used. */
static void debug_option_bounds_the_choice(void **unused)
{
    (void)unused;
    struct os_debug before = os_debug;
    for (int allowed = OS_SIMD_PORTABLE; allowed <= OS_SIMD_AVX512; allowed++) {
        os_debug.simd = allowed;
        enum os_simd supported = os_simd_supported();
        enum os_simd expected = (enum os_simd)allowed < supported ? (enum os_simd)allowed : supported;
        assert_int_equal(os_simd(), expected);
        filter_init();
        sweep_words_init();
        assert_ptr_equal(filter_words, filter_kernel(expected));
        assert_ptr_equal(sweep_words, sweep_kernel(expected));
        assert_true(allowed == 0 || !OS_SIMD_KERNELS || supported < OS_SIMD_AVX2 ||
                    (filter_words != filter_kernel(OS_SIMD_PORTABLE) &&
                     sweep_words != sweep_kernel(OS_SIMD_PORTABLE)));
    }
    os_debug = before;
}

int main(void)
{
    static enum os_simd levels[] = {OS_SIMD_PORTABLE, OS_SIMD_AVX2, OS_SIMD_AVX512};
    const char *given = getenv("GREY_TEST_SEED");
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    printf("kernels_test: GREY_TEST_SEED=%llu\n", (unsigned long long)seed);
    state = seed;
#define OF_EACH(test)                                                                                        \
    {#test " (portable)", test, NULL, NULL, &levels[0]}, {#test " (AVX2)", test, NULL, NULL, &levels[1]},    \
    {                                                                                                        \
#test " (AVX-512)", test, NULL, NULL, &levels[2]                                                     \
    }
    const struct CMUnitTest tests[] = {
        OF_EACH(filter_finds_the_same),    OF_EACH(filter_reads_once_and_whole),
        OF_EACH(sweep_moves_marks),        OF_EACH(sweep_notices_a_wrong_mark),
        OF_EACH(sweep_stores_whole_words), cmocka_unit_test(debug_option_bounds_the_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

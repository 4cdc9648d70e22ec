/* tests/stress/accounting_test.c -- what Grey says of its memory against what the kernel says (OS-5, OS-21,
 * TR-7).
 *
 * Threads allocate and drop objects of all sizes, register and release foreign regions, and fill, free and
 * lose arenas, under cycles back to back, while memory is given back now and then.  Meanwhile the figures
 * are sampled against the ledger of debug builds and against /proc/self/smaps_rollup; and at times
 * everybody stands still, and then they must agree to the byte:
 *
 *     the classes' sum = the total = what the ledger holds
 *     pages of spans + free + released = the heap's class
 *     the total = the size of the mappings that are named "grey: ...", where the kernel keeps names (5.17)
 *     what it grew by = what the process's private anonymous memory grew by
 *     resident <= Ready, with huge pages <= mapped: those are filled whole; and >= what the threads hold
 *
 * Regions are shared mappings and nothing here calls malloc while it is measured, so that what is private
 * and anonymous is Grey's, but for stacks and the C library's, which have a share at the start.  Sanitizers
 * have much memory of that kind themselves: there, the kernel isn't asked.
 */
#include "support_heap.h"
#include "support_stress.h"

#include "inspect/gauges.h"
#include "os/ledger.h"
#include "os/options.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORKERS = 3, OBJECTS = 64, REGIONS = 8, ARENAS = 3, PASSES = 2, SANITIZED = OS_ASAN || OS_TSAN };
/* Stacks of Grey's threads, and what the C library and the dynamic linker touch meanwhile. */
static const size_t slack = (size_t)4 << 20;
/* In debug builds the ledger itself grows; it is nobody's customer. */
#ifdef GREY_ASSERTS
static const size_t ledger_room = (size_t)4 << 20;
#else
static const size_t ledger_room = 0;
#endif
static const size_t region_bytes = (size_t)256 << 10;

/* ---- what the kernel says ------------------------------------------------------------------------------ */

/* Bytes.  The file is read into a buffer of our own: stdio would allocate. */
struct kernel {
    size_t anonymous, lazy, swapped; /* resident, all of the process */
    size_t private_size;             /* of writable private mappings without a file */
    size_t named_size;               /* of those that are named "grey: ..." */
};

static char text[4 << 20];

static void read_whole(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t n;
    STRESS_CHECK(file >= 0, "no %s", path);
    while ((n = read(file, text + length, sizeof(text) - 1 - length)) > 0)
        length += (size_t)n;
    close(file);
    STRESS_CHECK(length < sizeof(text) - 1, "%s is too long", path);
    text[length] = '\0';
}

static size_t field(const char *name)
{
    const char *at = strstr(text, name);
    STRESS_CHECK(at != NULL, "no %s in smaps_rollup", name);
    return strtoull(at + strlen(name), NULL, 10) << 10;
}

static void read_rollup(struct kernel *kernel)
{
    read_whole("/proc/self/smaps_rollup");
    kernel->anonymous = field("\nAnonymous:");
    kernel->lazy = field("\nLazyFree:");
    kernel->swapped = field("\nSwap:");
}

/* From /proc/self/maps: start-end perms offset device inode name. */
static void read_maps(struct kernel *kernel)
{
    kernel->private_size = kernel->named_size = 0;
    read_whole("/proc/self/maps");
    for (char *line = text, *next; *line != '\0'; line = next) {
        char *end, *permissions;
        next = strchr(line, '\n') + 1;
        next[-1] = '\0';
        size_t start = strtoull(line, &end, 16), size = strtoull(end + 1, &permissions, 16) - start;
        bool named = strstr(line, "[anon:grey: ") != NULL;
        bool nameless = strchr(line, '/') == NULL && (strchr(line, '[') == NULL || named);
        if (strncmp(permissions, " rw-p", 5) == 0 && nameless)
            kernel->private_size += size;
        if (named)
            kernel->named_size += size;
    }
}

static bool kernel_names_mappings(void)
{
    struct kernel kernel;
    read_maps(&kernel);
    return kernel.named_size != 0;
}

/* ---- the threads --------------------------------------------------------------------------------------- */

static atomic_bool closed;           /* the gate at which all stand still */
static _Atomic unsigned at_the_gate; /* of the workers */
static uint64_t deadline;

struct worker {
    uint64_t random;
    void *objects[OBJECTS]; /* a registered root, and so are */
    char *maps[REGIONS];
    struct grey_arena *arenas[ARENAS];
    size_t filled[OBJECTS]; /* bytes of each object that were written */
    grey_foreign handles[REGIONS];
    _Atomic size_t holds; /* the sum of filled */
};
static struct worker workers[WORKERS];
enum { roots_bytes = offsetof(struct worker, filled) };

static void replace_object(struct worker *w)
{
    uint64_t i = stress_below(&w->random, OBJECTS);
    unsigned bits = 4 + (unsigned)stress_below(&w->random, 18);
    size_t size = ((size_t)1 << bits) + stress_below(&w->random, (uint64_t)1 << bits);
    bool leaf = stress_below(&w->random, 2) == 0;
    if (w->objects[i] != NULL && w->filled[i] > 64)
        STRESS_CHECK(((unsigned char *)w->objects[i])[w->filled[i] - 1] == (unsigned char)i,
                     "an object changed");
    void *object = leaf ? grey_alloc_leaf(size) : grey_alloc(size);
    STRESS_CHECK(object != NULL, "no %zu bytes", size);
    memset(object, (int)i, size); /* no pointers: small numbers in every byte */
    atomic_fetch_add(&w->holds, size - w->filled[i]);
    w->filled[i] = size;
    grey_store(&w->objects[i], object);
}

/* Not before its release: its address is in a root. */
static void region_died(uintptr_t start, size_t size, void *arg)
{
    (void)start, (void)size, (void)arg;
    stress_fail(__FILE__, __LINE__, "a region died that was in use");
}

/* Registered and released at random; it holds a list. */
static void change_region(struct worker *w)
{
    uint64_t i = stress_below(&w->random, REGIONS);
    char *map = w->maps[i];
    if (w->handles[i] != 0) {
        STRESS_CHECK(grey_foreign_release(w->handles[i]), "a region was released before");
        w->handles[i] = 0;
    } else {
        struct node *list = list_new(&w->random, 10, 2);
        memset(map, 0, region_bytes);
        __atomic_store_n((struct node **)map, list, __ATOMIC_RELAXED);
        STRESS_CHECK(
            grey_foreign_add(map, region_bytes, GREY_FOREIGN_SCAN, region_died, NULL, &w->handles[i]) == 0,
            "a region was refused");
        grey_keep_alive(list);
    }
}

/* Small or a few chunks, freed, lost or filled further; what is written is not counted as held. */
static void change_arena(struct worker *w)
{
    uint64_t i = stress_below(&w->random, ARENAS), dice = stress_below(&w->random, 8);
    if (w->arenas[i] == NULL)
        grey_store(&w->arenas[i], grey_arena_new());
    STRESS_CHECK(w->arenas[i] != NULL, "no arena");
    for (uint64_t n = stress_below(&w->random, 8); n != 0; n--) {
        size_t size = (size_t)1 << stress_below(&w->random, 22);
        char *p = grey_arena_alloc_leaf(w->arenas[i], size, 0);
        STRESS_CHECK(p != NULL, "no %zu bytes", size);
        memset(p, 1, size);
    }
    if (dice == 0)
        grey_arena_reset(w->arenas[i]);
    else if (dice < 3)
        grey_arena_free(w->arenas[i]);
    if (dice < 4 && dice != 0) /* 3: lost */
        grey_store(&w->arenas[i], NULL);
}

static void stand_at_the_gate(void)
{
    atomic_fetch_add(&at_the_gate, 1);
    while (atomic_load(&closed))
        usleep(1000);
    atomic_fetch_sub(&at_the_gate, 1);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    STRESS_CHECK(grey_root_add(w->objects, roots_bytes) == 0, "no root");
    while (stress_now() < deadline) {
        replace_object(w);
        if (stress_below(&w->random, 16) == 0)
            change_region(w);
        if (stress_below(&w->random, 16) == 0)
            change_arena(w);
        if (atomic_load(&closed))
            stand_at_the_gate();
    }
    for (int i = 0; i < REGIONS; i++)
        if (w->handles[i] != 0)
            STRESS_CHECK(grey_foreign_release(w->handles[i]), "a region was released before");
    STRESS_CHECK(grey_root_remove(w->objects, roots_bytes) == 0, "no such root");
    return NULL;
}

/* ---- under load ---------------------------------------------------------------------------------------- */

static size_t base_anonymous; /* before the library was up */
static bool huge;             /* pages may be filled beyond what is Ready */

static size_t limit_of_resident(void) { return (huge ? os_mapped_total() : os_mapped_ready()) + slack; }

/* Figures of different moments: a difference must be one that passes, so that it is gone when one looks
 * again. */
static void sample_resident(void)
{
    struct kernel kernel;
    size_t before, after, resident;
    for (int attempt = 0; attempt < 50; attempt++) {
        before = limit_of_resident();
        read_rollup(&kernel);
        after = limit_of_resident();
        resident = kernel.anonymous - kernel.lazy - base_anonymous;
        if (resident <= (before > after ? before : after))
            return;
    }
    stress_fail(__FILE__, __LINE__, "%zu bytes are resident, %zu at most expected", resident, after);
}

static void sample_ledger(void)
{
#ifdef GREY_ASSERTS
    size_t mapped = 0, ready = 0;
    for (int attempt = 0; attempt < 10000; attempt++) {
        ledger_totals(&mapped, &ready);
        if (mapped == os_mapped_total() && ready == os_mapped_ready())
            return;
        usleep(10);
    }
    stress_fail(__FILE__, __LINE__, "the ledger has %zu bytes, %zu Ready, the figures say %zu, %zu", mapped,
                ready, os_mapped_total(), os_mapped_ready());
#endif
}

/* One reading of the public figures fits together at any time (TR-7). */
static void sample_stats(void)
{
    struct grey_stats stats = heap_figures();
    STRESS_CHECK(stats.metadata <= stats.mapped && stats.released <= stats.mapped - stats.metadata,
                 "mapped %llu, metadata %llu, released %llu", (unsigned long long)stats.mapped,
                 (unsigned long long)stats.metadata, (unsigned long long)stats.released);
}

/* ---- at rest ------------------------------------------------------------------------------------------- */

static bool have_first;
static size_t first_private, first_total;

static void compare_with_kernel(void)
{
    struct kernel kernel;
    size_t total = os_mapped_total(), held = 0;
    read_rollup(&kernel);
    size_t resident = kernel.anonymous - kernel.lazy - base_anonymous;
    for (int i = 0; i < WORKERS; i++)
        held += atomic_load(&workers[i].holds);
    STRESS_CHECK(resident <= limit_of_resident(), "%zu bytes are resident, %zu at most expected", resident,
                 limit_of_resident());
    STRESS_CHECK(resident + kernel.swapped >= held && os_mapped_ready() >= held,
                 "%zu resident, %zu Ready, but objects hold %zu bytes", resident, os_mapped_ready(), held);
    read_maps(&kernel);
    if (kernel.named_size != 0)
        STRESS_CHECK(kernel.named_size == total, "%zu bytes are named, %zu mapped", kernel.named_size, total);
    if (os_debug.harddecommit) /* Prepared is not writable then */
        total = os_mapped_ready();
    size_t now = kernel.private_size - total, then = first_private - first_total;
    if (have_first)
        STRESS_CHECK(now >= then && now - then <= ledger_room, "mapped by %zd bytes more than is counted",
                     (ssize_t)(now - then));
    first_private = kernel.private_size;
    first_total = total;
    have_first = true;
}

static void compare_at_rest(void)
{
    size_t sum = 0;
    heap_figures_at_rest();
    for (int i = 0; i < OS_CLASSES; i++)
        sum += os_mapped((enum os_class)i);
    STRESS_CHECK(sum == os_mapped_total() && os_mapped_ready() <= sum,
                 "the classes' sum is %zu, the total %zu", sum, os_mapped_total());
    size_t heap = 0; /* the scavenger may wake between two of these: a difference must be one that passes */
    for (int attempt = 0; attempt < 1000 && heap != os_mapped(OS_HEAP); attempt++) {
        heap = heap_in_use_bytes() + heap_free_bytes() + heap_released_bytes();
        usleep(10);
    }
    STRESS_CHECK(heap == os_mapped(OS_HEAP), "the heap is %zu bytes, its parts %zu", os_mapped(OS_HEAP),
                 heap);
#ifdef GREY_ASSERTS
    size_t mapped, ready;
    ledger_totals(&mapped, &ready);
    STRESS_CHECK(mapped == sum && ready == os_mapped_ready(), "the ledger has %zu, %zu, the figures %zu, %zu",
                 mapped, ready, sum, os_mapped_ready());
#endif
    if (!SANITIZED)
        compare_with_kernel();
}

static void rest(void)
{
    atomic_store(&closed, true);
    for (uint64_t end = stress_now() + 60000000000;
         atomic_load(&at_the_gate) < WORKERS && stress_now() < deadline;)
        STRESS_CHECK(stress_now() < end, "a worker does not come to the gate");
    if (atomic_load(&at_the_gate) == WORKERS) {
        grey_collect();
        compare_at_rest();
        grey_trim(); /* Ready -> Prepared */
        compare_at_rest();
    }
    atomic_store(&closed, false);
    while (atomic_load(&at_the_gate) != 0)
        usleep(1000);
}

/* ---- the program --------------------------------------------------------------------------------------- */

static void make_maps(void)
{
    for (int i = 0; i < WORKERS; i++)
        for (int j = 0; j < REGIONS; j++) {
            void *map = mmap(NULL, region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            STRESS_CHECK(map != MAP_FAILED, "no region");
            workers[i].maps[j] = map;
        }
}

static void start(const char *debug)
{
    char both[512];
    const char *environment = getenv("GREY_DEBUG");
    struct grey_options options = GREY_OPTIONS_INIT;
    struct kernel kernel;
    snprintf(both, sizeof(both), "%s%s%s", environment != NULL ? environment : "",
             environment != NULL ? "," : "", debug);
    options.debug = both;
    memset(text, 1, sizeof(text)); /* resident from now on */
    memset(workers, 0, sizeof(workers));
    make_maps();
    read_rollup(&kernel);
    base_anonymous = kernel.anonymous;
    have_first = false;
    assert_int_equal(grey_init(&options), 0);
    huge = !os_debug.disablethp;
}

static void stop(void)
{
    static const enum os_class empty[] = {OS_HEAP, OS_SPANS, OS_ARENAS, OS_CHUNKS, OS_PINS};
    grey_shutdown();
    for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++)
        STRESS_CHECK(os_mapped(empty[i]) == 0, "class %d still has %zu bytes", empty[i], os_mapped(empty[i]));
    /* What is persistent stays (thread blocks, types, roots): little, and all of it Ready. */
    assert_int_equal(os_mapped_ready(), os_mapped_total());
    assert_true(os_mapped_total() <= (size_t)2 << 20);
    sample_ledger();
    for (int i = 0; i < WORKERS; i++)
        for (int j = 0; j < REGIONS; j++)
            munmap(workers[i].maps[j], region_bytes);
}

static void run(const char *debug)
{
    pthread_t threads[WORKERS];
    unsigned samples = 0, rests = 0;
    start(debug);
    uint64_t begin = stress_now();
    deadline = stress_deadline(PASSES);
    uint64_t between = (deadline - begin) / 6, next_rest = begin + between;
    for (int i = 0; i < WORKERS; i++) {
        workers[i].random = stress_seed() + (uint64_t)i * 7919;
        assert_int_equal(grey_thread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (; stress_now() < deadline; samples++) {
        if (!SANITIZED)
            sample_resident();
        sample_ledger();
        sample_stats();
        grey_collect_start();
        usleep(2000);
        if (stress_now() >= next_rest) {
            rest();
            rests++;
            next_rest = stress_now() + between;
        }
    }
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
    /* The threads' stacks may be gone, and nobody holds anything. */
    have_first = false;
    for (int i = 0; i < WORKERS; i++)
        atomic_store(&workers[i].holds, 0);
    grey_collect();
    compare_at_rest();
    fprintf(stderr, "%u samples under load, %u at rest%s\n", samples, rests,
            kernel_names_mappings() ? ", by name too" : "");
    assert_true(samples > 0);
    stop();
}

static void small_pages(void **state)
{
    (void)state;
    run("disablethp=1");
}

static void huge_pages(void **state)
{
    (void)state;
    run("disablethp=0");
}

int main(void)
{
    stress_seed();
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_pages), cmocka_unit_test(huge_pages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

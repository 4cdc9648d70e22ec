/* threads.c -- a server with many threads: most of them wait, deep in a stack, and two work.
 *
 * --threads of them (256) are blocked, a third each in a plain read(), in a read() inside a blocking
 * region, and in a wait on a futex; each with 4 to 64 KiB of stack in use, whose every frame holds an object
 * that nothing else holds and looks at it when the thread returns at last.  Two threads allocate meanwhile
 * (24 to 512 bytes, in a ring of 10,000 slots) and read the clock between allocations.  Their gaps are what
 * such a thread is stalled for, whoever does it: the collector, the allocator, or the scheduler, of which
 * malloc's figures show how much it is.
 */
#include "peer.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SLOTS = 10000, ACTIVE = 2, FRAME = 1024 };

/* Its pointer to itself goes wrong if the memory becomes anything else. */
struct kept {
    struct kept *self;
    uint64_t tag;
};
PEER_TYPE(kept_type, struct kept, self);

struct slot {
    struct kept *object;
};
PEER_TYPE(slot_type, struct slot, object);

struct blocked {
    unsigned number, frames;
};

struct active {
    uint64_t seed, number, end, allocations;
    struct bench_histogram gaps;
};

static int read_end;
static uint32_t done; /* a futex: 1 is the end */
static unsigned started;

static struct kept *kept_make(size_t size, uint64_t tag)
{
    struct kept *kept = size == sizeof *kept ? peer_new(&kept_type) : peer_alloc(size);
    peer_store(&kept->self, kept);
    kept->tag = tag;
    return kept;
}

static void kept_end(struct kept *kept, uint64_t tag)
{
    BENCH_CHECK(kept->self == kept && kept->tag == tag);
    peer_free(kept);
}

/* ---- threads that wait --------------------------------------------------------------------------------- */

static int wait_read(void *arg)
{
    char byte;
    (void)arg;
    return read(read_end, &byte, 1) == 0 ? 0 : 1; /* ends when the other end is closed */
}

static void wait_futex(void)
{
    while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) == 0) /* main's store; the kernel looks again */
        syscall(SYS_futex, &done, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void wait_somehow(unsigned number)
{
    __atomic_fetch_add(&started, 1, __ATOMIC_RELEASE); /* main waits for it */
    if (number % 3 == 0)
        BENCH_CHECK(wait_read(NULL) == 0);
    else if (number % 3 == 1)
        BENCH_CHECK(peer_blocking_call(wait_read, NULL) == 0);
    else
        wait_futex();
}

__attribute__((noinline)) static void descend(const struct blocked *blocked, unsigned frames)
{
    char frame[FRAME];
    struct kept *volatile kept = kept_make(sizeof *kept, blocked->number * 1000 + frames);
    memset(frame, (int)frames, sizeof frame);
    __asm__ volatile("" : : "r"(frame) : "memory"); /* it is in use */
    if (frames > 1)
        descend(blocked, frames - 1);
    else
        wait_somehow(blocked->number);
    __asm__ volatile("" : : "r"(frame) : "memory");
    kept_end(kept, blocked->number * 1000 + frames);
}

static void *run_blocked(void *arg)
{
    struct blocked *blocked = arg;
    descend(blocked, blocked->frames);
    return NULL;
}

/* ---- threads that work --------------------------------------------------------------------------------- */

static uint64_t tag_of(const struct active *active, uint64_t slot) { return active->number << 32 | slot; }

static void *run_active(void *arg)
{
    struct active *active = arg;
    struct slot *ring = peer_new_array(&slot_type, SLOTS);
    uint64_t slot = 0, last = bench_now();
    while (last < active->end) {
        struct kept *kept =
            kept_make(sizeof *kept + 8 + bench_below(&active->seed, 489), tag_of(active, slot));
        if (ring[slot].object != NULL)
            kept_end(ring[slot].object, tag_of(active, slot));
        peer_store(&ring[slot].object, kept);
        slot = slot + 1 < SLOTS ? slot + 1 : 0;
        active->allocations++;
        uint64_t now = bench_now();
        bench_count(&active->gaps, now - last);
        last = now;
    }
    for (slot = 0; slot < SLOTS; slot++)
        if (ring[slot].object != NULL)
            kept_end(ring[slot].object, tag_of(active, slot));
    peer_free(ring);
    return NULL;
}

/* ---- the whole ----------------------------------------------------------------------------------------- */

static void print(const struct active *active, const struct bench_section *section, const char *name)
{
    static struct bench_histogram gaps;
    uint64_t allocations = 0;
    for (int i = 0; i < ACTIVE; i++) {
        bench_merge(&gaps, &active[i].gaps);
        allocations += active[i].allocations;
    }
    struct bench_result result = {"threads", PEER_NAME,   "gap_p99.99",
                                  "us",      BENCH_LOWER, bench_percentile(&gaps, 0.9999) / 1e3};
    bench_print(&result, section, "%s", name);
    result.metric = "gap_p99.999";
    result.value = bench_percentile(&gaps, 0.99999) / 1e3;
    bench_print(&result, section, "%s", name);
    result.metric = "gap_max";
    result.value = (double)gaps.longest / 1e3;
    bench_print(&result, section, "%s", name);
    result = (struct bench_result){"threads",    PEER_NAME,
                                   "rate",       "M/s",
                                   BENCH_HIGHER, (double)allocations / ((double)section->wall_ns / 1e3)};
    bench_print(&result, section, "%s", name);
    bench_print_percentiles("threads", PEER_NAME, "gaps", name, &gaps);
    peer_print_pauses("threads", section, name);
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    unsigned threads = options.threads != 0 ? options.threads : 256;
    BENCH_CHECK(threads <= PEER_THREADS);
    uint64_t duration = options.seconds != 0 ? options.seconds * 1000000000ull
                        : options.quick      ? 200000000
                                             : 5000000000;
    peer_start(options.workers);

    int ends[2];
    BENCH_CHECK(pipe(ends) == 0);
    read_end = ends[0];
    static pthread_t ids[PEER_THREADS];
    static struct blocked blocked[PEER_THREADS];
    uint64_t seed = options.seed;
    for (unsigned i = 0; i < threads; i++) {
        blocked[i] = (struct blocked){i, 4 + bench_below(&seed, 61) * 60 / 64};
        BENCH_CHECK(peer_thread_create(&ids[i], run_blocked, &blocked[i]) == 0);
    }
    while (__atomic_load_n(&started, __ATOMIC_ACQUIRE) < threads)
        usleep(1000);

    static struct active active[ACTIVE];
    struct bench_section section;
    bench_begin(&section);
    for (unsigned i = 0; i < ACTIVE; i++) {
        active[i].seed = options.seed + i;
        active[i].number = i;
        active[i].end = bench_now() + duration;
    }
    peer_run(ACTIVE, run_active, active, sizeof active[0]);
    bench_end(&section);

    __atomic_store_n(&done, 1, __ATOMIC_RELEASE); /* wait_futex's load */
    syscall(SYS_futex, &done, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    close(ends[1]);
    for (unsigned i = 0; i < threads; i++)
        BENCH_CHECK(peer_thread_join(ids[i]) == 0);
    char name[64];
    snprintf(name, sizeof name, "blocked=%u,active=%d", threads, ACTIVE);
    print(active, &section, name);
    return 0;
}

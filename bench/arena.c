/* arena.c -- arenas beside what else a request's memory could come from.
 *
 *     grey     an arena of Grey's
 *     heap     Grey's heap, where the collector finds out
 *     bump     a bump allocator as one writes it by hand: a chunk of 8 MiB, memset to zero when it is used again
 *     malloc   malloc, and free for each object
 *
 * bump: objects of one size, one after the other, with a pointer to the one before; at the end of 64 MiB all are
 * walked and freed.  In ns an object, everything included.
 *
 * leaf: the same with objects without pointers, which need no pointer bits; they are not walked.
 *
 * requests: two threads, each request a tree of a few hundred objects and some text, 20 KB in all, that is
 * walked and dropped, beside a heap of 64 MiB that stays.  In us a request, and how many cycles of the
 * collector a million of them would cost.
 *
 * free: (grey) what the end of an arena of 32 full chunks costs, a chunk.
 *
 * lost, untouched: (grey) threads that do nothing but take arenas of 20 MiB and lose them, as fast as memory can be
 * left to the collector; --threads or 4.  Ten pages of each are written to, or none, which the kernel does not slow
 * down.  The most that stood in chunks, of twenty looks a second, and how many arenas were lost.
 */
#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(PEER_GREY) || defined(PEER_HEAP)
#include "grey.h"
#define WITH_GREY 1
#else
#define WITH_GREY 0
#define GREY_TYPE(id, T, ...) enum { id = sizeof(T) }
#define GREY_TYPE_LEAF(id, T) enum { id = sizeof(T) }
#define grey_store(slot, value) (*(slot) = (value))
#endif

enum { CHUNK = 8 << 20, ROUND = 64 << 20 };

/* ---- peers: a space from which objects come and that ends as a whole -------------------------------------- */

#if defined(PEER_GREY)

#define PEER_NAME "grey"
typedef struct grey_arena *space;
static space space_new(void)
{
    space s = grey_arena_new();
    BENCH_CHECK(s != NULL);
    return s;
}
static void *space_text(space *s, size_t size) { return grey_arena_alloc_leaf(*s, size, 0); }
#define SPACE_OBJECT(s, type) grey_arena_new_object(*(s), &(type))
static void space_end(space *s, void **objects, size_t n)
{
    (void)objects, (void)n;
    grey_arena_free(*s);
}

#elif defined(PEER_HEAP)

#define PEER_NAME "heap"
typedef int space;
static space space_new(void) { return 0; }
static void *space_text(space *s, size_t size)
{
    (void)s;
    return grey_zalloc_leaf(size);
}
#define SPACE_OBJECT(s, type) ((void)(s), grey_new(&(type)))
static void space_end(space *s, void **objects, size_t n) { (void)s, (void)objects, (void)n; }

#elif defined(PEER_BUMP)

#define PEER_NAME "bump"
struct chunk {
    struct chunk *next;
    char *end; /* of what was used */
};
typedef struct {
    struct chunk *chunks;
    char *at, *end;
} space;
static _Thread_local struct chunk *spare;
static space space_new(void) { return (space){NULL, NULL, NULL}; }
static __attribute__((noinline)) void space_grow(space *s)
{
    struct chunk *chunk = spare;
    if (chunk != NULL) {
        spare = chunk->next;
        memset(chunk, 0, (size_t)(chunk->end - (char *)chunk));
    } else {
        chunk = aligned_alloc(2 << 20, CHUNK);
        BENCH_CHECK(chunk != NULL);
        memset(chunk, 0, CHUNK);
    }
    if (s->chunks != NULL)
        s->chunks->end = s->at;
    chunk->next = s->chunks;
    s->chunks = chunk;
    s->at = (char *)(chunk + 1);
    s->end = (char *)chunk + CHUNK;
}
static void *space_text(space *s, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    if ((size_t)(s->end - s->at) < size)
        space_grow(s);
    void *p = s->at;
    s->at += size;
    return p;
}
#define SPACE_OBJECT(s, type) space_text(s, type)
static void space_end(space *s, void **objects, size_t n)
{
    (void)objects, (void)n;
    if (s->chunks != NULL)
        s->chunks->end = s->at;
    while (s->chunks != NULL) {
        struct chunk *chunk = s->chunks;
        s->chunks = chunk->next;
        chunk->next = spare;
        spare = chunk;
    }
}

#else

#define PEER_NAME "malloc"
typedef int space;
static space space_new(void) { return 0; }
static void *space_text(space *s, size_t size)
{
    (void)s;
    return calloc(1, size);
}
#define SPACE_OBJECT(s, type) space_text(s, type)
static void space_end(space *s, void **objects, size_t n)
{
    (void)s;
    for (size_t i = 0; i < n; i++)
        free(objects[i]);
}

#endif

static uint64_t cycles(void)
{
#if WITH_GREY
    struct grey_stats stats = GREY_STATS_INIT;
    BENCH_CHECK(grey_stats_read(&stats) == 0);
    return stats.cycles;
#else
    return 0;
#endif
}

static void print(const char *metric, const char *unit, double value, const struct bench_section *section,
                  const char *name)
{
    bench_print(&(struct bench_result){"arena", PEER_NAME, metric, unit, BENCH_LOWER, value}, section, "%s",
                name);
}

/* ---- bump ---------------------------------------------------------------------------------------------------- */

/* One loop for each size, so that it is a constant. */
#define SIZE(N)                                                                                              \
    struct object##N {                                                                                       \
        struct object##N *previous;                                                                          \
        uint64_t tag[(N - 8) / 8];                                                                           \
    };                                                                                                       \
    GREY_TYPE(type##N, struct object##N, previous);                                                          \
    static void bump##N(size_t rounds)                                                                       \
    {                                                                                                        \
        size_t n = ROUND / N;                                                                                \
        void **objects = malloc(n * sizeof(*objects));                                                       \
        BENCH_CHECK(objects != NULL);                                                                        \
        struct bench_section section;                                                                        \
        bench_begin(&section);                                                                               \
        for (size_t r = 0; r < rounds; r++) {                                                                \
            space s = space_new();                                                                           \
            struct object##N *last = NULL;                                                                   \
            for (size_t i = 0; i < n; i++) {                                                                 \
                struct object##N *object = SPACE_OBJECT(&s, type##N);                                        \
                grey_store(&object->previous, last);                                                         \
                object->tag[0] = i;                                                                          \
                last = object;                                                                               \
                if (sizeof(s) == sizeof(int))                                                                \
                    objects[i] = WITH_GREY ? NULL : object;                                                  \
            }                                                                                                \
            for (size_t i = n; i-- > 0; last = last->previous)                                               \
                BENCH_CHECK(last->tag[0] == i);                                                              \
            space_end(&s, objects, n);                                                                       \
        }                                                                                                    \
        bench_end(&section);                                                                                 \
        free(objects);                                                                                       \
        print("bump", "ns", (double)section.wall_ns / (double)(rounds * n), &section, "bump,size=" #N);      \
    }
SIZE(16)
SIZE(32)
SIZE(64)
SIZE(256)

static void leaf(size_t rounds)
{
    enum { N = 64 };
    size_t n = ROUND / N;
    void **objects = malloc(n * sizeof(*objects));
    BENCH_CHECK(objects != NULL);
    struct bench_section section;
    bench_begin(&section);
    for (size_t r = 0; r < rounds; r++) {
        space s = space_new();
        for (size_t i = 0; i < n; i++) {
            uint64_t *object = space_text(&s, N);
            BENCH_CHECK(object[1] == 0);
            object[0] = i;
            if (sizeof(s) == sizeof(int))
                objects[i] = WITH_GREY ? NULL : object;
        }
        space_end(&s, objects, n);
    }
    bench_end(&section);
    free(objects);
    print("bump", "ns", (double)section.wall_ns / (double)(rounds * n), &section, "leaf,size=64");
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

enum { FANOUT = 4, NODES = 200, TEXT = 48 };
struct node {
    struct node *child[FANOUT];
    char *text;
    uint64_t number;
};
GREY_TYPE(node_type, struct node, GREY_ARRAY(child, FANOUT), text);

static uint64_t walk(const struct node *node)
{
    uint64_t sum = node->number + (unsigned char)node->text[0];
    for (int i = 0; i < FANOUT; i++)
        if (node->child[i] != NULL)
            sum += walk(node->child[i]);
    return sum;
}

static void request(uint64_t number)
{
    struct node *nodes[NODES];
    void *freed[2 * NODES];
    uint64_t sum = 0;
    space s = space_new();
    for (size_t i = 0; i < NODES; i++) {
        nodes[i] = SPACE_OBJECT(&s, node_type);
        char *text = space_text(&s, TEXT);
        memset(text, (int)('a' + i % 26), TEXT - 1);
        grey_store(&nodes[i]->text, text);
        nodes[i]->number = number + i;
        sum += number + i + 'a' + i % 26;
        freed[2 * i] = nodes[i];
        freed[2 * i + 1] = text;
        if (i != 0)
            grey_store(&nodes[(i - 1) / FANOUT]->child[(i - 1) % FANOUT], nodes[i]);
    }
    BENCH_CHECK(walk(nodes[0]) == sum);
    space_end(&s, freed, 2 * NODES);
}

static size_t requests_each;
static void *serve(void *arg)
{
    for (size_t i = 0; i < requests_each; i++)
        request((uint64_t)(uintptr_t)arg + i);
    return NULL;
}

#if WITH_GREY
struct keep {
    struct keep *next;
    char bytes[56];
};
GREY_TYPE(keep_type, struct keep, next);
GREY_ROOT(struct keep *, kept);
#endif

static void measure_requests(bool quick)
{
    enum { THREADS = 2, LIVE = 64 << 20 };
    requests_each = quick ? 200 : 30000;
#if WITH_GREY
    for (size_t i = 0; i < (quick ? 1 << 20 : LIVE) / sizeof(struct keep); i++) {
        struct keep *object = grey_new(&keep_type);
        grey_store(&object->next, kept);
        grey_store(&kept, object);
    }
    grey_collect();
#endif
    uint64_t before = cycles();
    pthread_t threads[THREADS];
    struct bench_section section;
    bench_begin(&section);
    for (uintptr_t i = 0; i < THREADS; i++)
        BENCH_CHECK(pthread_create(&threads[i], NULL, serve, (void *)(i << 32)) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    bench_end(&section);
    double n = (double)(THREADS * requests_each);
    print("request", "us", (double)section.wall_ns * THREADS / n / 1e3, &section, "requests");
#if WITH_GREY
    print("cycles", "per_million", (double)(cycles() - before) / n * 1e6, &section, "requests");
#else
    (void)before;
#endif
}

/* ---- free -------------------------------------------------------------------------------------------------------- */

#if defined(PEER_GREY)
static void measure_free(bool quick)
{
    enum { CHUNKS = 32 };
    size_t rounds = quick ? 1 : 20;
    uint64_t spent = 0;
    struct bench_section section;
    bench_begin(&section);
    for (size_t r = 0; r < rounds; r++) {
        space s = space_new();
        for (size_t i = 0; i < CHUNKS * (size_t)CHUNK / 65536; i++) {
            char *p = space_text(&s, 65536);
            for (size_t at = 0; at < 65536; at += 4096)
                p[at] = 1;
        }
        uint64_t begin = bench_now();
        grey_arena_free(s);
        spent += bench_now() - begin;
        grey_collect(); /* quarantine ends, and no free meets a cycle */
    }
    bench_end(&section);
    print("free", "us", (double)spent / (double)(rounds * CHUNKS) / 1e3, &section, "free,chunks=32");
}

enum { LOSERS_MOST = 256, PIECES = 10 };
static const size_t piece = 2 << 20;
static _Atomic uint64_t lost;
static atomic_bool enough;

static void *lose(void *touch)
{
    BENCH_CHECK(grey_thread_attach() == 0);
    for (; !atomic_load(&enough); atomic_fetch_add(&lost, 1)) {
        space s = space_new();
        for (int i = 0; i < PIECES; i++) {
            char *p = space_text(&s, piece);
            BENCH_CHECK(p != NULL);
            if (touch != NULL)
                BENCH_CHECK((*p)++ == 0);
        }
    }
    return NULL;
}

static void measure_lost(const char *what, bool touch, bool quick, unsigned n)
{
    n = n != 0 ? n : 4;
    BENCH_CHECK(n <= LOSERS_MOST);
    int looks = quick ? 2 : 60;
    uint64_t most = 0, before = atomic_load(&lost);
    atomic_store(&enough, false);
    pthread_t threads[LOSERS_MOST];
    struct bench_section section;
    char name[32];
    snprintf(name, sizeof(name), "%s,threads=%u", what, n);
    bench_begin(&section);
    for (unsigned i = 0; i < n; i++)
        BENCH_CHECK(pthread_create(&threads[i], NULL, lose, touch ? &lost : NULL) == 0);
    for (int i = 0; i < looks; i++) {
        struct grey_stats stats = GREY_STATS_INIT;
        nanosleep(&(struct timespec){0, 50 * 1000 * 1000}, NULL);
        BENCH_CHECK(grey_stats_read(&stats) == 0);
        uint64_t now = stats.arena_chunks_active + stats.arena_chunks_pending + stats.arena_chunks_reusable;
        most = now > most ? now : most;
    }
    atomic_store(&enough, true);
    bench_end(&section);
    double seconds = (double)section.wall_ns / 1e9;
    print("held", "MiB", (double)(most * (CHUNK >> 20)), &section, name);
    bench_print(&(struct bench_result){"arena", PEER_NAME, "rate", "1/s", BENCH_HIGHER,
                                       (double)(atomic_load(&lost) - before) / seconds},
                &section, "%s", name);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}
#endif

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    size_t rounds = options.quick ? 1 : 10;
    const char *only = options.variant;
    if (only == NULL || strcmp(only, "bump") == 0) {
        bump16(rounds);
        bump32(rounds);
        bump64(rounds);
        bump256(rounds);
        leaf(rounds);
    }
#if defined(PEER_GREY)
    if (only == NULL || strcmp(only, "free") == 0)
        measure_free(options.quick);
    if (only == NULL || strcmp(only, "lost") == 0)
        measure_lost("lost", true, options.quick, options.threads);
    if (only == NULL || strcmp(only, "untouched") == 0)
        measure_lost("untouched", false, options.quick, options.threads);
#endif
    if (only == NULL || strcmp(only, "requests") == 0)
        measure_requests(options.quick);
    return 0;
}

/* tests/stress/support_stress.c -- see support_stress.h. */
#include "support_stress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const uint64_t MAGIC = 0x6e6f64652d677279; /* no address: above 2^48 */

/* ---- seeds and time ---------------------------------------------------------------------------------- */

uint64_t stress_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t seed;

uint64_t stress_seed(void)
{
    if (seed == 0) {
        const char *text = getenv("GREY_TEST_SEED");
        seed = text != NULL ? strtoull(text, NULL, 0) : stress_now() ^ (uint64_t)getpid() << 40;
        seed |= 1;
        fprintf(stderr, "GREY_TEST_SEED=%#llx\n", (unsigned long long)seed);
    }
    return seed;
}

uint64_t stress_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

uint64_t stress_deadline(unsigned tests)
{
    const char *text = getenv("GREY_TEST_SECONDS");
    double seconds = text != NULL ? atof(text) : 3;
    return stress_now() + (uint64_t)(seconds * 1e9 / tests);
}

void stress_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    flockfile(stderr);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, " (GREY_TEST_SEED=%#llx)\n", (unsigned long long)seed);
    funlockfile(stderr);
    va_end(arguments);
    abort();
}

/* ---- nodes -------------------------------------------------------------------------------------------- */

GREY_TYPE(node_type, struct node, GREY_ARRAY(edge, NODE_EDGES));
/* The same with a tail that makes it too big for a mask: its cells carry a type header. */
struct headed_node {
    struct node node;
    char tail[600];
};
GREY_TYPE(headed_type, struct headed_node, GREY_ARRAY(node.edge, NODE_EDGES));

static uint64_t next_serial(void)
{
    static _Atomic uint64_t threads;
    static __thread uint64_t serial;
    if (serial == 0)
        serial = (atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) + 1) << 40 | (uint64_t)1 << 63;
    return ++serial;
}

static uint64_t seal_of(const struct node *node)
{
    uint64_t state = (uintptr_t)node ^ node->serial * 3 ^ node->tag << 7;
    return stress_random(&state) | (uint64_t)1 << 63; /* no address */
}

struct node *node_fill(struct node *node, uint64_t tag)
{
    STRESS_CHECK(node != NULL, "out of memory");
    STRESS_CHECK(node->magic == 0 && node->edge[0] == NULL && node->edge[NODE_EDGES - 1] == NULL,
                 "new object %p is not zeroed", (void *)node);
    node->serial = next_serial();
    node->tag = tag;
    node->seal = seal_of(node);
    node->magic = MAGIC;
    return node;
}

struct node *node_new_typed(uint64_t tag) { return node_fill(grey_new(&node_type), tag); }

struct node *node_new(uint64_t *random, uint64_t tag)
{
    uint64_t kind = stress_below(random, 1000);
    if (kind < 600)
        return node_new_typed(tag);
    if (kind < 700)
        return node_fill(grey_new(&headed_type), tag);
    if (kind < 997)
        return node_fill(grey_alloc(sizeof(struct node) + stress_below(random, 200)), tag);
    return node_fill(grey_alloc(sizeof(struct node) + stress_below(random, 80000)), tag);
}

void node_check(const struct node *node)
{
    STRESS_CHECK(node->magic == MAGIC && node->seal == seal_of(node),
                 "object %p is dead or another: magic %#llx serial %#llx tag %#llx seal %#llx",
                 (const void *)node, (unsigned long long)node->magic, (unsigned long long)node->serial,
                 (unsigned long long)node->tag, (unsigned long long)node->seal);
}

void node_link(struct node *parent, int k, struct node *child)
{
    parent->expect[k] = child != NULL ? child->serial : 0;
    grey_store(&parent->edge[k], child);
}

struct node *node_follow(const struct node *parent, int k)
{
    struct node *child = __atomic_load_n(&parent->edge[k], __ATOMIC_ACQUIRE);
    if (child == NULL) {
        STRESS_CHECK(parent->expect[k] == 0, "edge %d of %p leads nowhere", k, (const void *)parent);
        return NULL;
    }
    node_check(child);
    STRESS_CHECK(child->serial == parent->expect[k], "edge %d of %p leads to %p, serial %#llx, not %#llx", k,
                 (const void *)parent, (void *)child, (unsigned long long)child->serial,
                 (unsigned long long)parent->expect[k]);
    return child;
}

struct node *list_new(uint64_t *random, size_t length, uint64_t tag)
{
    struct node *list = NULL;
    for (size_t i = 0; i < length; i++) {
        struct node *node = node_new(random, tag);
        node_link(node, 0, list);
        list = node;
    }
    return list;
}

size_t list_check(const struct node *list)
{
    size_t length = 0;
    if (list != NULL)
        node_check(list);
    for (; list != NULL; list = node_follow(list, 0))
        length++;
    return length;
}

struct node *tree_new(uint64_t *random, unsigned depth, uint64_t tag)
{
    if (depth == 0 || stress_below(random, 16) == 0)
        return NULL;
    struct node *left = tree_new(random, depth - 1, tag);
    struct node *node = node_new(random, tag);
    node_link(node, 0, left);
    node_link(node, 1, tree_new(random, depth - 1, tag));
    return node;
}

size_t tree_check(const struct node *tree)
{
    if (tree == NULL)
        return 0;
    node_check(tree);
    return 1 + tree_check(node_follow(tree, 0)) + tree_check(node_follow(tree, 1));
}

/* ---- cycles back to back ------------------------------------------------------------------------------- */

static pthread_t cycler;
static atomic_bool cycler_stops;
static uint64_t cycler_cycles;

static void *cycle_back_to_back(void *unused)
{
    (void)unused;
    for (cycler_cycles = 0; cycler_cycles == 0 || !atomic_load(&cycler_stops); cycler_cycles++)
        grey_collect();
    return NULL;
}

void stress_cycles_start(void)
{
    atomic_store(&cycler_stops, false);
    STRESS_CHECK(grey_thread_create(&cycler, NULL, cycle_back_to_back, NULL) == 0, "no thread");
}

uint64_t stress_cycles_stop(void)
{
    atomic_store(&cycler_stops, true);
    STRESS_CHECK(grey_thread_join(cycler, NULL) == 0, "no join");
    return cycler_cycles;
}

__attribute__((noinline)) void stress_wipe_stack(void)
{
    volatile char waste[16384];
    for (size_t i = 0; i < sizeof(waste); i++)
        waste[i] = 0;
}

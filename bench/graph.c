/* graph.c -- how long a full collection of a big heap takes, by the shape of the heap.
 *
 * Marking is a race with memory latency, so shape decides: a tree in allocation order is read from front
 * to back, a random graph misses the cache twice an object, a list can't be prefetched at all (only 64 of
 * them can be followed at a time).  Nodes have 64 bytes and four edges; the heap has --mib of them, 1 GiB
 * if not said.
 *
 *     random     four random edges a node; a few nodes (e^-4) are garbage
 *     tree       a binary tree in depth-first allocation order
 *     lists      64 lists in allocation order
 *     shuffled   64 lists through a random permutation of the nodes
 *     cache      a hash table of entries chained in an LRU list, each with a leaf object of 64 bytes
 *
 * The heap is built with collection off, when an index in malloc memory may hold the nodes.  The graph
 * is walked before the first collection and after the last: the same objects with the same contents must
 * be there.  The first collection sweeps the garbage and isn't counted.
 *
 * With --threads N as many mutators are busy meanwhile: they walk the graph, keep what they come across in
 * a ring of their own, which costs a store barrier each, and allocate a node every eighth step.  Their
 * speed during the collections is reported too.  (For a collector that stops the world it is none.)
 *
 * Grey's collection includes its sweep, Boehm's leaves sweeping to later allocations.
 * mark_cpu_per_object, for Grey only, is the processor time of its mark workers.
 */
#include "peer.h"

struct node {
    struct node *edges[4];
    uint64_t id, visited, unused[2];
};
PEER_TYPE(node_type, struct node, PEER_ARRAY(edges, 4));

struct entry {
    struct entry *chain, *newer, *older;
    uint64_t *value; /* VALUE_WORDS, the first is the key */
    uint64_t key, unused[3];
};
PEER_TYPE(entry_type, struct entry, chain, newer, older, value);

struct bucket {
    struct entry *first;
};
PEER_TYPE(bucket_type, struct bucket, first);

enum { LISTS = 64, VALUE_WORDS = 8 };
PEER_ROOT(struct node *[LISTS], roots);
PEER_ROOT(struct bucket *, table);
PEER_ROOT(struct entry *, newest);

_Static_assert(sizeof(struct node) == 64 && sizeof(struct entry) == 64, "objects are 64 bytes");

static size_t buckets; /* a power of two */

/* What must still be there afterwards. */
struct census {
    uint64_t objects, sum;
};

static struct node *node_make(uint64_t id)
{
    struct node *node = peer_new(&node_type);
    node->id = id;
    return node;
}

static struct node **nodes_make(size_t n)
{
    struct node **nodes = peer_checked(malloc(n * sizeof(struct node *)));
    for (size_t i = 0; i < n; i++)
        nodes[i] = node_make(i);
    return nodes;
}

static void build_random(size_t n, uint64_t *seed)
{
    struct node **nodes = nodes_make(n);
    for (size_t i = 0; i < n; i++)
        for (int edge = 0; edge < 4; edge++)
            peer_store(&nodes[i]->edges[edge], nodes[bench_below(seed, (uint32_t)n)]);
    for (int i = 0; i < LISTS; i++)
        peer_store(&roots[i], nodes[bench_below(seed, (uint32_t)n)]);
    free(nodes);
}

static struct node *build_subtree(uint64_t *id, size_t n)
{
    if (n == 0)
        return NULL;
    struct node *node = node_make((*id)++);
    peer_store(&node->edges[0], build_subtree(id, (n - 1) / 2));
    peer_store(&node->edges[1], build_subtree(id, n - 1 - (n - 1) / 2));
    return node;
}

static void build_tree(size_t n, uint64_t *seed)
{
    uint64_t id = 0;
    (void)seed;
    peer_store(&roots[0], build_subtree(&id, n));
}

static void link_lists(struct node **nodes, size_t n)
{
    size_t length = n / LISTS;
    for (size_t list = 0; list < LISTS; list++) {
        struct node **first = nodes + list * length;
        for (size_t i = 0; i + 1 < length; i++)
            peer_store(&first[i]->edges[0], first[i + 1]);
        peer_store(&roots[list], first[0]);
    }
    free(nodes);
}

static void build_lists(size_t n, uint64_t *seed)
{
    (void)seed;
    link_lists(nodes_make(n), n);
}

static void build_shuffled(size_t n, uint64_t *seed)
{
    struct node **nodes = nodes_make(n);
    for (size_t i = n - 1; i > 0; i--) {
        size_t j = bench_below(seed, (uint32_t)(i + 1));
        struct node *other = nodes[j];
        nodes[j] = nodes[i];
        nodes[i] = other;
    }
    link_lists(nodes, n);
}

static void build_cache(size_t n, uint64_t *seed)
{
    size_t entries = n / 2;
    for (buckets = 1; buckets < entries;)
        buckets *= 2;
    peer_store(&table, (struct bucket *)peer_new_array(&bucket_type, buckets));
    for (size_t i = 0; i < entries; i++) {
        struct entry *entry = peer_new(&entry_type);
        uint64_t *value = peer_alloc_leaf(VALUE_WORDS * sizeof(uint64_t));
        entry->key = bench_random(seed);
        for (int word = 0; word < VALUE_WORDS; word++)
            value[word] = entry->key;
        struct bucket *bucket = &table[entry->key & (buckets - 1)];
        peer_store(&entry->value, value);
        peer_store(&entry->chain, bucket->first);
        peer_store(&bucket->first, entry);
        peer_store(&entry->older, newest);
        if (newest != NULL)
            peer_store(&newest->newer, entry);
        peer_store(&newest, entry);
    }
}

/* Depth first, on a stack that is as long as the worst case; pages of it that aren't used cost
 * nothing.  pass tells this walk's visits from those of earlier ones. */
static void walk_nodes(size_t n, uint64_t pass, struct census *out)
{
    struct node **stack = peer_checked(malloc((n + LISTS) * sizeof(struct node *)));
    size_t depth = 0;
    for (int i = 0; i < LISTS; i++)
        if (roots[i] != NULL && roots[i]->visited != pass) {
            roots[i]->visited = pass;
            stack[depth++] = roots[i];
        }
    while (depth > 0) {
        struct node *node = stack[--depth];
        BENCH_CHECK(node->id < n);
        out->objects++;
        out->sum += node->id * node->id;
        for (int edge = 0; edge < 4; edge++) {
            struct node *next = node->edges[edge];
            if (next != NULL && next->visited != pass) {
                next->visited = pass;
                stack[depth++] = next;
            }
        }
    }
    free(stack);
}

static void walk_cache(size_t n, uint64_t pass, struct census *out)
{
    struct entry *newer = NULL;
    (void)n;
    (void)pass;
    for (struct entry *entry = newest; entry != NULL; newer = entry, entry = entry->older) {
        BENCH_CHECK(entry->newer == newer);
        for (int word = 0; word < VALUE_WORDS; word++)
            BENCH_CHECK(entry->value[word] == entry->key);
        out->objects += 2;
        out->sum += entry->key;
    }
    uint64_t chained = 0;
    for (size_t i = 0; i < buckets; i++)
        for (struct entry *entry = table[i].first; entry != NULL; entry = entry->chain) {
            BENCH_CHECK((entry->key & (buckets - 1)) == i);
            chained++;
        }
    BENCH_CHECK(2 * chained == out->objects);
    out->objects++; /* the table */
}

/* One step of a mutator's walk; a new start where there is no way on. */
static void *step_nodes(void *at, uint64_t random)
{
    struct node *node = at;
    struct node *next = node != NULL ? node->edges[random & 3] : NULL;
    return next != NULL ? next : roots[(random >> 2) % LISTS];
}

static void *step_cache(void *at, uint64_t random)
{
    struct entry *entry = at;
    struct entry *next = entry != NULL ? (random & 1) != 0 ? entry->older : entry->chain : NULL;
    return next != NULL ? next : table[random & (buckets - 1)].first;
}

static const struct variant {
    const char *name;
    void (*build)(size_t n, uint64_t *seed);
    void (*walk)(size_t n, uint64_t pass, struct census *out);
    void *(*step)(void *at, uint64_t random);
} variants[] = {
    {"random", build_random, walk_nodes, step_nodes}, {"tree", build_tree, walk_nodes, step_nodes},
    {"lists", build_lists, walk_nodes, step_nodes},   {"shuffled", build_shuffled, walk_nodes, step_nodes},
    {"cache", build_cache, walk_cache, step_cache},
};

static const struct variant *find(const char *name)
{
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++)
        if (name == NULL || strcmp(name, variants[i].name) == 0)
            return &variants[i];
    bench_fail("no variant %s", name);
}

/* ---- mutators ------------------------------------------------------------------------------------------ */

enum { RING = 1024, MUTATORS = 64, STEPS = 256 };

struct slot {
    void *object;
};
PEER_TYPE(slot_type, struct slot, object);

static bool done;
struct mutator {
    const struct variant *variant;
    uint64_t seed, steps; /* steps is read by main */
    char apart[40];
};

static void *mutate(void *arg)
{
    struct mutator *mutator = arg;
    struct slot *ring = peer_new_array(&slot_type, RING);
    void *at = NULL;
    while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
        for (int i = 0; i < STEPS; i++) {
            uint64_t random = bench_random(&mutator->seed);
            at = mutator->variant->step(at, random >> 16);
            peer_store(&ring[random % RING].object, i % 8 != 0 ? at : (void *)peer_new(&node_type));
        }
        __atomic_fetch_add(&mutator->steps, STEPS, __ATOMIC_RELAXED);
    }
    return NULL;
}

static struct mutator mutators[MUTATORS];
static pthread_t mutator_ids[MUTATORS];

static void mutators_start(const struct bench_options *options, const struct variant *variant)
{
    for (unsigned i = 0; i < options->threads; i++) {
        mutators[i].variant = variant;
        mutators[i].seed = options->seed + i;
        BENCH_CHECK(peer_thread_create(&mutator_ids[i], mutate, &mutators[i]) == 0);
    }
}

static void mutators_end(const struct bench_options *options)
{
    __atomic_store_n(&done, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < options->threads; i++)
        BENCH_CHECK(peer_thread_join(mutator_ids[i]) == 0);
}

static uint64_t mutators_steps(void)
{
    uint64_t steps = 0;
    for (int i = 0; i < MUTATORS; i++)
        steps += __atomic_load_n(&mutators[i].steps, __ATOMIC_RELAXED);
    return steps;
}

/* ---- collections --------------------------------------------------------------------------------------- */

/* Processor time that marking took since start, 0 if the peer doesn't say. */
static uint64_t mark_cpu(void)
{
#if defined(PEER_GREY)
    return peer_stats().worker_ns;
#else
    return 0;
#endif
}

static void measure(const struct bench_options *options, const char *variant, uint64_t objects)
{
    enum { MOST = 5 };
    double wall[MOST], cpu[MOST], mark[MOST];
    struct bench_section section, all = {0, 0, 0};
    size_t n = options->quick ? 2 : MOST;
    uint64_t steps = 0, total = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t marked = mark_cpu(), before = mutators_steps();
        bench_begin(&section);
        peer_collect();
        bench_end(&section);
        wall[i] = (double)section.wall_ns;
        cpu[i] = (double)section.cpu_ns;
        mark[i] = (double)(mark_cpu() - marked);
        steps += mutators_steps() - before;
        total += section.wall_ns;
        all.cpu_ns += section.cpu_ns / n;
        all.rss_mib = section.rss_mib > all.rss_mib ? section.rss_mib : all.rss_mib;
    }
    char name[96];
    snprintf(name, sizeof name, "%s,mib=%zu,workers=%u,busy=%u", variant, options->mib, options->workers,
             options->threads);
    double per = 1.0 / (double)objects, ns = bench_quantile(wall, n, 0.5);
    struct bench_result result = {"graph", PEER_NAME, "collection", "ms", BENCH_LOWER, ns / 1e6};
    bench_print(&result, &all, "%s", name);
    result = (struct bench_result){"graph", PEER_NAME, "wall_per_object", "ns", BENCH_LOWER, ns * per};
    bench_print(&result, &all, "%s", name);
    result.metric = "cpu_per_object";
    result.value = bench_quantile(cpu, n, 0.5) * per;
    bench_print(&result, &all, "%s", name);
    if (mark_cpu() != 0) {
        result.metric = "mark_cpu_per_object";
        result.value = bench_quantile(mark, n, 0.5) * per;
        bench_print(&result, &all, "%s", name);
    }
    if (options->threads != 0) {
        result = (struct bench_result){"graph", PEER_NAME,    "mutators",
                                       "M/s",   BENCH_HIGHER, (double)steps * 1e3 / (double)total};
        bench_print(&result, &all, "%s", name);
    }
    peer_print_ledger("graph", name);
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    const struct variant *variant = find(options.variant);
    if (options.mib == 0)
        options.mib = options.quick ? 8 : 1024;
    BENCH_CHECK(options.mib < 65536); /* node numbers have 32 bits */
    BENCH_CHECK(options.threads <= MUTATORS);
    size_t n = options.mib * 1024 * 1024 / sizeof(struct node);
    uint64_t seed = options.seed;
    struct census before = {0, 0}, after = {0, 0};

    peer_start(options.workers);
    peer_collection(false);
    variant->build(n, &seed);
    variant->walk(n, 1, &before);
    peer_collection(true);
    BENCH_CHECK(before.objects > n * 9 / 10);

    peer_collect();
    mutators_start(&options, variant);
    measure(&options, variant->name, before.objects);
    mutators_end(&options);
    variant->walk(n, 2, &after);
    if (after.objects != before.objects || after.sum != before.sum)
        bench_fail("%llu objects of sum %llu have become %llu of sum %llu",
                   (unsigned long long)before.objects, (unsigned long long)before.sum,
                   (unsigned long long)after.objects, (unsigned long long)after.sum);
    return 0;
}

/* binary_trees.c -- the benchmarks game's binary-trees: many small objects that die together.
 *
 * A stretch tree, one long-lived tree, and for each depth d = 4, 6, ... as many short-lived trees as
 * make 2^(depth+4) times 2^(d+1) nodes.  Each thread does all of it on its own, so that the time
 * with two threads over the time with one shows how an allocator scales.  Nearly all time goes into
 * allocation of 16 bytes and what reclaims them; a collector gains here because dead trees cost nothing,
 * while free must walk them.
 */
#include "peer.h"

struct tree {
    struct tree *left, *right;
};
PEER_TYPE(tree_type, struct tree, left, right);

enum { MINIMUM = 4 };

static struct tree *tree_make(unsigned depth)
{
    struct tree *left = NULL, *right = NULL;
    if (depth > 0) {
        left = tree_make(depth - 1);
        right = tree_make(depth - 1);
    }
    struct tree *tree = peer_new(&tree_type);
    if (depth > 0) {
        peer_store(&tree->left, left);
        peer_store(&tree->right, right);
    } else {
        peer_init_null(&tree->left);
        peer_init_null(&tree->right);
    }
    return tree;
}

static uint64_t tree_count(const struct tree *tree)
{
    return tree->left == NULL ? 1 : 1 + tree_count(tree->left) + tree_count(tree->right);
}

#if PEER_COLLECTS
static void tree_drop(struct tree *tree) { peer_free(tree); }
#else
static void tree_drop(struct tree *tree)
{
    if (tree->left != NULL) {
        tree_drop(tree->left);
        tree_drop(tree->right);
    }
    peer_free(tree);
}
#endif

static uint64_t tree_nodes(unsigned depth) { return ((uint64_t)2 << depth) - 1; }

static void tree_check(const struct tree *tree, unsigned depth)
{
    uint64_t count = tree_count(tree);
    if (count != tree_nodes(depth))
        bench_fail("tree of depth %u has %llu nodes", depth, (unsigned long long)count);
}

static void *run(void *arg)
{
    unsigned depth = *(unsigned *)arg;
    struct tree *stretch = tree_make(depth + 1);
    tree_check(stretch, depth + 1);
    tree_drop(stretch);

    struct tree *lasting = tree_make(depth);
    for (unsigned d = MINIMUM; d <= depth; d += 2) {
        uint64_t trees = (uint64_t)1 << (depth - d + MINIMUM);
        for (uint64_t i = 0; i < trees; i++) {
            struct tree *tree = tree_make(d);
            tree_check(tree, d);
            tree_drop(tree);
        }
    }
    tree_check(lasting, depth);
    tree_drop(lasting);
    return NULL;
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    unsigned threads = options.threads != 0 ? options.threads : 1;
    unsigned depth = options.depth != 0 ? options.depth : options.quick ? 12 : 18;
    BENCH_CHECK(depth >= MINIMUM && depth <= 30 && threads <= PEER_THREADS);
    peer_start(options.workers);

    static unsigned depths[PEER_THREADS];
    for (unsigned i = 0; i < threads; i++)
        depths[i] = depth;
    struct bench_section section;
    bench_begin(&section);
    peer_run(threads, run, depths, sizeof depths[0]);
    bench_end(&section);

    char name[64];
    snprintf(name, sizeof name, "depth=%u,threads=%u", depth, threads);
    struct bench_result result = {
        "binary_trees", PEER_NAME, "time", "s", BENCH_LOWER, (double)section.wall_ns / 1e9};
    bench_print(&result, &section, "%s", name);
    peer_print_pauses("binary_trees", &section, name);
    return 0;
}

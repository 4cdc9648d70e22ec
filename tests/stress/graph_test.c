/* tests/stress/graph_test.c -- threads build, change, share and drop linked structures under endless cycles.
 *
 * Every way that the interface has to move a pointer is used: grey_store, grey_exchange,
 * grey_compare_exchange, grey_move, grey_clear, raw stores with grey_touch, a mailbox in malloc memory with
 * grey_pass, roots of all kinds (BA-1 .. BA-12, BA-17, MK-9).  Whatever a thread meets is verified at every
 * step; see support_stress.h for how a lost object is recognised.  Cycles run back to back meanwhile, so a
 * pointer is hidden from the marker in each of the four ways, again and again; hooks/hidden_test.c has the
 * same by force.
 */
#include "support_stress.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 6, SLOTS = 32, BUCKETS = 64, MAILBOXES = 8, OWN_ROOTS = 8, TABLE = 300 };
enum { TAG_OWN = 1, TAG_SHARED = 100, TAG_STACK = 200, TAG_MAIL = 300, TAG_KEY = 1000 };

GREY_ROOT(struct node *[SLOTS], shared); /* lists that belong to whoever takes them out */
GREY_ROOT(struct node *, stack_top);     /* a lock-free stack of single nodes */
GREY_ROOT(struct node **, buckets);      /* a hash table: chains by edge 1, pushed in front */

/* Not scanned: a pointer here is seen by nobody (MK-22, grey_pass). */
static _Atomic(struct node *) *mailboxes;

struct worker {
    uint64_t random, deadline, operations;
    struct node **roots; /* OWN_ROOTS of malloc memory, a registered root */
};

struct pointer {
    struct node *to;
};
GREY_TYPE(pointer_type, struct pointer, to);

/* ---- alone --------------------------------------------------------------------------------------------- */

static void on_lists(struct worker *w)
{
    struct node *list = list_new(&w->random, 1 + stress_below(&w->random, 200), TAG_OWN);
    size_t length = list_check(list);
    struct node *reversed = NULL; /* the rest is on the stack only, edge by edge */
    while (list != NULL) {
        struct node *next = node_follow(list, 0);
        node_link(list, 0, reversed);
        reversed = list;
        list = next;
    }
    STRESS_CHECK(list_check(reversed) == length, "a list became shorter");
    struct node **slot = &w->roots[stress_below(&w->random, OWN_ROOTS)];
    struct node *old = grey_exchange(slot, reversed);
    list_check(old);
}

static void on_trees(struct worker *w)
{
    struct node *tree = tree_new(&w->random, 3 + (unsigned)stress_below(&w->random, 6), TAG_OWN);
    size_t size = tree_check(tree);
    struct node *at = tree;
    while (at != NULL) { /* children change places; both are on the stack only for a moment */
        struct node *left = node_follow(at, 0), *right = node_follow(at, 1);
        node_link(at, 0, NULL);
        node_link(at, 1, NULL);
        node_link(at, 0, right);
        node_link(at, 1, left);
        at = stress_below(&w->random, 2) != 0 ? left : right;
    }
    STRESS_CHECK(tree_check(tree) == size, "a tree became smaller");
}

/* Nodes shared by many parents: every node of a layer leads to random ones of the layer below. */
static void on_dags(struct worker *w)
{
    enum { WIDTH = 8, LAYERS = 6 };
    struct node *layer[WIDTH] = {NULL}, *next[WIDTH];
    for (int depth = 0; depth < LAYERS; depth++) {
        for (int i = 0; i < WIDTH; i++) {
            next[i] = node_new(&w->random, TAG_OWN);
            for (int k = 0; k < NODE_EDGES; k++)
                node_link(next[i], k, layer[stress_below(&w->random, WIDTH)]);
        }
        memcpy(layer, next, sizeof(layer));
    }
    struct node *at = layer[0];
    memset(layer, 0, sizeof(layer));
    memset(next, 0, sizeof(next));
    int depth = 0;
    for (; at != NULL; depth++)
        at = node_follow(at, (int)stress_below(&w->random, NODE_EDGES));
    STRESS_CHECK(depth == LAYERS, "a path of %d nodes, not %d", depth, LAYERS);
}

static void check_table(struct pointer *table, const uint64_t *serials, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        STRESS_CHECK((table[i].to != NULL) == (serials[i] != 0), "word %zu of a table", i);
        if (table[i].to != NULL) {
            node_check(table[i].to);
            STRESS_CHECK(table[i].to->serial == serials[i], "word %zu of a table leads to another", i);
        }
    }
}

/* Bulk stores (BA-8): words move inside a table, over themselves and away, and are cleared. */
static void on_tables(struct worker *w)
{
    uint64_t serials[TABLE] = {0};
    struct pointer *table = stress_below(&w->random, 2) != 0 ? grey_new_array(&pointer_type, TABLE)
                                                             : grey_alloc(TABLE * sizeof(*table));
    for (int step = 0; step < 20; step++) {
        for (int i = 0; i < 30; i++) {
            size_t at = stress_below(&w->random, TABLE);
            struct node *node = node_new(&w->random, TAG_OWN);
            serials[at] = node->serial;
            grey_store(&table[at].to, node);
        }
        size_t from = stress_below(&w->random, TABLE), to = stress_below(&w->random, TABLE);
        size_t n = stress_below(&w->random, TABLE - (from > to ? from : to));
        grey_move(&table[to], &table[from], n * sizeof(*table));
        memmove(&serials[to], &serials[from], n * sizeof(*serials));
        check_table(table, serials, TABLE);
        from = stress_below(&w->random, TABLE);
        n = stress_below(&w->random, (TABLE - from) / 4 + 1);
        grey_clear(&table[from], n * sizeof(*table));
        memset(&serials[from], 0, n * sizeof(*serials));
        struct pointer *copy = grey_new_array(&pointer_type, TABLE);
        grey_move(copy, table, TABLE * sizeof(*table));
        table = copy;
    }
    check_table(table, serials, TABLE);
}

/* BA-17 */
static void on_raw_stores(struct worker *w)
{
    struct node *node = node_new(&w->random, TAG_OWN);
    struct node *child[NODE_EDGES];
    for (int k = 0; k < NODE_EDGES; k++) {
        child[k] = list_new(&w->random, 20, TAG_OWN);
        node->expect[k] = child[k]->serial;
    }
    struct node **slot = &w->roots[stress_below(&w->random, OWN_ROOTS)];
    grey_store(slot, node);
    for (int k = 0; k < NODE_EDGES; k++)
        __atomic_store_n(&node->edge[k], child[k], __ATOMIC_RELAXED);
    grey_touch(node);
    for (int k = 0; k < NODE_EDGES; k++)
        grey_keep_alive(child[k]);
    memset(child, 0, sizeof(child));
    for (int k = 0; k < NODE_EDGES; k++)
        STRESS_CHECK(list_check(node_follow(node, k)) == 20, "a list became shorter");
    grey_store(slot, NULL);
}

/* ---- together ------------------------------------------------------------------------------------------ */

static void on_shared_slots(struct worker *w)
{
    uint64_t i = stress_below(&w->random, SLOTS);
    struct node *mine = list_new(&w->random, 1 + stress_below(&w->random, 50), TAG_SHARED + i);
    struct node *taken = grey_exchange(&shared[i], mine);
    mine = NULL;
    if (taken == NULL)
        return;
    STRESS_CHECK(taken->tag == TAG_SHARED + i, "slot %d holds tag %d", (int)i, (int)taken->tag);
    list_check(taken);
    struct node *more = node_new(&w->random, TAG_SHARED + i);
    node_link(more, 0, taken);
    struct node *expected = NULL;
    grey_compare_exchange(&shared[i], &expected, more);
}

static void on_the_stack(struct worker *w)
{
    if (stress_below(&w->random, 2) == 0) {
        struct node *node = node_new(&w->random, TAG_STACK);
        node_link(node, 2, list_new(&w->random, 5, TAG_OWN));
        struct node *top = __atomic_load_n(&stack_top, __ATOMIC_ACQUIRE);
        do
            node_link(node, 1, top);
        while (!grey_compare_exchange(&stack_top, &top, node));
        return;
    }
    struct node *top = __atomic_load_n(&stack_top, __ATOMIC_ACQUIRE);
    /* Held, so its address is used for nothing else: no ABA. */
    while (top != NULL &&
           !grey_compare_exchange(&stack_top, &top, __atomic_load_n(&top->edge[1], __ATOMIC_ACQUIRE)))
        ;
    if (top == NULL)
        return;
    node_check(top);
    STRESS_CHECK(top->tag == TAG_STACK, "the stack holds tag %d", (int)top->tag);
    STRESS_CHECK(list_check(node_follow(top, 2)) == 5, "a list became shorter");
}

static struct node *chain_walk(struct node *chain, uint64_t bucket, uint64_t key)
{
    struct node *found = NULL;
    for (; chain != NULL; chain = node_follow(chain, 1)) {
        node_check(chain);
        STRESS_CHECK((chain->tag - TAG_KEY) % BUCKETS == bucket, "tag %d in chain %d", (int)chain->tag,
                     (int)bucket);
        if (chain->tag - TAG_KEY == key)
            found = chain;
    }
    return found;
}

static void on_the_table(struct worker *w)
{
    struct node **table = __atomic_load_n(&buckets, __ATOMIC_ACQUIRE);
    uint64_t key = stress_below(&w->random, 4096), bucket = key % BUCKETS;
    struct node *chain = __atomic_load_n(&table[bucket], __ATOMIC_ACQUIRE);
    chain_walk(chain, bucket, key);
    if (stress_below(&w->random, 20) == 0) {
        chain_walk(grey_exchange(&table[bucket], NULL), bucket, key);
        return;
    }
    struct node *node = node_new(&w->random, TAG_KEY + key);
    do
        node_link(node, 1, chain);
    while (!grey_compare_exchange(&table[bucket], &chain, node));
}

static void send(struct worker *w)
{
    uint64_t i = stress_below(&w->random, MAILBOXES);
    struct node *letter = list_new(&w->random, 1 + stress_below(&w->random, 20), TAG_MAIL + i), *none = NULL;
    if (!atomic_compare_exchange_strong(&mailboxes[i], &none, letter))
        return;
    grey_pass(letter);
    for (int n = 0; n < 200 && atomic_load(&mailboxes[i]) == letter; n++)
        sched_yield();
    struct node *back = letter;
    atomic_compare_exchange_strong(&mailboxes[i], &back, NULL);
    grey_keep_alive(letter);
}

static void receive(struct worker *w)
{
    uint64_t i = stress_below(&w->random, MAILBOXES);
    struct node *letter = atomic_exchange(&mailboxes[i], NULL);
    if (letter == NULL)
        return;
    node_check(letter);
    STRESS_CHECK(letter->tag == TAG_MAIL + i, "mailbox %d holds tag %d", (int)i, (int)letter->tag);
    list_check(letter);
}

/* ---- the test ------------------------------------------------------------------------------------------ */

static void *work(void *arg)
{
    static void (*const operations[])(struct worker *) = {
        on_lists,     on_trees,     on_dags,      on_tables, on_raw_stores, on_shared_slots,
        on_the_stack, on_the_table, on_the_table, send,      receive,       receive};
    struct worker *w = arg;
    w->roots = calloc(OWN_ROOTS, sizeof(*w->roots));
    STRESS_CHECK(w->roots != NULL && grey_root_add(w->roots, OWN_ROOTS * sizeof(*w->roots)) == 0, "no root");
    for (; stress_now() < w->deadline; w->operations++)
        operations[stress_below(&w->random, sizeof(operations) / sizeof(operations[0]))](w);
    for (int i = 0; i < OWN_ROOTS; i++)
        list_check(w->roots[i]);
    STRESS_CHECK(grey_root_remove(w->roots, OWN_ROOTS * sizeof(*w->roots)) == 0, "no such root");
    free(w->roots);
    return NULL;
}

static void test_graphs(void **state)
{
    (void)state;
    static struct worker workers[THREADS];
    pthread_t threads[THREADS];
    mailboxes = calloc(MAILBOXES, sizeof(*mailboxes));
    assert_non_null(mailboxes);
    struct node **table = grey_alloc(BUCKETS * sizeof(*table));
    assert_non_null(table);
    grey_store(&buckets, table);
    uint64_t seed = stress_seed(), deadline = stress_deadline(1), operations = 0;
    stress_cycles_start();
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.random = seed + (uint64_t)i * 7919, .deadline = deadline};
        assert_int_equal(grey_thread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(grey_thread_join(threads[i], NULL), 0);
        operations += workers[i].operations;
    }
    uint64_t cycles = stress_cycles_stop();
    for (uint64_t i = 0; i < BUCKETS; i++)
        chain_walk(buckets[i], i, 0);
    for (int i = 0; i < SLOTS; i++)
        list_check(shared[i]);
    /* Letters that nobody took any more were taken back by their senders. */
    for (int i = 0; i < MAILBOXES; i++)
        assert_null(atomic_load(&mailboxes[i]));
    assert_int_equal(grey_verify(2), 0);
    fprintf(stderr, "%llu operations, %llu cycles\n", (unsigned long long)operations,
            (unsigned long long)cycles);
    assert_true(operations > 0 && cycles > 1);
    free(mailboxes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_graphs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

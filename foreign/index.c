/* foreign/index.c -- the range index: a B-tree that is read without waiting.
 *
 * A leaf holds up to 12 ranges, an inner node up to 16 children and the separators between them: every
 * range left of a separator ends at or below it, every range right of it starts at or above it.  All leaves
 * are equally deep.
 *
 * The writer replaces: from the leaf upwards he makes new nodes for those whose contents change (and for a
 * neighbour, where one has too little), up to the first node that changes in nothing but one child pointer,
 * and swaps that pointer.  The swap is the change; it replaces a subtree by one for the same interval of
 * addresses that holds the same ranges and one more, or one less.  After it he retires the nodes that it
 * unlinked.
 *
 * Why readers are right.  A reader enters at t0 and looks for an address of the range R, which is in the
 * index from before t0 until after he leaves.  Claim: each node that he visits was in the tree at some
 * moment since t0, at which R lay in its interval.  For the root that is the moment when he loads it.  Let
 * it hold for the node N, from which he now loads the pointer to the child C, whose interval has R in it
 * (N's separators never change).  If N is still in the tree, C is, and this is the moment.  If not, N was
 * replaced after t0; since then its pointers have not changed, because the writer writes to nodes of the
 * tree only. So C was N's child just before that swap, hence in the tree, and R, which was in the tree and
 * in that interval, lay in C's.  This holds whatever the swaps did: split, merge, or a separator moved.  At
 * the end stands a leaf that had R while it was in the tree, and leaves don't change either.  And no node
 * that he visits is used again before he leaves: it was in the tree since t0, so it was retired after t0
 * (epoch.c).  A reader takes as many steps as the root has levels, for a subtree is replaced by one of
 * equal depth, so he waits for nobody.
 *
 * The swap is a release, loads of children are acquires: who sees a pointer sees the node.
 *
 * A new range may reach beyond a separator, once the range that made it was removed.  Then that separator
 * is first raised to the new range's end, by a replacement of its own.  Nothing lies in between, so the
 * tree is right before, between and after the two.
 *
 * Removal without memory: the range's end is set to its start, in the leaf itself.  Readers find the range
 * or find it empty; the entry goes when its leaf is next replaced.  It may leave leaves with too little,
 * even with nothing.
 *
 * Search: the upper levels are in the cache and should not mispredict, the lower ones should miss only
 * once.  So a node is four lines, prefetched at once, and separators are counted without branches, in two
 * steps of a few compares each, which leave the processor free to begin the next lookup.
 */
#include "foreign/nodes.h"

#include <errno.h>
#include <string.h>

enum { DEPTH_MOST = 24 };
/* Fewer, and a neighbour is taken in; two neighbours that have no more become one. */
enum { RANGES_LEAST = 4, RANGES_MERGED = 10, CHILDREN_LEAST = 5, CHILDREN_MERGED = 13 };

void index_init(struct index *index) { memset(index, 0, sizeof(*index)); }

void index_clear(struct index *index)
{
    index_nodes_clear(index);
    index_init(index);
}

/* ---- search ------------------------------------------------------------------------------------------ */

/* How many of the separators are at or below p: the number of p's child.  p isn't UINTPTR_MAX. */
static inline unsigned child_of(const struct index_node *node, uintptr_t p)
{
    const uintptr_t *s = node->separator;
    unsigned at = 4 * ((unsigned)(s[3] <= p) + (unsigned)(s[7] <= p) + (unsigned)(s[11] <= p));
    s += at;
    return at + (unsigned)(s[0] <= p) + (unsigned)(s[1] <= p) + (unsigned)(s[2] <= p);
}

/* How many of the ranges start at or below p. */
static inline unsigned starts_below(const struct index_node *node, uintptr_t p)
{
    const uintptr_t *s = node->start;
    unsigned at = 4 * ((unsigned)(s[3] <= p) + (unsigned)(s[7] <= p));
    s += at;
    return at + (unsigned)(s[0] <= p) + (unsigned)(s[1] <= p) + (unsigned)(s[2] <= p) + (unsigned)(s[3] <= p);
}

static inline struct index_node *child_at(const struct index_node *node, unsigned i)
{
    /* acquire: pairs with swap */
    return atomic_load_explicit(&((struct index_node *)node)->child[i], memory_order_acquire);
}
static inline struct index_node *root_of(const struct index *index)
{
    /* acquire: pairs with swap */
    return atomic_load_explicit(&((struct index *)index)->root, memory_order_acquire);
}
static inline uintptr_t end_at(const struct index_node *leaf, unsigned i)
{
    /* relaxed: changes once at most, to the start (index_remove), and orders nothing */
    return atomic_load_explicit(&((struct index_node *)leaf)->end[i], memory_order_relaxed);
}

static inline void prefetch(const struct index_node *node)
{
    for (size_t line = 0; line < sizeof(*node); line += 64)
        __builtin_prefetch((const char *)node + line);
}

/* The range that begins nearest below p has it, or none. */
static inline bool take(const struct index_node *leaf, unsigned i, uintptr_t p, struct index_range *out)
{
    uintptr_t end = end_at(leaf, i);
    if (p >= end)
        return false;
    out->start = leaf->start[i];
    out->end = end;
    out->value = leaf->value[i];
    return true;
}

bool index_find(const struct index *index, uintptr_t p, struct index_range *out)
{
    const struct index_node *node = root_of(index);
    if (UNLIKELY(node == NULL))
        return false;
    /* Not that one range is likely, but it has no work behind which a jump could hide. */
    if (LIKELY(node->level == 0 && node->count == 1))
        return p >= node->start[0] && take(node, 0, p, out);
    if (UNLIKELY(p == UINTPTR_MAX)) /* no range has it: ends are exclusive */
        return false;
    for (unsigned level = node->level; level != 0; level--) {
        node = child_at(node, child_of(node, p));
        prefetch(node);
    }
    unsigned below = starts_below(node, p);
    return below != 0 && take(node, below - 1, p, out);
}

/* Leaf by leaf: what a leaf doesn't have lies at or above its upper bound. */
bool index_next(const struct index *index, uintptr_t p, struct index_range *out)
{
    while (p != UINTPTR_MAX) {
        const struct index_node *node = root_of(index);
        uintptr_t bound = UINTPTR_MAX;
        if (node == NULL)
            return false;
        for (unsigned level = node->level; level != 0; level--) {
            unsigned i = child_of(node, p);
            if (i + 1 < node->count)
                bound = node->separator[i];
            node = child_at(node, i);
            prefetch(node);
        }
        unsigned i = starts_below(node, p);
        for (i -= i != 0; i < node->count; i++) {
            uintptr_t end = end_at(node, i);
            if (end > p && end > node->start[i]) {
                *out = (struct index_range){node->start[i], end, node->value[i]};
                return true;
            }
        }
        p = bound;
    }
    return false;
}

/* ---- replacing --------------------------------------------------------------------------------------- */

/* The way from the root to a leaf. */
struct path {
    unsigned length;
    struct index_node *node[DEPTH_MOST];
    unsigned slot[DEPTH_MOST]; /* of the next node in this one */
};

/* What a node or two shall hold.  key: the range's start; or the separator below the child, which for
 * the first is known only if it was taken in from the right. */
struct item {
    uintptr_t key;
    union {
        struct index_node *child;
        struct {
            uintptr_t end;
            uint32_t value;
        };
    };
};
struct draft {
    unsigned level, count;
    bool appended; /* at the end: more is likely to come there */
    struct item item[2 * CHILDREN];
};

/* What one change unlinks. */
struct unlinked {
    unsigned count;
    struct index_node *node[2 * DEPTH_MOST];
};

static void descend(const struct index *index, uintptr_t p, struct path *path)
{
    struct index_node *node = root_of(index);
    path->length = 0;
    for (;;) {
        path->node[path->length] = node;
        if (node->level == 0)
            break;
        unsigned i = child_of(node, p);
        path->slot[path->length++] = i;
        node = child_at(node, i);
    }
    path->length++;
}

/* Makes `node` the one at `at` in the path. */
static void swap(struct index *index, const struct path *path, unsigned at, struct index_node *node)
{
    /* release: pairs with the acquires of child_at and root_of */
    if (at == 0)
        atomic_store_explicit(&index->root, node, memory_order_release);
    else
        atomic_store_explicit(&path->node[at - 1]->child[path->slot[at - 1]], node, memory_order_release);
}

/* Appends the node's contents; key of its first child: the separator below it. */
static void append(struct draft *draft, const struct index_node *node, uintptr_t below)
{
    for (unsigned i = 0; i < node->count; i++) {
        struct item *item = &draft->item[draft->count];
        if (node->level != 0) {
            *item = (struct item){.key = i == 0 ? below : node->separator[i - 1], .child = child_at(node, i)};
        } else {
            *item = (struct item){.key = node->start[i], .end = end_at(node, i), .value = node->value[i]};
            if (item->end == item->key)
                continue;
        }
        draft->count++;
    }
}

static struct index_node *build(struct index *index, const struct draft *draft, unsigned from, unsigned count)
{
    struct index_node *node = index_node_new(index, draft->level);
    const struct item *item = &draft->item[from];
    node->count = count;
    if (draft->level != 0) {
        for (unsigned i = 0; i < CHILDREN; i++)
            atomic_init(&node->child[i], i < count ? item[i].child : NULL);
        for (unsigned i = 1; i < CHILDREN; i++)
            node->separator[i - 1] = i < count ? item[i].key : UINTPTR_MAX;
    } else {
        for (unsigned i = 0; i < RANGES; i++) {
            node->start[i] = i < count ? item[i].key : UINTPTR_MAX;
            atomic_init(&node->end[i], i < count ? item[i].end : 0);
            node->value[i] = i < count ? item[i].value : 0;
        }
    }
    return node;
}

/* Takes in the neighbour of the node at `at`.  Returns the slot of the left one of the two. */
static unsigned take_in(struct draft *draft, const struct path *path, unsigned at, struct unlinked *unlinked)
{
    const struct index_node *parent = path->node[at - 1];
    unsigned slot = path->slot[at - 1], left = slot != 0 ? slot - 1 : slot;
    struct index_node *neighbour = child_at(parent, slot != 0 ? left : 1);
    unlinked->node[unlinked->count++] = neighbour;
    if (slot == 0) {
        append(draft, neighbour, parent->separator[0]);
        return left;
    }
    struct draft own = *draft;
    draft->count = 0;
    append(draft, neighbour, 0);
    if (own.level != 0)
        own.item[0].key = parent->separator[left];
    memcpy(&draft->item[draft->count], own.item, own.count * sizeof(struct item));
    draft->count += own.count;
    return left;
}

/* The draft as one node or two, of which it leaves the items for their parent. */
static unsigned divide(struct index *index, const struct draft *draft, unsigned most, struct item made[2])
{
    made[0].key = draft->item[0].key;
    if (draft->count <= most) {
        made[0].child = build(index, draft, 0, draft->count);
        return 1;
    }
    unsigned left = draft->count / 2;
    if (draft->appended)
        left = draft->count - (draft->level != 0 ? CHILDREN_LEAST : RANGES_LEAST);
    made[0].child = build(index, draft, 0, left);
    made[1].key = draft->item[left].key;
    made[1].child = build(index, draft, left, draft->count - left);
    return 2;
}

/* The parent's contents, with the n items made in the place of `replaced` children from slot on. */
static void draft_parent(struct draft *draft, const struct index_node *parent, unsigned slot,
                         unsigned replaced, const struct item *made, unsigned n)
{
    draft->level = parent->level;
    draft->count = 0;
    append(draft, parent, 0);
    draft->appended = slot + replaced == draft->count;
    memmove(&draft->item[slot + n], &draft->item[slot + replaced],
            (draft->count - slot - replaced) * sizeof(struct item));
    draft->item[slot].child = made[0].child;
    if (n == 2)
        draft->item[slot + 1] = made[1];
    draft->count += n - replaced;
}

/* A root of no or several children, or what is left of it. */
static void replace_root(struct index *index, const struct path *path, struct item *made, unsigned n)
{
    struct index_node *root = made[0].child;
    if (n == 2) {
        struct draft draft = {.level = root->level + 1, .count = 2, .item = {made[0], made[1]}};
        root = build(index, &draft, 0, 2);
    }
    index->depth = root->level + 1;
    swap(index, path, 0, root);
}

/* Replaces the leaf at the path's end by one, or some, that hold what the draft says.  Takes at most two
 * nodes a level and one, which are there (index_nodes_prepare). */
static void replace(struct index *index, const struct path *path, struct draft *draft)
{
    struct unlinked unlinked = {0};
    for (unsigned at = path->length - 1;; at--) {
        bool leaf = draft->level == 0;
        unsigned least = leaf ? RANGES_LEAST : CHILDREN_LEAST, most = leaf ? RANGES : CHILDREN;
        unsigned slot = at != 0 ? path->slot[at - 1] : 0, replaced = 1;
        struct item made[2];
        unlinked.node[unlinked.count++] = path->node[at];
        if (at != 0 && draft->count < least) {
            slot = take_in(draft, path, at, &unlinked);
            replaced = 2;
            most = leaf ? RANGES_MERGED : CHILDREN_MERGED;
        }
        if (at == 0 && !leaf && draft->count == 1) {
            replace_root(index, path, draft->item, 1);
            break;
        }
        unsigned n = divide(index, draft, most, made);
        if (at == 0) {
            replace_root(index, path, made, n);
            break;
        }
        if (n == 1 && replaced == 1) {
            swap(index, path, at, made[0].child);
            break;
        }
        draft_parent(draft, path->node[at - 1], slot, replaced, made, n);
    }
    for (unsigned i = 0; i < unlinked.count; i++)
        index_node_retire(index, unlinked.node[i]);
}

static bool prepare_replace(struct index *index)
{
    return index_nodes_prepare(index, 2 * (size_t)index->depth + 1);
}

/* ---- insert ------------------------------------------------------------------------------------------ */

/* Raises every separator above start and below end to end.  ENOMEM: some are raised, which is right too. */
static int raise_separators(struct index *index, uintptr_t start, uintptr_t end)
{
    for (;;) {
        struct path path;
        descend(index, end - 1, &path);
        unsigned at = path.length - 1; /* below it the nearest: the lowest node that isn't the first child */
        while (at != 0 && path.slot[at - 1] == 0)
            at--;
        if (at == 0)
            return 0;
        struct index_node *node = path.node[--at], *raised;
        unsigned separator = path.slot[at] - 1;
        if (node->separator[separator] <= start)
            return 0;
        if (!index_nodes_prepare(index, 1))
            return ENOMEM;
        raised = index_node_new(index, node->level);
        memcpy(raised, node, sizeof(*node));
        raised->separator[separator] = end;
        swap(index, &path, at, raised);
        index_node_retire(index, node);
    }
}

static int insert_first(struct index *index, const struct item *item)
{
    struct draft draft = {.count = 1, .item = {*item}};
    if (!index_nodes_prepare(index, 1))
        return ENOMEM;
    replace_root(index, NULL, &(struct item){.child = build(index, &draft, 0, 1)}, 1);
    index->count = 1;
    return 0;
}

/* Two replacements, of which one raises a separator. */
bool index_prepare(struct index *index)
{
    return index_nodes_prepare(index, 2 * (2 * (size_t)index->depth + 1));
}

int index_insert(struct index *index, uintptr_t start, uintptr_t end, uint32_t value)
{
    const struct item item = {.key = start, .end = end, .value = value};
    struct index_range next;
    struct path path;
    ASSERT(start < end);
    if (index_next(index, start, &next) && next.start < end)
        return EEXIST;
    if (index->depth == 0)
        return insert_first(index, &item);
    int error = raise_separators(index, start, end);
    if (error != 0)
        return error;
    if (!prepare_replace(index))
        return ENOMEM;
    descend(index, start, &path);
    struct draft draft = {0};
    append(&draft, path.node[path.length - 1], 0);
    unsigned i = draft.count;
    for (; i != 0 && draft.item[i - 1].key > start; i--)
        draft.item[i] = draft.item[i - 1];
    draft.item[i] = item;
    draft.appended = i == draft.count++;
    replace(index, &path, &draft);
    index->count++;
    return 0;
}

/* ---- remove ------------------------------------------------------------------------------------------ */

bool index_remove(struct index *index, uintptr_t start)
{
    struct path path;
    if (index->depth == 0 || start == UINTPTR_MAX)
        return false;
    descend(index, start, &path);
    struct index_node *leaf = path.node[path.length - 1];
    unsigned i = starts_below(leaf, start);
    if (i == 0 || leaf->start[--i] != start || end_at(leaf, i) == start)
        return false;
    index->count--;
    if (!prepare_replace(index)) {
        /* relaxed: a reader finds the range or an empty one, and nothing is passed on to him */
        atomic_store_explicit(&leaf->end[i], start, memory_order_relaxed);
        index->in_place++;
        return true;
    }
    struct draft draft = {0};
    append(&draft, leaf, 0);
    for (i = 0; draft.item[i].key != start; i++)
        ;
    memmove(&draft.item[i], &draft.item[i + 1], (--draft.count - i) * sizeof(struct item));
    if (draft.count == 0 && path.length == 1) {
        swap(index, &path, 0, NULL);
        index->depth = 0;
        index_node_retire(index, leaf);
    } else {
        replace(index, &path, &draft);
    }
    return true;
}

/* ---- bounds, check ----------------------------------------------------------------------------------- */

/* The end of the last range; 0: none, in a subtree that was emptied without memory. */
static uintptr_t last_end_in(const struct index_node *node)
{
    uintptr_t end = 0;
    for (unsigned i = node->count; i-- > 0 && end == 0;) {
        if (node->level != 0)
            end = last_end_in(child_at(node, i));
        else if (end_at(node, i) != node->start[i])
            end = end_at(node, i);
    }
    return end;
}

bool index_bounds(const struct index *index, uintptr_t *first_start, uintptr_t *last_end)
{
    struct index_range first;
    if (!index_next(index, 0, &first))
        return false;
    *first_start = first.start;
    *last_end = last_end_in(root_of(index));
    return true;
}

#define CHECK(x)                                                                                             \
    do {                                                                                                     \
        if (UNLIKELY(!(x)))                                                                                  \
            os_internal(node, "range index: %s", #x);                                                        \
    } while (0)

/* Everything in the node lies within the bounds.  Returns the number of ranges. */
static size_t check_node(const struct index *index, const struct index_node *node, unsigned level,
                         uintptr_t low, uintptr_t high)
{
    bool root = level + 1 == index->depth;
    size_t ranges = 0;
    CHECK(node->level == level);
    CHECK(node->count <= (level != 0 ? CHILDREN : RANGES));
    if (level == 0) {
        CHECK(root || index->in_place != 0 || node->count >= RANGES_LEAST);
        for (unsigned i = 0; i < node->count; i++) {
            uintptr_t start = node->start[i], end = end_at(node, i);
            if (end == start)
                continue;
            CHECK(start >= low && end > start && end <= high);
            low = end;
            ranges++;
        }
        for (unsigned i = node->count; i < RANGES; i++)
            CHECK(node->start[i] == UINTPTR_MAX && end_at(node, i) == 0);
        return ranges;
    }
    CHECK(node->count >= (root ? 2 : CHILDREN_LEAST));
    for (unsigned i = 0; i < node->count; i++) {
        uintptr_t bound = i + 1 < node->count ? node->separator[i] : high;
        CHECK(bound > low || (index->in_place != 0 && bound == low));
        CHECK(bound <= high);
        ranges += check_node(index, child_at(node, i), level - 1, low, bound);
        low = bound;
    }
    for (unsigned i = node->count; i < CHILDREN; i++)
        CHECK(node->separator[i - 1] == UINTPTR_MAX && child_at(node, i) == NULL);
    return ranges;
}

void index_check(const struct index *index)
{
    const struct index_node *node = root_of(index);
    CHECK((node == NULL) == (index->depth == 0));
    CHECK(index->depth <= DEPTH_MOST);
    CHECK(index->count == (node != NULL ? check_node(index, node, index->depth - 1, 0, UINTPTR_MAX) : 0));
}

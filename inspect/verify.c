/* inspect/verify.c -- marks again from scratch with all threads held, and compares.
 *
 * Marks of its own, one bit for 16 bytes, in memory of its own; no barrier, no rings, no concurrency: as
 * little as possible in common with the mark loop that it checks.  It starts from what 1.3 and the held
 * round start from: registered roots, records of created threads, foreign regions' arguments, pins and handles,
 * chunks of arenas, specials, copied stack words.
 *
 * All threads are held outside busy sections, so no library lock has an owner that cannot run.  Nothing
 * here calls malloc or stdio: their locks may be held by a held thread.
 */
#include "inspect/verify.h"
#include "arena/arena.h"
#include "foreign/foreign.h"
#include "mark/mark.h"
#include "mutator/mutator.h"
#include "pin/pin.h"
#include "sweep/specials.h"

#include <unistd.h>

enum { REPORTS_MOST = 1024 };

struct verifier {
    int fd;
    size_t found;
    uint64_t *seen; /* a bit a granule */
    size_t seen_bytes;
    uintptr_t *stack;
    size_t depth, room; /* entries */
    const char *holder;
    uintptr_t holder_base; /* the object or region being scanned, or 0 */
    uint64_t number;       /* of this verification */
};

static size_t to_pages(size_t bytes)
{
    size_t page = os_page_size();
    return (bytes + page - 1) & ~(page - 1);
}

static void push(struct verifier *v, uintptr_t base)
{
    if (v->depth == v->room) {
        size_t room = v->room != 0 ? 2 * v->room : 1 << 16;
        uintptr_t *more = os_alloc(to_pages(room * sizeof(*more)), OS_INSPECT);
        if (more == NULL)
            os_internal(NULL,
                        "no memory to verify the heap: its marks cannot be trusted to have been checked");
        for (size_t i = 0; i < v->depth; i++)
            more[i] = v->stack[i];
        if (v->stack != NULL)
            os_free(v->stack, to_pages(v->room * sizeof(*more)), OS_INSPECT,
                    to_pages(v->room * sizeof(*more)), to_pages(v->room * sizeof(*more)));
        v->stack = more;
        v->room = room;
    }
    v->stack[v->depth++] = base;
}

static void report(struct verifier *v, const struct heap_object *object, const void *slot)
{
    if (v->found++ >= REPORTS_MOST)
        return;
    char line[256];
    size_t length;
    if (v->holder_base != 0)
        length = os_format(
            line, sizeof(line),
            "grey: verify: object %p of %zu bytes is reachable but not marked: held by object %p in "
            "slot %p (offset %zu)\n",
            (void *)object->base, object->size, (void *)v->holder_base, slot,
            (size_t)((uintptr_t)slot - v->holder_base));
    else
        length = os_format(
            line, sizeof(line),
            "grey: verify: object %p of %zu bytes is reachable but not marked: held by %s, slot %p\n",
            (void *)object->base, object->size, v->holder, slot);
    ssize_t written = write(v->fd, line, length);
    (void)written;
}

/* Regions on the stack are told from objects by the low bit. */
static void visit_region(struct verifier *v, uintptr_t word, const void *slot, bool stack)
{
    uint32_t region;
    while ((region = foreign_verify_word(word, stack, v->number)) != 0) {
        if (!foreign_verify_marked(region)) {
            const struct heap_object object = {.base = word};
            report(v, &object, slot);
        }
        push(v, (uintptr_t)region << 1 | 1);
    }
}

static void visit_chunk(struct verifier *v, uintptr_t word, const void *slot)
{
    const struct heap_object object = {.base = word};
    if (arena_word_is_missed(word))
        report(v, &object, slot);
}

static void visit(struct verifier *v, uintptr_t word, const void *slot)
{
    struct heap_object object;
    if (outside_may_matter(word) && !heap_contains(word)) {
        visit_region(v, word, slot, false);
        visit_chunk(v, word, slot);
    }
    if (!heap_find(word, &object))
        return;
    size_t granule = (object.base - (uintptr_t)heap.base) / HEAP_GRANULE;
    uint64_t bit = (uint64_t)1 << granule % 64;
    if (v->seen[granule / 64] & bit)
        return;
    v->seen[granule / 64] |= bit;
    if (!heap_marked(object.base))
        report(v, &object, slot);
    push(v, object.base);
}

static void visit_slot(const void *slot, uintptr_t word, void *arg) { visit(arg, word, slot); }
static void visit_word(uintptr_t word, void *arg) { visit(arg, word, NULL); }

/* Also one past the end, as for copied words (D-4). */
static void visit_stack_word(uintptr_t word, void *arg)
{
    visit(arg, word, NULL);
    if (word % HEAP_GRANULE == 0)
        visit(arg, word - 1, NULL);
    if (outside_may_matter(word)) {
        visit_region(arg, word, NULL, true);
        visit_chunk(arg, word - 1, NULL);
    }
}

static void visit_contents(uintptr_t base, void *arg)
{
    struct heap_object object;
    if (heap_find(base, &object))
        object_words(&object, visit_slot, arg);
}

static OS_UNSANITIZED void visit_words(struct verifier *v, const void *start, size_t size)
{
    uintptr_t at = (uintptr_t)start;
    for (; at + sizeof(uintptr_t) <= (uintptr_t)start + size; at += sizeof(uintptr_t))
        visit(v, *(const volatile uintptr_t *)at, (const void *)at);
}

static OS_UNSANITIZED void visit_root(void *start, size_t size, const struct grey_root_ *root, void *arg)
{
    (void)root;
    uintptr_t at = ((uintptr_t)start + 7) & ~(uintptr_t)7;
    for (; at + sizeof(uintptr_t) <= (uintptr_t)start + size; at += sizeof(uintptr_t))
        visit(arg, *(const volatile uintptr_t *)at, (const void *)at);
}

static void trace(struct verifier *v)
{
    while (v->depth != 0) {
        struct heap_object object;
        v->holder_base = v->stack[--v->depth];
        if (v->holder_base & 1) {
            const void *start;
            size_t size;
            foreign_verify_contents((uint32_t)(v->holder_base >> 1), &start, &size);
            v->holder_base = (uintptr_t)start;
            visit_words(v, start, size);
            continue;
        }
        if (heap_find(v->holder_base, &object))
            object_words(&object, visit_slot, v);
    }
    v->holder_base = 0;
}

size_t verify_heap(int fd)
{
    static uint64_t number;
    number++;
    struct verifier v = {.fd = fd, .number = number};
    v.seen_bytes = to_pages(atomic_load(&heap.extent) / HEAP_GRANULE / 8 + 8);
    v.seen = os_alloc(v.seen_bytes, OS_INSPECT);
    if (v.seen == NULL)
        os_internal(NULL, "no memory to verify the heap: its marks cannot be trusted to have been checked");
    v.holder = "a registered root";
    roots_lock();
    roots_each(visit_root, &v);
    roots_unlock();
    trace(&v);
    v.holder = "a created thread's argument or result";
    mutator_each_created_slot(visit_word, &v);
    trace(&v);
    v.holder = "a foreign region's argument";
    foreign_each_arg(visit_word, &v);
    trace(&v);
    v.holder = "a pin or a handle";
    pin_each_root(visit_word, &v);
    trace(&v);
    v.holder = "an arena";
    arena_each_word(visit_slot, &v);
    trace(&v);
    v.holder = "a cleanup, finalizer or weak reference";
    specials_each_root(visit_word, visit_contents, &v);
    trace(&v);
    v.holder = "a thread's stack";
    mark_walk_kept_copies(visit_stack_word, &v);
    trace(&v);
    os_free(v.seen, v.seen_bytes, OS_INSPECT, v.seen_bytes, v.seen_bytes);
    if (v.stack != NULL)
        os_free(v.stack, to_pages(v.room * sizeof(*v.stack)), OS_INSPECT, to_pages(v.room * sizeof(*v.stack)),
                to_pages(v.room * sizeof(*v.stack)));
    return v.found;
}

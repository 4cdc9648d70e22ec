/* mark/copies.c -- testing the words that threads copied in their answers (1.4).
 *
 * A thread is held for the copy only; whoever is free, the collector first of all, tests the copies.  A
 * word is conservative, interior addresses count, and so does one past the end (D-3, D-4).  A white object
 * found here is marked and queued and makes the round not clean (mf_copynocount); it need not touch the
 * round word, since the round waits until every copied word is tested.
 *
 * Testing late is the same as testing at once: see "Why one clean round is enough" in docs/protocol.md.
 */
#include "mark/internal.h"

static _Atomic uint32_t keeping;
static struct mark_block *_Atomic kept; /* linked through limit */

/* One block; false if there is none.  What was found is held by the tracer, with a token. */
bool copies_test_one(struct tracer *tracer)
{
    struct mark_block *block = work_pop_copy();
    if (block == NULL)
        return false;
    HOOK(COPY_TEST, block);
    bool white = false;
    atomic_fetch_add_explicit(&work_pending, 1, memory_order_seq_cst);
    tracer->tokens++;
    for (uint32_t i = 0; i < block->count; i++)
        white |= tracer_stack_word(tracer, block->entry[i]);
    if (white && !FAULT(NO_COPY_COUNT))
        atomic_store_explicit(&work_clean, 0, memory_order_seq_cst);
    if (atomic_load_explicit(&keeping, memory_order_relaxed)) {
        /* By CAS: a worker may have seen copies_kept() false just before it became true. */
        struct mark_block *first = atomic_load_explicit(&kept, memory_order_relaxed);
        do
            block->limit = (uint64_t)(uintptr_t)first;
        while (!atomic_compare_exchange_weak_explicit(&kept, &first, block, memory_order_release,
                                                      memory_order_relaxed)); /* pairs with the walk's load */
    } else {
        work_block_put(block);
    }
    /* release: marks and clean before the count (acquire in mark_idle) */
    if (atomic_fetch_sub_explicit(&work_copies, 1, memory_order_acq_rel) == 1)
        work_done();
    return true;
}

void mark_keep_copies(bool keep)
{
    atomic_store_explicit(&keeping, keep, memory_order_relaxed);
    if (keep)
        return;
    for (struct mark_block *block = atomic_exchange(&kept, NULL); block != NULL;) {
        struct mark_block *next = (struct mark_block *)(uintptr_t)block->limit;
        work_block_put(block);
        block = next;
    }
}

bool copies_kept(void) { return atomic_load_explicit(&keeping, memory_order_relaxed); }

void mark_walk_kept_copies(void (*fn)(uintptr_t word, void *arg), void *arg)
{
    for (struct mark_block *block = atomic_load(&kept); block != NULL;
         block = (struct mark_block *)(uintptr_t)block->limit)
        for (uint32_t i = 0; i < block->count; i++)
            fn(block->entry[i], arg);
}

void copies_fork_child(void)
{
    atomic_store(&keeping, 0);
    atomic_store(&kept, NULL);
}

/* barrier/work.c -- blocks of references, and the stacks that hand them from thread to thread.
 *
 * Three lock-free stacks (Treiber) of blocks: free ones, grey references, copied stack words.  A stack's
 * head is one 64-bit word, block number and a tag that counts pushes and pops, so that a head that was
 * popped and pushed again in between is not mistaken for the same (ABA).  Blocks live in one reservation
 * and are found by number; a block is never unmapped while the library is up, so reading the link of a
 * block that somebody else just popped is harmless (UM-16).  C11 atomics rather than ck_stack, whose
 * double-width CAS is assembly that ThreadSanitizer cannot see through.
 *
 * Handlers push and pop here but never map: the collector prepares enough blocks before it asks
 * (work_blocks_prepare), and a handler that finds none waits for it to bring more.
 *
 * The order of a hand-over outside an answer (2.3, last sentence): pending up, push, clean := false.  The
 * collector sets clean := true first and tests pending then, so it sees one or the other.
 */
#include "barrier/barrier.h"

#include <errno.h>

_Atomic uint64_t work_pending, work_copies;
_Atomic uint64_t work_cycle;
_Atomic uint32_t work_clean, work_overflowed, work_round, work_at_once, work_signal, work_idle;

/* 2^21 blocks are 8 GiB: one reference for each 64-byte object of a 64 GiB heap.  More are dropped and
 * found again by a rescan (overflow).  A smaller heap, where the address space is limited (OS-19), has
 * fewer in proportion. */
enum { BLOCKS_MAX = 1 << 21, BLOCKS_STEP = 64 };
static uint32_t blocks_max;

static struct mark_block *blocks; /* number 0 is none */
static _Atomic uint32_t n_blocks; /* mapped */
static _Atomic int64_t n_free;
static struct os_lock grow_lock = OS_LOCK_INIT(OS_RANK_WORK);
static _Atomic uint64_t free_head, work_head, copy_head;

int work_init(void)
{
    os_lock_init(&grow_lock, OS_RANK_WORK);
    size_t in_proportion = heap.reserved / 8 / MARK_BLOCK_BYTES;
    blocks_max = in_proportion < BLOCKS_MAX ? (uint32_t)in_proportion : BLOCKS_MAX;
    blocks = os_reserve(NULL, (size_t)blocks_max * MARK_BLOCK_BYTES);
    if (blocks == NULL)
        return ENOMEM;
    atomic_store(&n_blocks, 0);
    atomic_store(&n_free, 0);
    atomic_store(&free_head, 0);
    atomic_store(&work_head, 0);
    atomic_store(&copy_head, 0);
    atomic_store(&work_pending, 0);
    atomic_store(&work_copies, 0);
    atomic_store(&work_overflowed, 0);
    atomic_store(&work_round, ROUND_OPEN);
    atomic_store(&work_at_once, 0);
    return 0;
}

void work_shutdown(void)
{
    size_t mapped = (size_t)atomic_load(&n_blocks) * MARK_BLOCK_BYTES;
    if (blocks != NULL)
        os_free(blocks, (size_t)blocks_max * MARK_BLOCK_BYTES, OS_MARK, mapped, mapped);
    blocks = NULL;
}

void work_fork_child(void)
{
    os_lock_init(&grow_lock, OS_RANK_WORK);
    uint32_t n = atomic_load(&n_blocks);
    atomic_store(&free_head, 0);
    atomic_store(&work_head, 0);
    atomic_store(&copy_head, 0);
    atomic_store(&n_free, 0);
    atomic_store(&work_pending, 0);
    atomic_store(&work_copies, 0);
    atomic_store(&work_overflowed, 0);
    atomic_store(&work_at_once, 0);
    atomic_store(&work_idle, 0);
    for (uint32_t i = 0; i < n; i++)
        work_block_put(&blocks[i]);
}

static uint32_t number_of(const struct mark_block *block) { return (uint32_t)(block - blocks) + 1; }

static void push(_Atomic uint64_t *head, struct mark_block *block)
{
    uint64_t old = atomic_load_explicit(head, memory_order_relaxed), new;
    do {
        atomic_store_explicit(&block->next, (uint32_t)old, memory_order_relaxed);
        new = ((old >> 32) + 1) << 32 | number_of(block);
        /* release: pairs with the acquire in pop, for the block's contents */
    } while (
        !atomic_compare_exchange_weak_explicit(head, &old, new, memory_order_acq_rel, memory_order_relaxed));
}

static struct mark_block *pop(_Atomic uint64_t *head)
{
    uint64_t old = atomic_load_explicit(head, memory_order_acquire), new;
    struct mark_block *block;
    do {
        if ((uint32_t)old == 0)
            return NULL;
        block = &blocks[(uint32_t)old - 1];
        new = ((old >> 32) + 1) << 32 | atomic_load_explicit(&block->next, memory_order_relaxed);
    } while (
        !atomic_compare_exchange_weak_explicit(head, &old, new, memory_order_acq_rel, memory_order_acquire));
    return block;
}

/* ---- blocks ----------------------------------------------------------------------------------------- */

struct mark_block *work_block_get_ready(void)
{
    struct mark_block *block = pop(&free_head);
    if (block != NULL) {
        atomic_fetch_sub_explicit(&n_free, 1, memory_order_relaxed);
        block->count = 0;
    }
    return block;
}

void work_block_put(struct mark_block *block)
{
    push(&free_head, block);
    atomic_fetch_add_explicit(&n_free, 1, memory_order_relaxed);
}

static bool grow(void)
{
    os_lock(&grow_lock);
    uint32_t n = atomic_load_explicit(&n_blocks, memory_order_relaxed);
    size_t size = (size_t)BLOCKS_STEP * MARK_BLOCK_BYTES;
    bool done = n + BLOCKS_STEP <= blocks_max && os_map(&blocks[n], size, OS_MARK, "grey: metadata") == 0 &&
                os_used(&blocks[n], size, size) == 0;
    if (done)
        atomic_store_explicit(&n_blocks, n + BLOCKS_STEP, memory_order_relaxed);
    os_unlock(&grow_lock);
    for (uint32_t i = n; done && i < n + BLOCKS_STEP; i++)
        work_block_put(&blocks[i]);
    return done;
}

struct mark_block *work_block_get(void)
{
    for (;;) {
        struct mark_block *block = work_block_get_ready();
        if (block != NULL || !grow())
            return block;
    }
}

bool work_blocks_prepare(uint32_t n)
{
    while (atomic_load_explicit(&n_free, memory_order_relaxed) < (int64_t)n)
        if (!grow())
            return false;
    return true;
}

/* ---- queues ------------------------------------------------------------------------------------------- */

void work_wake(void)
{
    atomic_fetch_add_explicit(&work_signal, 1, memory_order_release);
    if (atomic_load_explicit(&work_idle, memory_order_seq_cst) != 0)
        os_wake(&work_signal, 1 << 20);
}

/* The collector waits for a count to reach 0 and is not among the idle tracers: wakes whoever sleeps. */
void work_done(void)
{
    atomic_fetch_add_explicit(&work_signal, 1, memory_order_release);
    os_wake(&work_signal, 1 << 20);
}

void work_push(struct mark_block *block, bool wake)
{
    atomic_fetch_add_explicit(&work_pending, 1, memory_order_seq_cst);
    push(&work_head, block);
    if (wake)
        work_wake();
}

struct mark_block *work_pop(void) { return pop(&work_head); }
bool work_available(void) { return (uint32_t)atomic_load_explicit(&work_head, memory_order_relaxed) != 0; }

void work_push_copy(struct mark_block *block)
{
    atomic_fetch_add_explicit(&work_copies, 1, memory_order_seq_cst);
    push(&copy_head, block);
}
struct mark_block *work_pop_copy(void) { return pop(&copy_head); }

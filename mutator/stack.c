/* mutator/stack.c -- where a thread's stacks are, and copying the words of them that could matter.
 *
 * An answer copies; it looks nothing up, marks nothing and takes no lock, so it costs under a microsecond
 * for an ordinary stack; workers test the copies (docs/architecture.md, "On the fly").  A word could
 * matter if it lies in the mapped heap, its end included (one past the end of the last object), or within
 * the bounds of all foreign regions.
 *
 * From where: the stack pointer that the answer was called with, below which lie the callee-saved
 * registers (capture.S) and, in a handler, the signal frame with all registers, vector state included,
 * and the 128 bytes of red zone that the kernel skips; so one upward scan sees everything (MK-10).
 *
 * Which stack: the one that contains the stack pointer.  A stack that was left for another is scanned
 * whole, its mapped part, since it isn't known where it was left (MK-23).
 */
#include "barrier/barrier.h"
#include "mutator/internal.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

static _Atomic uint64_t stack_bytes;

/* A buffer for the next words.  The collector keeps enough ready; a handler that finds none waits for it
 * to bring another, and never drops a word.  The collector, who copies for a blocked thread, has nobody
 * else to wait for. */
static struct mark_block *copy_buffer(struct thread *thread)
{
    for (unsigned n = 0; thread->copy == NULL;) {
        thread->copy = thread == thread_self() ? work_block_get_ready() : work_block_get();
        if (thread->copy == NULL)
            os_pause(&n);
    }
    return thread->copy;
}

bool mutator_copy_given(struct thread *thread)
{
    if (thread->copy == NULL || thread->copy->count == 0)
        return false;
    struct mark_block *block = thread->copy;
    thread->copy = NULL;
    work_push_copy(block);
    return true;
}

OS_UNSANITIZED void mutator_copy_words(struct thread *thread, const char *from, const char *to)
{
    uintptr_t base = (uintptr_t)heap.base;
    size_t extent = atomic_load_explicit(&heap.extent, memory_order_acquire);
    struct outside outside = outside_read();
    const volatile uintptr_t *word = (const volatile uintptr_t *)(((uintptr_t)from + 7) & ~(uintptr_t)7);
    const volatile uintptr_t *end = (const volatile uintptr_t *)((uintptr_t)to & ~(uintptr_t)7);
    struct mark_block *block = copy_buffer(thread);
    uint32_t count = block->count;
    for (; word < end; word++) {
        uintptr_t value = *word;
        if (LIKELY(value - base > extent) && LIKELY(value - outside.low >= outside.length))
            continue;
        block->entry[count++] = value;
        if (UNLIKELY(count == MARK_BLOCK_ENTRIES)) {
            block->count = count;
            mutator_copy_given(thread);
            block = copy_buffer(thread);
            count = 0;
        }
    }
    block->count = count;
}

/* The lowest mapped address of [low, high) from which all is mapped up to high; signal-safe. */
static char *mapped_part(char *low, char *high)
{
    size_t page = os_page_size();
    unsigned char vector[64];
    char *at = (char *)((uintptr_t)high & ~(page - 1));
    if (at < high && mincore(at, page, vector) != 0)
        return high;
    while (at > low) {
        size_t pages = (size_t)(at - low) / page;
        if (pages > sizeof(vector))
            pages = sizeof(vector);
        if (pages == 0)
            break;
        while (pages > 0 && mincore(at - pages * page, pages * page, vector) != 0)
            pages /= 2;
        if (pages == 0)
            break;
        at -= pages * page;
    }
    return at > low ? at : low;
}

static bool within(const char *p, const char *low, const char *high) { return p >= low && p < high; }

/* The alternate signal stack, if the thread is on it now. */
static bool on_alternate_stack(char *sp, char **low, char **high)
{
    stack_t stack;
    if (sigaltstack(NULL, &stack) != 0 || !(stack.ss_flags & SS_ONSTACK))
        return false;
    *low = stack.ss_sp;
    *high = *low + stack.ss_size;
    return within(sp, *low, *high);
}

static void copy_range(struct thread *thread, const char *from, const char *to)
{
    mutator_copy_words(thread, from, to);
    atomic_fetch_add_explicit(&stack_bytes, (uint64_t)(to - from), memory_order_relaxed);
    os_count(OS_COUNT_scanned_stack_bytes, (uint64_t)(to - from));
}

/* By the thread itself, or for it while it is HELD (then sp is what it saved). */
void mutator_copy_stacks(struct thread *thread, char *sp)
{
    bool known = within(sp, thread->stack_low, thread->stack_high);
    if (known)
        copy_range(thread, sp, sp < thread->stack_top ? thread->stack_top : thread->stack_high);
    for (const struct thread_stack *stack = thread->stacks; stack != NULL; stack = stack->next) {
        bool current = within(sp, stack->low, stack->high);
        known |= current;
        copy_range(thread, current ? sp : stack->low, stack->high);
    }
    if (known && within(sp, thread->stack_low, thread->stack_high))
        return;
    /* Its own stack was left for another. */
    copy_range(thread, mapped_part(thread->stack_low, thread->stack_top), thread->stack_top);
    char *low, *high;
    if (!known && thread == thread_self() && on_alternate_stack(sp, &low, &high)) {
        copy_range(thread, sp, high);
        known = true;
    }
    if (!known)
        os_fatal(sp, "a thread runs on a stack that grey doesn't know: register it with grey_stack_add");
}

uint64_t mutator_stack_bytes(bool reset)
{
    return reset ? atomic_exchange_explicit(&stack_bytes, 0, memory_order_relaxed)
                 : atomic_load_explicit(&stack_bytes, memory_order_relaxed);
}

/* ---- registered stacks ---------------------------------------------------------------------------------- */

#include "heap/unmanaged.h"

static struct os_lock pool_lock = OS_LOCK_INIT(OS_RANK_POOL);
static struct pool stacks_pool;

static bool overlaps(const char *low, const char *high, const char *low2, const char *high2)
{
    return low < high2 && low2 < high;
}

/* List lock. */
bool mutator_stack_overlaps(const char *low, const char *high)
{
    for (struct thread *t = mutator_first(); t != NULL; t = t->next) {
        if (overlaps(low, high, t->stack_low, t->stack_high))
            return true;
        for (const struct thread_stack *s = t->stacks; s != NULL; s = s->next)
            if (overlaps(low, high, s->low, s->high))
                return true;
    }
    return overlaps(low, high, heap.base, heap.base + heap.reserved);
}

static struct thread_stack *node_alloc(void)
{
    os_lock(&pool_lock);
    if (!stacks_pool.ready)
        pool_init(&stacks_pool, sizeof(struct thread_stack), OS_THREADS, NULL);
    struct thread_stack *node = pool_alloc(&stacks_pool);
    os_unlock(&pool_lock);
    return node;
}
static void node_free(struct thread_stack *node)
{
    os_lock(&pool_lock);
    pool_free(&stacks_pool, node);
    os_unlock(&pool_lock);
}

void stacks_forget(struct thread *self)
{
    while (self->stacks != NULL) {
        struct thread_stack *node = self->stacks;
        self->stacks = node->next;
        node_free(node);
    }
}

int grey_stack_add(void *low, void *high)
{
    if (low == NULL || (char *)high <= (char *)low || (char *)high - (char *)low < (ptrdiff_t)sizeof(void *))
        return EINVAL;
    struct thread *self = heap_thread("grey_stack_add");
    if (self == NULL)
        return ENOMEM;
    int error = 0;
    thread_enter(self);
    struct thread_stack *node = node_alloc();
    if (node != NULL) {
        mutator_lock_list();
        if (mutator_stack_overlaps(low, high) ||
            heap_calls.overlaps_outside((uintptr_t)low, (uintptr_t)high)) {
            error = EEXIST;
        } else {
            *node = (struct thread_stack){low, high, self->stacks};
            self->stacks = node;
        }
        mutator_unlock_list();
        if (error != 0)
            node_free(node);
    } else {
        error = ENOMEM;
    }
    thread_leave(self);
    if (error == 0)
        shade_range(self, low, (size_t)((char *)high - (char *)low)); /* ER-9 */
    return error;
}

int grey_stack_remove(void *low)
{
    struct thread *self = heap_thread("grey_stack_remove");
    if (self == NULL)
        return ENOMEM;
    /* Before it goes: a copy asked for after the removal will not have its words. */
    for (struct thread_stack *s = self->stacks; s != NULL; s = s->next)
        if (s->low == (char *)low)
            shade_range(self, s->low, (size_t)(s->high - s->low));
    thread_enter(self);
    mutator_lock_list();
    struct thread_stack **link = &self->stacks, *found;
    while ((found = *link) != NULL && found->low != (char *)low)
        link = &found->next;
    if (found != NULL)
        *link = found->next;
    mutator_unlock_list();
    if (found != NULL)
        node_free(found);
    thread_leave(self);
    return found != NULL ? 0 : ENOENT;
}

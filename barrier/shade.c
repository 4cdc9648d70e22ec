/* barrier/shade.c -- the slow side of the store barrier (docs/protocol.md 2.2, 2.3).
 *
 * shade(o), in a busy section with the phase ON: if o is a live white cell, make the round word DIRTY
 * (unless it is CLOSED: then o is unreachable, a stale word, and must stay white), then set the mark,
 * then push o on the thread's grey buffer.
 *
 * Why DIRTY comes strictly first.  Between the store and the shade a black object points to a white one.
 * Some other thread T may hold that white object and not have answered yet.  If we mark it and T answers
 * after that, T's copy finds it marked and counts nothing; our buffer is handed over at our next answer
 * only, which may lie in the next round: so without DIRTY this round could close with the object's
 * children white ("mark stealing").  With DIRTY first the round cannot close, and in the next our buffer
 * is handed over (m_nodirty, m_dirtylate in models/).
 *
 * Why CLOSED may drop: once closed, everything any thread can reach is marked, so a white word here was
 * read from nowhere live.
 *
 * Single stores are choice B: store, then test, inline in grey.h, interruptible anywhere.  Bulk moves are
 * choice A: test, shade, store, all in one section of at most 128 KiB, because their source words may be
 * overwritten before a later test, and then no register would hold them.
 */
#include "barrier/barrier.h"
#include "os/options.h"

#include <string.h>

enum { PIECE = 128 << 10 };

uint32_t grey_phase_;

/* ---- shade -------------------------------------------------------------------------------------------- */

/* OPEN -> DIRTY; false if the round is closed. */
bool shade_make_dirty(void)
{
    if (FAULT(NO_DIRTY))
        return atomic_load_explicit(&work_round, memory_order_acquire) != ROUND_CLOSED;
    uint32_t round = atomic_load_explicit(&work_round, memory_order_acquire);
    if (round == ROUND_OPEN &&
        atomic_compare_exchange_strong_explicit(&work_round, &round, ROUND_DIRTY, memory_order_seq_cst,
                                                memory_order_acquire))
        return true;
    return round != ROUND_CLOSED;
}

/* Marked, and nobody will scan it but through the rescan of an overflow. */
static void drop(void)
{
    atomic_store_explicit(&work_overflowed, 1, memory_order_seq_cst);
    atomic_store_explicit(&work_clean, 0, memory_order_seq_cst);
}

static void remember(struct thread *self, uintptr_t base)
{
    if (self->grey == NULL) {
        self->grey = work_block_get();
        if (self->grey == NULL) {
            drop();
            return;
        }
    }
    self->grey->entry[self->grey->count++] = base;
    uint32_t most = os_debug.smallwbbuf ? GREY_BUFFER_SMALL : GREY_BUFFER;
    if (self->grey->count >= most || atomic_load_explicit(&work_at_once, memory_order_relaxed))
        shade_hand_over(self, true);
}

bool shade_hand_over(struct thread *thread, bool wake)
{
    struct mark_block *block = thread->grey;
    if (block == NULL || block->count == 0)
        return false;
    thread->grey = NULL;
    work_push(block, wake);
    if (!FAULT(NO_BUFFER_COUNT))
        atomic_store_explicit(&work_clean, 0, memory_order_seq_cst);
    return true;
}

/* Of an object that was found white.  True if this call marked it. */
static bool shade_white(struct thread *self, const struct heap_object *object)
{
    HOOK(SHADE, (void *)object->base);
    if (!shade_make_dirty())
        return false;
    HOOK(SHADE_DIRTY, (void *)object->base);
    if (!heap_mark_cell(object->base))
        return false;
    os_count(OS_COUNT_shades, 1);
    os_count(OS_COUNT_marked_objects, 1);
    os_count(OS_COUNT_marked_bytes, object->size);
    if (heap_layouts[object->layout].kind != LAYOUT_LEAF)
        remember(self, object->base);
    return true;
}

bool shade(struct thread *self, uintptr_t p)
{
    struct heap_object object;
    if (!heap_contains(p))
        return outside_may_matter(p) && heap_calls.shade_outside(self, p);
    return heap_find(p, &object) && !heap_marked(object.base) && shade_white(self, &object);
}

/* Marked by somebody else meanwhile is alive too: so the mark has the last word. */
bool shade_unless_dead(struct thread *self, uintptr_t p)
{
    struct heap_object object;
    return heap_find(p, &object) &&
           (heap_marked(object.base) || shade_white(self, &object) || heap_marked(object.base));
}

/* Memory of the program that other threads may be writing: a word is read once, whole. */
static OS_UNSANITIZED uintptr_t load_word(const void *slot) { return *(const volatile uintptr_t *)slot; }

static const char *align_up(const void *p) { return (const char *)(((uintptr_t)p + 7) & ~(uintptr_t)7); }

static bool may_matter(uintptr_t word) { return heap_contains(word) || outside_may_matter(word); }

void shade_range(struct thread *self, const void *start, size_t size)
{
    const char *end = (const char *)start + size;
    for (const char *at = align_up(start); at + sizeof(void *) <= end && barrier_on();) {
        const char *piece = (size_t)(end - at) < PIECE ? end : at + PIECE;
        thread_enter(self);
        if (barrier_on())
            for (; at + sizeof(void *) <= piece; at += sizeof(void *)) {
                uintptr_t word = load_word(at);
                if (may_matter(word))
                    shade(self, word);
            }
        thread_leave(self);
    }
}

/* ---- the calls ------------------------------------------------------------------------------------------ */

/* Most stores of a cycle are of what is marked already, and mostly of an object's first byte: then there
 * is nothing to do, and finding that out needs no section.  It has no effect, so it does not matter in
 * which phase it ends: a mark that was set when this thread looked is of a cycle in which the value was
 * marked, or is left from one that is over, and then this is a store that saw phase OFF. */
static bool already_marked(uintptr_t p)
{
    if (!heap_contains(p))
        return !outside_may_matter(p);
    return heap_marked(p);
}

void grey_shade_(const void *value)
{
    if (already_marked((uintptr_t)value) || FAULT(NO_BARRIER))
        return;
    struct thread *self = heap_thread("a store of a heap pointer");
    if (self == NULL)
        os_fatal(value, "no memory to attach the thread that stores a heap pointer: attach threads first");
    thread_enter(self);
    if (barrier_on())
        shade(self, (uintptr_t)value);
    thread_leave(self);
}

void grey_pass(const void *p)
{
    __asm__ volatile("" : : : "memory"); /* published before the test (2.5) */
    if (p != NULL && barrier_on())
        grey_shade_(p);
    __asm__ volatile("" : : "r"(p));
}

/* Words are moved whole: another thread may be tracing them. */
static OS_UNSANITIZED void move_words(struct thread *self, uintptr_t *to, const uintptr_t *from, size_t n,
                                      bool backwards)
{
    bool on = barrier_on();
    for (size_t k = 0; k < n; k++) {
        size_t i = backwards ? n - 1 - k : k;
        uintptr_t word = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
        if (on && may_matter(word))
            shade(self, word);
        __atomic_store_n(&to[i], word, __ATOMIC_RELEASE);
    }
}

static void move_pieces(char *to, const char *from, size_t size, bool backwards)
{
    struct thread *self = heap_thread("grey_move");
    if (self == NULL)
        os_fatal(to, "no memory to attach the thread that moves heap pointers: attach threads first");
    for (size_t done = 0; done < size;) {
        size_t piece = size - done < PIECE ? size - done : PIECE;
        size_t at = backwards ? size - done - piece : done;
        thread_enter(self);
        move_words(self, (uintptr_t *)(void *)(to + at), (const uintptr_t *)(const void *)(from + at),
                   piece / sizeof(uintptr_t), backwards);
        thread_leave(self);
        done += piece;
    }
}

void grey_move(void *to, const void *from, size_t size)
{
    if (to == from || size == 0)
        return;
    uintptr_t mis_to = (uintptr_t)to & 7, mis_from = (uintptr_t)from & 7;
    if (mis_to != mis_from) { /* no word of it is a pointer at both ends */
        memmove(to, from, size);
        return;
    }
    bool backwards = (uintptr_t)to > (uintptr_t)from && (uintptr_t)to < (uintptr_t)from + size;
    size_t head = (8 - mis_to) & 7;
    if (head > size)
        head = size;
    size_t words = (size - head) & ~(size_t)7, tail = size - head - words;
    char odd[16]; /* the odd bytes at both ends, before anything moves over them */
    memcpy(odd, from, head);
    memcpy(odd + 8, (const char *)from + head + words, tail);
    move_pieces((char *)to + head, (const char *)from + head, words, backwards);
    memcpy(to, odd, head);
    memcpy((char *)to + head + words, odd + 8, tail);
}

static OS_UNSANITIZED void clear_words(uintptr_t *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        __atomic_store_n(&at[i], 0, __ATOMIC_RELEASE);
}

/* NULL is no heap pointer: nothing to shade, so no section (UM-13, BA-8). */
void grey_clear(void *at, size_t size)
{
    size_t head = (8 - ((uintptr_t)at & 7)) & 7;
    if (head > size)
        head = size;
    size_t words = (size - head) / 8;
    if (head != 0)
        memset(at, 0, head);
    clear_words((uintptr_t *)(void *)((char *)at + head), words);
    if (size - head - words * 8 != 0)
        memset((char *)at + head + words * 8, 0, size - head - words * 8);
}

void grey_touch(const void *p)
{
    if (p == NULL || !barrier_on() || !may_matter((uintptr_t)p))
        return;
    struct thread *self = heap_thread("grey_touch");
    struct heap_object object;
    if (!heap_contains((uintptr_t)p)) {
        if (self != NULL)
            heap_calls.touch_outside(self, (uintptr_t)p);
        return;
    }
    if (self != NULL && heap_find((uintptr_t)p, &object) && heap_layouts[object.layout].kind != LAYOUT_LEAF)
        shade_range(self, (const void *)object.base, object.size);
}

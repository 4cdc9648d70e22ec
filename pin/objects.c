/* pin/objects.c -- what is known of a pinned object (PN-8, PN-15..PN-17).
 *
 * What keeps a pinned object is the entry in its pinner's store (pinners.c).  This file only counts, for
 * grey_is_pinned and grey_pin_count.  A span leads to a record with two bits a cell: pinned, and pinned more
 * than once; for these a special on the span's ring has the number.  The record comes with the first pin in
 * the span and goes with the last, so a span without pins has one index.  Records have one size, that for
 * the 512 cells of the smallest class: at most a fiftieth of a span.
 *
 * Changed under the span's sweep flag, on a swept span, while the object is held or pinned: so every cell
 * with a bit is allocated, and is marked in every cycle.  The sweep leaves the record alone.
 *
 * Looked at without the flag.  A record may go, and become another span's, under the reader's eyes.  It gets
 * a new handle with each use; and the span's index is set after the handle and cleared before it is taken
 * back.  So a bit that was read between two equal readings of the handle, with the span's index read in
 * between too, is this span's.
 */
#include "foreign/foreign.h"
#include "arena/arena.h"
#include "pin/internal.h"
#include "sweep/records.h"

#include <errno.h>

enum { CELLS_MOST = GREY_PAGE / HEAP_GRANULE, WORDS = CELLS_MOST / 64 };
/* Records at most; one a span, where the address space is limited (OS-19). */
enum { RECORDS_MOST = 1 << 24 };

struct pinned {
    struct slot slot;
    uint64_t cells; /* pinned; flag */
    _Atomic uint64_t once[WORDS], again[WORDS];
};

static struct slots table;

static struct pinned *pinned_at(uint32_t index) { return (struct pinned *)(void *)slots_at(&table, index); }

int objects_init(void)
{
    size_t most = heap.reserved >> GREY_PAGE_SHIFT;
    return slots_init(&table, sizeof(struct pinned), most < RECORDS_MOST ? (uint32_t)most : RECORDS_MOST,
                      OS_PINS);
}
void objects_shutdown(void) { slots_shutdown(&table); }
void objects_fork_child(void) { slots_fork_child(&table); }

void pin_look(struct thread *self, uintptr_t p, struct pin_target *out)
{
    *out = (struct pin_target){.kind = PIN_NOTHING};
    struct heap_object object;
    if (heap_find(p, &object)) {
        out->kind = PIN_OBJECT;
        out->base = object.base;
    } else if (arena_contains(p)) {
        out->kind = PIN_ARENA;
    } else if (!heap_contains(p)) {
        out->region = foreign_handle_at(self, p);
        if (out->region != 0)
            out->kind = PIN_REGION;
    }
}

/* ---- bits -------------------------------------------------------------------------------------------- */

static unsigned cell_of(const struct span *span, uintptr_t base)
{
    const struct layout *layout = &heap_layouts[span->layout];
    unsigned cell = layout->cell != 0 ? (unsigned)((base - (uintptr_t)span_start(span)) / layout->cell) : 0;
    ASSERT(cell < CELLS_MOST);
    return cell;
}

static uint64_t bit_of(unsigned cell) { return (uint64_t)1 << cell % 64; }
static bool is_set(_Atomic uint64_t *words, unsigned cell)
{
    /* acquire: before the second look at the handle, for who reads without the flag */
    return atomic_load_explicit(&words[cell / 64], memory_order_acquire) & bit_of(cell);
}
/* Flag held; atomic for who reads without. */
static void set(_Atomic uint64_t *words, unsigned cell)
{
    atomic_fetch_or_explicit(&words[cell / 64], bit_of(cell), memory_order_release);
}
static void clear(_Atomic uint64_t *words, unsigned cell)
{
    atomic_fetch_and_explicit(&words[cell / 64], ~bit_of(cell), memory_order_release);
}

/* Flag held; NULL: nothing is pinned in the span. */
static struct pinned *pinned_of(const struct span *span)
{
    uint32_t index = atomic_load_explicit(&((struct span *)span)->pins, memory_order_relaxed);
    return index != 0 ? pinned_at(index) : NULL;
}

static struct pinned *pinned_new(struct span *span)
{
    struct pinned *pinned = (struct pinned *)(void *)slots_take(&table);
    if (pinned == NULL)
        return NULL;
    /* release: pairs with object_is_pinned */
    atomic_store_explicit(&span->pins, (uint32_t)slots_publish(&table, &pinned->slot), memory_order_release);
    return pinned;
}

static void give_back_if_empty(struct span *span, struct pinned *pinned)
{
    if (pinned->cells != 0)
        return;
    atomic_store_explicit(&span->pins, 0, memory_order_release);
    slots_give_back(&table, &pinned->slot);
}

bool object_is_pinned(uintptr_t base)
{
    struct span *span = heap_span_of(base);
    for (;;) {
        uint32_t index = atomic_load_explicit(&span->pins, memory_order_acquire);
        if (index == 0)
            return false;
        struct pinned *pinned = pinned_at(index);
        /* acquire, all but the last: each is read after the one before */
        uint64_t handle = atomic_load_explicit(&pinned->slot.handle, memory_order_acquire);
        uint32_t same = atomic_load_explicit(&span->pins, memory_order_acquire);
        bool found = is_set(pinned->once, cell_of(span, base));
        if (handle != 0 && same == index &&
            atomic_load_explicit(&pinned->slot.handle, memory_order_relaxed) == handle)
            return found;
    }
}

/* ---- counters, flag held ----------------------------------------------------------------------------- */

/* The object's special, or NULL; *before: behind which it stands, or would. */
static struct special *counter_of(const struct span *span, uintptr_t base, struct special **before)
{
    *before = special_seek(span, base, SPECIAL_PIN_COUNT);
    bool found =
        *before != NULL && special_base(*before) == base && special_kind(*before) == SPECIAL_PIN_COUNT;
    return found ? *before : NULL;
}

static int count_up(struct span *span, struct pinned *pinned, uintptr_t base, unsigned cell)
{
    struct special *before, *counter = counter_of(span, base, &before);
    if (is_set(pinned->again, cell) != (counter != NULL))
        os_internal((void *)base, "a pinned object's counter is missing, or one too many");
    if (counter != NULL) {
        special_set_word(counter, special_word(counter) + 1);
        return 0;
    }
    counter = special_new(SPECIAL_PIN_COUNT, base, 2, NULL);
    if (counter == NULL)
        return ENOMEM;
    special_list(span, before, counter);
    set(pinned->again, cell);
    return 0;
}

static void count_down(struct span *span, struct pinned *pinned, uintptr_t base, unsigned cell)
{
    struct special *before, *counter = counter_of(span, base, &before);
    if (counter == NULL || special_word(counter) < 2)
        os_internal((void *)base, "a pinned object's counter is missing");
    if (special_word(counter) > 2) {
        special_set_word(counter, special_word(counter) - 1);
        return;
    }
    special_remove(span, counter);
    clear(pinned->again, cell);
}

/* ---- one pin more or less ---------------------------------------------------------------------------- */

static int add(struct span *span, uintptr_t base)
{
    struct pinned *pinned = pinned_of(span);
    if (pinned == NULL)
        pinned = pinned_new(span);
    if (pinned == NULL)
        return ENOMEM;
    unsigned cell = cell_of(span, base);
    if (is_set(pinned->once, cell))
        return count_up(span, pinned, base, cell);
    set(pinned->once, cell);
    pinned->cells++;
    return 0;
}

int object_pin(uintptr_t base)
{
    struct span *span = special_span(base);
    int error = add(span, base);
    span_unlock(span);
    return error;
}

void object_unpin(uintptr_t base)
{
    struct span *span = special_span(base);
    struct pinned *pinned = pinned_of(span);
    unsigned cell = cell_of(span, base);
    if (pinned == NULL || !is_set(pinned->once, cell)) {
        os_internal((void *)base, "unpinning what is not pinned");
    } else if (is_set(pinned->again, cell)) {
        count_down(span, pinned, base, cell);
    } else {
        clear(pinned->once, cell);
        pinned->cells--;
        give_back_if_empty(span, pinned);
    }
    span_unlock(span);
}

size_t object_pins(uintptr_t base)
{
    struct span *span = special_span(base);
    struct pinned *pinned = pinned_of(span);
    unsigned cell = cell_of(span, base);
    size_t pins = pinned != NULL && is_set(pinned->once, cell);
    if (pins != 0 && is_set(pinned->again, cell)) {
        struct special *before, *counter = counter_of(span, base, &before);
        if (counter == NULL)
            os_internal((void *)base, "a pinned object's counter is missing");
        pins = special_word(counter);
    }
    span_unlock(span);
    return pins;
}

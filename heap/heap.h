/* heap/heap.h -- spans, size classes, page allocator, thread caches, object look-up.
 *
 * The heap is one reservation, so "is it in the heap" is a subtraction and a compare, and every table
 * is a flat array indexed by page (docs/architecture.md, "Data layout").  A span is some pages of cells
 * of one size class and one layout; a layout says where the pointers of a cell are and is also the index
 * of each thread's run for it.  One mark bit and one allocation bit stand for each 16 bytes, in
 * words that take turns: the marker asks for the second when the first is clear.
 *
 * Who may touch what:
 *   page tables      written by who owns the pages (allocator), read by anybody: atomic words
 *   mark bits        anybody while marking (fetch_or); the sweeper under the span's flag
 *   allocation bits  under the span's flag; read by anybody
 *   span fields      under the span's flag; list links under the layout's lock
 *   runs             their thread; the collector reads them from outside (heap_blacken_runs)
 *
 * May call: os/.  What it needs of higher rooms goes through heap_calls.
 */
#ifndef GREY_HEAP_HEAP_H
#define GREY_HEAP_HEAP_H

#include "heap/classes.h"
#include "os/os.h"
#include "os/thread.h"

enum {
    HEAP_GRANULE = 16,
    HEAP_CHUNK_SHIFT = 23,
    HEAP_CHUNK_PAGES = 1 << (HEAP_CHUNK_SHIFT - GREY_PAGE_SHIFT)
};
#define HEAP_CHUNK ((size_t)1 << HEAP_CHUNK_SHIFT)

/* Of 64 granules.  Side by side, since who finds the mark clear asks for the other: in two lines a page, marks
 * and allocation apart, the second was a cache miss for each object marked, half of the time of a random graph. */
struct bits {
    _Atomic uint64_t mark, alloc;
};
struct page_bits {
    struct bits word[8];
};

/* ---- layouts ---------------------------------------------------------------------------------- */

enum layout_kind {
    LAYOUT_CONSERVATIVE, /* every aligned word may be a pointer */
    LAYOUT_LEAF,         /* never scanned */
    LAYOUT_POINTERS,     /* every word is a pointer or NULL */
    LAYOUT_HEADER,       /* the cell's last word is its type's number + 1, or 0: nothing there yet */
    LAYOUT_MASK,         /* the layout's mask says which words are pointers */
    LAYOUT_LARGE_TYPED   /* a large object: the span has the type */
};

/* Static layouts: 2c and 2c+1 are class c, conservative and leaf (grey.h knows this); then one of
 * pointers and one of headers a class; then those of large objects.  Typed ones follow. */
enum {
    LAYOUT_OF_POINTERS = 2 * HEAP_N_CLASSES,
    LAYOUT_OF_HEADERS = 3 * HEAP_N_CLASSES,
    LAYOUT_OF_LARGE_CONSERVATIVE = 4 * HEAP_N_CLASSES,
    LAYOUT_OF_LARGE_LEAF,
    LAYOUT_OF_LARGE_POINTERS,
    LAYOUT_OF_LARGE_TYPED,
    LAYOUT_FIRST_TYPED,
    LAYOUT_MAX = 4096 /* beyond it new types get headers */
};
#define HEAP_LARGE_CLASS HEAP_N_CLASSES

/* Two to a cache line, and never written once its number is known: tracers read it for each object. */
struct layout {
    uint8_t kind;
    uint8_t size_class;
    uint16_t pages;   /* of a span */
    uint32_t cell;    /* bytes; 0 for large */
    uint32_t cells;   /* in a span */
    uint32_t inverse; /* offset in a span * inverse >> 32 == index of the cell */
    uint64_t mask;
    uint32_t type;  /* LAYOUT_MASK: the first type that made it, for realloc */
    uint32_t reach; /* bytes from the base to its last word that may be a pointer */
} __attribute__((aligned(32)));
extern struct layout heap_layouts[LAYOUT_MAX];
extern _Atomic uint32_t heap_n_layouts;

/* ---- types ------------------------------------------------------------------------------------- */

struct heap_type {
    const char *name;
    size_t size;
    size_t words;         /* whole words in one object */
    const uint64_t *bits; /* bit i: word i is a pointer */
    size_t last;          /* words up to and with the last pointer; 0 = leaf */
    bool all_pointers;
    uint32_t layout; /* of one object; 0 = none: header or large */
    /* For arenas: bytes of one object, if its pointers are all in its first 64 words, and those; else 0. */
    uint32_t small_size;
    uint64_t small_bits;
};
const struct heap_type *heap_type(uint32_t number);
extern const struct heap_type *heap_types[];
#define HEAP_TYPE_CACHED ((uint32_t)1 << 31)
/* What is cached in a type of the program's (heap/layout.c), without a lock.  NULL: not interned yet. */
static inline const struct heap_type *heap_type_known(const struct grey_type *type)
{
    /* acquire: pairs with who interned it */
    uint32_t cached = __atomic_load_n(type->run, __ATOMIC_ACQUIRE);
    if (cached == 0)
        return NULL;
    return heap_types[cached & HEAP_TYPE_CACHED ? cached & ~HEAP_TYPE_CACHED : heap_layouts[cached - 1].type];
}
/* The interned type, once it is known without a lock.  NULL and errno: EINVAL, ENOMEM.  Outside sections. */
const struct heap_type *heap_type_of(struct thread *self, const struct grey_type *type);

/* ---- spans ------------------------------------------------------------------------------------- */

enum span_place { SPAN_NONE, SPAN_BUILDING, SPAN_OWNED, SPAN_PARTIAL, SPAN_FULL, SPAN_LARGE };

struct span {
    uint32_t first_page, pages;
    _Atomic uint32_t flag;  /* the sweep flag: 1 = taken */
    _Atomic uint32_t swept; /* low bits of the cycle whose marks it was swept from */
    uint32_t layout;
    _Atomic uint8_t place;
    bool needs_zero;
    uint8_t parity;      /* of the full list it is in */
    uint8_t shard;       /* of its layout's lists: that it is or was in */
    uint32_t free_index; /* cells below it are allocated */
    uint32_t live;       /* allocation bits set */
    uint32_t next, previous;
    uint32_t type;             /* LAYOUT_LARGE_TYPED: number + 1 */
    size_t bytes;              /* large: usable size */
    struct thread *owner;      /* SPAN_OWNED, SPAN_BUILDING */
    _Atomic uint32_t specials; /* index of the first (sweep/specials.h), 0: none; the sweep flag */
    _Atomic uint32_t pins; /* what is known of its pinned cells (pin/objects.c), 0: none; the sweep flag */
};

struct heap {
    char *base;
    _Atomic size_t extent; /* bytes from base that are mapped; grows only */
    size_t reserved;
    struct page_bits *bits;
    _Atomic uint32_t *info;      /* a page: layout + 1, and its place in the span (heap_info_*); 0 = free */
    _Atomic uint32_t *page_span; /* a page: number of its span */
    struct span *spans;          /* number 0 is none */
    _Atomic uint32_t n_spans;    /* numbers handed out so far, + 1 */
    _Atomic uint64_t black_cycle, sweep_cycle; /* docs/protocol.md section 1 */
    _Atomic uint64_t live;           /* bytes: marked by the last cycle + runs and large objects since */
    _Atomic uint64_t chunks_live;    /* bytes of arena chunks that hold data (UA-17), beside `live` */
    _Atomic uint64_t chunks_waiting; /* bytes of those that are dead and not given back yet */
    _Atomic uint64_t pages_in_use;
};
extern struct heap heap;

/* Layout + 1 in the high half, page index within the span in the low. For large spans the low is 0. */
static inline uint32_t heap_info_make(uint32_t layout, uint32_t offset)
{
    return (layout + 1) << 16 | offset;
}
static inline uint32_t heap_info_layout(uint32_t info) { return (info >> 16) - 1; }
static inline uint32_t heap_info_offset(uint32_t info) { return info & 0xffff; }

static inline bool heap_contains(uintptr_t p)
{
    /* acquire: pairs with the release in grow (pages.c): the tables for what is inside are mapped */
    return p - (uintptr_t)heap.base < atomic_load_explicit(&heap.extent, memory_order_acquire);
}
static inline size_t heap_page(uintptr_t p) { return (p - (uintptr_t)heap.base) >> GREY_PAGE_SHIFT; }
static inline char *heap_page_address(size_t page) { return heap.base + (page << GREY_PAGE_SHIFT); }
static inline struct span *heap_span_of(uintptr_t p)
{
    return &heap.spans[atomic_load_explicit(&heap.page_span[heap_page(p)], memory_order_acquire)];
}
static inline char *span_start(const struct span *span) { return heap_page_address(span->first_page); }
static inline uint32_t span_number(const struct span *span) { return (uint32_t)(span - heap.spans); }

static inline unsigned heap_bit(uintptr_t p) { return (unsigned)(p >> 4) & 511; }
static inline struct bits *heap_bits_of(uintptr_t p)
{
    return &heap.bits[heap_page(p)].word[heap_bit(p) >> 6];
}
static inline uint64_t heap_mask(uintptr_t p) { return (uint64_t)1 << (heap_bit(p) & 63); }
static inline bool heap_marked(uintptr_t base)
{
    return (atomic_load_explicit(&heap_bits_of(base)->mark, memory_order_relaxed) & heap_mask(base)) != 0;
}
static inline bool heap_cell_allocated(uintptr_t base)
{
    /* acquire: pairs with the allocator's fence before it sets the bits (AL-8) */
    return (atomic_load_explicit(&heap_bits_of(base)->alloc, memory_order_acquire) & heap_mask(base)) != 0;
}
/* Sets the mark; true if this call set it.  Tests first: a read-modify-write costs six times a load. */
static inline bool heap_mark(uintptr_t base)
{
    _Atomic uint64_t *word = &heap_bits_of(base)->mark;
    uint64_t mask = heap_mask(base);
    if (atomic_load_explicit(word, memory_order_relaxed) & mask)
        return false;
    return (atomic_fetch_or_explicit(word, mask, memory_order_acq_rel) & mask) == 0;
}

/* A mark was set on a cell that its owner gave up meanwhile: takes it back, under the span's flag. */
void heap_unmark_free(uintptr_t base);
/* heap_mark for who found the cell allocated without holding the span's flag.  Looks again after the mark
 * was set: giving up a run clears the allocation bit first and the mark after it, so either that clears our
 * mark, or we see the bit clear.  No free cell is marked when the sweep comes. */
static inline bool heap_mark_cell_at(struct bits *bits, uintptr_t base, uint64_t mask)
{
    /* Test first, as in heap_mark. */
    if ((atomic_load_explicit(&bits->mark, memory_order_relaxed) & mask) != 0 ||
        (atomic_fetch_or_explicit(&bits->mark, mask, memory_order_acq_rel) & mask) != 0)
        return false;
    if (__builtin_expect((atomic_load_explicit(&bits->alloc, memory_order_acquire) & mask) != 0, 1))
        return true;
    heap_unmark_free(base);
    return false;
}
static inline bool heap_mark_cell(uintptr_t base)
{
    return heap_mark_cell_at(heap_bits_of(base), base, heap_mask(base));
}

struct heap_object {
    uintptr_t base;
    size_t size; /* usable bytes of the cell, header included */
    uint32_t layout;
};
/* The object that p points into: an in-use span's allocated cell (AL-10, AL-11).  Wait-free. */
bool heap_find(uintptr_t p, struct heap_object *out);
/* Bytes of an object that the program may use. */
size_t heap_usable(const struct heap_object *object);

/* ---- called by higher rooms ---------------------------------------------------------------------- */

/* Reserves; 0, ENOMEM, EACCES, EAGAIN. */
int heap_init(void);
void heap_shutdown(void);

/* blacken (1.2): marks what is left of each of the thread's runs.  List lock; returns bytes marked. */
size_t heap_blacken_runs(struct thread *thread);
/* Bytes and cells that a thread's runs have left.  Racy, for figures. */
void heap_runs_left(struct thread *thread, uint64_t *bytes, uint64_t *cells);
/* The thread gives up its runs and spans: its own busy section, or whoever acts for it. */
void heap_give_up_runs(struct thread *thread);
/* In a forked child: the same for a thread that is gone, and for what it was building. */
void heap_give_up_building(struct thread *survivor);

/* The sweep flag (protocol.md 6).  Holders are in busy sections or collector threads. */
void span_lock(struct span *span);
bool span_trylock(struct span *span);
void span_unlock(struct span *span);
/* After a sweep, flag held: puts the span where it belongs now; frees it if it is empty and unowned. */
void span_swept(struct span *span, uint32_t old_live);
/* Whether the span can hold objects to sweep. */
static inline bool span_in_use(const struct span *span)
{
    uint8_t place = atomic_load_explicit(&((struct span *)span)->place, memory_order_acquire);
    return place != SPAN_NONE && place != SPAN_BUILDING;
}

/* Which free pages go back to the system. */
enum heap_release {
    HEAP_RELEASE_BLOCKS, /* whole huge pages, of chunks that are not dense */
    HEAP_RELEASE_PAGES,  /* all of chunks that are not dense */
    HEAP_RELEASE_ALL,
    HEAP_RELEASE_WAYS
};
/* Gives back about `most` bytes, by at most one madvise of at most 2 MiB, from the highest address; returns
 * bytes.  *more: whether there may be others; 0 bytes with more to come: ask again.  A section of its own. */
size_t heap_release_some(enum heap_release way, size_t most, bool *more);
/* If what heap_release_some gives back next is a part of a huge page, that is taken apart first: else the part
 * stays charged to the process's cgroup.  Up to some 200 us, but no lock is held meanwhile.  A section of its own. */
void heap_split_next(enum heap_release way);
/* Gives free pages back to the system; returns bytes. */
size_t heap_release_free(void);
/* Which chunks are dense is found out anew (SC-5): a cycle is over, and its sweep.  The scavenger's thread. */
void heap_note_density(void);
/* Touches the lowest 2 MiB of free memory that were given back or never used, so that whoever allocates them need not
 * wait for the kernel; bytes, 0: there are none, or no memory.  Milliseconds, of which none under a lock.  A library
 * thread's. */
size_t heap_prefault(void);
/* Bytes that the heap was extended by since the last call. */
uint64_t heap_take_growth(void);
void heap_fork_child(void);

/* What heap needs of higher rooms; cycle/start.c defines it. */
struct heap_calls {
    struct thread *(*attach)(void);   /* attaches the caller, starting the library; NULL: ENOMEM */
    void (*sweep)(struct span *span); /* flag held */
    void (*sweep_some)(size_t pages); /* sweeps until as many pages were reclaimed, or all is swept */
    void (*allocated)(struct thread *self, size_t bytes); /* outside sections: trigger, assist, gcstress */
    void (*grow_runs)(struct thread *self, uint32_t n);   /* runs array to at least n, under the list lock */
    bool (*collect_for_memory)(void);                     /* AL-14: a full cycle, at most 1 s */
    void (*ask_for_cycle)(void); /* unless one is on or asked for, or none is to begin by itself */
    /* A word outside the heap, within the bounds of all foreign regions: shade() for a region.  Section. */
    bool (*shade_outside)(struct thread *self, uintptr_t word);
    /* grey_touch of a region: shades what it holds.  Outside sections. */
    void (*touch_outside)(struct thread *self, uintptr_t word);
    /* Whether [start, end) overlaps a region.  Section, list lock held. */
    bool (*overlaps_outside)(uintptr_t start, uintptr_t end);
    /* What rooms above keep in the thread's block goes back (PN-11), with its runs. */
    void (*give_up_caches)(struct thread *thread);
};
extern const struct heap_calls heap_calls;

/* The thread, attached; fatal where heap work is not allowed (AL-15, AL-16).  NULL: ENOMEM. */
struct thread *heap_thread(const char *what);

#endif

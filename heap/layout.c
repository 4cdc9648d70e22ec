/* heap/layout.c -- layouts and types: where the pointers are.
 *
 * A type is interned at first use: its size and pointer bits are copied and get a number, so that objects
 * may outlive the shared object that described them.  A type of up to 64 words gets a layout, that is,
 * spans whose cells all have the same pointer mask, and with it a run in each thread; larger ones, and all
 * once LAYOUT_MAX layouts exist, share spans whose cells end in a header (the type's number + 1).  The
 * header stands at the end so that objects keep their alignment of 16.
 *
 * Types and layouts live as long as the process, shutdown included: programs hold their numbers in static
 * caches (struct grey_type).  Interning takes a lock; a type is interned once per translation unit that
 * defines it.  Readers of the arrays need none: an entry is complete before its number is known (release
 * on the count, acquire in who reads it, or the data dependency through a published span).
 */
#include "heap/layout.h"
#include "heap/spans.h"
#include "heap/unmanaged.h"

#include <errno.h>
#include <string.h>

enum { TYPES_MAX = 1 << 16, BUCKETS = 4096 };

struct layout heap_layouts[LAYOUT_MAX];
_Atomic uint32_t heap_n_layouts;

static struct os_lock types_lock = OS_LOCK_INIT(OS_RANK_TYPES);
const struct heap_type *heap_types[TYPES_MAX];
static uint32_t next_in_bucket[TYPES_MAX]; /* number + 1 */
static uint32_t buckets[BUCKETS];
static uint32_t n_types;
static bool ready;

static const uint32_t class_bytes[] = {
#define X(bytes, pages) bytes,
    HEAP_CLASSES(X)
#undef X
};
static const uint8_t class_pages[] = {
#define X(bytes, pages) pages,
    HEAP_CLASSES(X)
#undef X
};
static uint8_t class_of_large[(HEAP_SMALL_MAX - GREY_SMALL_) / 128 + 1];

/* The classes up to 1 KiB in steps of 16 bytes; checked against the table in layouts_init. */
const uint8_t grey_class_of_[GREY_SMALL_ / 16 + 1] = {
    0,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 16, 17, 17, 18,
    18, 19, 19, 20, 20, 21, 21, 22, 22, 23, 23, 24, 24, 24, 24, 25, 25, 25, 25, 26, 26, 26,
    26, 27, 27, 27, 27, 28, 28, 28, 28, 29, 29, 29, 29, 30, 30, 30, 30, 30, 30, 30, 30};

unsigned class_of(size_t size)
{
    ASSERT(size != 0 && size <= HEAP_SMALL_MAX);
    if (size <= GREY_SMALL_)
        return grey_class_of_[(size + 15) / 16];
    return class_of_large[(size - GREY_SMALL_ + 127) / 128];
}

static void layout_set(uint32_t number, enum layout_kind kind, unsigned size_class)
{
    struct layout *layout = &heap_layouts[number];
    layout->kind = (uint8_t)kind;
    layout->size_class = (uint8_t)size_class;
    if (size_class < HEAP_N_CLASSES) {
        layout->cell = class_bytes[size_class];
        layout->pages = class_pages[size_class];
        layout->cells = (uint32_t)(layout->pages * GREY_PAGE / layout->cell);
        /* Rounded up; exact for offsets below 2^17 and cells from 16 to 32768 (tests/heap). */
        layout->inverse = (uint32_t)(((uint64_t)1 << 32) / layout->cell + 1);
        layout->reach = kind == LAYOUT_LEAF ? 0 : layout->cell - (uint32_t)sizeof(uintptr_t);
    }
    spans_init_list(number);
}

void layouts_init(void)
{
    if (ready)
        return;
    for (unsigned c = 0, i = 0; i < sizeof(class_of_large); i++) {
        while (class_bytes[c] < GREY_SMALL_ + i * 128)
            c++;
        class_of_large[i] = (uint8_t)c;
    }
    for (unsigned i = 1; i <= GREY_SMALL_ / 16; i++)
        if (class_bytes[grey_class_of_[i]] < i * 16 ||
            (grey_class_of_[i] > 0 && class_bytes[grey_class_of_[i] - 1] >= i * 16))
            os_internal(NULL, "size class table is wrong at %u", i * 16);
    for (unsigned c = 0; c < HEAP_N_CLASSES; c++) {
        layout_set(2 * c, LAYOUT_CONSERVATIVE, c);
        layout_set(2 * c + 1, LAYOUT_LEAF, c);
        layout_set(LAYOUT_OF_POINTERS + c, LAYOUT_POINTERS, c);
        layout_set(LAYOUT_OF_HEADERS + c, LAYOUT_HEADER, c);
    }
    layout_set(LAYOUT_OF_LARGE_CONSERVATIVE, LAYOUT_CONSERVATIVE, HEAP_LARGE_CLASS);
    layout_set(LAYOUT_OF_LARGE_LEAF, LAYOUT_LEAF, HEAP_LARGE_CLASS);
    layout_set(LAYOUT_OF_LARGE_POINTERS, LAYOUT_POINTERS, HEAP_LARGE_CLASS);
    layout_set(LAYOUT_OF_LARGE_TYPED, LAYOUT_LARGE_TYPED, HEAP_LARGE_CLASS);
    atomic_store_explicit(&heap_n_layouts, LAYOUT_FIRST_TYPED, memory_order_release);
    ready = true;
}

void layouts_fork_child(void) { os_lock_init(&types_lock, OS_RANK_TYPES); }

/* ---- types ------------------------------------------------------------------------------------------- */

const struct heap_type *heap_type(uint32_t number) { return heap_types[number]; }

/* Whether word i of the type is a pointer, as its maker described it. */
static bool described(const struct grey_type *type, size_t word)
{
    if (type->bits != NULL)
        return word < type->n_words && (type->bits[word / 8] >> word % 8 & 1);
    for (size_t i = 0; i < type->n_fields; i++) {
        size_t first = type->fields[i].offset / sizeof(void *);
        if (word >= first && word < first + type->fields[i].count)
            return true;
    }
    return false;
}

/* Pointer fields aligned and inside the type. */
static bool well_formed(const struct grey_type *type)
{
    if (type->size == 0 || type->size > (size_t)1 << 47 || (type->n_fields != 0 && type->fields == NULL) ||
        (type->bits != NULL && type->n_words > type->size / sizeof(void *)))
        return false;
    for (size_t i = 0; i < type->n_fields; i++) {
        const struct grey_field_ *field = &type->fields[i];
        if (field->offset % sizeof(void *) != 0 || field->count > type->size / sizeof(void *) ||
            field->offset > type->size - field->count * sizeof(void *))
            return false;
    }
    return true;
}

/* Up to and with the last pointer; 0 = leaf. */
static size_t pointer_words(const struct grey_type *type)
{
    size_t last = 0;
    if (type->bits != NULL) {
        for (size_t i = 0; i < type->n_words; i++)
            if (described(type, i))
                last = i + 1;
        return last;
    }
    for (size_t i = 0; i < type->n_fields; i++) {
        size_t end = type->fields[i].offset / sizeof(void *) + type->fields[i].count;
        if (type->fields[i].count != 0 && end > last)
            last = end;
    }
    return last;
}

static void fill_bits(const struct grey_type *type, uint64_t *bits, size_t last)
{
    if (type->bits != NULL) {
        for (size_t i = 0; i < last; i++)
            if (described(type, i))
                bits[i / 64] |= (uint64_t)1 << i % 64;
        return;
    }
    for (size_t i = 0; i < type->n_fields; i++)
        for (size_t k = 0; k < type->fields[i].count; k++) {
            size_t word = type->fields[i].offset / sizeof(void *) + k;
            bits[word / 64] |= (uint64_t)1 << word % 64;
        }
}

static uint32_t hash_of(size_t size, const uint64_t *bits, size_t n)
{
    uint64_t hash = size * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ bits[i]) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(hash >> 40) % BUCKETS;
}

/* A layout for one object of the type, or 0. */
static uint32_t make_layout(const struct heap_type *type, uint32_t number)
{
    if (type->size > 64 * sizeof(void *) || type->last == 0)
        return 0;
    uint32_t n = atomic_load_explicit(&heap_n_layouts, memory_order_relaxed);
    unsigned size_class = class_of(type->size);
    if (n == LAYOUT_MAX)
        return 0;
    layout_set(n, LAYOUT_MASK, size_class);
    heap_layouts[n].mask = type->bits[0];
    heap_layouts[n].reach = (uint32_t)((type->last - 1) * sizeof(uintptr_t));
    heap_layouts[n].type = number;
    /* release: pairs with the acquire of whoever walks the layouts */
    atomic_store_explicit(&heap_n_layouts, n + 1, memory_order_release);
    return n;
}

static int64_t intern_locked(const struct grey_type *type)
{
    size_t last = pointer_words(type), n = (last + 63) / 64;
    struct heap_type *made = persistent_alloc(sizeof(*made) + (n + 1) * sizeof(uint64_t), 0, OS_BITS);
    if (made == NULL)
        return -1;
    uint64_t *bits = (uint64_t *)(made + 1);
    fill_bits(type, bits, last);
    uint32_t hash = hash_of(type->size, bits, n);
    for (uint32_t i = buckets[hash]; i != 0; i = next_in_bucket[i - 1]) {
        const struct heap_type *known = heap_types[i - 1];
        if (known->size == type->size && known->last == last && memcmp(known->bits, bits, n * 8) == 0)
            return i - 1; /* the copy stays unused: once for each duplicate description */
    }
    if (n_types == TYPES_MAX)
        return -1;
    size_t length = type->name != NULL ? strlen(type->name) : 0;
    char *name = persistent_alloc(length + 1, 1, OS_BITS);
    if (name == NULL)
        return -1;
    if (length != 0)
        memcpy(name, type->name, length);
    made->name = name;
    made->size = type->size;
    made->words = type->size / sizeof(void *);
    made->bits = bits;
    made->last = last;
    made->all_pointers = made->words * sizeof(void *) == type->size && last == made->words;
    for (size_t i = 0; made->all_pointers && i < last; i++)
        made->all_pointers = bits[i / 64] >> i % 64 & 1;
    if (last != 0 && last <= 64 && type->size % sizeof(void *) == 0 && type->size <= UINT32_MAX) {
        made->small_size = (uint32_t)type->size;
        made->small_bits = bits[0];
    }
    uint32_t number = n_types;
    made->layout = make_layout(made, number);
    heap_types[number] = made;
    next_in_bucket[number] = buckets[hash];
    buckets[hash] = number + 1;
    n_types++;
    return number;
}

/* The type's cache: 0 not known; layout + 1; or HEAP_TYPE_CACHED | number for types without a run. */
int64_t type_intern(const struct grey_type *type)
{
    if (!well_formed(type)) {
        errno = EINVAL;
        return -1;
    }
    /* acquire: pairs with the release below */
    uint32_t cached = __atomic_load_n(type->run, __ATOMIC_ACQUIRE);
    if (cached & HEAP_TYPE_CACHED)
        return cached & ~HEAP_TYPE_CACHED;
    if (cached != 0)
        return heap_layouts[cached - 1].type;
    os_lock(&types_lock);
    int64_t number = intern_locked(type);
    os_unlock(&types_lock);
    if (number < 0) {
        errno = ENOMEM;
        return -1;
    }
    uint32_t layout = heap_types[number]->layout;
    __atomic_store_n(type->run, layout != 0 ? layout + 1 : HEAP_TYPE_CACHED | (uint32_t)number,
                     __ATOMIC_RELEASE);
    return number;
}

const struct heap_type *heap_type_of(struct thread *self, const struct grey_type *type)
{
    const struct heap_type *known = heap_type_known(type);
    if (LIKELY(known != NULL))
        return known;
    thread_enter(self); /* the lock's owner can't be held up by a round */
    int64_t number = type_intern(type);
    thread_leave(self);
    return number >= 0 ? heap_types[number] : NULL;
}

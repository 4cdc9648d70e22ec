/* heap/heap.c -- the reservation, look-up of objects, start and end of the room.
 *
 * The reservation is 1 TiB, halved until the kernel agrees, and at most a quarter of RLIMIT_AS (OS-19).
 * Look-up is arithmetic: page, layout, place in the span, cell by a multiplication with the reciprocal.
 */
#include "heap/layout.h"
#include "heap/pages.h"
#include "heap/spans.h"
#include "heap/unmanaged.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#if OS_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)0)
#endif

#if OS_TSAN
/* ThreadSanitizer's shadow leaves little room (docs/limits). */
static const size_t wanted = (size_t)64 << 30;
#else
static const size_t wanted = (size_t)1 << 40;
#endif
static const size_t least = (size_t)64 << 20;

static int reserve(void)
{
    size_t size = wanted;
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        while (size > limit.rlim_cur / 4 && size > least)
            size /= 2;
    for (; size >= least; size /= 2) {
        size_t kept = size;
        heap.base = os_reserve_aligned(NULL, &kept, HEAP_CHUNK);
        if (heap.base != NULL) {
            heap.reserved = kept & ~(HEAP_CHUNK - 1);
            return 0;
        }
    }
    return errno != 0 ? errno : ENOMEM;
}

int heap_init(void)
{
    layouts_init();
    atomic_store(&heap.extent, 0);
    atomic_store(&heap.live, 0);
    atomic_store(&heap.pages_in_use, 0);
    atomic_store(&heap.black_cycle, 0);
    atomic_store(&heap.sweep_cycle, 0);
    errno = 0;
    int error = reserve();
    if (error != 0)
        return error;
    error = pages_init();
    if (error == 0)
        error = spans_init();
    if (error != 0)
        heap_shutdown();
    return error;
}

void heap_shutdown(void)
{
    if (heap.base != NULL) /* the program may get the addresses next */
        ASAN_UNPOISON_MEMORY_REGION(heap.base, atomic_load(&heap.extent));
    spans_shutdown();
    pages_shutdown();
    atomic_store(&heap.extent, 0);
    atomic_store(&heap.live, 0);
    atomic_store(&heap.pages_in_use, 0);
    heap.base = NULL;
    heap.reserved = 0;
}

bool heap_find(uintptr_t p, struct heap_object *out)
{
    if (!heap_contains(p))
        return false;
    /* acquire: pairs with span_publish */
    uint32_t info = atomic_load_explicit(&heap.info[heap_page(p)], memory_order_acquire);
    if (info == 0)
        return false;
    const struct layout *layout = &heap_layouts[heap_info_layout(info)];
    if (layout->cell == 0) {
        const struct span *span = heap_span_of(p);
        out->base = (uintptr_t)span_start(span);
        out->size = span->bytes;
    } else {
        uintptr_t start = (uintptr_t)heap_page_address(heap_page(p) - heap_info_offset(info));
        uint32_t index = (uint32_t)((uint64_t)(p - start) * layout->inverse >> 32);
        if (index >= layout->cells)
            return false; /* the tail of the span */
        out->base = start + (size_t)index * layout->cell;
        out->size = layout->cell;
    }
    out->layout = heap_info_layout(info);
    return heap_cell_allocated(out->base);
}

void heap_unmark_free(uintptr_t base)
{
    struct span *span = heap_span_of(base);
    span_lock(span);                /* who takes the cell sets its bits under the flag */
    if (!heap_cell_allocated(base)) /* release: pairs with the sweep's read under the flag */
        atomic_fetch_and_explicit(&heap_bits_of(base)->mark, ~heap_mask(base), memory_order_release);
    span_unlock(span);
}

size_t heap_usable(const struct heap_object *object)
{
    return heap_layouts[object->layout].kind == LAYOUT_HEADER ? object->size - sizeof(uint64_t)
                                                              : object->size;
}

size_t grey_size(const void *p)
{
    struct heap_object object;
    return heap_find((uintptr_t)p, &object) ? heap_usable(&object) : 0;
}

void *grey_base(const void *p)
{
    struct heap_object object;
    return heap_find((uintptr_t)p, &object) ? (void *)object.base : NULL;
}

size_t heap_release_free(void) { return pages_release(); }
size_t heap_release_some(enum heap_release way, size_t most, bool *more)
{
    return pages_release_some(way, most, more);
}
void heap_split_next(enum heap_release way) { pages_split_next(way); }
void heap_note_density(void) { pages_note_density(); }
size_t heap_prefault(void) { return pages_prefault(); }
uint64_t heap_take_growth(void) { return pages_take_growth(); }

/* Pages that a thread which is gone was making into spans. */
void heap_give_up_building(struct thread *survivor)
{
    uint32_t n = atomic_load(&heap.n_spans);
    for (uint32_t i = 1; i < n; i++) {
        struct span *span = &heap.spans[i];
        if (atomic_load(&span->place) == SPAN_BUILDING && span->owner != survivor)
            span_free(span);
    }
}

void heap_fork_child(void)
{
    layouts_fork_child();
    spans_fork_child();
    pages_fork_child();
}

int grey_type_init(struct grey_type *type, const char *name, size_t size, const uint8_t *pointer_bits,
                   size_t n_words)
{
    size_t words = size / sizeof(void *);
    if (type == NULL || size == 0 || size > (size_t)1 << 47 || (n_words != 0 && pointer_bits == NULL) ||
        n_words > words)
        return EINVAL;
    struct thread *self = heap_thread("grey_type_init");
    if (self == NULL)
        return ENOMEM;
    size_t bytes = (n_words + 7) / 8, length = name != NULL ? strlen(name) : 0;
    thread_enter(self);
    char *memory = persistent_alloc(sizeof(uint32_t) + bytes + length + 2, 0, OS_BITS);
    thread_leave(self);
    if (memory == NULL)
        return ENOMEM;
    uint8_t *bits = (uint8_t *)memory + sizeof(uint32_t);
    char *copy = (char *)bits + bytes;
    if (bytes != 0)
        memcpy(bits, pointer_bits, bytes);
    if (length != 0)
        memcpy(copy, name, length);
    *type = (struct grey_type){
        .name = copy, .size = size, .bits = bits, .n_words = n_words, .run = (uint32_t *)(void *)memory};
    return 0;
}

/* arena/arenas.c -- handles: allocation, free, reset, clone.
 *
 * An arena is a record in a table: its active chunk and its full ones.  The handle is a leaf object of the
 * heap that leads to the record, so that an arena whose handle was lost is found by its mark (UA-20).  The
 * record goes when the arena is freed; what is said of a second free, or of a use after it, is in the handle,
 * which stays for as long as somebody has it (UA-30, UA-31).
 *
 * Allocation belongs to one thread at a time and needs no section but where a chunk is taken; what makes that
 * right is in chunks.c.  Pointer bits, then the low pointer, then a release fence, then the caller has the
 * object (UA-16).
 *
 * Lost handles.  arena_find_dead runs with the round CLOSED and the phase ON, so marks are final.  Whoever is
 * in a call holds the handle, and what was held when the round closed is marked.  A handle that is new is
 * held by its maker: if it was taken from the heap before blacken it is marked by the maker's copied stack,
 * else it was born black; and its record names it only after that.  So nobody uses an arena whose handle is
 * white, now or later, and from here on its record is the collector's.  After finish's FENCE its chunks go as
 * if by grey_arena_free.  What is made meanwhile is not on the list.  The list outlives a fork: the child's
 * collector goes on with it.
 */
#include "arena/chunks.h"
#include "os/options.h"

#include <errno.h>
#include <string.h>

/* Arenas at most; and one for two pages of heap, where the address space is limited (OS-19). */
enum { ARENAS_MOST = 1 << 24, HEAP_AN_ARENA = 16384 };
enum { TYPES = 4 };
#define NO_TYPE UINT32_MAX
enum { FREED_A_CALL = 4, ZEROED_AT_A_TIME = 128 << 10 };

struct arena {
    struct slot slot;
    _Atomic uintptr_t handle; /* 0: none yet, or none any more */
    struct chunk *active;     /* NULL: takes one at the next allocation */
    struct chunk_list full;
    uint32_t taken; /* chunks since it was made or reset */
    uint32_t dead;  /* the collector's */
    uint32_t next_dead, unused;
    uintptr_t made;
};

struct grey_arena {
    _Atomic(struct chunk *) active; /* the record's, for the fast path; NULL: none, or a call is under way */
    struct arena *record;           /* NULL: freed */
    uintptr_t made, freed;          /* code addresses, inside the calls */
    _Atomic uint32_t busy;          /* UA-32; in a call but for the fast path's */
    struct small {
        uint32_t key, size; /* what heap/ cached in the type; bytes of one object */
        uint64_t bits;      /* its pointer words */
    } small[TYPES];         /* the last ones, by key */
};

static struct slots records;
static _Atomic uint64_t arenas; /* that are not freed */
static uint32_t first_dead;     /* the collector's */

static struct arena *arena_at(uint32_t index) { return (struct arena *)(void *)slots_at(&records, index); }

/* ---- start and end ------------------------------------------------------------------------------------ */

int arena_init(void)
{
    atomic_store(&arenas, 0);
    first_dead = 0;
    int error = chunks_init();
    if (error != 0)
        return error;
    size_t most = heap.reserved / HEAP_AN_ARENA;
    error = slots_init(&records, sizeof(struct arena), most < ARENAS_MOST ? (uint32_t)most : ARENAS_MOST,
                       OS_CHUNKS);
    if (error != 0)
        chunks_shutdown();
    else
        arena_faults_init();
    return error;
}

void arena_shutdown(void)
{
    arena_faults_shutdown();
    slots_shutdown(&records);
    chunks_shutdown();
    atomic_store(&arenas, 0);
}

static void not_in_use(struct grey_arena *arena)
{
    atomic_store_explicit(&arena->busy, 0, memory_order_relaxed);
    atomic_store_explicit(&arena->active, arena->record != NULL ? arena->record->active : NULL,
                          memory_order_relaxed);
}

/* Calls that other threads were in are gone with them. */
void arena_fork_child(void)
{
    chunks_fork_child();
    slots_fork_child(&records);
    for (uint32_t i = 1; i < slots_end(&records); i++) {
        uintptr_t handle = atomic_load(&arena_at(i)->handle);
        if (handle != 0 && !arena_at(i)->dead)
            not_in_use((struct grey_arena *)handle);
    }
}

void arena_figures(struct arena_figures *figures)
{
    chunks_figures(figures);
    figures->arenas = atomic_load_explicit(&arenas, memory_order_relaxed);
}

/* ---- calls --------------------------------------------------------------------------------------------- */

/* The call that is being made, not the one that comes after it. */
#define CALL_SITE ((uintptr_t)__builtin_return_address(0) - 1)

static void *refused(int error)
{
    errno = error;
    return NULL;
}

/* heap_thread with its tests in line. */
static inline struct thread *caller(const char *what)
{
    struct thread *self = thread_self();
    if (LIKELY(self != NULL && !thread_busy(self) &&
               atomic_load_explicit(&self->state, memory_order_relaxed) == THREAD_RUNNING))
        return self;
    return heap_thread(what);
}

static _Noreturn void was_freed(const struct grey_arena *arena, const char *what)
{
    char made[256], freed[256];
    os_describe_code(arena->made, made, sizeof(made));
    os_describe_code(arena->freed, freed, sizeof(freed));
    os_fatal(arena, "%s: it was made at %s and freed at %s", what, made, freed);
}

static inline struct arena *begin(struct grey_arena *arena, const char *when_freed)
{
    bool busy = atomic_load_explicit(&arena->busy, memory_order_relaxed) != 0;
    struct arena *record = arena->record;
    if (UNLIKELY(record == NULL && !busy))
        was_freed(arena, when_freed);
    if (UNLIKELY(!busy && atomic_load_explicit(&record->handle, memory_order_relaxed) != (uintptr_t)arena))
        os_fatal(arena, "not an arena, or nothing kept its handle: a global that holds one has to be a root");
    if (UNLIKELY(busy || (record->active != NULL &&
                          atomic_load_explicit(&arena->active, memory_order_relaxed) == NULL)))
        os_fatal(arena, "an arena is used by two threads at once, or by a signal handler during a call");
    atomic_store_explicit(&arena->busy, 1, memory_order_relaxed);
    atomic_store_explicit(&arena->active, NULL, memory_order_relaxed);
    return record;
}

static inline void end(struct grey_arena *arena)
{
    not_in_use(arena);
    __asm__ volatile("" : : "r"(arena) : "memory"); /* it was held until here */
}

/* ---- chunks of an arena -------------------------------------------------------------------------------- */

/* UA-13.  Nothing was left over but what a request of at most ARENA_LARGEST did not fit in. */
static void retire(struct arena *arena, size_t wanted)
{
    struct chunk *chunk = arena->active;
    if (chunk == NULL)
        return;
    size_t left = chunk->high - atomic_load_explicit(&chunk->low, memory_order_relaxed);
    if (UNLIKELY(left > wanted))
        os_internal(chunk_start(chunk), "%zu bytes of a chunk were to be abandoned for want of %zu", left,
                    wanted);
    chunk_fill(chunk);
    chunk_push(&arena->full, chunk);
}

static bool take_chunk(struct thread *self, struct arena *arena, size_t wanted)
{
    for (int attempt = 0;; attempt++) {
        bool fresh;
        thread_enter(self);
        struct chunk *chunk = chunk_take(arena->taken == 0, &fresh);
        if (chunk != NULL) {
            retire(arena, wanted);
            arena->active = chunk;
            arena->taken++;
        }
        thread_leave(self);
        if (chunk != NULL) {
            heap_calls.allocated(self, fresh ? ARENA_CHUNK : 0); /* UA-17 */
            return true;
        }
        if (attempt != 0 || !heap_calls.collect_for_memory())
            return false;
    }
}

/* The active chunk goes: to the next arena, or to the full ones (UA-22, UA-29).  In a section, or the
 * collector. */
static void let_go(struct arena *arena)
{
    struct chunk *chunk = arena->active;
    arena->active = NULL;
    arena->taken = 0;
    if (chunk == NULL)
        return;
    if (os_debug.arenastrict || OS_ASAN) {
        chunk_fill(chunk);
        chunk_push(&arena->full, chunk);
    } else {
        chunk_reuse(chunk);
    }
}

static void free_chunks(struct thread *self, struct arena *arena, uintptr_t site)
{
    thread_enter(self);
    let_go(arena);
    thread_leave(self);
    while (arena->full.first != 0) {
        HOOK(ARENA_FREE, (void *)atomic_load_explicit(&arena->handle, memory_order_relaxed));
        thread_enter(self); /* one for each chunk: faulting takes its time (UA-23) */
        chunk_free(chunk_pop(&arena->full), atomic_load_explicit(&arena->handle, memory_order_relaxed),
                   arena->made, site);
        thread_leave(self);
    }
    if (UNLIKELY(chunks_crowded()))
        heap_calls.ask_for_cycle();
}

/* ---- making and freeing -------------------------------------------------------------------------------- */

/* In a section. */
static bool make(struct grey_arena *handle, uintptr_t site, bool *fresh)
{
    struct arena *arena = (struct arena *)(void *)slots_take(&records);
    if (arena == NULL)
        return false;
    arena->active = chunk_take(true, fresh);
    if (arena->active == NULL) {
        slots_give_back(&records, &arena->slot);
        return false;
    }
    arena->taken = 1;
    arena->made = site;
    handle->record = arena;
    for (int i = 0; i < TYPES; i++)
        handle->small[i].key = NO_TYPE;
    handle->made = site;
    handle->freed = 0;
    not_in_use(handle);
    /* release: pairs with arena_find_dead */
    atomic_store_explicit(&arena->handle, (uintptr_t)handle, memory_order_release);
    atomic_fetch_add_explicit(&arenas, 1, memory_order_relaxed);
    return true;
}

struct grey_arena *grey_arena_new(void)
{
    uintptr_t site = CALL_SITE;
    struct thread *self = caller("grey_arena_new");
    struct grey_arena *handle = self != NULL ? grey_alloc_leaf(sizeof(*handle)) : NULL;
    if (handle == NULL)
        return refused(ENOMEM);
    for (int attempt = 0;; attempt++) {
        bool fresh;
        thread_enter(self);
        bool made = make(handle, site, &fresh);
        thread_leave(self);
        if (made) {
            heap_calls.allocated(self, fresh ? ARENA_CHUNK : 0); /* UA-17 */
            break;
        }
        if (attempt != 0 || !heap_calls.collect_for_memory())
            return refused(ENOMEM);
    }
    __asm__ volatile("" : : "r"(handle) : "memory"); /* it was held until here */
    return handle;
}

static struct thread *freer(const struct grey_arena *arena, const char *what)
{
    struct thread *self = caller(what);
    if (self == NULL)
        os_fatal(arena, "%s: no memory to attach the thread: attach threads first", what);
    return self;
}

void grey_arena_free(struct grey_arena *arena)
{
    if (arena == NULL)
        return;
    uintptr_t site = CALL_SITE;
    struct thread *self = freer(arena, "grey_arena_free");
    struct arena *record = begin(arena, "arena freed twice");
    free_chunks(self, record, site);
    thread_enter(self);
    arena->freed = site;
    arena->record = NULL;
    atomic_store_explicit(&record->handle, 0, memory_order_release);
    slots_give_back(&records, &record->slot);
    atomic_fetch_sub_explicit(&arenas, 1, memory_order_relaxed);
    thread_leave(self);
    end(arena);
}

void grey_arena_reset(struct grey_arena *arena)
{
    if (arena == NULL)
        return;
    uintptr_t site = CALL_SITE;
    struct thread *self = freer(arena, "grey_arena_reset");
    free_chunks(self, begin(arena, "use of freed arena"), site);
    end(arena);
}

/* ---- allocation ---------------------------------------------------------------------------------------- */

static inline size_t alignment_of(size_t size) { return size >= 16 ? 16 : 8; }

/* Words [word, word + 64) of the chunk, as far as they are in the mask. */
static inline void set_bits(_Atomic uint64_t *bits, size_t word, uint64_t mask)
{
    _Atomic uint64_t *at = &bits[word / 64];
    unsigned shift = word % 64;
    /* relaxed, not a read-modify-write: only the owner writes; the marker may miss them (chunks.c) */
    atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) | mask << shift,
                          memory_order_relaxed);
    if (shift != 0 && mask >> (64 - shift) != 0)
        atomic_store_explicit(at + 1,
                              atomic_load_explicit(at + 1, memory_order_relaxed) | mask >> (64 - shift),
                              memory_order_relaxed);
}

static void set_all_bits(_Atomic uint64_t *bits, size_t word, size_t n)
{
    for (; n >= 64; n -= 64, word += 64)
        set_bits(bits, word, ~(uint64_t)0);
    if (n != 0)
        set_bits(bits, word, ((uint64_t)1 << n) - 1);
}

static void describe(const struct chunk *chunk, size_t at, const struct heap_type *type, size_t count)
{
    _Atomic uint64_t *bits = chunk->bits;
    size_t word = at / sizeof(uintptr_t);
    if (type->all_pointers) {
        set_all_bits(bits, word, count * type->words);
        return;
    }
    if (type->size % sizeof(uintptr_t) != 0) /* later elements are not aligned: no word is a pointer */
        count = 1;
    for (; count != 0; count--, word += type->words)
        for (size_t i = 0; i < type->last; i += 64)
            set_bits(bits, word + i, type->bits[i / 64]);
}

/* From the low end (UA-6). */
static inline void *bump_up(struct chunk *chunk, const struct heap_type *type, size_t count, size_t size)
{
    size_t align = alignment_of(size), low = atomic_load_explicit(&chunk->low, memory_order_relaxed);
    size_t at = (low + align - 1) & ~(align - 1);
    if (UNLIKELY(at + size > chunk->high))
        return NULL;
    describe(chunk, at, type, count);
    /* release: pairs with the marker's load; and the fence of UA-16 */
    atomic_store_explicit(&chunk->low, (uint32_t)(at + size), memory_order_release);
    atomic_thread_fence(memory_order_release);
    return chunk->start + at;
}

/* From the high end. */
static inline void *bump_down(struct chunk *chunk, size_t size, size_t align)
{
    if (UNLIKELY(chunk->high < size))
        return NULL;
    size_t at = (chunk->high - size) & ~(align - 1);
    if (UNLIKELY(at < atomic_load_explicit(&chunk->low, memory_order_relaxed)))
        return NULL;
    chunk->high = (uint32_t)at;
    return chunk->start + at;
}

static void *place_leaf(struct thread *self, struct arena *arena, size_t bytes, size_t align)
{
    size_t size = (bytes + 7) & ~(size_t)7;
    if (align < alignment_of(size))
        align = alignment_of(size);
    for (;;) {
        void *p = arena->active != NULL ? bump_down(arena->active, size, align) : NULL;
        if (LIKELY(p != NULL))
            return p;
        if (!take_chunk(self, arena, size + align))
            return refused(ENOMEM);
    }
}

static inline void *place(struct thread *self, struct arena *arena, const struct grey_type *like,
                          size_t count)
{
    const struct heap_type *type = heap_type_of(self, like);
    if (UNLIKELY(type == NULL))
        return NULL;
    if (type->last == 0)
        return place_leaf(self, arena, count * type->size, 0);
    size_t size = (count * type->size + 7) & ~(size_t)7;
    for (;;) {
        void *p = arena->active != NULL ? bump_up(arena->active, type, count, size) : NULL;
        if (LIKELY(p != NULL))
            return p;
        if (!take_chunk(self, arena, size + alignment_of(size)))
            return refused(ENOMEM);
    }
}

static inline void *new_objects(struct grey_arena *arena, const struct grey_type *type, size_t count)
{
    struct thread *self = caller("allocation from an arena");
    if (UNLIKELY(self == NULL))
        return refused(ENOMEM);
    struct arena *record = begin(arena, "use of freed arena");
    size_t size = count * type->size;
    void *p;
    if (UNLIKELY(size == 0))
        p = grey_zalloc_leaf(0); /* UA-10 */
    else if (UNLIKELY(size > ARENA_LARGEST))
        p = grey_new_array(type, count); /* UA-3 */
    else
        p = place(self, record, type, count);
    end(arena);
    return p;
}

/* Most allocations: one small object with pointers, of a type that was seen lately, and room for it.  NULL: not
 * so, or misuse, and nothing was changed. */
static inline void *new_small_object(struct grey_arena *arena, const struct grey_type *type)
{
    /* acquire: pairs with who interned it */
    uint32_t key = __atomic_load_n(type->run, __ATOMIC_ACQUIRE);
    const struct small *small = &arena->small[key % TYPES];
    struct chunk *chunk = atomic_load_explicit(&arena->active, memory_order_relaxed);
    if (UNLIKELY(small->key != key || chunk == NULL || thread_self() == NULL))
        return NULL;
    atomic_store_explicit(&arena->active, NULL, memory_order_relaxed); /* UA-32 */
    size_t size = small->size, align = alignment_of(size);
    size_t at = (atomic_load_explicit(&chunk->low, memory_order_relaxed) + align - 1) & ~(align - 1);
    void *p = NULL;
    if (LIKELY(at + size <= chunk->high)) {
        set_bits(chunk->bits, at / sizeof(uintptr_t), small->bits);
        /* release: as in bump_up */
        atomic_store_explicit(&chunk->low, (uint32_t)(at + size), memory_order_release);
        atomic_thread_fence(memory_order_release);
        p = chunk->start + at;
    }
    atomic_store_explicit(&arena->active, chunk, memory_order_relaxed);
    __asm__ volatile("" : : "r"(arena) : "memory"); /* it was held until here */
    return p;
}

/* For the next time. */
static void note_type(struct grey_arena *arena, const struct grey_type *type)
{
    const struct heap_type *known = heap_type_known(type);
    if (known == NULL || known->small_size == 0)
        return;
    uint32_t key = __atomic_load_n(type->run, __ATOMIC_RELAXED);
    arena->small[key % TYPES] = (struct small){key, known->small_size, known->small_bits};
}

void *grey_arena_new_object(struct grey_arena *arena, const struct grey_type *type)
{
    if (UNLIKELY(arena == NULL || type == NULL || type->run == NULL))
        return refused(EINVAL);
    void *p = new_small_object(arena, type);
    if (LIKELY(p != NULL))
        return p;
    p = new_objects(arena, type, 1);
    note_type(arena, type);
    return p;
}

void *grey_arena_new_array(struct grey_arena *arena, const struct grey_type *type, size_t count)
{
    if (arena == NULL || type == NULL || type->run == NULL)
        return refused(EINVAL);
    if (type->size != 0 && count > PTRDIFF_MAX / type->size)
        return refused(EOVERFLOW);
    return new_objects(arena, type, count);
}

/* Zeroed, in pieces with a safepoint between (AL-7). */
static void *leaf_of_the_heap(size_t size, size_t align)
{
    if (align <= 16)
        return grey_zalloc_leaf(size);
    char *p = grey_alloc_leaf_aligned(align, size);
    for (size_t at = 0; p != NULL && at < size; at += ZEROED_AT_A_TIME) {
        memset(p + at, 0, size - at < ZEROED_AT_A_TIME ? size - at : ZEROED_AT_A_TIME);
        grey_safepoint();
    }
    return p;
}

/* As new_small_object. */
static inline void *new_small_leaf(struct grey_arena *arena, size_t bytes, size_t align)
{
    struct chunk *chunk = atomic_load_explicit(&arena->active, memory_order_relaxed);
    if (UNLIKELY(bytes - 1 >= GREY_PAGE || chunk == NULL || thread_self() == NULL))
        return NULL;
    atomic_store_explicit(&arena->active, NULL, memory_order_relaxed);
    size_t size = (bytes + 7) & ~(size_t)7;
    void *p = bump_down(chunk, size, align > alignment_of(size) ? align : alignment_of(size));
    atomic_store_explicit(&arena->active, chunk, memory_order_relaxed);
    __asm__ volatile("" : : "r"(arena) : "memory");
    return p;
}

void *grey_arena_alloc_leaf(struct grey_arena *arena, size_t size, size_t align)
{
    if (UNLIKELY(arena == NULL || (align & (align - 1)) != 0 || align > (size_t)2 << 20))
        return refused(EINVAL);
    void *p = new_small_leaf(arena, size, align);
    if (LIKELY(p != NULL))
        return p;
    struct thread *self = caller("allocation from an arena");
    if (UNLIKELY(self == NULL))
        return refused(ENOMEM);
    struct arena *record = begin(arena, "use of freed arena");
    if (UNLIKELY(size == 0))
        p = grey_zalloc_leaf(0);
    else if (UNLIKELY(size > ARENA_LARGEST))
        p = leaf_of_the_heap(size, align);
    else
        p = place_leaf(self, record, size, align);
    end(arena);
    return p;
}

/* ---- clone --------------------------------------------------------------------------------------------- */

void *grey_arena_clone(const void *p, const struct grey_type *type, size_t count)
{
    if (p == NULL)
        return NULL;
    if (type == NULL || type->run == NULL)
        return refused(EINVAL);
    if (!grey_in_arena(p))
        return (void *)(uintptr_t)p;
    if (type->size != 0 && count > PTRDIFF_MAX / type->size)
        return refused(EOVERFLOW);
    size_t size = count * type->size;
    if (size > ARENA_CHUNK - ((uintptr_t)p - (uintptr_t)arena_space.base) % ARENA_CHUNK)
        return refused(EINVAL);
    void *copy = size != 0 ? grey_new_array(type, count) : grey_zalloc_leaf(0);
    if (copy != NULL)
        grey_move(copy, p, size); /* the copy may be black */
    __asm__ volatile("" : : "r"(p), "r"(copy) : "memory");
    return copy;
}

/* ---- lost handles -------------------------------------------------------------------------------------- */

/* Its chunks are not live in this cycle any more, from which the next goal is made. */
static void doom(struct arena *arena)
{
    if (arena->active != NULL)
        chunk_doom(arena->active);
    for (struct chunk *chunk = chunk_of_link(arena->full.first); chunk != NULL;
         chunk = chunk_of_link(chunk->next))
        chunk_doom(chunk);
}

void arena_find_dead(void)
{
    for (uint32_t i = 1; i < slots_end(&records); i++) {
        struct arena *arena = arena_at(i);
        /* acquire: pairs with make: the object is there, and its mark if it was born black */
        uintptr_t handle = atomic_load_explicit(&arena->handle, memory_order_acquire);
        if (handle == 0 || arena->dead || heap_marked(handle))
            continue;
        arena->dead = 1;
        arena->next_dead = first_dead;
        first_dead = i;
        doom(arena);
        atomic_fetch_sub_explicit(&arenas, 1, memory_order_relaxed);
    }
}

void arena_sweep_begin(uint64_t cycle) { chunks_sweep_begin(cycle); }

/* Some chunks of the first dead arena. */
static void free_dead(void)
{
    struct arena *arena = arena_at(first_dead);
    let_go(arena);
    for (int i = 0; i < FREED_A_CALL && arena->full.first != 0; i++)
        chunk_free(chunk_pop(&arena->full), atomic_load_explicit(&arena->handle, memory_order_relaxed),
                   arena->made, 0);
    if (arena->full.first != 0)
        return;
    first_dead = arena->next_dead;
    atomic_store_explicit(&arena->handle, 0, memory_order_release);
    slots_give_back(&records, &arena->slot);
}

bool arena_sweep_some(void)
{
    if (first_dead == 0)
        return chunks_sweep_some();
    free_dead();
    return true;
}

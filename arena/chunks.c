/* arena/chunks.c -- chunks: their life, lists, marks, scanning, faulting, quarantine (protocol.md 5).
 *
 * A chunk belongs to one arena (ACTIVE, FULL), to one of the lists below, or to whoever took it from there;
 * only its owner changes it.  The lists change under one lock, for a few instructions and never over a system
 * call, in busy sections or by the collector between its pause points: so a fork finds every chunk in its
 * place.
 *
 * Scanning.  Chunks that hold data (ACTIVE, FULL, PENDING, REUSABLE) are roots of every cycle.  A piece is
 * never read after it faulted.  For a chunk faults only by who read phase OFF in the same busy section, which
 * arm's FENCE waits for, or by the collector in 1.7, when the gate is closed: so from before the gate opens
 * until it is closed no chunk leaves the states that hold data, and the root jobs find them all.
 *
 * Allocation takes no section and says nothing to the marker.  What was allocated before arm's FENCE may have
 * been filled by stores that tested phase OFF; then bits, low pointer and those stores came before the
 * thread's barrier in FENCE, and the marker sees all of them.  What is allocated later is zero, and whatever
 * is stored in it goes through a barrier that is ON.  So objects of arenas need no colour.  A marker that
 * meets an allocation half way sees bits for words that are zero, or words without bits, of the second kind.
 *
 * Quarantine.  Only faulted chunks have a colour: the number of the last cycle that found a pointer into
 * them, as regions have (foreign/regions.c).  Marked by the marker; by the barrier, DIRTY first and not when
 * the round is closed (2.3).  A barrier that is ON before arm's FENCE may meet a chunk that another thread is
 * about to fault, and leaves it uncoloured; but what it stored is seen by the marker, whose gate is closed.
 * A chunk that faulted before arm's FENCE (its number is less than this cycle's) and has not this cycle's
 * colour has no pointer into it, and nobody can make one: it is READY again.  The number is read after the
 * phase, in the same section: it may be the next cycle's already, and then the chunk waits for one cycle
 * more.
 *
 * Pointer bits lie apart, a bit a word, and come and go with the chunk: so they are zero when it is used
 * again (UA-19), as is the chunk itself (UA-9).
 */
#include "arena/chunks.h"
#include "os/options.h"

#include <errno.h>

enum { FAULTS_A_CALL = 4, JUDGED_A_CALL = 256 };
enum { CROWDED = 4096, WORDS_PIECE = ARENA_PIECE / 8 / 64 };
static const size_t least = (size_t)64 << 20;
/* What an arena's first chunk leaves to small pages, at each end: most arenas are small (UA-9). */
static const size_t small_end = (size_t)2 << 20;

struct arena_space arena_space;
struct slots chunk_table;
char *chunk_bits_base;
static size_t bits_reserved;

static struct os_lock lock = OS_LOCK_INIT(OS_RANK_ARENAS); /* the lists, and growth of the extent */
static struct chunk_list ready, reusable, pending, quarantine;
static struct chunk_list draining, judged; /* the collector's part of the last two */
static uint64_t sweep_cycle;
static _Atomic uint64_t in_state[CHUNK_STATES];
static _Atomic uint64_t left_over; /* in quarantine after the last sweep */

_Static_assert(sizeof(struct chunk) == 128, "a chunk's record has lines of its own");
_Static_assert(ARENA_CHUNK % GREY_PAGE == 0 && ARENA_LARGEST == (size_t)2 << 20, "UA-2, UA-3");

/* ---- start and end ------------------------------------------------------------------------------------ */

static int reserve(void)
{
    /* As much as the heap; where the address space is limited a quarter of that (OS-19). */
    size_t size = heap.reserved >> 40 != 0 ? heap.reserved : heap.reserved / 4;
    for (size = size > least ? size : least; size >= least; size /= 2) {
        size_t kept = size;
        arena_space.base = os_reserve_aligned(NULL, &kept, ARENA_CHUNK);
        if (arena_space.base == NULL)
            continue;
        arena_space.reserved = kept;
        bits_reserved = kept / ARENA_CHUNK * CHUNK_BITS;
        chunk_bits_base = os_reserve(NULL, bits_reserved);
        if (chunk_bits_base != NULL)
            return 0;
        os_unreserve(arena_space.base, arena_space.reserved);
        arena_space.base = NULL;
    }
    return ENOMEM;
}

int chunks_init(void)
{
    os_lock_init(&lock, OS_RANK_ARENAS);
    ready = reusable = pending = quarantine = draining = judged = (struct chunk_list){0, 0};
    for (int i = 0; i < CHUNK_STATES; i++)
        atomic_store(&in_state[i], 0);
    atomic_store(&left_over, 0);
    atomic_store(&arena_space.extent, 0);
    atomic_store(&heap.chunks_live, 0);
    atomic_store(&heap.chunks_waiting, 0);
    if (reserve() != 0)
        return ENOMEM;
    int error = slots_init(&chunk_table, sizeof(struct chunk), (uint32_t)(arena_space.reserved / ARENA_CHUNK),
                           OS_CHUNKS);
    if (error != 0)
        chunks_shutdown();
    return error;
}

void chunks_shutdown(void)
{
    if (arena_space.base == NULL)
        return;
    outside_set(OUTSIDE_CHUNKS, 1, 1);
    size_t mapped = 0, used = 0, bits_mapped = 0, bits_used = 0;
    for (uint32_t i = 0; i < arena_chunks(); i++) {
        uint32_t stage = chunk_at(i)->stage;
        mapped += stage >= 1 ? ARENA_CHUNK : 0;
        used += stage >= 2 ? ARENA_CHUNK : 0;
        bits_mapped += stage >= 3 ? CHUNK_BITS : 0;
        bits_used += stage >= 4 ? CHUNK_BITS : 0;
    }
    atomic_store(&arena_space.extent, 0);
    atomic_store(&heap.chunks_live, 0);
    atomic_store(&heap.chunks_waiting, 0);
    os_free(arena_space.base, arena_space.reserved, OS_ARENAS, mapped, used);
    os_free(chunk_bits_base, bits_reserved, OS_CHUNKS, bits_mapped, bits_used);
    slots_shutdown(&chunk_table);
    arena_space.base = chunk_bits_base = NULL;
    arena_space.reserved = 0;
}

bool arena_overlaps(uintptr_t start, uintptr_t end)
{
    uintptr_t base = (uintptr_t)arena_space.base;
    return base != 0 && start < base + arena_space.reserved && end > base;
}

/* ---- lists --------------------------------------------------------------------------------------------- */

static uint32_t link_of(const struct chunk *chunk) { return chunk_number(chunk) + 1; }

void chunk_push(struct chunk_list *list, struct chunk *chunk)
{
    chunk->next = list->first;
    list->first = link_of(chunk);
    if (chunk->next == 0)
        list->last = list->first;
}

struct chunk *chunk_pop(struct chunk_list *list)
{
    if (list->first == 0)
        return NULL;
    struct chunk *chunk = chunk_of_link(list->first);
    list->first = chunk->next;
    chunk->next = 0;
    return chunk;
}

/* All of `from` in front of `to`. */
static void join(struct chunk_list *to, struct chunk_list *from)
{
    if (from->first == 0)
        return;
    chunk_of_link(from->last)->next = to->first;
    if (to->first == 0)
        to->last = from->last;
    to->first = from->first;
    from->first = 0;
}

static void push_shared(struct chunk_list *list, struct chunk *chunk)
{
    os_lock(&lock);
    chunk_push(list, chunk);
    os_unlock(&lock);
}

/* What the collector had in hand waits for the next cycle; the number of the one that is abandoned is used
 * again. */
void chunks_fork_child(void)
{
    os_lock_init(&lock, OS_RANK_ARENAS);
    slots_fork_child(&chunk_table);
    if (arena_space.base == NULL)
        return;
    join(&pending, &draining);
    join(&quarantine, &judged);
    for (uint32_t i = 0; i < arena_chunks(); i++)
        atomic_store_explicit(&chunk_at(i)->colour, 0, memory_order_relaxed);
}

/* ---- life (UA-37) -------------------------------------------------------------------------------------- */

static const uint8_t may_become[CHUNK_STATES] = {
    [CHUNK_READY] = 1 << CHUNK_ACTIVE,
    [CHUNK_ACTIVE] = 1 << CHUNK_FULL | 1 << CHUNK_REUSABLE,
    [CHUNK_FULL] = 1 << CHUNK_PENDING | 1 << CHUNK_QUARANTINE,
    [CHUNK_PENDING] = 1 << CHUNK_QUARANTINE,
    [CHUNK_REUSABLE] = 1 << CHUNK_ACTIVE,
    [CHUNK_QUARANTINE] = 1 << CHUNK_READY,
};

static void step(struct chunk *chunk, enum chunk_state to)
{
    static const char *const name[] = {"ready", "active", "full", "pending", "reusable", "quarantine"};
    uint32_t from = atomic_load_explicit(&chunk->state, memory_order_relaxed);
    if (UNLIKELY(from >= CHUNK_STATES || !(may_become[from] >> to & 1)))
        os_internal(chunk_start(chunk), "a chunk of an arena went from %s to %s",
                    from < CHUNK_STATES ? name[from] : "nowhere", name[to]);
    /* release: pairs with chunk_state */
    atomic_store_explicit(&chunk->state, to, memory_order_release);
    atomic_fetch_sub_explicit(&in_state[from], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&in_state[to], 1, memory_order_relaxed);
}

static struct chunk *new_chunk(void)
{
    struct chunk *chunk = (struct chunk *)(void *)slots_take(&chunk_table);
    if (chunk == NULL)
        return NULL;
    chunk->high = ARENA_CHUNK;
    chunk->start = chunk_start(chunk);
    chunk->bits = chunk_bits(chunk);
    atomic_fetch_add_explicit(&in_state[CHUNK_READY], 1, memory_order_relaxed);
    size_t end = ((size_t)chunk_number(chunk) + 1) * ARENA_CHUNK;
    os_lock(&lock); /* records below are mapped too, whoever took them */
    if (atomic_load_explicit(&arena_space.extent, memory_order_relaxed) < end) {
        /* release: pairs with arena_contains */
        atomic_store_explicit(&arena_space.extent, end, memory_order_release);
        outside_set(OUTSIDE_CHUNKS, (uintptr_t)arena_space.base, (uintptr_t)arena_space.base + end + 1);
    }
    os_unlock(&lock);
    return chunk;
}

/* UA-9.  A chunk whose memory was refused half way goes on from there the next time. */
static bool make_ready(struct chunk *chunk)
{
    char *start = chunk_start(chunk), *bits = (char *)chunk_bits(chunk);
    for (; chunk->stage < 4; chunk->stage++) {
        int error = chunk->stage == 0   ? os_map(start, ARENA_CHUNK, OS_ARENAS, "grey: arena")
                    : chunk->stage == 1 ? os_used(start, ARENA_CHUNK, ARENA_CHUNK)
                    : chunk->stage == 2 ? os_map(bits, CHUNK_BITS, OS_CHUNKS, "grey: metadata")
                                        : os_used(bits, CHUNK_BITS, CHUNK_BITS);
        if (error != 0)
            return false;
    }
    return true;
}

static bool starts_zero(const struct chunk *chunk)
{
    const uint64_t *word = (const uint64_t *)(void *)chunk_start(chunk);
    for (int i = 0; i < 8; i++)
        if (word[i] != 0 || atomic_load_explicit(&chunk_bits(chunk)[i], memory_order_relaxed) != 0)
            return false;
    return true;
}

/* Live are the chunks of arenas that are not freed (UA-17).  Not those on the reuse list: they are there to
 * be taken.  If they counted, each cycle that finds lost arenas would see as much live as before and set a
 * goal of twice as many chunks.  Chunks that are freed, or whose arena is lost, and that have not faulted yet
 * take memory all the same: they are counted apart, for who decides whether a thread that takes more has to
 * wait (cycle/control.c).  Else three threads that filled and reset arenas had 120,000 chunks pending, in a
 * cycle that waited for a thread which the kernel kept for a minute. */
static void count(struct chunk *chunk, enum counted as)
{
    _Atomic uint64_t *const sums[] = {NULL, &heap.chunks_live, &heap.chunks_waiting};
    if (chunk->counted == as)
        return;
    if (as != COUNTED_NOWHERE)
        atomic_fetch_add_explicit(sums[as], ARENA_CHUNK, memory_order_relaxed);
    if (chunk->counted != COUNTED_NOWHERE)
        atomic_fetch_sub_explicit(sums[chunk->counted], ARENA_CHUNK, memory_order_relaxed);
    chunk->counted = as;
}

void chunk_doom(struct chunk *chunk) { count(chunk, COUNTED_WAITING); }

/* But an arena that lives for a request is there in one moment and not in the next.  A cycle that ends between
 * two requests would set a goal without their chunks, and the next two requests pass it: a server with a small
 * heap went through nine cycles where none was due.  So of those on the reuse list as many count for a goal as
 * there are processors, which is how many arenas are at work at a time. */
uint64_t arena_standby_bytes(void)
{
    uint64_t n = atomic_load_explicit(&in_state[CHUNK_REUSABLE], memory_order_relaxed);
    return (n < os_tuning.processors ? n : os_tuning.processors) * ARENA_CHUNK;
}

struct chunk *chunk_take(bool first, bool *fresh)
{
    os_lock(&lock);
    struct chunk *chunk = chunk_pop(&reusable);
    *fresh = chunk == NULL;
    if (chunk == NULL)
        chunk = chunk_pop(&ready);
    os_unlock(&lock);
    if (!*fresh) {
        step(chunk, CHUNK_ACTIVE);
        count(chunk, COUNTED_LIVE);
        return chunk;
    }
    if (chunk == NULL)
        chunk = new_chunk();
    if (chunk == NULL)
        return NULL;
    if (!make_ready(chunk)) {
        push_shared(&ready, chunk);
        return NULL;
    }
    if (first)
        os_huge(chunk_start(chunk) + small_end, ARENA_CHUNK - 2 * small_end);
    else
        os_huge(chunk_start(chunk), ARENA_CHUNK);
    ASSERT(starts_zero(chunk));
    step(chunk, CHUNK_ACTIVE);
    count(chunk, COUNTED_LIVE);
    return chunk;
}

void chunk_fill(struct chunk *chunk) { step(chunk, CHUNK_FULL); }

void chunk_reuse(struct chunk *chunk)
{
    step(chunk, CHUNK_REUSABLE);
    count(chunk, COUNTED_NOWHERE);
    push_shared(&reusable, chunk);
}

/* Phase OFF, the gate closed.  The state first: who gets a signal looks it up. */
static void fault(struct chunk *chunk)
{
    HOOK(ARENA_FAULT, chunk_start(chunk));
    atomic_store_explicit(&chunk->quarantined_at, atomic_load_explicit(&work_cycle, memory_order_relaxed),
                          memory_order_relaxed);
    step(chunk, CHUNK_QUARANTINE);
    atomic_store_explicit(&chunk->low, 0, memory_order_relaxed);
    chunk->high = ARENA_CHUNK;
    os_fault(chunk_start(chunk), ARENA_CHUNK, OS_ARENAS);
    os_fault(chunk_bits(chunk), CHUNK_BITS, OS_CHUNKS);
    chunk->stage = 0;
    count(chunk, COUNTED_NOWHERE); /* UA-25 */
    push_shared(&quarantine, chunk);
}

void chunk_free(struct chunk *chunk, uintptr_t arena, uintptr_t made, uintptr_t freed)
{
    atomic_store_explicit(&chunk->arena, arena, memory_order_relaxed);
    atomic_store_explicit(&chunk->made, made, memory_order_relaxed);
    atomic_store_explicit(&chunk->freed, freed, memory_order_relaxed);
    if (!barrier_on()) {
        fault(chunk);
        return;
    }
    count(chunk, COUNTED_WAITING);
    step(chunk, CHUNK_PENDING);
    push_shared(&pending, chunk);
}

bool chunks_crowded(void)
{
    uint64_t n = atomic_load_explicit(&in_state[CHUNK_QUARANTINE], memory_order_relaxed);
    uint64_t left = atomic_load_explicit(&left_over, memory_order_relaxed);
    return n >= left + CROWDED || (n >= left && (n - left) * ARENA_CHUNK >= arena_space.reserved / 4);
}

bool arena_freed_at(uintptr_t address, struct arena_freed *freed)
{
    if (!arena_contains(address))
        return false;
    const struct chunk *chunk = chunk_at((uint32_t)((address - (uintptr_t)arena_space.base) / ARENA_CHUNK));
    uint32_t state = chunk_state(chunk);
    if (state != CHUNK_QUARANTINE && state != CHUNK_READY)
        return false;
    freed->arena = atomic_load_explicit(&chunk->arena, memory_order_relaxed);
    if (freed->arena == 0) /* new: nothing was ever there */
        return false;
    freed->made = atomic_load_explicit(&chunk->made, memory_order_relaxed);
    freed->freed = atomic_load_explicit(&chunk->freed, memory_order_relaxed);
    return true;
}

/* ---- marking ------------------------------------------------------------------------------------------- */

static struct chunk *chunk_of(uintptr_t word)
{
    return chunk_at((uint32_t)((word - (uintptr_t)arena_space.base) / ARENA_CHUNK));
}

/* True: this call coloured it.  by_program: by the barrier, in a busy section. */
static bool colour(struct chunk *chunk, bool by_program)
{
    if (chunk_state(chunk) != CHUNK_QUARANTINE)
        return false;
    uint64_t cycle = atomic_load_explicit(&work_cycle, memory_order_relaxed);
    uint64_t old = atomic_load_explicit(&chunk->colour, memory_order_relaxed);
    if (old == cycle || (by_program && !shade_make_dirty()))
        return false;
    if (!atomic_compare_exchange_strong_explicit(&chunk->colour, &old, cycle, memory_order_acq_rel,
                                                 memory_order_relaxed))
        return false; /* to this cycle's, by another */
    if (by_program)
        HOOK(SHADE_DIRTY, chunk_start(chunk));
    return true;
}

bool arena_shade(uintptr_t word) { return arena_contains(word) && colour(chunk_of(word), true); }

bool arena_mark(uintptr_t word, bool stack)
{
    bool marked = arena_contains(word) && colour(chunk_of(word), false);
    if (stack && arena_contains(word - 1))
        marked |= colour(chunk_of(word - 1), false);
    return marked;
}

bool arena_word_is_missed(uintptr_t word)
{
    if (!arena_contains(word))
        return false;
    const struct chunk *chunk = chunk_of(word);
    uint64_t cycle = atomic_load_explicit(&work_cycle, memory_order_relaxed);
    return chunk_state(chunk) == CHUNK_QUARANTINE &&
           atomic_load_explicit(&chunk->quarantined_at, memory_order_relaxed) < cycle &&
           atomic_load_explicit(&chunk->colour, memory_order_relaxed) != cycle;
}

bool grey_in_arena(const void *p)
{
    return arena_contains((uintptr_t)p) && chunk_state(chunk_of((uintptr_t)p)) != CHUNK_READY;
}

/* ---- roots --------------------------------------------------------------------------------------------- */

uint32_t arena_chunks(void)
{
    /* acquire: pairs with new_chunk */
    return (uint32_t)(atomic_load_explicit(&arena_space.extent, memory_order_acquire) / ARENA_CHUNK);
}

static bool holds_data(const struct chunk *chunk)
{
    uint32_t state = chunk_state(chunk);
    return state != CHUNK_READY && state != CHUNK_QUARANTINE;
}

uint32_t arena_chunk_pieces(uint32_t chunk)
{
    struct chunk *record = chunk_at(chunk);
    if (!holds_data(record))
        return 0;
    uint32_t low = atomic_load_explicit(&record->low, memory_order_acquire);
    return (low + ARENA_PIECE - 1) / ARENA_PIECE;
}

void arena_scan_pieces(struct tracer *tracer, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        struct chunk *chunk = chunk_at(i / ARENA_CHUNK_PIECES);
        size_t piece = i % ARENA_CHUNK_PIECES;
        uintptr_t at = (uintptr_t)chunk_start(chunk) + piece * ARENA_PIECE;
        HOOK(ARENA_SCAN, (void *)at);
        _Atomic uint64_t *bits = chunk_bits(chunk) + piece * WORDS_PIECE;
        size_t low = atomic_load_explicit(&chunk->low, memory_order_acquire);
        for (size_t w = 0; w < WORDS_PIECE && piece * ARENA_PIECE + w * 512 < low; w++) {
            uint64_t mask = atomic_load_explicit(&bits[w], memory_order_relaxed);
            if (mask != 0)
                tracer_mask(tracer, at + w * 512, mask);
        }
    }
}

/* Memory of the program that other threads may be writing: a word is read once, whole. */
static OS_UNSANITIZED uintptr_t load_word(uintptr_t slot) { return *(const volatile uintptr_t *)slot; }

/* Pointer words of one piece. */
static void each_word(struct chunk *chunk, size_t piece, void (*fn)(const void *, uintptr_t, void *),
                      void *arg)
{
    _Atomic uint64_t *bits = chunk_bits(chunk) + piece * WORDS_PIECE;
    uintptr_t at = (uintptr_t)chunk_start(chunk) + piece * ARENA_PIECE;
    for (size_t w = 0; w < WORDS_PIECE; w++, at += 512) {
        uint64_t mask = atomic_load_explicit(&bits[w], memory_order_relaxed);
        for (; mask != 0; mask &= mask - 1) {
            uintptr_t slot = at + 8 * (uintptr_t)__builtin_ctzll(mask);
            fn((const void *)slot, load_word(slot), arg);
        }
    }
}

void arena_each_word(void (*fn)(const void *slot, uintptr_t word, void *arg), void *arg)
{
    for (uint32_t i = 0; i < arena_chunks(); i++)
        for (uint32_t piece = 0; piece < arena_chunk_pieces(i); piece++)
            each_word(chunk_at(i), piece, fn, arg);
}

static void shade_word(const void *slot, uintptr_t word, void *self)
{
    (void)slot;
    shade(self, word);
}

void arena_touch(struct thread *self, uintptr_t word)
{
    struct chunk *chunk = chunk_of(word);
    for (uint32_t piece = 0; piece < ARENA_CHUNK_PIECES && barrier_on(); piece++) {
        thread_enter(self);
        if (barrier_on() && piece < arena_chunk_pieces(chunk_number(chunk)))
            each_word(chunk, piece, shade_word, self);
        thread_leave(self);
    }
}

/* ---- after a cycle ------------------------------------------------------------------------------------- */

void chunks_sweep_begin(uint64_t cycle)
{
    sweep_cycle = cycle;
    os_lock(&lock);
    join(&draining, &pending); /* nobody adds to it before the next arm */
    join(&judged, &quarantine);
    os_unlock(&lock);
}

/* UA-26 */
static bool is_free(const struct chunk *chunk)
{
    return atomic_load_explicit(&chunk->quarantined_at, memory_order_relaxed) < sweep_cycle &&
           atomic_load_explicit(&chunk->colour, memory_order_relaxed) != sweep_cycle;
}

static void judge(void)
{
    struct chunk_list kept = {0, 0}, freed = {0, 0};
    for (int i = 0; i < JUDGED_A_CALL; i++) {
        struct chunk *chunk = chunk_pop(&judged);
        if (chunk == NULL)
            break;
        HOOK(ARENA_SWEEP, chunk_start(chunk));
        bool free = is_free(chunk);
        if (free)
            step(chunk, CHUNK_READY);
        chunk_push(free ? &freed : &kept, chunk);
    }
    os_lock(&lock);
    join(&quarantine, &kept);
    join(&ready, &freed);
    os_unlock(&lock);
}

bool chunks_sweep_some(void)
{
    for (int i = 0; i < FAULTS_A_CALL && draining.first != 0; i++)
        fault(chunk_pop(&draining));
    judge();
    if (draining.first != 0 || judged.first != 0)
        return true;
    atomic_store_explicit(&left_over, atomic_load_explicit(&in_state[CHUNK_QUARANTINE], memory_order_relaxed),
                          memory_order_relaxed);
    return false;
}

void chunks_figures(struct arena_figures *figures)
{
    uint64_t n[CHUNK_STATES];
    for (int i = 0; i < CHUNK_STATES; i++)
        n[i] = atomic_load_explicit(&in_state[i], memory_order_relaxed);
    figures->active = n[CHUNK_ACTIVE] + n[CHUNK_FULL];
    figures->reusable = n[CHUNK_REUSABLE];
    figures->pending = n[CHUNK_PENDING];
    figures->quarantined = n[CHUNK_QUARANTINE];
    figures->ready = n[CHUNK_READY];
}

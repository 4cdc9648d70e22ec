/* os/ -- address space and pages, time, sleeping, locks, failure; the room at the bottom of the house.
 *
 * Everything that Grey asks of the kernel about memory goes through here.  Memory is in one of four
 * states, and moves between them only as OS-2 says:
 *
 *     None      not ours                      alloc None->Ready       free any->None
 *     Reserved  ours, faults, no footprint    reserve None->Reserved  unreserve Reserved->None
 *     Prepared  ours, access undefined        map Reserved->Prepared  used Prepared->Ready
 *     Ready     ours, may be used             unused Ready->Prepared  fault Ready->Reserved
 *
 * Debug builds keep the state of every range and stop at an illegal transition.  May call: nothing.
 * All functions here: any thread, no lock of another room needed; not async-signal-safe unless said.
 */
#ifndef GREY_OS_OS_H
#define GREY_OS_OS_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GREY_PAGE_SHIFT 13 /* Grey's page, 8 KiB (OS-22) */
#define GREY_PAGE ((size_t)1 << GREY_PAGE_SHIFT)

#ifndef __has_feature /* clang's way to ask; gcc 12 defines macros instead */
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define OS_TSAN 1
#else
#define OS_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define OS_ASAN 1
#else
#define OS_ASAN 0
#endif
/* For code that reads or clears the program's memory conservatively: no sanitizer may look (TR-16). */
#if defined(__clang__)
#define OS_UNSANITIZED __attribute__((no_sanitize("thread", "address"), noinline))
#else
#define OS_UNSANITIZED __attribute__((no_sanitize_thread, no_sanitize_address, noinline))
#endif
/* The same for what belongs into its caller: a function of its own only where a sanitizer is. */
#if OS_TSAN || OS_ASAN
#define OS_UNSANITIZED_INLINE OS_UNSANITIZED
#else
#define OS_UNSANITIZED_INLINE inline __attribute__((always_inline))
#endif

/* Bits that are set: adding neighbours up, as in Hacker's Delight 5-1.  The instruction is no part of the x86-64
 * that everybody has, and what the compiler calls instead took 1 to 4 % of a program that allocates. */
static inline size_t os_popcount(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    return (size_t)(((x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56);
}

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* ---- memory ------------------------------------------------------------------------------------- */

/* One statistic a class; their sum is "mapped" (OS-21). */
enum os_class {
    OS_HEAP,       /* objects */
    OS_BITS,       /* mark and allocation bits, page tables */
    OS_SPANS,      /* span records */
    OS_THREADS,    /* thread blocks, runs, copy buffers */
    OS_MARK,       /* work queues, grey buffers */
    OS_PERSISTENT, /* persistent allocator's chunks not yet named */
    OS_POOL,       /* fixed-size pools */
    OS_INSPECT,    /* histograms, verifier */
    OS_FOREIGN,    /* the range index, foreign regions */
    OS_SPECIALS,   /* cleanups, finalizers, weak references */
    OS_ARENAS,     /* arena chunks, what the program stores */
    OS_CHUNKS,     /* records of chunks and arenas, pointer bits */
    OS_PINS,       /* pins, handles */
    OS_CLASSES
};

void os_memory_init(void); /* page size, what madvise and prctl can do here; idempotent */
size_t os_page_size(void); /* the kernel's, bytes */

/* Each takes page-multiple sizes unless said.  NULL or ENOMEM/EACCES/EAGAIN on refusal (OS-16). */
void *os_alloc(size_t size, enum os_class class);                     /* None -> Ready, zeroed */
void *os_reserve(void *hint, size_t size);                            /* None -> Reserved */
void *os_reserve_aligned(void *hint, size_t *size, size_t alignment); /* *size becomes what is kept (OS-12) */
int os_map(void *start, size_t size, enum os_class class,
           const char *name);                           /* Reserved -> Prepared; 0 or errno */
int os_used(void *start, size_t size, size_t prepared); /* Prepared -> Ready; part may be Ready already */
void os_unused(void *start, size_t size);               /* Ready -> Prepared; contents forfeited */
bool os_unused_needs_zeroing(void);                     /* OS-9 */
void os_fault(void *start, size_t size, enum os_class class); /* Ready -> Reserved */
/* ready: bytes of it that are Ready (the rest Prepared or Reserved); mapped: bytes that were mapped */
void os_free(void *start, size_t size, enum os_class class, size_t mapped, size_t ready); /* any -> None */
void os_unreserve(void *start, size_t size); /* Reserved -> None */
void os_huge(void *start, size_t size);      /* advise huge pages, rounds inward */
/* Has the kernel back each page now.  The contents are forfeited. */
void os_touch(void *start, size_t size);
void os_collapse(void *start, size_t size);
/* Takes huge pages apart that begin or end in or around the range; contents stay.  Some 200 us for each. */
void os_split(void *start, size_t size);

/* Figures, bytes; each may be read at any time without a lock. */
size_t os_mapped(enum os_class class);
size_t os_mapped_total(void);
size_t os_mapped_ready(void);
/* Persistent memory is counted under "persistent" when its chunk is mapped and moves to the class that
 * asked for it. */
void os_recount(enum os_class from, enum os_class to, size_t size);

/* Test builds (GREY_HOOKS): the next n-th mapping call fails with this errno; 0 switches it off. */
void os_fail_mapping(unsigned nth, int error);

/* ---- failure (tiers F and T of docs/requirements.md 0.2) ------------------------------------------ */

void os_set_fatal_handler(void (*handler)(const char *message, const void *address));
/* Writes "grey: fatal: ..." and aborts.  printf-like, of which %s %d %u %zu %llu %lx %p are known; no
 * allocation, no lock.  Signal-safe. */
_Noreturn void os_fatal(const void *address, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* An invariant of Grey itself is broken: also names phase, thread and cycle (os_internal_context). */
_Noreturn void os_internal(const void *address, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void os_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same formatting into a buffer; returns the length, cut to size-1. */
size_t os_format(char *buffer, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Which file the code lies in, as "path+0xoffset"; returns the length, cut to size-1.  Signal-safe. */
size_t os_describe_code(uintptr_t address, char *buffer, size_t size);
/* Set by cycle/: fills in phase and cycle number. */
extern void (*os_internal_context)(const char **phase, uint64_t *cycle);

#ifdef GREY_ASSERTS
#define ASSERT(x)                                                                                            \
    do {                                                                                                     \
        if (UNLIKELY(!(x)))                                                                                  \
            os_internal(NULL, "%s:%d: %s", __FILE__, __LINE__, #x);                                          \
    } while (0)
#else
#define ASSERT(x)                                                                                            \
    do {                                                                                                     \
        if (0)                                                                                               \
            (void)(x);                                                                                       \
    } while (0)
#endif

/* ---- time, sleeping --------------------------------------------------------------------------------- */

uint64_t os_now(void);        /* CLOCK_MONOTONIC, ns; signal-safe */
uint64_t os_thread_cpu(void); /* this thread's processor time, ns; a system call; signal-safe */
uint64_t os_process_cpu(void);
/* Sleep while *word == expected, at most timeout_ns (UINT64_MAX: no limit); may wake for nothing.
 * Signal-safe. */
void os_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns);
void os_wake(_Atomic uint32_t *word, int count);
void os_yield(void);
/* One step of a bounded wait: spins, then yields, then sleeps 50 us at a time; start with *n = 0.
 * Signal-safe. */
void os_pause(unsigned *n);

/* ---- threads of the library's own ---------------------------------------------------------------------- */

/* pthread_create for a thread that gets no signal but faults; name: at most 15 characters. */
int os_start_background(pthread_t *id, const char *name, void *(*run)(void *), void *arg);
/* What it blocks, on the calling thread. */
void os_block_signals(sigset_t *old);
/* From now on this thread gives way to those of the program: it preempts nobody when it wakes up, and whoever
 * wakes up preempts it.  With at least that nice value; not where the program has a policy of its own. */
void os_give_way(int nice);
enum { OS_NICE = 10 }; /* of threads that work at leisure: a ninth of the weight of the program's */

/* ---- locks ------------------------------------------------------------------------------------------- */

/* Ranks: a thread takes locks in rising order only; debug builds check it.  This is the one table. */
enum os_rank {
    OS_RANK_CONTROL,     /* cycle: requests for cycles, setters */
    OS_RANK_THREADS,     /* mutator: the list lock */
    OS_RANK_JOIN,        /* mutator: records of created threads */
    OS_RANK_ROOTS,       /* mark: registered roots */
    OS_RANK_FOREIGN,     /* foreign: the index's writer */
    OS_RANK_ARENAS,      /* arena: lists of chunks */
    OS_RANK_OUTSIDE,     /* barrier: bounds of what lies outside the heap */
    OS_RANK_TYPES,       /* heap: interned types */
    OS_RANK_CLASS,       /* heap: a class's span lists */
    OS_RANK_PAGES,       /* heap: page allocator */
    OS_RANK_SPANS,       /* heap: span records */
    OS_RANK_CLEANUPS,    /* sweep: queues of cleanups and finalizers */
    OS_RANK_STATIC_WEAK, /* sweep: weak references to static memory */
    OS_RANK_SLOTS,       /* heap: tables of numbered records */
    OS_RANK_WORK,        /* mark: growth of the block store */
    OS_RANK_POOL,        /* heap: pools */
    OS_RANK_PERSISTENT,  /* heap: persistent allocator */
    OS_RANK_OS,          /* os: state ledger of debug builds */
    OS_RANKS
};
struct os_lock {
    pthread_mutex_t mutex;
    enum os_rank rank;
};
#define OS_LOCK_INIT(r)                                                                                      \
    {                                                                                                        \
        PTHREAD_MUTEX_INITIALIZER, (r)                                                                       \
    }
void os_lock_init(struct os_lock *lock, enum os_rank rank); /* also after fork, in the child */
void os_lock(struct os_lock *lock);
bool os_trylock(struct os_lock *lock);
void os_unlock(struct os_lock *lock);
bool os_lock_held_any(void);                   /* debug builds: does this thread hold a lock?  else false */
bool os_lock_held(const struct os_lock *lock); /* debug builds: does this thread hold it?  else true */

/* ---- test hooks and planted faults --------------------------------------------------------------------- */

/* Points at which a test can pause whoever passes (TR-15).  One table. */
/* clang-format off */
#define OS_HOOKS(X)                                                                                   \
    X(AFTER_ARM) X(AFTER_BLACKEN) X(ROOTS) X(ROUND_START) X(ROUND_END) X(CLOSED) X(FINISH)           \
    X(AFTER_FINISH) X(SWEEP_OPEN) X(SWEEP_SPAN) X(MARK_SCAN) X(MARK_IDLE) X(MARK_HELP) X(ANSWER) X(SHADE)         \
    X(SHADE_DIRTY) X(REFILL) X(LARGE_BEFORE_PUBLISH) X(ATTACH) X(EXIT) X(HOLD) X(FORK_PREPARE) X(ASSIST)            \
    X(COPY_TEST) X(FOREIGN_ADD) X(FOREIGN_SCAN) X(FOREIGN_SWEEP) X(WEAK_GET)          \
    X(LARGE_NUMBERED) X(ARENA_FREE) X(ARENA_FAULT) X(ARENA_SCAN) X(ARENA_SWEEP) X(PREFAULT) X(PIN) X(ANSWER_FOR) \
    X(HOLD_HANDLE)
/* Mistakes that the suite must catch (docs/limits, protocol.md 0). */
#define OS_FAULTS(X)                                                                                  \
    X(NO_DIRTY) X(NO_SIGNAL_FRAME) X(EARLY_SWEEP) X(NO_REST) X(ATTACH_IN_HOLD) X(NO_BUFFER_COUNT)    \
    X(NO_COPY_COUNT) X(NO_FENCE) X(NO_BARRIER) X(NO_VECTOR)
/* clang-format on */
enum os_hook {
#define X(name) OS_HOOK_##name,
    OS_HOOKS(X)
#undef X
        OS_HOOK_COUNT
};
enum os_fault_kind {
#define X(name) OS_FAULT_##name,
    OS_FAULTS(X)
#undef X
        OS_FAULT_COUNT
};
#ifdef GREY_HOOKS
extern void (*_Atomic os_hook_function)(enum os_hook point, const void *what);
extern atomic_bool os_fault_on[OS_FAULT_COUNT]; /* also set from GREY_FAULT=name at start */
extern const char *const os_fault_name[OS_FAULT_COUNT];
#define HOOK(point, what)                                                                                    \
    do {                                                                                                     \
        void (*hook_)(enum os_hook, const void *) =                                                          \
            atomic_load_explicit(&os_hook_function, memory_order_acquire);                                   \
        if (UNLIKELY(hook_ != NULL))                                                                         \
            hook_(OS_HOOK_##point, (what));                                                                  \
    } while (0)
#define FAULT(name) UNLIKELY(atomic_load_explicit(&os_fault_on[OS_FAULT_##name], memory_order_relaxed))
#else
#define HOOK(point, what) ((void)0)
#define FAULT(name) false
#endif

#endif

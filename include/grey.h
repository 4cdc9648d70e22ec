/* grey.h -- Grey, a concurrent garbage collector for multithreaded C programs.
 *
 * This is the whole public interface.  A tour in one paragraph: allocate with grey_new (typed),
 * grey_alloc (every word may be a pointer) or grey_alloc_leaf (never scanned).  Store heap pointers
 * with grey_store.  Load them as you like.  Never free.  Objects never move.
 *
 *     struct node { struct node *left, *right; long key; };
 *     GREY_TYPE(node_type, struct node, left, right);
 *     GREY_ROOT(struct node *, tree);
 *
 *     struct node *n = grey_new(&node_type);
 *     grey_store(&n->left, other);
 *     grey_store(&tree, n);
 *
 * Conventions.  Sizes are bytes, times are nanoseconds.  A function that can fail returns 0 or an
 * errno value, one that returns a pointer returns NULL and sets errno; a call that failed has changed
 * nothing.  Misuse that leaves the program in a wrong state is fatal: one line "grey: fatal: ..." on
 * standard error, then the handler of grey_set_fatal_handler, then abort().
 *
 * Unless a function says otherwise: any thread may call it at any time and several at once; it
 * attaches the calling thread if need be; it is not async-signal-safe; it must not be left by longjmp
 * or asynchronous cancellation; and it may answer a handshake (a copy of the caller's stack, some
 * microseconds).  Calls whose names end in an underscore are the library's own.
 *
 * The requirements cited as AL-3, BA-7 and so on are explained in docs/requirements.md.
 */
#ifndef GREY_H
#define GREY_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(__x86_64__) || !defined(__linux__)
#error "grey: this release supports Linux on x86-64 only"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define GREY_VERSION_MAJOR 0
#define GREY_VERSION_MINOR 1
#define GREY_VERSION_PATCH 0
#define GREY_VERSION "0.1.0"

#if defined(__GNUC__)
#define GREY_API __attribute__((visibility("default")))
#else
#error "grey: needs gcc 12 or clang 14 or later"
#endif
#define GREY_LIKELY_(x) __builtin_expect(!!(x), 1)
#define GREY_UNLIKELY_(x) __builtin_expect(!!(x), 0)

/* ---- start, stop, tune ------------------------------------------------------------------------ */

/* Fields that hold GREY_FROM_ENVIRONMENT_* are taken from the environment (TU-6). */
#define GREY_PERCENT_FROM_ENVIRONMENT (-2147483647 - 1)
#define GREY_MEMORY_LIMIT_FROM_ENVIRONMENT (SIZE_MAX - 1)

struct grey_options {
    size_t size;         /* sizeof(struct grey_options): lets the struct grow */
    int percent;         /* heap growth before the next cycle, like GOGC; negative = off */
    size_t memory_limit; /* soft limit in bytes; SIZE_MAX = none */
    unsigned processors; /* processors to plan for, workers take a quarter of them; 0 = environment */
    int signal;          /* handshake signal; 0 = SIGRTMIN+2 */
    const char *debug;   /* as GREY_DEBUG; NULL = environment */
};
#define GREY_OPTIONS_INIT                                                                                    \
    {                                                                                                        \
        sizeof(struct grey_options), GREY_PERCENT_FROM_ENVIRONMENT, GREY_MEMORY_LIMIT_FROM_ENVIRONMENT, 0,   \
            0, 0                                                                                             \
    }

/* Starts the library; NULL takes everything from the environment (GREY_GC, GREY_MEMLIMIT, GREY_PROCS,
 * GREY_DEBUG), as does the first call of any other function.  Errors: EBUSY already up; EINVAL a bad
 * option or a malformed GREY_MEMLIMIT; ENOMEM, EACCES, EAGAIN mapping refused.  Does not attach the
 * caller.  Cost: some hundred microseconds. */
GREY_API int grey_init(const struct grey_options *options);

/* Stops the library and unmaps its heap; it may be started again.  All other threads must have
 * detached, else fatal (ER-6).  Runs no cleanups, but waits for those that Grey's threads have begun; fatal
 * in a cleanup or finalizer.  When not up: nothing. */
GREY_API void grey_shutdown(void);

/* The version of the library that is linked, "major.minor.patch".  Signal-safe. */
GREY_API const char *grey_version(void);

/* Sets heap growth in percent and returns the old value; negative turns automatic cycles off and
 * waits for a running one to end its marking (PC-13).  Does not attach. */
GREY_API int grey_set_percent(int percent);

/* Sets the soft memory limit in bytes and returns the old one; SIZE_MAX none; 0 only reads it. */
GREY_API size_t grey_set_memory_limit(size_t bytes);

/* Runs one whole cycle that began after the call, its sweep included (MK-17).  Other threads go on;
 * the caller waits, answering handshakes. */
GREY_API void grey_collect(void);

/* Asks for a cycle and returns. */
GREY_API void grey_collect_start(void);

/* grey_collect, then gives every free page back to the operating system (SC-7). */
GREY_API void grey_trim(void);

/* Called with the message and the address concerned after a fatal error was written, before abort().
 * Runs on the failing thread. */
GREY_API void grey_set_fatal_handler(void (*handler)(const char *message, const void *address));

/* ---- threads ---------------------------------------------------------------------------------- */

/* From now on this thread may hold heap pointers: call it before the first load of one.  The first
 * call of most functions does it too.  Unblocks the handshake signal.  EALREADY, ENOMEM. */
GREY_API int grey_thread_attach(void);

/* The calling thread's stack is no longer a root.  Automatic at thread exit.  EPERM not attached. */
GREY_API int grey_thread_detach(void);

/* pthread_create for a thread that is attached from the start; arg and the value that start returns
 * may be heap pointers.  Errors: those of pthread_create, ENOMEM. */
GREY_API int grey_thread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                                void *arg);

/* pthread_join that carries a heap pointer safely; waits in a blocking region.  A value given to
 * pthread_exit is not carried (ER-5a). */
GREY_API int grey_thread_join(pthread_t thread, void **result);

/* Another thread may by now have taken p by a way that is not a grey_store (a pipe, a mailbox in
 * malloc memory): call it after p was published, while still holding p, and hold p until it was
 * taken.  NULL and what is not in the heap: nothing.  Cost off a cycle: one test. */
GREY_API void grey_pass(const void *p);

/* Answers a pending handshake now.  Optional: threads need no polls. */
GREY_API void grey_safepoint(void);

/* Runs fn(arg) and returns what it returned.  Meanwhile no signal is sent to this thread and nobody
 * waits for it.  fn may use the bytes of leaf objects that its callers hold; it may not load or store
 * heap pointers, nor allocate (fatal).  Nests. */
GREY_API int grey_blocking_call(int (*fn)(void *arg), void *arg);

/* The same in two halves, for language bindings: only in a function that has no heap pointer of its
 * own alive across the region. */
GREY_API void grey_blocking_begin(void);
GREY_API void grey_blocking_end(void);

/* Registers [low, high) as a stack on which this thread may run coroutines, or an alternate signal
 * stack (one made with SS_AUTODISARM is known only if it is registered); scanned in this thread's
 * handshakes.  To move it to another thread remove it here and add it there.  EINVAL, EEXIST overlaps
 * another stack or the heap, ENOMEM; remove: ENOENT. */
GREY_API int grey_stack_add(void *low, void *high);
GREY_API int grey_stack_remove(void *low);

/* p is in a register or on the stack at this point (MK-22).  No call, no cost. */
static inline void grey_keep_alive(const void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

/* ---- types ------------------------------------------------------------------------------------ */

/* Where the pointers of a type are.  Made by GREY_TYPE, GREY_TYPE_LEAF or grey_type_init; the fields
 * are the library's. */
struct grey_field_ {
    size_t offset;
    size_t count; /* pointer words from offset on */
};
struct grey_type {
    const char *name;
    size_t size;
    const struct grey_field_ *fields;
    size_t n_fields;
    const uint8_t *bits; /* of grey_type_init: interned copy */
    size_t n_words;
    uint32_t *run; /* cache of the interned layout's run, 0 = not yet */
};

/* GREY_TYPE(node_type, struct node, left, right) defines a static const struct grey_type for T with
 * these pointer fields (1 to 48 of them); GREY_ARRAY(field, n) inside it names an array of n
 * pointers.  A type has no size limit.  A field that isn't one pointer wide is refused at compile
 * time. */
#define GREY_ARRAY(field, n) (field, n)
#define GREY_TYPE(id, T, ...)                                                                                \
    static const struct grey_field_ id##_fields_[] = {GREY_EACH_(GREY_FIELD_, T, __VA_ARGS__)};              \
    __attribute__((unused)) static uint32_t id##_run_;                                                       \
    __attribute__((unused)) static const struct grey_type id = {                                             \
        #T, sizeof(T), id##_fields_, sizeof(id##_fields_) / sizeof(id##_fields_[0]), 0, 0, &id##_run_}

/* T holds no pointers. */
#define GREY_TYPE_LEAF(id, T)                                                                                \
    __attribute__((unused)) static uint32_t id##_run_;                                                       \
    __attribute__((unused)) static const struct grey_type id = {#T, sizeof(T), 0, 0, 0, 0, &id##_run_}

/* A type made at run time: bit i of pointer_bits (from the low bit of byte 0) says that word i holds
 * a pointer; n_words fewer than the type has: the rest holds none.  Name and bits are copied and
 * live as long as the process.  A NULL name is an empty one.  EINVAL type or bits NULL, size 0, bits beyond
 * the size; ENOMEM. */
GREY_API int grey_type_init(struct grey_type *type, const char *name, size_t size,
                            const uint8_t *pointer_bits, size_t n_words);

/* ---- allocate --------------------------------------------------------------------------------- */

/* All of these: alignment 16 for sizes of 16 and more; size 0 gives one shared non-NULL address; out
 * of memory is a full cycle, release of free memory, one retry, then NULL with ENOMEM (AL-14).
 * Stores of heap pointers into new objects need grey_store like all others. */
static inline void *grey_new(const struct grey_type *type);                /* zeroed; EINVAL */
GREY_API void *grey_new_array(const struct grey_type *type, size_t count); /* zeroed; EOVERFLOW, EINVAL */
static inline void *grey_alloc(size_t size);      /* zeroed; every aligned word may be a pointer */
static inline void *grey_alloc_leaf(size_t size); /* never scanned; NOT zeroed */
GREY_API void *grey_zalloc_leaf(size_t size);     /* never scanned; zeroed */
GREY_API void *grey_alloc_leaf_aligned(size_t align, size_t size); /* align a power of two <= 2 MiB; EINVAL */

/* An object of size bytes of the same kind and type as p, with p's contents.  NULL p is grey_alloc;
 * size 0 gives the zero address; p stays valid until unreachable; may return p.  EINVAL: p is not the
 * start of a heap object. */
GREY_API void *grey_realloc(void *p, size_t size);
GREY_API char *grey_strdup(const char *string); /* a leaf object; EINVAL */

/* Usable bytes of the object that p points into, 0 if it is not in the heap; its first byte, or
 * NULL.  Of a freed slot: undefined. */
GREY_API size_t grey_size(const void *p);
GREY_API void *grey_base(const void *p);

/* ---- store pointers --------------------------------------------------------------------------- */

/* Every store of a heap pointer into memory that is not the calling thread's own stack goes through
 * these; loads need nothing.  Off a cycle a store costs one store and one flag test.  In C the value's
 * type must be assignable to the slot's; a wrong one is refused.
 *
 * Store first, test then: a thread may be interrupted and answer a handshake at any instruction of it.
 * Before the store it tests afterwards; after the test the store is visible; in between the value is
 * in a register that the handshake scans, and the empty asm keeps it there (docs/protocol.md, 2.2). */

/* C compilers let an assignment between wrong pointer types pass with a warning; this does not.  C++ has
 * the rule already. */
#ifdef __cplusplus
#define GREY_CHECK_(slot, value) ((void)0)
#else
#define GREY_IS_POINTER_(x) (__builtin_classify_type(x) == 5)
#define GREY_CHECK_(slot, value)                                                                             \
    _Static_assert(                                                                                          \
        !GREY_IS_POINTER_(*(slot)) ||                                                                        \
            ((GREY_IS_POINTER_(value) || __builtin_constant_p(value)) &&                                     \
             (__builtin_types_compatible_p(__typeof__(value), void *) ||                                     \
              __builtin_types_compatible_p(__typeof__(1 ? (value) : *(slot)), __typeof__(*(slot))))),        \
        "grey: a value of this type cannot be stored into this slot")
#endif

/* *(slot) = value, release order. */
#define grey_store(slot, value)                                                                              \
    __extension__({                                                                                          \
        GREY_CHECK_(slot, value);                                                                            \
        __typeof__(slot) grey_slot_ = (slot);                                                                \
        __typeof__(*grey_slot_) grey_value_ = (value);                                                       \
        __atomic_store_n(grey_slot_, grey_value_, __ATOMIC_RELEASE);                                         \
        grey_after_store_((const void *)grey_value_);                                                        \
    })

/* Returns the old value; acq_rel. */
#define grey_exchange(slot, value)                                                                           \
    __extension__({                                                                                          \
        GREY_CHECK_(slot, value);                                                                            \
        __typeof__(slot) grey_slot_ = (slot);                                                                \
        __typeof__(*grey_slot_) grey_value_ = (value);                                                       \
        __typeof__(*grey_slot_) grey_old_ = __atomic_exchange_n(grey_slot_, grey_value_, __ATOMIC_ACQ_REL);  \
        grey_after_store_((const void *)grey_value_);                                                        \
        grey_old_;                                                                                           \
    })

/* bool; as C11's strong compare-exchange with acq_rel/acquire; expected is an address, which receives
 * the slot's value on failure. */
#define grey_compare_exchange(slot, expected, desired)                                                       \
    __extension__({                                                                                          \
        GREY_CHECK_(slot, desired);                                                                          \
        GREY_CHECK_(slot, *(expected));                                                                      \
        __typeof__(slot) grey_slot_ = (slot);                                                                \
        __typeof__(*grey_slot_) *grey_expected_ = (expected);                                                \
        __typeof__(*grey_slot_) grey_value_ = (desired);                                                     \
        bool grey_done_ = __atomic_compare_exchange_n(grey_slot_, grey_expected_, grey_value_, false,        \
                                                      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);                   \
        if (grey_done_)                                                                                      \
            grey_after_store_((const void *)grey_value_);                                                    \
        grey_done_;                                                                                          \
    })

/* memmove of words that may be pointers; words are never torn.  to, from and size are multiples of 8
 * for the words to be seen as such; odd bytes at the ends are copied plainly. */
GREY_API void grey_move(void *to, const void *from, size_t size);
/* Zeroes words that may be pointers. */
GREY_API void grey_clear(void *at, size_t size);
/* "I stored into it without the above": what the object holds is shaded now.  Keep the stored values
 * on the stack until it returns (BA-17).  Off a cycle: nothing. */
GREY_API void grey_touch(const void *object);

/* ---- roots ------------------------------------------------------------------------------------ */

/* Aligned words of [start, start+size) may hold heap pointers.  Counted when added twice; different
 * ranges may overlap.  EINVAL nothing left after rounding inward to words; ENOMEM.  remove: ENOENT not
 * the exact range of an add; waits for a scanner inside. */
GREY_API int grey_root_add(void *start, size_t size);
GREY_API int grey_root_remove(void *start, size_t size);

struct grey_root_ {
    void *start;
    size_t size;
    struct grey_root_ *next;
    uint32_t count;
};
GREY_API void grey_root_register_(struct grey_root_ *root);
GREY_API void grey_root_unregister_(struct grey_root_ *root);

/* A static variable of type T, registered when its object file is loaded and unregistered when that
 * is unloaded. */
#define GREY_ROOT(T, name)                                                                                   \
    static __typeof__(T) name;                                                                               \
    static struct grey_root_ name##_root_;                                                                   \
    __attribute__((constructor)) static void name##_root_add_(void)                                          \
    {                                                                                                        \
        name##_root_.start = (void *)&name;                                                                  \
        name##_root_.size = sizeof(name);                                                                    \
        grey_root_register_(&name##_root_);                                                                  \
    }                                                                                                        \
    __attribute__((destructor)) static void name##_root_remove_(void)                                        \
    {                                                                                                        \
        grey_root_unregister_(&name##_root_);                                                                \
    }                                                                                                        \
    typedef int name##_root_ends_here_ /* takes the semicolon, in C++ namespaces too */

/* ---- foreign memory ------------------------------------------------------------------------------ */

/* Memory that Grey did not allocate: mapped files, rings shared with the kernel, memory of other
 * allocators.  While any pointer to any byte of a registered region is found on a stack, in a register, a
 * root, a scanned heap object or a scanned region, the region lives.  When a whole cycle finds none, its
 * cleanup runs once, and what it is given are integers: it can't bring the region back (FR-19, FR-25).
 * A region's last byte may lie beside another region's first; leave a page between a region and a mapping
 * whose addresses are in use, since from a stack one past the end counts too (FR-23). */
typedef void grey_foreign_fn(uintptr_t start, size_t size, void *arg);
typedef uint64_t grey_foreign; /* handle; 0 is none; never reused */
/* The region's aligned words are scanned, conservatively, while it is reachable.  It stays readable until
 * its cleanup is called or grey_foreign_release returns, and heap pointers are stored into it with
 * grey_store and the like (FR-21). */
enum { GREY_FOREIGN_SCAN = 1 };

/* Registers [start, start + size): any address, any size from 1 byte, no alignment.  arg may be a heap
 * pointer and is a root until the cleanup has returned (FR-10).  handle may be NULL.  Cleanups run on Grey's
 * cleanup threads or in grey_cleanup_run, in any order, not at exit (FR-29, FR-34).  Errors: EINVAL start or
 * cleanup NULL, size 0, range past the address space, unknown flags, arg inside the range; EEXIST overlap
 * with a region, the heap, arenas, an attached thread's stack; ENOMEM.  Lock: one writer at a time; some
 * microseconds, with GREY_FOREIGN_SCAN during a cycle also the time to read the range. */
GREY_API int grey_foreign_add(void *start, size_t size, unsigned flags, grey_foreign_fn *cleanup, void *arg,
                              grey_foreign *handle);
/* Back to manual: the cleanup will not run, and Grey does not touch the region any more when it returns
 * true.  False: it was released or found dead before, or the handle is none (FR-35..FR-39).  Waits for a
 * marker that is scanning a piece of the region, never for a cycle. */
GREY_API bool grey_foreign_release(grey_foreign handle);
/* The region that p points into; start and size may be NULL.  Wait-free. */
GREY_API bool grey_foreign_find(const void *p, uintptr_t *start, size_t *size);
/* Memory or other scarce things (file descriptors, say, in what they are worth in bytes) that heap objects
 * or regions stand for: counts as allocation toward the start of the next cycle, not toward heap, goal or
 * limit.  Negative takes back (FR-43). */
GREY_API void grey_external_add(int64_t bytes);

/* ---- pins and handles ---------------------------------------------------------------------------- */

struct grey_pinner;
/* A set of pins, empty; itself a heap object, held like any other: lost with pins set it is a leak, which a
 * cycle finds; then its pins are dropped and GREY_DEBUG=pinleak says what else happens (PN-12, PN-13).  One
 * thread at a time a pinner, any number of pinners an object.  NULL and errno: ENOMEM. */
GREY_API struct grey_pinner *grey_pinner_new(void);
/* The object that p points into lives until this pinner is unpinned, for C APIs that keep a pointer where no
 * collector looks.  Pins are counted.  What the object points to is kept as usual, not pinned.  A foreign
 * region is kept too, but its release goes ahead and empties the pin; static and unknown memory: 0, nothing
 * is noted.  Errors: EINVAL pinner or p NULL; ENOTSUP arena object; ENOMEM (PN-2..PN-8). */
GREY_API int grey_pin(struct grey_pinner *pinner, const void *p);
/* Drops all its pins; it can be used again.  Empty or NULL: nothing (PN-9, PN-10). */
GREY_API void grey_unpin(struct grey_pinner *pinner);
/* True for memory that Grey could never free; false for NULL and arena objects (PN-5). */
GREY_API bool grey_is_pinned(const void *p);
/* Pins of the object or foreign region that p points into; 0 for other memory (PN-8). */
GREY_API size_t grey_pin_count(const void *p);

typedef uint64_t grey_handle; /* 0 is none; never reused */
/* A strong root by number, for user_data, epoll_data and the void * of C callbacks: what p points into lives
 * until the handle is dropped, by any thread.  0 and errno: EINVAL NULL; ENOTSUP arena object; ENOMEM.
 * Foreign and static memory as in grey_pin (PN-20). */
GREY_API grey_handle grey_hold(const void *p);
/* The same p; NULL when dropped or unknown.  Takes no lock, never waits; any thread. */
GREY_API void *grey_held(grey_handle handle);
/* True if it was held.  Hold what grey_held returned on the stack to use it after this. */
GREY_API bool grey_drop(grey_handle handle);

/* ---- arenas ---------------------------------------------------------------------------------------- */

/* Memory that is freed all at once, without waiting for a cycle: one arena a request, say.  Objects are
 * bumped out of chunks of 8 MiB.  Freed chunks that were full fault on access, instead of corrupting what
 * comes next, and their addresses are used again only when a whole cycle has found no pointer into them; a
 * chunk that was not full goes to the next arena, which continues behind what is there, so there a use after
 * free may go unnoticed (GREY_DEBUG=arenastrict=1 faults it too) (UA-22..UA-29).  If nobody else handles SIGSEGV
 * when Grey starts, or with GREY_DEBUG=arenafault=1, a handler says on standard error which arena it was, where
 * it was made and where freed, and passes the signal on.  A handler that the program installs later replaces
 * that one (TR-18).
 *
 * Objects in an arena keep heap objects alive, and their stores go through grey_store like all others.  They
 * have no cleanups, finalizers, weak references or pins: ENOTSUP (UA-18, UA-21, UA-33, UA-34).
 *
 * The handle is a heap object.  When it is lost the arena is freed by the next cycle; pointers into the arena
 * do not hold it: grey_keep_alive(arena) where its objects are last used (UA-20).  One thread at a time an
 * arena, any thread; two at once are fatal where that is seen (UA-32). */
struct grey_arena;
GREY_API struct grey_arena *grey_arena_new(void); /* takes a chunk; NULL and errno: ENOMEM */
/* Zeroed; 16-byte aligned from 16 bytes on.  Size or count 0: the shared address of grey_alloc(0).  More than
 * 2 MiB comes from the heap and is not freed with the arena (UA-3, UA-10, UA-11).  NULL and errno: EINVAL
 * arena or type NULL; EOVERFLOW; ENOMEM.  A freed arena is fatal (UA-31). */
GREY_API void *grey_arena_new_object(struct grey_arena *arena, const struct grey_type *type);
GREY_API void *grey_arena_new_array(struct grey_arena *arena, const struct grey_type *type, size_t count);
/* Never scanned; zeroed.  align: 0 (as above) or a power of two <= 2 MiB, else EINVAL. */
GREY_API void *grey_arena_alloc_leaf(struct grey_arena *arena, size_t size, size_t align);
/* Frees all its objects.  Twice is fatal; NULL does nothing.  Some 30 us for each full chunk (an munmap of
 * huge pages), 1 us for the last one. */
GREY_API void grey_arena_free(struct grey_arena *arena);
/* The same, but the arena can be used again: it takes a chunk at its next allocation. */
GREY_API void grey_arena_reset(struct grey_arena *arena);
/* p in an arena: a shallow copy of `count` objects of this type in the heap; else p itself; NULL gives NULL.
 * NULL and errno: EINVAL type NULL, or the copy would leave the chunk; EOVERFLOW; ENOMEM (UA-36). */
GREY_API void *grey_arena_clone(const void *p, const struct grey_type *type, size_t count);
/* p lies in a chunk that holds an arena's objects, or held them and is not in use again yet. */
GREY_API bool grey_in_arena(const void *p);

/* ---- cleanups, finalizers, weak references -------------------------------------------------------- */

typedef uint64_t grey_cleanup; /* handle; 0 is none; never reused */
/* After the object that `object` points into has become unreachable, fn(arg) runs once, on one of Grey's
 * cleanup threads or in grey_cleanup_run; the object is freed without waiting for it.  Any number an object,
 * run in any order.  arg is a root until fn has returned: an object that its own arg leads to never dies
 * (CF-1..CF-6).  handle may be NULL.  Errors: EINVAL object or fn NULL, arg inside the object, an address
 * Grey knows nothing of; ENOTSUP foreign memory, arenas; ENOMEM.  Static memory never dies: 0, and handle 0. */
GREY_API int grey_cleanup_add(void *object, void (*fn)(void *arg), void *arg, grey_cleanup *handle);
/* The cleanup will not run: true.  False: it was queued or stopped before.  Keep the object alive over the
 * call to be sure which (CF-7). */
GREY_API bool grey_cleanup_stop(grey_cleanup handle);
/* When the object is found unreachable, fn(object) runs once, in sequence with all other finalizers; it may
 * store the object somewhere.  The object is freed when it is next found unreachable.  One an object; NULL
 * clears it.  Whatever the object points to is kept for fn; a ring of objects with finalizers is never freed
 * (CF-14..CF-19).  Prefer cleanups.  Errors: EINVAL not an object's start; EEXIST one is set; ENOTSUP
 * foreign memory, arenas; ENOMEM. */
GREY_API int grey_set_finalizer(void *object, void (*fn)(void *object));
/* True when everything that was queued at the call has run.  timeout in ns; negative: no limit; 0: only
 * asks.  From a cleanup or finalizer: false at once (CF-13). */
GREY_API bool grey_cleanup_wait(int64_t timeout_ns);
/* For event loops.  An eventfd, the same at each call, that is readable while work is queued; from the
 * first call on Grey's own threads run nothing more.  -1 and errno: those of eventfd. */
GREY_API int grey_cleanup_fd(void);
/* Runs up to `max` queued cleanups and finalizers on the calling thread; returns how many.  Finalizers only
 * while no other thread is running one (CF-9). */
GREY_API size_t grey_cleanup_run(size_t max);

struct grey_weak;
/* A weak reference to the address `object`: the same one for the same address while the object lives.  Is
 * itself a heap object, held like any other.  NULL and errno: EINVAL NULL, or an address Grey knows nothing
 * of; ENOTSUP foreign memory, arenas; ENOMEM.  To static memory: never becomes NULL (CF-20..CF-26). */
GREY_API struct grey_weak *grey_weak_new(void *object);
/* The address, or NULL from the moment the object is found unreachable, which is before its finalizer or
 * cleanups run, and for ever.  NULL gives NULL.  Never waits; during a cycle it costs a mark (CF-21, CF-22). */
GREY_API void *grey_weak_get(struct grey_weak *weak);

/* ---- look inside ------------------------------------------------------------------------------ */

/* A snapshot of the collector's figures.  A pause is any time that the library holds up a program
 * thread on behalf of a cycle or of a goal for memory: a handshake, an assist, a wait, memory that is given
 * back before an allocation returns. */
struct grey_stats {
    size_t size; /* sizeof(struct grey_stats), set by the caller: GREY_STATS_INIT */
    uint64_t cycles, forced_cycles;
    uint64_t heap_live, heap_goal, heap_objects; /* bytes, bytes, objects; objects as of now */
    uint64_t mapped, released, metadata;         /* bytes */
    uint64_t allocated_bytes, allocated_objects, freed_bytes, freed_objects; /* since start */
    uint64_t pause_count, pause_total_ns, pause_max_ns, pause_p50_ns, pause_p99_ns, pause_p9999_ns;
    uint64_t assist_ns, worker_ns, sweep_ns; /* processor time since start */
    uint64_t handshakes, rescan_rounds;      /* answers of threads; rounds */
    uint64_t threads;                        /* attached now; Grey's own cleanup threads too */
    uint64_t foreign_regions, foreign_bytes, foreign_died;
    uint64_t arenas, arena_chunks_active, arena_chunks_reusable, arena_chunks_pending,
        arena_chunks_quarantined, arena_chunks_ready;
    uint64_t pins, weak, cleanups_queued, cleanups_run;
};
#ifndef __cplusplus
#define GREY_STATS_INIT                                                                                      \
    {                                                                                                        \
        .size = sizeof(struct grey_stats)                                                                    \
    }
#else
#define GREY_STATS_INIT grey_stats_init_()
static inline grey_stats grey_stats_init_()
{
    grey_stats stats = {};
    stats.size = sizeof(stats);
    return stats;
}
#endif

/* Fills *stats.  Stops no thread, allocates nothing, doesn't attach.  EINVAL unknown size. */
GREY_API int grey_stats_read(struct grey_stats *stats);

enum grey_metric_kind { GREY_METRIC_NONE, GREY_METRIC_U64, GREY_METRIC_F64, GREY_METRIC_HISTOGRAM };
struct grey_metric_info {
    const char *name; /* "/gc/cycles/total:gc-cycles" */
    const char *help;
    enum grey_metric_kind kind;
    bool cumulative;
};
struct grey_metric {
    enum grey_metric_kind kind;
    uint64_t u64;
    double f64;
    /* histogram: n counts; bucket i holds values in [bounds[i], bounds[i+1]); valid until the next
     * read of a histogram by this thread */
    const uint64_t *counts;
    const double *bounds;
    size_t n;
};
/* ENOENT unknown name (and kind GREY_METRIC_NONE), EINVAL; ENOMEM a thread's first histogram. */
GREY_API int grey_metric_read(const char *name, struct grey_metric *out);
/* The fixed list of metrics; *count receives its length. */
GREY_API const struct grey_metric_info *grey_metric_list(size_t *count);
/* All of them as OpenMetrics text.  Errors: those of write. */
GREY_API int grey_metrics_write(int fd);

/* Runs a cycle up to its clean round, holds all threads there, marks again from scratch, and reports
 * each object that is reachable but was not marked and the slot that holds it, as text on fd; returns
 * their number.  Holds threads for as long as marking the heap takes: for tests and for the day when
 * something is wrong. */
GREY_API size_t grey_verify(int fd);

/* These come with a later release; until then they return ENOSYS (grey_set_trace sets errno). */
GREY_API int grey_heap_profile_write(int fd);
GREY_API int grey_heap_why(const void *object, int fd);
struct grey_trace_event;
GREY_API void grey_set_trace(void (*fn)(const struct grey_trace_event *, void *), void *arg);

/* ---- inline parts; nothing below is to be used directly ---------------------------------------- */

/* A thread's free run of one class and layout: cells from cursor to end are its own to hand out.  The
 * owner alone writes; the collector reads it from outside (docs/protocol.md, 1.2), so number is odd
 * while the owner changes it to another run. */
struct grey_run_ {
    char *cursor, *end;
    uint32_t cell; /* bytes */
    uint32_t number;
    uint32_t span;
    uint32_t unused;
};
struct grey_tls_ {
    struct grey_run_ *runs; /* n_runs of them */
    uint32_t n_runs;
    void *thread; /* the thread block, NULL while not attached */
};
extern GREY_API __thread struct grey_tls_ grey_tls_ __attribute__((tls_model("initial-exec")));

/* Not 0 while a cycle is marking.  Written by the collector only. */
extern GREY_API uint32_t grey_phase_;

GREY_API void grey_shade_(const void *value);
GREY_API void *grey_new_slow_(const struct grey_type *type);
GREY_API void *grey_alloc_slow_(size_t size);
GREY_API void *grey_alloc_leaf_slow_(size_t size);

static inline __attribute__((always_inline)) void grey_after_store_(const void *value)
{
    __asm__ volatile("" : : : "memory"); /* the store stays before the test */
    if (GREY_UNLIKELY_(__atomic_load_n(&grey_phase_, __ATOMIC_RELAXED) != 0) && value != 0)
        grey_shade_(value);
    __asm__ volatile("" : : "r"(value)); /* and the value in a register until here */
}

/* Size classes up to GREY_SMALL_ bytes are found in a table by 16-byte steps; the runs of class c are
 * number 2c (scanned) and 2c+1 (leaf).  heap/classes.h has the table of which this is the start. */
#define GREY_SMALL_ 1024
extern GREY_API const uint8_t grey_class_of_[GREY_SMALL_ / 16 + 1];

static inline __attribute__((always_inline)) void *grey_bump_(uint32_t index)
{
    struct grey_tls_ *tls = &grey_tls_;
    if (GREY_LIKELY_(index < tls->n_runs)) {
        struct grey_run_ *run = tls->runs + index;
        char *p = __atomic_load_n(&run->cursor, __ATOMIC_RELAXED);
        if (GREY_LIKELY_(p != __atomic_load_n(&run->end, __ATOMIC_RELAXED))) {
            /* Interrupted here, p is still inside the run; after the store it is in a register. */
            __atomic_store_n(&run->cursor, p + run->cell, __ATOMIC_RELAXED);
            __asm__ volatile("" : "+r"(p));
            return p;
        }
    }
    return 0;
}

static inline void *grey_new(const struct grey_type *type)
{
    if (GREY_LIKELY_(type != 0 && type->run != 0)) {
        uint32_t index = __atomic_load_n(type->run, __ATOMIC_RELAXED);
        void *p = index != 0 ? grey_bump_(index - 1) : 0;
        if (GREY_LIKELY_(p != 0))
            return p;
    }
    return grey_new_slow_(type);
}

static inline void *grey_alloc(size_t size)
{
    if (GREY_LIKELY_(size - 1 < GREY_SMALL_)) {
        void *p = grey_bump_(2u * grey_class_of_[(size + 15) / 16]);
        if (GREY_LIKELY_(p != 0))
            return p;
    }
    return grey_alloc_slow_(size);
}

static inline void *grey_alloc_leaf(size_t size)
{
    if (GREY_LIKELY_(size - 1 < GREY_SMALL_)) {
        void *p = grey_bump_(2u * grey_class_of_[(size + 15) / 16] + 1);
        if (GREY_LIKELY_(p != 0))
            return p;
    }
    return grey_alloc_leaf_slow_(size);
}

/* Macro machinery of GREY_TYPE: a field is a name, or (name, n) from GREY_ARRAY. */
#define GREY_CAT_(a, b) GREY_CAT2_(a, b)
#define GREY_CAT2_(a, b) a##b
#define GREY_SECOND_(a, b, ...) b
#define GREY_PROBE_(...) GREY_SECOND_(__VA_ARGS__, 0, 0)
#define GREY_PAREN_(...) ~, 1
#define GREY_IS_ARRAY_(x) GREY_PROBE_(GREY_PAREN_ x)
#define GREY_FIELD_(T, x) GREY_CAT_(GREY_FIELD_, GREY_IS_ARRAY_(x))(T, x)
#define GREY_FIELD_0(T, x) {offsetof(T, x), sizeof(char[sizeof(((T *)0)->x) == sizeof(void *) ? 1 : -1])},
#define GREY_FIELD_1(T, x) GREY_FIELD_A_(T, GREY_FIRST_ x, GREY_COUNT_ x)
#define GREY_FIRST_(field, n) field
#define GREY_COUNT_(field, n) (n)
#define GREY_FIELD_A_(T, field, n)                                                                           \
    {offsetof(T, field), (n) * sizeof(char[sizeof(((T *)0)->field[0]) == sizeof(void *) ? 1 : -1])},
/* clang-format off */
#define GREY_EACH_(M, T, ...) GREY_CAT_(GREY_E_, GREY_N_ARGS_(__VA_ARGS__))(M, T, __VA_ARGS__)
#define GREY_N_ARGS_(...) GREY_N_PICK_(__VA_ARGS__, 48, 47, 46, 45, 44, 43, 42, 41, 40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, \
    24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define GREY_N_PICK_(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22, a23, a24, \
    a25, a26, a27, a28, a29, a30, a31, a32, a33, a34, a35, a36, a37, a38, a39, a40, a41, a42, a43, a44, a45, a46, a47, a48, n, ...) n
#define GREY_E_1(M, T, x) M(T, x)
#define GREY_E_2(M, T, x, ...) M(T, x) GREY_E_1(M, T, __VA_ARGS__)
#define GREY_E_3(M, T, x, ...) M(T, x) GREY_E_2(M, T, __VA_ARGS__)
#define GREY_E_4(M, T, x, ...) M(T, x) GREY_E_3(M, T, __VA_ARGS__)
#define GREY_E_5(M, T, x, ...) M(T, x) GREY_E_4(M, T, __VA_ARGS__)
#define GREY_E_6(M, T, x, ...) M(T, x) GREY_E_5(M, T, __VA_ARGS__)
#define GREY_E_7(M, T, x, ...) M(T, x) GREY_E_6(M, T, __VA_ARGS__)
#define GREY_E_8(M, T, x, ...) M(T, x) GREY_E_7(M, T, __VA_ARGS__)
#define GREY_E_9(M, T, x, ...) M(T, x) GREY_E_8(M, T, __VA_ARGS__)
#define GREY_E_10(M, T, x, ...) M(T, x) GREY_E_9(M, T, __VA_ARGS__)
#define GREY_E_11(M, T, x, ...) M(T, x) GREY_E_10(M, T, __VA_ARGS__)
#define GREY_E_12(M, T, x, ...) M(T, x) GREY_E_11(M, T, __VA_ARGS__)
#define GREY_E_13(M, T, x, ...) M(T, x) GREY_E_12(M, T, __VA_ARGS__)
#define GREY_E_14(M, T, x, ...) M(T, x) GREY_E_13(M, T, __VA_ARGS__)
#define GREY_E_15(M, T, x, ...) M(T, x) GREY_E_14(M, T, __VA_ARGS__)
#define GREY_E_16(M, T, x, ...) M(T, x) GREY_E_15(M, T, __VA_ARGS__)
#define GREY_E_17(M, T, x, ...) M(T, x) GREY_E_16(M, T, __VA_ARGS__)
#define GREY_E_18(M, T, x, ...) M(T, x) GREY_E_17(M, T, __VA_ARGS__)
#define GREY_E_19(M, T, x, ...) M(T, x) GREY_E_18(M, T, __VA_ARGS__)
#define GREY_E_20(M, T, x, ...) M(T, x) GREY_E_19(M, T, __VA_ARGS__)
#define GREY_E_21(M, T, x, ...) M(T, x) GREY_E_20(M, T, __VA_ARGS__)
#define GREY_E_22(M, T, x, ...) M(T, x) GREY_E_21(M, T, __VA_ARGS__)
#define GREY_E_23(M, T, x, ...) M(T, x) GREY_E_22(M, T, __VA_ARGS__)
#define GREY_E_24(M, T, x, ...) M(T, x) GREY_E_23(M, T, __VA_ARGS__)
#define GREY_E_25(M, T, x, ...) M(T, x) GREY_E_24(M, T, __VA_ARGS__)
#define GREY_E_26(M, T, x, ...) M(T, x) GREY_E_25(M, T, __VA_ARGS__)
#define GREY_E_27(M, T, x, ...) M(T, x) GREY_E_26(M, T, __VA_ARGS__)
#define GREY_E_28(M, T, x, ...) M(T, x) GREY_E_27(M, T, __VA_ARGS__)
#define GREY_E_29(M, T, x, ...) M(T, x) GREY_E_28(M, T, __VA_ARGS__)
#define GREY_E_30(M, T, x, ...) M(T, x) GREY_E_29(M, T, __VA_ARGS__)
#define GREY_E_31(M, T, x, ...) M(T, x) GREY_E_30(M, T, __VA_ARGS__)
#define GREY_E_32(M, T, x, ...) M(T, x) GREY_E_31(M, T, __VA_ARGS__)
#define GREY_E_33(M, T, x, ...) M(T, x) GREY_E_32(M, T, __VA_ARGS__)
#define GREY_E_34(M, T, x, ...) M(T, x) GREY_E_33(M, T, __VA_ARGS__)
#define GREY_E_35(M, T, x, ...) M(T, x) GREY_E_34(M, T, __VA_ARGS__)
#define GREY_E_36(M, T, x, ...) M(T, x) GREY_E_35(M, T, __VA_ARGS__)
#define GREY_E_37(M, T, x, ...) M(T, x) GREY_E_36(M, T, __VA_ARGS__)
#define GREY_E_38(M, T, x, ...) M(T, x) GREY_E_37(M, T, __VA_ARGS__)
#define GREY_E_39(M, T, x, ...) M(T, x) GREY_E_38(M, T, __VA_ARGS__)
#define GREY_E_40(M, T, x, ...) M(T, x) GREY_E_39(M, T, __VA_ARGS__)
#define GREY_E_41(M, T, x, ...) M(T, x) GREY_E_40(M, T, __VA_ARGS__)
#define GREY_E_42(M, T, x, ...) M(T, x) GREY_E_41(M, T, __VA_ARGS__)
#define GREY_E_43(M, T, x, ...) M(T, x) GREY_E_42(M, T, __VA_ARGS__)
#define GREY_E_44(M, T, x, ...) M(T, x) GREY_E_43(M, T, __VA_ARGS__)
#define GREY_E_45(M, T, x, ...) M(T, x) GREY_E_44(M, T, __VA_ARGS__)
#define GREY_E_46(M, T, x, ...) M(T, x) GREY_E_45(M, T, __VA_ARGS__)
#define GREY_E_47(M, T, x, ...) M(T, x) GREY_E_46(M, T, __VA_ARGS__)
#define GREY_E_48(M, T, x, ...) M(T, x) GREY_E_47(M, T, __VA_ARGS__)
/* clang-format on */

#ifdef __cplusplus
}
#endif
#endif

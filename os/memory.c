/* os/memory.c -- the four states of memory, as system calls and as figures.
 *
 * Each transition of os.h is one or two system calls and a change of two figures: a class's mapped bytes,
 * and the bytes that are Ready.  Mapped means Prepared or Ready: os_map adds, os_fault and os_free
 * subtract, so that the figures' sum is what the ledger of debug builds says (OS-5, OS-21).  They are
 * counters that anybody reads at any time and that order nothing, hence relaxed throughout.
 *
 * Order of ledger and kernel: memory that we gain is entered after the call that gains it, memory that we
 * lose is struck out before the call that loses it, since the kernel may give the same addresses to
 * another thread the moment they are free.  And what would overwrite memory (a fixed mapping) is checked
 * before.
 *
 * Why unused memory stays writable: to make it inaccessible costs a system call each way and may split a
 * mapping, of which a process has 65,530.  harddecommit=1 does it all the same, to find users of memory
 * that was given up.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/os.h"

#include "os/ledger.h"
#include "os/options.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Newer than the C library's headers. */
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { PRIVATE = MAP_PRIVATE | MAP_ANONYMOUS, READ_WRITE = PROT_READ | PROT_WRITE };

static _Atomic size_t page_size = 4096;
static _Atomic size_t huge_page_size = (size_t)2 << 20;

static _Atomic size_t mapped_bytes[OS_CLASSES];
static _Atomic size_t ready_bytes;

/* How pages are given back: what the kernel rejected once is not tried again (OS-8). */
enum advice { ADVISE_FREE, ADVISE_DONTNEED, REMAP };
static _Atomic int first_advice = ADVISE_FREE;
static atomic_bool freed_lazily; /* MADV_FREE succeeded at least once */

/* ---- start ------------------------------------------------------------------------------------------- */

static size_t read_huge_page_size(void)
{
    char digits[32];
    size_t size = 0;
    int fd = open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, digits, sizeof(digits));
    close(fd);
    for (ssize_t i = 0; i < n && digits[i] >= '0' && digits[i] <= '9'; i++)
        size = size * 10 + (size_t)(digits[i] - '0');
    return size;
}

void os_memory_init(void)
{
    long size = sysconf(_SC_PAGESIZE);
    if (size > 0)
        atomic_store_explicit(&page_size, (size_t)size, memory_order_relaxed);
    size_t huge = read_huge_page_size();
    if (huge != 0 && (huge & (huge - 1)) == 0)
        atomic_store_explicit(&huge_page_size, huge, memory_order_relaxed);
}

size_t os_page_size(void) { return atomic_load_explicit(&page_size, memory_order_relaxed); }

/* ---- figures ----------------------------------------------------------------------------------------- */

static void add(_Atomic size_t *figure, size_t n)
{
    atomic_fetch_add_explicit(figure, n, memory_order_relaxed);
}

static void subtract(_Atomic size_t *figure, size_t n)
{
    size_t before = atomic_fetch_sub_explicit(figure, n, memory_order_relaxed);
    if (UNLIKELY(before < n))
        os_internal(NULL, "memory figure would become negative: %zu - %zu", before, n);
}

static _Atomic size_t *mapped_of(enum os_class class)
{
    if (UNLIKELY((unsigned)class >= OS_CLASSES))
        os_internal(NULL, "memory without a class: %d", (int)class);
    return &mapped_bytes[class];
}

size_t os_mapped(enum os_class class) { return atomic_load_explicit(mapped_of(class), memory_order_relaxed); }

size_t os_mapped_total(void)
{
    size_t sum = 0;
    for (int i = 0; i < OS_CLASSES; i++)
        sum += atomic_load_explicit(&mapped_bytes[i], memory_order_relaxed);
    return sum;
}

size_t os_mapped_ready(void) { return atomic_load_explicit(&ready_bytes, memory_order_relaxed); }

void os_recount(enum os_class from, enum os_class to, size_t size)
{
    /* Into the new class first: the sum is never too small, so a limit is never passed unnoticed. */
    add(mapped_of(to), size);
    subtract(mapped_of(from), size);
}

/* ---- asking the kernel ------------------------------------------------------------------------------- */

#ifdef GREY_HOOKS
static _Atomic unsigned calls_until_failure; /* 0: none is to fail */
static _Atomic int failure;

void os_fail_mapping(unsigned nth, int error)
{
    atomic_store_explicit(&failure, error, memory_order_relaxed);
    /* release: whoever counts down to 0 sees the error above (acquire below) */
    atomic_store_explicit(&calls_until_failure, error == 0 ? 0 : nth, memory_order_release);
}

static int injected_failure(void)
{
    unsigned n = atomic_load_explicit(&calls_until_failure, memory_order_acquire);
    while (n != 0) {
        if (atomic_compare_exchange_weak_explicit(&calls_until_failure, &n, n - 1, memory_order_acq_rel,
                                                  memory_order_acquire))
            return n == 1 ? atomic_load_explicit(&failure, memory_order_relaxed) : 0;
    }
    return 0;
}
#else
static int injected_failure(void) { return 0; }
#endif

/* Two refusals are not for want of memory, and their cause is not to be guessed from ENOMEM; one line
 * for each says so, the first time (OS-16). */
static int refused(int error)
{
    static atomic_flag told_access = ATOMIC_FLAG_INIT, told_locked = ATOMIC_FLAG_INIT;
    if (error == EACCES && !atomic_flag_test_and_set_explicit(&told_access, memory_order_relaxed))
        os_warn("the kernel refuses memory: access denied");
    if (error == EAGAIN && !atomic_flag_test_and_set_explicit(&told_locked, memory_order_relaxed))
        os_warn("the kernel refuses memory: too much locked memory (see ulimit -l)");
    errno = error;
    return error;
}

static void *map_pages(void *at, size_t size, int protection, int flags)
{
    int error = injected_failure();
    void *p = MAP_FAILED;
    if (error == 0) {
        p = mmap(at, size, protection, PRIVATE | flags, -1, 0);
        error = errno;
    }
    if (p != MAP_FAILED)
        return p;
    refused(error);
    return NULL;
}

/* For ranges of our own: the kernel refuses only if a mapping has to be split and there are too many. */
static void unmap_pages(void *start, size_t size)
{
    if (munmap(start, size) != 0)
        os_internal(start, "cannot unmap %zu bytes, errno %d", size, errno);
}

static bool page_multiple(size_t n) { return (n & (os_page_size() - 1)) == 0; }

static void check_pages(const void *start, size_t size, const char *what)
{
    if (UNLIKELY(!page_multiple((uintptr_t)start) || !page_multiple(size) || size == 0))
        os_internal(start, "%s of %zu bytes: not whole pages", what, size);
}

static const char *class_name(enum os_class class)
{
    return class == OS_HEAP ? "grey: heap" : "grey: metadata";
}

/* Cosmetic: an old kernel's EINVAL is of no interest (OS-18). */
static void decorate(void *start, size_t size, enum os_class class, const char *name)
{
    if (class == OS_HEAP && os_debug.disablethp)
        madvise(start, size, MADV_NOHUGEPAGE);
    if (os_debug.decoratemappings)
        prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, start, size, name != NULL ? name : class_name(class));
}

/* ---- None and Reserved ------------------------------------------------------------------------------- */

void *os_alloc(size_t size, enum os_class class)
{
    _Atomic size_t *mapped = mapped_of(class);
    check_pages(NULL, size, "alloc");
    void *p = map_pages(NULL, size, READ_WRITE, 0);
    if (p == NULL)
        return NULL;
    ledger_begin(p, size, LEDGER_READY, class, "alloc");
    decorate(p, size, class, NULL);
    add(mapped, size);
    add(&ready_bytes, size);
    return p;
}

void *os_reserve(void *hint, size_t size)
{
    check_pages(hint, size, "reserve");
    void *p = map_pages(hint, size, PROT_NONE, MAP_NORESERVE);
    if (p != NULL)
        ledger_begin(p, size, LEDGER_RESERVED, OS_CLASSES, "reserve");
    return p;
}

void *os_reserve_aligned(void *hint, size_t *size, size_t alignment)
{
    check_pages(hint, *size, "reserve");
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || !page_multiple(alignment))
        os_internal(hint, "reserve with alignment %zu", alignment);
    if (*size > SIZE_MAX - alignment) {
        errno = ENOMEM;
        return NULL;
    }
    size_t all = *size + alignment;
    char *p = map_pages(hint, all, PROT_NONE, MAP_NORESERVE);
    if (p == NULL)
        return NULL;
    size_t before = (0 - (uintptr_t)p) & (alignment - 1);
    if (before != 0) { /* OS-12: cut to size; else keep what is there */
        size_t after = alignment - before;
        unmap_pages(p, before);
        p += before;
        unmap_pages(p + *size, after);
        all = *size;
    }
    *size = all;
    ledger_begin(p, all, LEDGER_RESERVED, OS_CLASSES, "reserve");
    return p;
}

void os_unreserve(void *start, size_t size)
{
    check_pages(start, size, "unreserve");
    ledger_end(start, size, LEDGER_RESERVED, OS_CLASSES, 0, 0, "unreserve");
    unmap_pages(start, size);
}

void os_free(void *start, size_t size, enum os_class class, size_t mapped, size_t ready)
{
    _Atomic size_t *figure = mapped_of(class);
    check_pages(start, size, "free");
    ledger_end(start, size, LEDGER_ANY, class, mapped, ready, "free");
    subtract(figure, mapped);
    subtract(&ready_bytes, ready);
    unmap_pages(start, size);
}

/* ---- Prepared and Ready ------------------------------------------------------------------------------ */

int os_map(void *start, size_t size, enum os_class class, const char *name)
{
    _Atomic size_t *mapped = mapped_of(class);
    check_pages(start, size, "map");
    ledger_check(start, size, LEDGER_RESERVED, "map");
    /* Chunks of arenas merge into one mapping, mostly untouched, that may be larger than all memory; the kernel
     * would refuse to fork such a process, were it accounted for. */
    void *p = map_pages(start, size, READ_WRITE, MAP_FIXED | (class == OS_ARENAS ? MAP_NORESERVE : 0));
    if (p == NULL)
        return errno;
    if (p != start)
        os_internal(start, "map of %zu bytes went to %p", size, p);
    ledger_move(start, size, LEDGER_RESERVED, LEDGER_PREPARED, class, "map");
    decorate(start, size, class, name);
    add(mapped, size);
    return 0;
}

int os_used(void *start, size_t size, size_t prepared)
{
    check_pages(start, size, "used");
    ledger_check(start, size, LEDGER_PREPARED | LEDGER_READY, "used");
    ledger_expect(start, size, LEDGER_PREPARED, prepared, "used");
    if (os_debug.harddecommit) {
        int error = injected_failure();
        if (error == 0 && mprotect(start, size, READ_WRITE) != 0)
            error = errno;
        if (error == ENOMEM)
            return refused(error);
        if (error != 0)
            os_internal(start, "cannot remap %zu bytes, errno %d", size, error);
    }
    ledger_move(start, size, LEDGER_PREPARED | LEDGER_READY, LEDGER_READY, OS_CLASSES, "used");
    add(&ready_bytes, prepared);
    return 0;
}

/* Steps down to the next way of giving back, unless another thread already has. */
static void reject_advice(int advice)
{
    atomic_compare_exchange_strong_explicit(&first_advice, &advice, advice + 1, memory_order_relaxed,
                                            memory_order_relaxed);
}

static void give_back(void *start, size_t size)
{
    int advice = atomic_load_explicit(&first_advice, memory_order_relaxed);
    if (advice == ADVISE_FREE) {
        if (!os_debug.madvdontneed) {
            if (madvise(start, size, MADV_FREE) == 0) {
                atomic_store_explicit(&freed_lazily, true, memory_order_relaxed);
                return;
            }
            reject_advice(ADVISE_FREE);
        }
        advice = ADVISE_DONTNEED;
    }
    if (advice == ADVISE_DONTNEED) {
        if (madvise(start, size, MADV_DONTNEED) == 0)
            return;
        if (os_debug.madvdontneed)
            reject_advice(ADVISE_FREE); /* on the way to REMAP */
        reject_advice(ADVISE_DONTNEED);
    }
    if (mmap(start, size, READ_WRITE, PRIVATE | MAP_FIXED, -1, 0) == start)
        return;
    /* It stays where it is, then; but who uses it again may count on zeroes (OS-9). */
    memset(start, 0, size);
}

void os_unused(void *start, size_t size)
{
    check_pages(start, size, "unused"); /* rounding outward would lose neighbours' data (OS-7) */
    ledger_move(start, size, LEDGER_READY, LEDGER_PREPARED, OS_CLASSES, "unused");
    subtract(&ready_bytes, size);
    int saved = errno;
    give_back(start, size);
    if (os_debug.harddecommit && mprotect(start, size, PROT_NONE) != 0)
        os_internal(start, "cannot take access from %zu bytes, errno %d", size, errno);
    errno = saved;
}

bool os_unused_needs_zeroing(void)
{
    /* What was freed lazily before the kernel began to reject it still holds old data. */
    return !os_debug.madvdontneed &&
           (atomic_load_explicit(&first_advice, memory_order_relaxed) == ADVISE_FREE ||
            atomic_load_explicit(&freed_lazily, memory_order_relaxed));
}

void os_fault(void *start, size_t size, enum os_class class)
{
    _Atomic size_t *mapped = mapped_of(class);
    check_pages(start, size, "fault");
    ledger_expect_class(start, size, class, "fault");
    ledger_move(start, size, LEDGER_READY, LEDGER_RESERVED, OS_CLASSES, "fault");
    subtract(&ready_bytes, size);
    subtract(mapped, size);
    /* Not to fail silently: the caller counts on the fault to find uses of what it freed (OS-15). */
    if (map_pages(start, size, PROT_NONE, MAP_FIXED | MAP_NORESERVE) != start)
        os_fatal(start, "cannot make %zu bytes inaccessible, errno %d: raise vm.max_map_count", size, errno);
}

/* ---- huge pages -------------------------------------------------------------------------------------- */

void os_huge(void *start, size_t size)
{
    size_t huge = atomic_load_explicit(&huge_page_size, memory_order_relaxed);
    uintptr_t low = ((uintptr_t)start + huge - 1) & ~(huge - 1);
    uintptr_t high = ((uintptr_t)start + size) & ~(huge - 1);
    if (os_debug.disablethp || low >= high)
        return;
    int saved = errno;
    madvise((void *)low, high - low, MADV_HUGEPAGE); /* a kernel without them: no loss */
    errno = saved;
}

/* By stores and not by MADV_POPULATE_WRITE, which holds the lock of all the process's mappings for as long: a call
 * of mmap would wait for it.  A fault needs only that of its own mapping (Linux 6.4).  Stores and no loads: a load
 * maps the kernel's page of zeroes first, and the store is then a second fault. */
OS_UNSANITIZED void os_touch(void *start, size_t size)
{
    check_pages(start, size, "touch");
    volatile char *p = start;
    for (size_t at = 0; at < size; at += os_page_size())
        p[at] = 0;
}

void os_collapse(void *start, size_t size)
{
    check_pages(start, size, "collapse");
    if (os_debug.disablethp)
        return;
    int saved = errno;
    madvise(start, size, MADV_COLLAPSE);
    errno = saved;
}

/* Of a huge page the kernel takes back only the whole: a part that is given back is merely no longer mapped, and
 * counts against a cgroup's limit until the kernel splits the page, in want of memory and not always in time.
 * MADV_COLD of a part is a request to age it, for which it splits the page at once. */
void os_split(void *start, size_t size)
{
    check_pages(start, size, "split");
    if (os_debug.disablethp)
        return;
    int saved = errno;
    madvise(start, size, MADV_COLD); /* a kernel before 5.4: it stays whole */
    errno = saved;
}

/* tests/unit/os_memory_test.c -- what the kernel does for os/: contents, access, advice, refusals, names.
 *
 * Requirements: OS-4, OS-8 to OS-12, OS-14 to OS-18, OS-20, OS-22.  The states and the figures are
 * tested in os_states_test.c.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support_os.h"

#include "os/options.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static const size_t block = GREY_PAGE; /* a multiple of the kernel's page on x86-64 */
static struct os_debug debug_before;

static int set_up(void **state)
{
    (void)state;
    os_memory_init();
    os_parse_debug(NULL, &os_debug);
    debug_before = os_debug;
    return os_mapped_total() == 0 && os_mapped_ready() == 0 ? 0 : -1;
}

static int nothing_left(void **state)
{
    (void)state;
    os_debug = debug_before;
    return os_mapped_total() == 0 && os_mapped_ready() == 0 ? 0 : -1;
}

static void must(bool done)
{
    if (!done)
        _exit(66);
}

static bool all_zero(const char *p, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (p[i] != 0)
            return false;
    }
    return true;
}

static char *make_ready(size_t size)
{
    char *p = os_alloc(size, OS_HEAP);
    must(p != NULL);
    return p;
}

/* ---- contents and access ----------------------------------------------------------------------------- */

static void alloc_is_zero_and_unused_forfeits(void **state)
{
    (void)state;
    char *p = os_alloc(64 * block, OS_HEAP);
    assert_true(all_zero(p, 64 * block)); /* OS-4 */
    memset(p, 0x77, 64 * block);
    assert_false(os_unused_needs_zeroing()); /* OS-9: madvdontneed=1 */
    os_unused(p + block, 62 * block);
    assert_int_equal(os_used(p + block, 62 * block, 62 * block), 0);
    assert_true(all_zero(p + block, 62 * block));
    assert_int_equal(p[block - 1], 0x77); /* neighbours untouched */
    assert_int_equal(p[63 * block], 0x77);
    os_free(p, 64 * block, OS_HEAP, 64 * block, 64 * block);
}

static void touch(void *arg) { *(volatile char *)arg = 1; }

static void assert_faults(char *p)
{
    const struct child_end *end = run_child(touch, p);
    /* a sanitizer turns the signal into a report */
    assert_true(end->signal == SIGSEGV || strstr(end->message, "SEGV") != NULL);
}

/* OS-1, OS-11, OS-15: Reserved faults. */
static void reserved_memory_faults(void **state)
{
    (void)state;
    char *p = os_reserve(NULL, 4 * block);
    assert_faults(p);
    assert_int_equal(os_map(p, 4 * block, OS_HEAP, NULL), 0);
    assert_int_equal(os_used(p, 4 * block, 4 * block), 0);
    memset(p, 5, 4 * block);
    os_fault(p + block, block, OS_HEAP);
    assert_faults(p + block);
    assert_int_equal(p[0] + p[2 * block], 10);
    assert_int_equal(os_map(p + block, block, OS_HEAP, NULL), 0);
    assert_int_equal(os_used(p + block, block, block), 0);
    assert_true(all_zero(p + block, block));
    os_free(p, 4 * block, OS_HEAP, 4 * block, 4 * block);
}

/* OS-10 */
static void harddecommit_faults(void **state)
{
    (void)state;
    os_debug.harddecommit = 1;
    char *p = os_alloc(4 * block, OS_HEAP);
    memset(p, 5, 4 * block);
    os_unused(p + block, 2 * block);
    assert_faults(p + block);
    assert_int_equal(p[0] + p[3 * block], 10);
#ifdef GREY_HOOKS
    os_fail_mapping(1, ENOMEM);
    assert_int_equal(os_used(p, 4 * block, 2 * block), ENOMEM);
    assert_int_equal(os_mapped_ready(), 2 * block);
    assert_faults(p + block);
#endif
    assert_int_equal(os_used(p, 4 * block, 2 * block), 0); /* across Ready too */
    assert_true(all_zero(p + block, 2 * block));
    assert_int_equal(p[0] + p[3 * block], 10);
    os_free(p, 4 * block, OS_HEAP, 4 * block, 4 * block);
}

#ifdef GREY_HOOKS
static void use_refused(void *arg)
{
    char *p = make_ready(block);
    (void)arg;
    os_debug.harddecommit = 1;
    os_unused(p, block);
    os_fail_mapping(1, EIO);
    os_used(p, block, block);
}

static void harddecommit_other_failure_dies(void **state)
{
    (void)state;
    assert_dies(use_refused, NULL, "grey: internal: cannot remap");
}
#endif

/* OS-8, OS-9: MADV_FREE keeps or zeroes, so whoever needs zeroes is told. */
static void lazy_free(void *arg)
{
    char *p = make_ready(16 * block);
    (void)arg;
    os_debug.madvdontneed = 0;
    must(os_unused_needs_zeroing());
    memset(p, 0x33, 16 * block);
    os_unused(p, 16 * block);
    must(os_unused_needs_zeroing());
    must(os_used(p, 16 * block, 16 * block) == 0);
    for (size_t i = 0; i < 16 * block; i++)
        must(p[i] == 0x33 || p[i] == 0);
    memset(p, 0x44, 16 * block);
    must(p[0] == 0x44 && p[16 * block - 1] == 0x44);
    /* Rejected from here on (memory that is locked), but what was freed before may still be dirty. */
    must(syscall(SYS_mlock, p, block) == 0);
    os_unused(p, block);
    must(os_unused_needs_zeroing());
}

/* The whole way down, FREE, DONTNEED, remap, and it is remembered: nothing was ever freed lazily. */
static void rejected_advice(void *arg)
{
    char *p = make_ready(16 * block);
    os_debug.madvdontneed = *(const int *)arg;
    memset(p, 0x33, 16 * block);
    must(syscall(SYS_mlock, p, 8 * block) == 0);
    os_unused(p, 8 * block);
    must(!os_unused_needs_zeroing());
    must(os_used(p, 8 * block, 8 * block) == 0);
    must(all_zero(p, 8 * block));
    must(p[8 * block] == 0x33);
    os_unused(p + 8 * block, 8 * block); /* not locked: MADV_FREE would work, but is not tried again */
    must(!os_unused_needs_zeroing());
    must(os_used(p + 8 * block, 8 * block, 8 * block) == 0);
    must(all_zero(p + 8 * block, 8 * block));
}

static void advice_falls_back(void **state)
{
    (void)state;
    assert_int_equal(run_child(lazy_free, NULL)->status, 0);
    for (int dontneed = 0; dontneed < 2; dontneed++)
        assert_int_equal(run_child(rejected_advice, &dontneed)->status, 0);
}

static void change_errno(void *arg)
{
    char *p = make_ready(16 * block);
    (void)arg;
    must(syscall(SYS_mlock, p, block) == 0);
    errno = 1234;
    os_unused(p, 16 * block); /* rejected inside */
    os_huge(p, 16 * block);
    os_collapse(p, 16 * block);
    must(errno == 1234);
}

static void advice_leaves_errno(void **state)
{
    (void)state;
    assert_int_equal(run_child(change_errno, NULL)->status, 0);
}

/* ---- reserve ----------------------------------------------------------------------------------------- */

/* Pages of address space, without allocating. */
static size_t address_space(void)
{
    char text[64];
    size_t pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY);
    ssize_t n = read(fd, text, sizeof(text));
    close(fd);
    for (ssize_t i = 0; i < n && text[i] != ' '; i++)
        pages = pages * 10 + (size_t)(text[i] - '0');
    return pages * os_page_size();
}

/* OS-12 */
static void reserve_aligned_table(void **state)
{
    static const size_t sizes[] = {4096, 8192, 12288, (size_t)1 << 20, (size_t)8 << 20, (size_t)1 << 30};
    (void)state;
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        for (size_t alignment = 4096; alignment <= (size_t)4 << 30; alignment *= 4) {
            size_t kept = sizes[i], before = address_space();
            char *p = os_reserve_aligned(NULL, &kept, alignment);
            size_t after = address_space();
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % alignment, 0);
            assert_true(kept == sizes[i] || kept == sizes[i] + alignment);
#ifndef OS_TSAN                                     /* which maps shadow for it */
            assert_int_equal(after - before, kept); /* both ends were trimmed */
#else
            (void)before, (void)after;
#endif
            /* and all of it is ours */
            assert_int_equal(os_map(p + kept - 4096, 4096, OS_HEAP, NULL), 0);
            os_free(p, kept, OS_HEAP, 4096, 0);
        }
    }
}

/* Aligned already: nothing is trimmed and the caller learns of it. */
static void reserve_aligned_keeps_all(void **state)
{
    const size_t alignment = (size_t)64 << 20;
    size_t kept = 4 * alignment;
    (void)state;
    char *p = os_reserve_aligned(NULL, &kept, alignment);
    os_unreserve(p, kept);
    size_t size = block;
    char *q = os_reserve_aligned(p, &size, alignment);
    assert_ptr_equal(q, p); /* the hint: free and aligned */
    assert_int_equal(size, block + alignment);
    os_unreserve(q, size);
    size = block; /* and not aligned */
    q = os_reserve_aligned(p + block, &size, alignment);
    assert_int_equal((uintptr_t)q % alignment, 0);
    assert_int_equal(size, block);
    os_unreserve(q, size);
    size = ~(size_t)4095;
    errno = 0;
    assert_null(os_reserve_aligned(NULL, &size, alignment));
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(size, ~(size_t)4095);
}

/* OS-11, OS-20: a hint that is taken gives another address, and what is there stays. */
static void taken_hint(void **state)
{
    (void)state;
    char *p = os_alloc(4 * block, OS_HEAP);
    memset(p, 9, 4 * block);
    for (int i = 0; i < 5; i++) {
        char *q = os_reserve(p, 4 * block);
        assert_non_null(q);
        assert_true(q + 4 * block <= p || q >= p + 4 * block);
        os_unreserve(q, 4 * block);
    }
    for (size_t i = 0; i < 4 * block; i++)
        assert_int_equal(p[i], 9);
    os_free(p, 4 * block, OS_HEAP, 4 * block, 4 * block);
}

/* OS-22, idempotence */
static void init_twice(void **state)
{
    (void)state;
    size_t size = os_page_size();
    os_memory_init();
    assert_int_equal(os_page_size(), size);
    assert_int_equal(size, sysconf(_SC_PAGESIZE));
    assert_int_equal(GREY_PAGE, 8192);
}

/* ---- refusals ---------------------------------------------------------------------------------------- */

static void kernel_refuses(void **state)
{
    (void)state;
    errno = 0;
    assert_null(os_reserve(NULL, (size_t)1 << 48));
    assert_int_equal(errno, ENOMEM);
    errno = 0;
    assert_null(os_alloc((size_t)1 << 48, OS_HEAP));
    assert_int_equal(errno, ENOMEM);
}

/* The kernel allows a process so many mappings (vm.max_map_count, 65,530).  Uses all of them but a few: every
 * other page of a range has another protection. */
static void use_up_mappings(void)
{
    const size_t page = os_page_size(), pages = (size_t)1 << 21;
    char *p = mmap(NULL, pages * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(p != MAP_FAILED);
    for (size_t i = 1; mprotect(p + i * page, page, PROT_READ) == 0; i += 2)
        must(i < pages);
    must(errno == ENOMEM);
    /* What is left for one more: no other mapping may be split, nor a new one join a neighbour. */
    while (mmap(NULL, page, PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        continue;
}

/* OS-14, OS-16: too many mappings are out of memory, and nothing has changed. */
static void no_mapping_left(void *arg)
{
    char *reserved = os_reserve(NULL, 8 * block), *ready = make_ready(8 * block);
    memset(ready, 7, 8 * block);
    use_up_mappings();
    must(os_map(reserved + block, block, OS_HEAP, NULL) == ENOMEM);
    must(os_mapped_total() == 8 * block && os_mapped_ready() == 8 * block);
    os_unused(ready + block, block); /* gives pages back without a mapping of its own */
    must(os_used(ready + block, block, block) == 0);
    must(all_zero(ready + block, block) && ready[0] == 7 && ready[2 * block] == 7);
    if (arg != NULL)
        os_fault(ready + 4 * block, block, OS_HEAP); /* OS-15: cannot be left undone */
    _exit(23);
}

static bool mappings_are_few(void)
{
    unsigned long most = 0;
    FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
    bool known = file != NULL && fscanf(file, "%lu", &most) == 1;
    if (file != NULL)
        fclose(file);
    return known && most <= 200000;
}

static void mappings_run_out(void **state)
{
    (void)state;
    /* Sanitizers need mappings of their own at any time; and some systems allow millions. */
    if (OS_ASAN || OS_TSAN || !mappings_are_few())
        skip();
    const struct child_end *end = run_child(no_mapping_left, NULL);
    if (end->status != 23)
        fail_msg("signal %d, status %d, \"%s\"", end->signal, end->status, end->message);
    assert_dies(no_mapping_left, (void *)1, "raise vm.max_map_count");
}

#ifdef GREY_HOOKS
static void injected_refusals(void **state)
{
    static const int errors[] = {ENOMEM, EACCES, EAGAIN};
    (void)state;
    for (size_t i = 0; i < LENGTH(errors); i++) {
        size_t size = block;
        char *p = os_reserve(NULL, 4 * block);
        os_fail_mapping(1, errors[i]);
        errno = 0;
        assert_null(os_reserve(NULL, block));
        assert_int_equal(errno, errors[i]);
        os_fail_mapping(1, errors[i]);
        assert_null(os_alloc(block, OS_BITS));
        os_fail_mapping(1, errors[i]);
        assert_null(os_reserve_aligned(NULL, &size, block));
        assert_int_equal(size, block);
        os_fail_mapping(1, errors[i]);
        assert_int_equal(os_map(p, block, OS_HEAP, NULL), errors[i]);
        assert_int_equal(os_mapped_total(), 0);
        assert_int_equal(os_mapped_ready(), 0);               /* nothing has changed */
        assert_int_equal(os_map(p, block, OS_HEAP, NULL), 0); /* and once is once */
        os_free(p, 4 * block, OS_HEAP, block, 0);
    }
    os_fail_mapping(3, ENOMEM); /* the third from now */
    char *p = os_alloc(block, OS_BITS), *q = os_alloc(block, OS_BITS);
    assert_non_null(p);
    assert_non_null(q);
    assert_null(os_alloc(block, OS_BITS));
    os_free(p, block, OS_BITS, block, block);
    os_free(q, block, OS_BITS, block, block);
    os_fail_mapping(1, ENOMEM);
    os_fail_mapping(1, 0); /* off */
    p = os_alloc(block, OS_BITS);
    assert_non_null(p);
    os_free(p, block, OS_BITS, block, block);
}

static void refuse_often(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++) {
        os_fail_mapping(1, EACCES);
        must(os_alloc(block, OS_HEAP) == NULL && errno == EACCES);
        os_fail_mapping(1, EAGAIN);
        must(os_alloc(block, OS_HEAP) == NULL && errno == EAGAIN);
        os_fail_mapping(1, ENOMEM);
        must(os_alloc(block, OS_HEAP) == NULL && errno == ENOMEM);
    }
}

/* OS-16: one line names the cause. */
static void refusal_warns_once(void **state)
{
    (void)state;
    const struct child_end *end = run_child(refuse_often, NULL);
    assert_int_equal(end->status, 0);
    assert_string_equal(end->message, "grey: warning: the kernel refuses memory: access denied\n"
                                      "grey: warning: the kernel refuses memory: too much locked memory "
                                      "(see ulimit -l)\n");
}

static void fault_refused(void *arg)
{
    char *p = make_ready(block);
    (void)arg;
    os_fail_mapping(1, ENOMEM);
    os_fault(p, block, OS_HEAP);
}

/* OS-15: what should fault must not stay accessible unnoticed. */
static void refused_fault_dies(void **state)
{
    (void)state;
    assert_dies(fault_refused, NULL, "grey: fatal: cannot make 8192 bytes inaccessible");
}
#endif

/* ---- names and huge pages ---------------------------------------------------------------------------- */

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

/* Stands before the C library's, so that what is asked for is seen also where the kernel has no names. */
static char asked_name[64];
static uintptr_t asked_start;
static size_t asked_size;

int prctl(int option, ...)
{
    va_list list;
    va_start(list, option);
    unsigned long a = va_arg(list, unsigned long), b = va_arg(list, unsigned long);
    unsigned long c = va_arg(list, unsigned long), d = va_arg(list, unsigned long);
    va_end(list);
    if (option == PR_SET_VMA && a == PR_SET_VMA_ANON_NAME) {
        snprintf(asked_name, sizeof(asked_name), "%s", (const char *)d);
        asked_start = b;
        asked_size = c;
    }
    return (int)syscall(SYS_prctl, option, a, b, c, d);
}

static bool kernel_names_mappings(void)
{
    void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool can = prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, 4096, "probe") == 0;
    munmap(p, 4096);
    return can;
}

/* The last name asked for was this one, for exactly this range; and where it can be it is in the maps. */
static void assert_named(const void *p, size_t size, const char *name)
{
    struct mapping mapping;
    char whole[64];
    assert_string_equal(asked_name, name);
    assert_int_equal(asked_start, (uintptr_t)p);
    assert_int_equal(asked_size, size);
    if (!kernel_names_mappings())
        return;
    snprintf(whole, sizeof(whole), "[anon:%s]", name);
    assert_true(support_mapping(p, &mapping));
    assert_non_null(strstr(mapping.line, whole));
}

/* OS-18 */
static void names_in_maps(void **state)
{
    struct mapping mapping;
    (void)state;
    char *heap = os_alloc(block, OS_HEAP);
    assert_named(heap, block, "grey: heap");
    char *bits = os_alloc(block, OS_BITS);
    assert_named(bits, block, "grey: metadata");
    char *p = os_reserve(NULL, 8 * block);
    assert_int_equal(os_map(p, 2 * block, OS_HEAP, "grey: arena chunk"), 0);
    assert_named(p, 2 * block, "grey: arena chunk");
    assert_int_equal(os_map(p + 4 * block, 2 * block, OS_HEAP, NULL), 0);
    assert_named(p + 4 * block, 2 * block, "grey: heap");
    os_free(heap, block, OS_HEAP, block, block);
    os_free(bits, block, OS_BITS, block, block);
    os_free(p, 8 * block, OS_HEAP, 4 * block, 0);

    os_debug.decoratemappings = 0;
    asked_name[0] = '\0';
    heap = os_alloc(block, OS_HEAP);
    assert_string_equal(asked_name, "");
    assert_true(support_mapping(heap, &mapping));
    assert_null(strstr(mapping.line, "grey"));
    os_free(heap, block, OS_HEAP, block, block);
}

static unsigned long vmstat(const char *name)
{
    FILE *file = fopen("/proc/vmstat", "r");
    char line[128];
    unsigned long value = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ' ')
            value = strtoul(line + strlen(name), NULL, 10);
    if (file != NULL)
        fclose(file);
    return value;
}

/* Bytes of the mapping that p begins which are in huge pages. */
static size_t huge_in(const void *p)
{
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[256], start[32];
    bool inside = false;
    unsigned long kib = 0;
    snprintf(start, sizeof start, "%lx-", (unsigned long)p);
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strchr(line, '-') != NULL && strspn(line, "0123456789abcdef") == strcspn(line, "-"))
            inside = strncmp(line, start, strlen(start)) == 0;
        if (inside && sscanf(line, "AnonHugePages: %lu", &kib) == 1)
            break;
    }
    if (file != NULL)
        fclose(file);
    return kib << 10;
}

/* SC-4, PC-12: what is given back of a huge page is free at once, since the page is taken apart before. */
static void parts_of_huge_pages(void **state)
{
    const size_t huge = (size_t)2 << 20;
    size_t n = 16, kept = n * huge;
    (void)state;
    char *p = os_reserve_aligned(NULL, &kept, huge);
    assert_int_equal(os_map(p, n * huge, OS_HEAP, NULL), 0);
    assert_int_equal(os_used(p, n * huge, n * huge), 0);
    os_huge(p, n * huge);
    memset(p, 3, n * huge);
    bool all_huge = huge_in(p) == n * huge; /* there may be none, or no memory in one piece */
    unsigned long split = vmstat("thp_split_page") + vmstat("thp_split_page_failed");
    bool splits = madvise(p, block, MADV_COLD) == 0;
    for (size_t i = 0; i < n; i++)
        os_split(p + i * huge + block, block);
    for (size_t i = 0; i < n * huge; i += 512)
        assert_int_equal(p[i], 3);
    if (all_huge && splits)
        assert_true(vmstat("thp_split_page") + vmstat("thp_split_page_failed") >= split + n);
    os_free(p, kept, OS_HEAP, n * huge, n * huge);
}

/* OS-17: inward to whole huge pages, nothing when none is left; disablethp=1 for the heap. */
static void huge_pages(void **state)
{
    const size_t huge = (size_t)2 << 20;
    struct mapping mapping;
    size_t kept = 8 * huge;
    (void)state;
    if (access("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", R_OK) != 0)
        skip();
    char *p = os_reserve_aligned(NULL, &kept, huge);
    assert_int_equal(os_map(p, 8 * huge, OS_HEAP, NULL), 0);
    assert_int_equal(os_used(p, 8 * huge, 8 * huge), 0);
    os_huge(p + block, huge); /* holds no whole one */
    assert_true(support_mapping(p + huge, &mapping));
    assert_null(strstr(mapping.flags, " hg"));
    os_huge(p + huge - block, 2 * huge + 2 * block);
    assert_true(support_mapping(p + huge, &mapping));
    assert_non_null(strstr(mapping.flags, " hg"));
    assert_int_equal(mapping.start, (uintptr_t)p + huge);
    assert_int_equal(mapping.end, (uintptr_t)p + 3 * huge);
    memset(p, 3, 8 * huge);
    os_collapse(p, 8 * huge);
    for (size_t i = 0; i < 8 * huge; i += 512)
        assert_int_equal(p[i], 3);
    os_free(p, kept, OS_HEAP, 8 * huge, 8 * huge);

    os_debug.disablethp = 1;
    p = os_alloc(4 * huge, OS_HEAP);
    os_huge(p, 4 * huge);
    assert_true(support_mapping(p + huge, &mapping));
    assert_non_null(strstr(mapping.flags, " nh"));
    assert_null(strstr(mapping.flags, " hg"));
    os_free(p, 4 * huge, OS_HEAP, 4 * huge, 4 * huge);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, nothing_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(alloc_is_zero_and_unused_forfeits),
        TEST(reserved_memory_faults),
        TEST(harddecommit_faults),
        TEST(advice_falls_back),
        TEST(advice_leaves_errno),
        TEST(reserve_aligned_table),
        TEST(reserve_aligned_keeps_all),
        TEST(taken_hint),
        TEST(init_twice),
        TEST(kernel_refuses),
        TEST(mappings_run_out),
#ifdef GREY_HOOKS
        TEST(harddecommit_other_failure_dies),
        TEST(refusal_warns_once), /* before the parent has warned */
        TEST(injected_refusals),
        TEST(refused_fault_dies),
#endif
        TEST(names_in_maps),
        TEST(huge_pages),
        TEST(parts_of_huge_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

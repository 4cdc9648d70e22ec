/* os/ledger.c -- the ranges of debug builds, in one sorted array (OS-3).
 *
 * A range carries its state, its class, and the base and end of the call that it came from, because free
 * and unreserve must name exactly those (OS-13).  Neighbours that agree in all of it are one range, so
 * the array is short except when the scavenger has given back every other page; then an insertion moves
 * some megabytes, which a debug build can afford.  The array has pages of its own, asked for directly:
 * the ledger cannot be a customer of what it checks.
 *
 * An error is found under the ledger's lock but reported after the lock was let go: a test's fatal
 * handler may leave by longjmp (ER-4).
 */
#include "os/ledger.h"

#ifdef GREY_ASSERTS
#include <string.h>
#include <sys/mman.h>

struct range {
    uintptr_t start, end;
    uintptr_t origin, origin_end; /* of the reserve or alloc */
    enum ledger_state state;
    enum os_class class; /* OS_CLASSES while Reserved */
};

static struct os_lock ledger_lock = OS_LOCK_INIT(OS_RANK_OS);
static struct range *ranges; /* sorted, disjoint; all under ledger_lock */
static size_t n_ranges, capacity;

/* What was found wrong; why == NULL: nothing. */
struct verdict {
    const char *why;
    uintptr_t at;
};

static const char *state_name(enum ledger_state state)
{
    switch (state) {
    case LEDGER_RESERVED:
        return "which is Reserved";
    case LEDGER_PREPARED:
        return "which is Prepared";
    default:
        return "which is Ready";
    }
}

static void release_and_judge(struct verdict verdict, const void *start, size_t size, const char *what)
{
    os_unlock(&ledger_lock);
    if (verdict.why != NULL)
        os_internal((const void *)verdict.at, "illegal transition: %s of %p+%zu, %s", what, start, size,
                    verdict.why);
}

static void grow(void)
{
    size_t wanted = capacity == 0 ? 1024 : 2 * capacity;
    void *bigger = mmap(NULL, wanted * sizeof(*ranges), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bigger == MAP_FAILED)
        os_internal(NULL, "no memory for a ledger of %zu ranges", wanted);
    if (ranges != NULL) {
        memcpy(bigger, ranges, n_ranges * sizeof(*ranges));
        munmap(ranges, capacity * sizeof(*ranges));
    }
    ranges = bigger;
    capacity = wanted;
}

/* The first range that ends after `at`. */
static size_t find(uintptr_t at)
{
    size_t low = 0, high = n_ranges;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ranges[middle].end <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void insert(size_t i, struct range range)
{
    if (n_ranges == capacity)
        grow();
    memmove(&ranges[i + 1], &ranges[i], (n_ranges - i) * sizeof(*ranges));
    ranges[i] = range;
    n_ranges++;
}

static void erase(size_t i, size_t count)
{
    memmove(&ranges[i], &ranges[i + count], (n_ranges - i - count) * sizeof(*ranges));
    n_ranges -= count;
}

/* Makes `at` a border if it lies inside a range. */
static void split(uintptr_t at)
{
    size_t i = find(at);
    if (i == n_ranges || ranges[i].start >= at)
        return;
    struct range right = ranges[i];
    right.start = at;
    ranges[i].end = at;
    insert(i + 1, right);
}

/* Joins range i with the one before it if they agree. */
static void join(size_t i)
{
    if (i == 0 || i >= n_ranges)
        return;
    struct range *left = &ranges[i - 1], *right = &ranges[i];
    if (left->end != right->start || left->origin != right->origin || left->state != right->state ||
        left->class != right->class)
        return;
    left->end = right->end;
    erase(i, 1);
}

static struct verdict examine(uintptr_t start, uintptr_t end, unsigned states)
{
    uintptr_t at = start;
    if (end <= start)
        return (struct verdict){"which is empty or wraps around", start};
    for (size_t i = find(start); at < end; i++) {
        if (i == n_ranges || ranges[i].start > at)
            return (struct verdict){"which is None", at};
        if ((ranges[i].state & states) == 0)
            return (struct verdict){state_name(ranges[i].state), at};
        at = ranges[i].end;
    }
    return (struct verdict){NULL, 0};
}

/* Bytes of [start, end) in these states and this class (OS_CLASSES: any). */
static size_t amount(uintptr_t start, uintptr_t end, unsigned states, enum os_class class)
{
    size_t sum = 0;
    for (size_t i = find(start); i < n_ranges && ranges[i].start < end; i++) {
        const struct range *r = &ranges[i];
        if ((r->state & states) != 0 && (class == OS_CLASSES || r->class == class))
            sum += (r->end < end ? r->end : end) - (r->start > start ? r->start : start);
    }
    return sum;
}

void ledger_begin(const void *start, size_t size, enum ledger_state state, enum os_class class,
                  const char *what)
{
    uintptr_t low = (uintptr_t)start, high = low + size;
    struct verdict verdict = {NULL, 0};
    os_lock(&ledger_lock);
    size_t i = find(low);
    if (high <= low)
        verdict = (struct verdict){"which is empty or wraps around", low};
    else if (i < n_ranges && ranges[i].start < high)
        verdict = (struct verdict){"which is ours already", ranges[i].start};
    else
        insert(i, (struct range){low, high, low, high, state, class});
    release_and_judge(verdict, start, size, what);
}

void ledger_check(const void *start, size_t size, unsigned states, const char *what)
{
    os_lock(&ledger_lock);
    release_and_judge(examine((uintptr_t)start, (uintptr_t)start + size, states), start, size, what);
}

void ledger_move(const void *start, size_t size, unsigned states, enum ledger_state to, enum os_class class,
                 const char *what)
{
    uintptr_t low = (uintptr_t)start, high = low + size;
    os_lock(&ledger_lock);
    struct verdict verdict = examine(low, high, states);
    if (verdict.why == NULL) {
        split(low);
        split(high);
        size_t first = find(low), i = first;
        for (; i < n_ranges && ranges[i].start < high; i++) {
            ranges[i].state = to;
            if (to == LEDGER_RESERVED)
                ranges[i].class = OS_CLASSES;
            else if (class != OS_CLASSES)
                ranges[i].class = class;
        }
        for (; i > first; i--) /* from the right: joining moves only what lies beyond */
            join(i);
        join(first);
    }
    release_and_judge(verdict, start, size, what);
}

void ledger_end(const void *start, size_t size, unsigned states, enum os_class class, size_t mapped,
                size_t ready, const char *what)
{
    uintptr_t low = (uintptr_t)start, high = low + size;
    os_lock(&ledger_lock);
    struct verdict verdict = examine(low, high, states);
    if (verdict.why == NULL) {
        size_t i = find(low);
        if (ranges[i].origin != low || ranges[i].origin_end != high)
            verdict = (struct verdict){"which is not what was reserved", ranges[i].origin};
        else if (amount(low, high, LEDGER_READY, OS_CLASSES) != ready)
            verdict = (struct verdict){"of which another amount is Ready", low};
        else if (amount(low, high, LEDGER_PREPARED | LEDGER_READY, OS_CLASSES) != mapped)
            verdict = (struct verdict){"of which another amount is mapped", low};
        else if (amount(low, high, LEDGER_PREPARED | LEDGER_READY, class) != mapped)
            verdict = (struct verdict){"which is of another class", low};
        else
            erase(i, find(high) - i);
    }
    release_and_judge(verdict, start, size, what);
}

void ledger_expect(const void *start, size_t size, enum ledger_state state, size_t bytes, const char *what)
{
    uintptr_t low = (uintptr_t)start;
    struct verdict verdict = {NULL, 0};
    os_lock(&ledger_lock);
    if (amount(low, low + size, state, OS_CLASSES) != bytes)
        verdict = (struct verdict){"of which another amount is Prepared", low};
    release_and_judge(verdict, start, size, what);
}

void ledger_expect_class(const void *start, size_t size, enum os_class class, const char *what)
{
    uintptr_t low = (uintptr_t)start;
    struct verdict verdict = {NULL, 0};
    os_lock(&ledger_lock);
    if (amount(low, low + size, LEDGER_ANY, class) != size)
        verdict = (struct verdict){"which is of another class", low};
    release_and_judge(verdict, start, size, what);
}

void ledger_totals(size_t *mapped, size_t *ready)
{
    os_lock(&ledger_lock);
    *mapped = amount(0, UINTPTR_MAX, LEDGER_PREPARED | LEDGER_READY, OS_CLASSES);
    *ready = amount(0, UINTPTR_MAX, LEDGER_READY, OS_CLASSES);
    os_unlock(&ledger_lock);
}
#endif

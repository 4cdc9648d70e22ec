/* ring.c -- who keeps what alive while the kernel has it.
 *
 * A read is known to the kernel only from the moment its submission entry is taken until its completion
 * entry is seen: user_data, the buffer's address and the submission entry itself are then in kernel memory,
 * where no collector can look.  Nor would it help to scan the memory that the kernel shares with us: the
 * kernel writes to it without a barrier, and what it will write later is not there yet.  So user_data is a
 * number, and the pointers stay on our side, in the table of reads in flight:
 *
 *     program --> struct ring --> the kernel's half: the rings                 (region, cleanup: close)
 *                            \--> our half: table --> struct read --> buffer  (region, GREY_FOREIGN_SCAN)
 *
 * Both halves are mappings, and both are regions.  The collector doesn't look into the kernel's half.  It
 * scans ours, which is therefore written with grey_store.
 *
 * Now the ring is dropped, with reads in flight.  Both halves, the reads and the buffers become unreachable
 * at once, and cleanups run in any order: a buffer could be somebody else's while the kernel still writes to
 * it.  The order is made by the one rule that there is: what a cleanup's argument leads to is kept until the
 * cleanup has returned.  The kernel's half has such an argument, struct teardown, and it leads to our half:
 *
 *     region of the kernel's half --> teardown --> our half --> reads --> buffers
 *
 * The first cycle finds the kernel's half dead and nothing else.  Its cleanup waits until nothing is in
 * flight and closes the ring.  After that our half is unreachable, and the second cycle finds it.
 *
 * The argument must not lead back to its own region, which would then live for ever.  struct io_uring is
 * full of pointers into it; it lies in a leaf object, where the collector doesn't see them.
 */
#include "ring.h"

#include <grey.h>
#include <liburing.h>
#include <stdatomic.h>
#include <sys/mman.h>

/* What an open ring is worth in bytes of heap: the kernel's structures, and a descriptor of not so many. */
enum { RING_WORTH = 64 * 1024 };

/* Our half. */
struct table {
    size_t size;
    unsigned n_free;
    unsigned n_in_flight; /* the others */
    struct {
        struct read *read; /* NULL: the slot is free */
        unsigned free;     /* of the first n_free ones: the numbers of the free slots */
    } slots[];
};

struct teardown {
    struct io_uring *uring; /* a leaf object */
    struct table *table;
};
GREY_TYPE(teardown_type, struct teardown, uring, table);

struct ring {
    void *kernel_half; /* nobody reads it: it says that who holds the ring holds its memory */
    struct teardown *teardown;
    grey_foreign kernel_region, table_region;
};
GREY_TYPE(ring_type, struct ring, kernel_half, teardown);

GREY_TYPE(read_type, struct read, data);

/* liburing maps and unmaps by system calls of its own, which ThreadSanitizer doesn't see.  Whoever opens a ring may get the
 * addresses of one that another thread has closed: the kernel orders the two, and this says so. */
static atomic_uint n_unmapped;

/* Relaxed order: figures. */
static atomic_uint_fast64_t n_opened, n_closed_by_hand, n_closed_by_cleanup, n_abandoned, n_tables_unmapped;

static void count(atomic_uint_fast64_t *figure, uint64_t n)
{
    atomic_fetch_add_explicit(figure, n, memory_order_relaxed);
}

/* ---- closing ---------------------------------------------------------------------------------- */

/* In a blocking region: the kernel may take its time.  It touches the bytes of a leaf object and memory
 * outside of the heap, which is allowed. */
static int submit_and_wait(void *uring)
{
    int result;

    do
        result = io_uring_submit_and_wait(uring, 1);
    while (result == -EINTR);
    return result;
}

/* The slot of the oldest completion; waits if there is none. */
static bool next_completion(struct io_uring *uring, unsigned *slot, int32_t *result)
{
    struct io_uring_cqe *entry;

    while (io_uring_peek_cqe(uring, &entry) != 0) {
        if (grey_blocking_call(submit_and_wait, uring) < 0)
            return false;
    }
    *slot = (unsigned)entry->user_data;
    *result = entry->res;
    io_uring_cqe_seen(uring, entry);
    return true;
}

/* After this the kernel writes to no buffer of ours. */
static void tear_down(struct teardown *teardown)
{
    unsigned slot;
    int32_t result;

    count(&n_abandoned, teardown->table->n_in_flight);
    while (teardown->table->n_in_flight > 0 && next_completion(teardown->uring, &slot, &result))
        teardown->table->n_in_flight--;
    atomic_fetch_add_explicit(&n_unmapped, 1, memory_order_release);
    io_uring_queue_exit(teardown->uring);
}

/* The cleanup of the kernel's half, which io_uring_queue_exit unmaps. */
static void on_ring_unreachable(uintptr_t start, size_t size, void *arg)
{
    (void)start;
    (void)size;
    tear_down(arg);
    count(&n_closed_by_cleanup, 1);
}

/* The cleanup of our half. */
static void on_table_unreachable(uintptr_t start, size_t size, void *arg)
{
    (void)arg;
    munmap((void *)start, size + 1);
    count(&n_tables_unmapped, 1);
}

/* Back to manual: from the release on the regions are ours alone.  It can't fail here, since this thread
 * holds the ring and a region that is reachable isn't found dead. */
void ring_close(struct ring *ring)
{
    struct teardown *teardown = ring->teardown;

    if (!grey_foreign_release(ring->kernel_region))
        return;
    tear_down(teardown);
    count(&n_closed_by_hand, 1);
    if (grey_foreign_release(ring->table_region))
        on_table_unreachable((uintptr_t)teardown->table, teardown->table->size, NULL);
}

/* ---- opening ---------------------------------------------------------------------------------- */

static struct table *new_table(unsigned depth, grey_foreign *region)
{
    size_t size = sizeof(struct table) + depth * sizeof((struct table *)0)->slots[0];
    /* The mapping is larger than the region by a byte at least, so that what the kernel maps next does not
     * begin where the region ends: a pointer just past the end counts too if it lies on a stack. */
    struct table *table = mmap(NULL, size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (table == MAP_FAILED)
        return NULL;
    int error = grey_foreign_add(table, size, GREY_FOREIGN_SCAN, on_table_unreachable, NULL, region);
    if (error != 0) {
        munmap(table, size + 1);
        errno = error;
        return NULL;
    }
    table->size = size;
    table->n_free = depth;
    for (unsigned i = 0; i < depth; i++)
        table->slots[i].free = i;
    return table;
}

/* Descriptors and locked memory may be short because rings that nobody uses any more still have them. */
static int set_up(struct io_uring *uring, unsigned depth)
{
    int error = io_uring_queue_init(depth, uring, 0);

    if (error == -EMFILE || error == -ENFILE || error == -ENOMEM) {
        grey_collect();
        grey_cleanup_wait(-1);
        error = io_uring_queue_init(depth, uring, 0);
    }
    (void)atomic_load_explicit(&n_unmapped, memory_order_acquire);
    return -error;
}

struct ring *ring_open(unsigned depth)
{
    struct ring *ring = grey_new(&ring_type);
    struct teardown *teardown = grey_new(&teardown_type);
    struct io_uring *uring = grey_zalloc_leaf(sizeof *uring);
    struct table *table = ring != NULL ? new_table(depth, &ring->table_region) : NULL;

    if (teardown == NULL || uring == NULL || table == NULL)
        return NULL; /* a table without a ring is unreachable, and so unmapped */
    int error = set_up(uring, depth);
    if (error != 0) {
        errno = error;
        return NULL;
    }
    grey_store(&teardown->uring, uring);
    grey_store(&teardown->table, table);
    grey_store(&ring->teardown, teardown);
    error = grey_foreign_add(uring->sq.ring_ptr, uring->sq.ring_sz, 0, on_ring_unreachable, teardown,
                             &ring->kernel_region);
    if (error != 0) {
        io_uring_queue_exit(uring);
        errno = error;
        return NULL;
    }
    grey_store(&ring->kernel_half, uring->sq.ring_ptr);
    grey_external_add(RING_WORTH);
    count(&n_opened, 1);
    return ring;
}

/* ---- reading ---------------------------------------------------------------------------------- */

int ring_read(struct ring *ring, int file, uint64_t offset, uint32_t size, uint8_t flags)
{
    struct table *table = ring->teardown->table;

    if (table->n_free == 0)
        return EAGAIN;
    struct read *read = grey_new(&read_type);
    void *data = read != NULL ? buffer_get() : NULL;
    if (data == NULL)
        return ENOMEM;
    grey_store(&read->data, data);
    read->offset = offset;
    read->size = size;

    /* As many entries as slots, and each is submitted before its slot is free again: there is one. */
    struct io_uring_sqe *entry = io_uring_get_sqe(ring->teardown->uring);
    unsigned slot = table->slots[--table->n_free].free;
    grey_store(&table->slots[slot].read, read);
    table->n_in_flight++;
    io_uring_prep_read(entry, file, data, size, offset);
    entry->flags |= flags;
    entry->user_data = slot;
    grey_keep_alive(ring); /* its cleanup must not begin while this thread is in here */
    return 0;
}

struct read *ring_wait(struct ring *ring)
{
    struct table *table = ring->teardown->table;
    unsigned slot;
    int32_t result;

    if (table->n_in_flight == 0 || !next_completion(ring->teardown->uring, &slot, &result))
        return NULL;
    /* Taken onto the stack before the table lets go of it. */
    struct read *read = table->slots[slot].read;
    grey_store(&table->slots[slot].read, NULL);
    table->slots[table->n_free++].free = slot;
    table->n_in_flight--;
    read->result = result;
    grey_keep_alive(ring);
    return read;
}

struct ring_figures ring_figures(void)
{
    return (struct ring_figures){atomic_load_explicit(&n_opened, memory_order_relaxed),
                                 atomic_load_explicit(&n_closed_by_hand, memory_order_relaxed),
                                 atomic_load_explicit(&n_closed_by_cleanup, memory_order_relaxed),
                                 atomic_load_explicit(&n_abandoned, memory_order_relaxed),
                                 atomic_load_explicit(&n_tables_unmapped, memory_order_relaxed)};
}

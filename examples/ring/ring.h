/* ring.h -- an io_uring that may simply be dropped.
 *
 * One thread at a time on one ring.  When nothing points to a ring any more its cleanup waits for the reads
 * that are still in the kernel's hands and gives the ring back: descriptor, shared memory and all.
 */
#ifndef RING_RING_H
#define RING_RING_H

#include "buffers.h"

#include <stdbool.h>

struct ring; /* in the Grey heap */

/* A read, and then its answer; in the Grey heap.  data is a buffer (see buffers.h), and pointers to any of
 * its bytes may be kept and passed on. */
struct read {
    void *data;
    uint64_t offset; /* in the file */
    uint32_t size;   /* asked for */
    int32_t result;  /* bytes, or a negative errno value */
};

/* A ring for that many reads at a time.  NULL and errno: those of io_uring_setup, ENOMEM. */
struct ring *ring_open(unsigned depth);

/* Starts to read size <= BUFFER_SIZE bytes; flags are those of a submission entry.  It reaches the kernel
 * with the next ring_wait that has to wait.  0; EAGAIN: depth reads are in flight; ENOMEM. */
int ring_read(struct ring *ring, int file, uint64_t offset, uint32_t size, uint8_t flags);

/* Any read that is done by now, or the next one to be; NULL: none is in flight. */
struct read *ring_wait(struct ring *ring);

/* Gives the ring back at once, as the cleanup would later, from the hand of its owner.  The ring is not
 * used again. */
void ring_close(struct ring *ring);

/* Since the program started. */
struct ring_figures {
    uint64_t opened, closed_by_hand, closed_by_cleanup;
    uint64_t abandoned; /* reads in flight when their ring was closed */
    uint64_t tables_unmapped;
};
struct ring_figures ring_figures(void);

#endif

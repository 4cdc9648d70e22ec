/* queue.h -- reads in flight, as a C library offers them: it is given addresses and a number, and keeps them
 * where no collector looks.
 *
 * Two kinds: io_uring; and, where that is not permitted, threads that call preadv, which Grey knows nothing
 * of. What the addresses point to has to stay until the completion was taken.  One thread at a time on one
 * queue.
 */
#ifndef RING_QUEUE_H
#define RING_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct queue;

struct completion {
    uint64_t user_data;
    int32_t result; /* bytes, or a negative errno value */
};

/* For up to depth reads at a time.  NULL and errno: EPERM or ENOSYS io_uring isn't permitted; others. */
struct queue *queue_open(unsigned depth, bool uring);

/* To be called with less than depth reads in flight. */
void queue_read(struct queue *queue, int file, const struct iovec *vector, unsigned n, uint64_t offset,
                uint64_t user_data);

/* Waits for a completion.  Only with reads in flight.  To be called in a blocking region. */
struct completion queue_wait(struct queue *queue);

/* Nothing is in flight. */
void queue_close(struct queue *queue);

#endif

/* queue.c -- io_uring, or two threads with a list of reads each way.
 *
 * Everything here is malloc memory or the kernel's.  The threads are made with pthread_create and never
 * attached: the collector reads neither their stacks nor their registers, and they are never stopped.  They
 * may do that as long as they touch bytes only, and somebody else sees to it that the bytes stay.
 */
#define _GNU_SOURCE
#include "queue.h"

#include "file.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>

enum { READERS = 2 };

struct entry {
    int file;
    const struct iovec *vector;
    unsigned n;
    uint64_t offset, user_data;
    int32_t result;
};

struct queue {
    bool uses_uring;
    struct io_uring uring;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t work, completed;
    struct entry *submitted, *done; /* rings of depth entries */
    unsigned depth;
    unsigned n_submitted, n_begun; /* counted from the start */
    unsigned n_done, n_taken;
    bool stop;
    pthread_t threads[READERS];
};

static void *run_thread(void *arg)
{
    struct queue *queue = arg;

    pthread_mutex_lock(&queue->lock);
    for (;;) {
        while (queue->n_begun == queue->n_submitted && !queue->stop)
            pthread_cond_wait(&queue->work, &queue->lock);
        if (queue->n_begun == queue->n_submitted)
            break;
        struct entry entry = queue->submitted[queue->n_begun++ % queue->depth];
        pthread_mutex_unlock(&queue->lock);
        ssize_t n = preadv(entry.file, entry.vector, (int)entry.n, (off_t)entry.offset);
        entry.result = n < 0 ? -errno : (int32_t)n;
        pthread_mutex_lock(&queue->lock);
        queue->done[queue->n_done++ % queue->depth] = entry;
        pthread_cond_signal(&queue->completed);
    }
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}

static int start_threads(struct queue *queue, unsigned depth)
{
    queue->depth = depth;
    queue->submitted = calloc(depth, sizeof *queue->submitted);
    queue->done = calloc(depth, sizeof *queue->done);
    if (queue->submitted == NULL || queue->done == NULL)
        return ENOMEM;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->work, NULL);
    pthread_cond_init(&queue->completed, NULL);
    for (int i = 0; i < READERS; i++) {
        int error = pthread_create(&queue->threads[i], NULL, run_thread, queue);
        if (error != 0)
            die("cannot start a thread", error);
    }
    return 0;
}

struct queue *queue_open(unsigned depth, bool uring)
{
    struct queue *queue = calloc(1, sizeof *queue);

    if (queue == NULL)
        return NULL;
    queue->uses_uring = uring;
    int error = uring ? -io_uring_queue_init(depth, &queue->uring, 0) : start_threads(queue, depth);
    if (error == 0)
        return queue;
    free(queue->submitted);
    free(queue->done);
    free(queue);
    errno = error;
    return NULL;
}

void queue_read(struct queue *queue, int file, const struct iovec *vector, unsigned n, uint64_t offset,
                uint64_t user_data)
{
    if (!queue->uses_uring) {
        pthread_mutex_lock(&queue->lock);
        queue->submitted[queue->n_submitted++ % queue->depth] =
            (struct entry){file, vector, n, offset, user_data, 0};
        pthread_cond_signal(&queue->work);
        pthread_mutex_unlock(&queue->lock);
        return;
    }
    struct io_uring_sqe *entry = io_uring_get_sqe(&queue->uring); /* there is one: less than depth are used */
    io_uring_prep_readv(entry, file, vector, n, offset);
    /* Half of them are left to a thread of the kernel's, so that they are really in flight although the file
     * is in memory. */
    entry->flags |= user_data % 2 != 0 ? IOSQE_ASYNC : 0;
    entry->user_data = user_data;
}

static struct completion wait_for_threads(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->n_taken == queue->n_done)
        pthread_cond_wait(&queue->completed, &queue->lock);
    struct entry entry = queue->done[queue->n_taken++ % queue->depth];
    pthread_mutex_unlock(&queue->lock);
    return (struct completion){entry.user_data, entry.result};
}

struct completion queue_wait(struct queue *queue)
{
    struct io_uring_cqe *entry;

    if (!queue->uses_uring)
        return wait_for_threads(queue);
    while (io_uring_peek_cqe(&queue->uring, &entry) != 0) {
        int n = io_uring_submit_and_wait(&queue->uring, 1);
        if (n < 0 && n != -EINTR)
            die("io_uring", -n);
    }
    struct completion completion = {entry->user_data, entry->res};
    io_uring_cqe_seen(&queue->uring, entry);
    return completion;
}

void queue_close(struct queue *queue)
{
    if (queue->uses_uring) {
        io_uring_queue_exit(&queue->uring);
    } else {
        pthread_mutex_lock(&queue->lock);
        queue->stop = true;
        pthread_cond_broadcast(&queue->work);
        pthread_mutex_unlock(&queue->lock);
        for (int i = 0; i < READERS; i++)
            pthread_join(queue->threads[i], NULL);
        pthread_mutex_destroy(&queue->lock);
        pthread_cond_destroy(&queue->work);
        pthread_cond_destroy(&queue->completed);
    }
    free(queue->submitted);
    free(queue->done);
    free(queue);
}

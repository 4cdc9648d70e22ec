/* tests/api/support_queue.h -- items for the queues of sweep/cleanups.h that watch over their own lives.
 *
 * Each checks that it runs once, outside sections and locks, on an attached thread, and is given back once,
 * afterwards, in a section.  Findings are added up in `wrong`, since cmocka's checks are the main thread's.
 */
#ifndef GREY_TESTS_SUPPORT_QUEUE_H
#define GREY_TESTS_SUPPORT_QUEUE_H

#include "sweep/cleanups.h"

#include <unistd.h>

enum { POOL = 4 }; /* threads, of the library as queue_up starts it */

struct item {
    struct queued queued; /* first */
    void (*fn)(struct item *item);
    _Atomic int ran, done;
    uint64_t order; /* in which they ran, from 1 */
    pthread_t thread;
    size_t result;
};
extern _Atomic int wrong;
extern _Atomic int gate, at_gate; /* of stay */

/* Setup and teardown of a test: the library for 16 processors, this thread attached; nothing was wrong. */
int queue_up(void **unused);
int queue_down(void **unused);
void queue_start(void);  /* cleanups_start, both kinds; a failure is counted */
int queue_blocked(void); /* threads in blocking regions */
/* A thread: grey_cleanup_wait without limit. */
extern _Atomic int queue_waited; /* 0: it waits, 1: true, 2: false */
void *queue_wait(void *unused);
void put(struct item *item, bool finalizer);                /* queues it */
void put_all(struct item *items, int n, bool finalizers);   /* one by one */
void put_chain(struct item *items, int n, bool finalizers); /* all at once */
int count_done(const struct item *items, int n);
/* A function for items: stays until the gate is open. */
void stay(struct item *item);

/* Waits for what other threads are about to do; 20 s are for ever. */
#define COMES_TRUE(x)                                                                                        \
    __extension__({                                                                                          \
        for (int i_ = 0; i_ < 20000 && !(x); i_++)                                                           \
            usleep(1000);                                                                                    \
        !!(x);                                                                                               \
    })
#define UNTIL(x) assert_true(COMES_TRUE(x))

#endif

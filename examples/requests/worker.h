/* worker.h -- the threads that serve clients, each with an event loop and a listener of its own. */
#ifndef REQUESTS_WORKER_H
#define REQUESTS_WORKER_H

#include <pthread.h>
#include <uv.h>

struct worker {
    pthread_t thread;
    uv_loop_t loop;
    uv_tcp_t listener;
    uv_timer_t timer;
    uv_async_t stop;
};

/* Listens and starts the thread.  0, or a negative libuv error. */
int worker_start(struct worker *worker, const struct sockaddr *address);

/* Closes the worker's clients and waits for its thread. */
void worker_stop(struct worker *worker);

#endif

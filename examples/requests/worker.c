/* worker.c -- start, work, stop.
 *
 * All workers listen on the same port (SO_REUSEPORT) and the kernel spreads the clients over them.
 * Threads are made with grey_thread_create: they are attached before their first instruction of ours
 * and detached when they end.
 */
#include "worker.h"

#include "connection.h"
#include "event_loop.h"

#include <errno.h>
#include <grey.h>
#include <sys/socket.h>

enum { TICK_MILLISECONDS = 100, BACKLOG = 511 };

static void on_client(uv_stream_t *listener, int status)
{
    if (status == 0)
        connection_accept(listener);
}

static void check_connection(uv_handle_t *handle, void *now) { connection_check(handle, *(int64_t *)now); }

static void on_tick(uv_timer_t *timer)
{
    int64_t now = (int64_t)uv_now(timer->loop);

    uv_walk(timer->loop, check_connection, &now);
}

static void on_stop(uv_async_t *stop)
{
    struct worker *worker = stop->data;
    int64_t end_of_time = INT64_MAX;

    uv_close((uv_handle_t *)&worker->listener, NULL);
    uv_close((uv_handle_t *)&worker->timer, NULL);
    uv_close((uv_handle_t *)&worker->stop, NULL);
    uv_walk(stop->loop, check_connection, &end_of_time);
}

static void *work(void *arg)
{
    struct worker *worker = arg;

    event_loop_run(&worker->loop);
    uv_loop_close(&worker->loop);
    return NULL;
}

static int listen_on(struct worker *worker, const struct sockaddr *address)
{
    int one = 1;
    uv_os_fd_t descriptor;
    int error = uv_tcp_init_ex(&worker->loop, &worker->listener, address->sa_family);

    if (error == 0)
        error = uv_fileno((uv_handle_t *)&worker->listener, &descriptor);
    if (error == 0 && setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0)
        error = uv_translate_sys_error(errno);
    if (error == 0)
        error = uv_tcp_bind(&worker->listener, address, 0);
    if (error == 0)
        error = uv_listen((uv_stream_t *)&worker->listener, BACKLOG, on_client);
    return error;
}

int worker_start(struct worker *worker, const struct sockaddr *address)
{
    int error = uv_loop_init(&worker->loop);
    if (error != 0)
        return error;
    error = listen_on(worker, address);
    if (error != 0)
        return error;
    uv_timer_init(&worker->loop, &worker->timer);
    uv_timer_start(&worker->timer, on_tick, TICK_MILLISECONDS, TICK_MILLISECONDS);
    error = uv_async_init(&worker->loop, &worker->stop, on_stop);
    if (error != 0)
        return error;
    worker->stop.data = worker;
    return uv_translate_sys_error(grey_thread_create(&worker->thread, NULL, work, worker));
}

void worker_stop(struct worker *worker)
{
    uv_async_send(&worker->stop);
    grey_thread_join(worker->thread, NULL);
}

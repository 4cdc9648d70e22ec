/* connection.c -- one request after the other: read, run, answer, free.
 *
 * A connection is malloc memory and belongs to libuv's callbacks.  It holds bytes, numbers, and no heap
 * pointer.
 *
 * The life of an arena is one function, answer().  Nothing made for a request is in use after it, so the
 * arena is freed there, on each way out, and the next request, of whatever connection of this thread, goes
 * on in the same chunk.  What the socket would not take at once is cloned into the heap, and for as long as
 * libuv writes it (libuv keeps its pointers in malloc memory, where no collector looks) it is held by a
 * handle: a number, which the connection may well keep.
 *
 * While a response is being written the connection's next requests wait, and when enough of them have come
 * its input is no longer read: a client that sends without reading is held back by TCP.
 */
#include "connection.h"

#include "request.h"
#include "response.h"
#include "routes.h"
#include "settings.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { READ_SIZE = 16 * 1024, PAUSE_INPUT = 64 * 1024, LINGER_MILLISECONDS = 1000 };

struct connection {
    uv_tcp_t tcp;
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct message message;
    grey_handle rest; /* what is being written, or 0 */
    int64_t since;    /* the first byte of the request, the last answer, or the last progress of the write */
    size_t unsent;    /* of the write, when last looked at */
    bool reading;
    bool closing; /* there are no more requests to be answered */
    bool ended;   /* the client will send no more */
};

/* Figures: relaxed order is enough. */
static atomic_uint_fast64_t n_open, n_refused, n_rests;

static void run_requests(struct connection *connection);
static void set_reading(struct connection *connection);

static void count(atomic_uint_fast64_t *figure, uint64_t n)
{
    atomic_fetch_add_explicit(figure, n, memory_order_relaxed);
}

struct connection_figures connection_figures(void)
{
    return (struct connection_figures){atomic_load_explicit(&n_open, memory_order_relaxed),
                                       atomic_load_explicit(&n_refused, memory_order_relaxed),
                                       atomic_load_explicit(&n_rests, memory_order_relaxed)};
}

static int64_t now_of(const struct connection *connection) { return (int64_t)uv_now(connection->tcp.loop); }

/* ---- closing ---------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;

    message_close(&connection->message);
    free(connection);
    count(&n_open, (uint64_t)-1);
}

static void close_connection(struct connection *connection)
{
    if (!uv_is_closing((uv_handle_t *)&connection->tcp))
        uv_close((uv_handle_t *)&connection->tcp, on_closed);
}

static void on_shut_down(uv_shutdown_t *shutdown, int status)
{
    struct connection *connection = shutdown->data;

    connection->since = now_of(connection);
    if (status != 0 || connection->ended)
        close_connection(connection);
}

/* After the last answer.  A socket that is closed while input is unread resets the connection, and the client
 * may not see what it was told; so what it still sends is thrown away until it ends, for a second at most. */
static void finish(struct connection *connection)
{
    connection->closing = true;
    connection->shutdown.data = connection;
    if (uv_is_closing((uv_handle_t *)&connection->tcp))
        return;
    if (uv_shutdown(&connection->shutdown, (uv_stream_t *)&connection->tcp, on_shut_down) != 0)
        close_connection(connection);
}

/* ---- writing ---------------------------------------------------------------------------------- */

static void on_written(uv_write_t *write, int status)
{
    struct connection *connection = write->data;

    grey_drop(connection->rest);
    connection->rest = 0;
    connection->since = now_of(connection);
    if (status < 0)
        close_connection(connection);
    else if (connection->closing)
        finish(connection);
    else
        run_requests(connection);
}

/* The pieces from skip on, which may lie in an arena, when the socket can take them. */
static bool write_rest(struct connection *connection, const uv_buf_t *vector, unsigned n, size_t skip)
{
    uv_buf_t *rest = response_rest(vector, &n, skip);

    if (rest == NULL)
        return false;
    connection->rest = grey_hold(rest);
    if (connection->rest == 0)
        return false;
    connection->write.data = connection;
    connection->since = now_of(connection);
    count(&n_rests, 1);
    if (uv_write(&connection->write, (uv_stream_t *)&connection->tcp, rest, n, on_written) == 0)
        return true;
    grey_drop(connection->rest);
    connection->rest = 0;
    return false;
}

/* Sends the pieces, now or, what the socket doesn't take, later.  False: the connection is of no use. */
static bool send_vector(struct connection *connection, const uv_buf_t *vector, unsigned n)
{
    size_t size = 0;
    int sent = uv_try_write((uv_stream_t *)&connection->tcp, vector, n);

    if (sent < 0 && sent != UV_EAGAIN)
        return false;
    for (unsigned i = 0; i < n; i++)
        size += vector[i].len;
    size_t skip = sent > 0 ? (size_t)sent : 0;
    return skip == size || write_rest(connection, vector, n, skip);
}

/* Text that belongs to no request. */
static void send_text(struct connection *connection, const char *text, size_t size)
{
    char *copy = grey_alloc_leaf(size);
    uv_buf_t vector = uv_buf_init(copy, (unsigned)size);

    if (copy != NULL)
        memcpy(copy, text, size);
    if (copy == NULL || !send_vector(connection, &vector, 1))
        close_connection(connection);
}

/* Answers what was no request, and closes. */
static void refuse(struct connection *connection, uint16_t status)
{
    char text[512];
    int size = response_refusal(status, text, sizeof text);

    count(&n_refused, 1);
    connection->closing = true;
    send_text(connection, text, (size_t)size);
    if (connection->rest == 0)
        finish(connection);
}

/* ---- requests --------------------------------------------------------------------------------- */

/* Runs the request that the message holds, in this memory.  False: the connection is of no use. */
static bool run_in(struct connection *connection, struct memory *memory)
{
    int error;
    unsigned n;
    struct request *request = request_new(memory, &connection->message, &error);

    if (request == NULL) {
        refuse(connection, error == EINVAL ? HTTP_STATUS_BAD_REQUEST : HTTP_STATUS_SERVICE_UNAVAILABLE);
        return true;
    }
    routes_run(request);
    if (request->response->failed) {
        refuse(connection, HTTP_STATUS_SERVICE_UNAVAILABLE);
        return true;
    }
    connection->closing = !request->keep_alive;
    uv_buf_t *vector = response_vector(request, connection->closing, &n);
    if (vector == NULL || !send_vector(connection, vector, n))
        return false;
    if (connection->closing && connection->rest == 0)
        finish(connection);
    return true;
}

/* One arena, one request. */
static void answer(struct connection *connection)
{
    struct memory memory;

    if (memory_open(&memory) != 0) {
        refuse(connection, HTTP_STATUS_SERVICE_UNAVAILABLE);
        return;
    }
    bool good = run_in(connection, &memory);
    memory_close(&memory);
    if (!good)
        close_connection(connection);
}

static bool may_run(const struct connection *connection)
{
    return connection->rest == 0 && !connection->closing &&
           !uv_is_closing((const uv_handle_t *)&connection->tcp);
}

/* All requests that are whole, as long as their responses can be sent. */
static void run_requests(struct connection *connection)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct message *message = &connection->message;

    while (may_run(connection)) {
        enum message_result result = message_parse(message);
        if (result == MESSAGE_ERROR) {
            refuse(connection, message->error);
        } else if (result == MESSAGE_WHOLE) {
            answer(connection);
            message_next(message);
            connection->since = now_of(connection);
        } else {
            if (message->expects) {
                message->expects = false;
                send_text(connection, go_on, sizeof go_on - 1);
            }
            break;
        }
    }
    if (connection->ended && may_run(connection))
        close_connection(connection); /* if anything is left it is half a request */
    set_reading(connection);
}

/* ---- reading ---------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct connection *connection = handle->data;
    struct message *message = &connection->message;

    (void)suggested;
    if (connection->closing)
        message->size = 0; /* nobody reads it */
    *buffer = message_reserve(message, READ_SIZE)
                  ? uv_buf_init(message->input + message->size, (unsigned)(message->capacity - message->size))
                  : uv_buf_init(NULL, 0);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct connection *connection = stream->data;

    (void)buffer;
    if (n == UV_EOF && connection->rest != 0) {
        connection->ended = true; /* a client may say that it won't send more, and read on */
        set_reading(connection);
    } else if (n < 0) {
        close_connection(connection);
    } else if (n > 0 && !connection->closing) {
        if (!message_begun(&connection->message))
            connection->since = now_of(connection);
        connection->message.size += (size_t)n;
        run_requests(connection);
    }
}

/* As long as there is somebody to listen to, and room for what he says. */
static void set_reading(struct connection *connection)
{
    bool reading = !uv_is_closing((uv_handle_t *)&connection->tcp) && !connection->ended &&
                   (connection->rest == 0 || connection->message.size < PAUSE_INPUT);

    if (connection->reading == reading)
        return;
    connection->reading = reading;
    if (reading)
        uv_read_start((uv_stream_t *)&connection->tcp, on_alloc, on_read);
    else
        uv_read_stop((uv_stream_t *)&connection->tcp);
}

void connection_accept(uv_stream_t *listener)
{
    struct connection *connection = calloc(1, sizeof *connection);

    if (connection == NULL)
        return; /* the client stays in the listener's queue */
    message_open(&connection->message);
    uv_tcp_init(listener->loop, &connection->tcp);
    connection->tcp.data = connection;
    connection->since = now_of(connection);
    count(&n_open, 1);
    if (uv_accept(listener, (uv_stream_t *)&connection->tcp) != 0) {
        close_connection(connection);
        return;
    }
    uv_tcp_nodelay(&connection->tcp, 1);
    set_reading(connection);
}

/* ---- time ------------------------------------------------------------------------------------- */

/* A write that goes on, however slowly, is no reason to close. */
static void note_progress(struct connection *connection, int64_t now)
{
    size_t unsent = uv_stream_get_write_queue_size((uv_stream_t *)&connection->tcp);

    if (connection->rest != 0 && unsent != connection->unsent) {
        connection->unsent = unsent;
        connection->since = now;
    }
}

void connection_check(uv_handle_t *handle, int64_t now)
{
    /* A connection is known by having data and being a stream; listeners have no data. */
    if (handle->type != UV_TCP || handle->data == NULL || uv_is_closing(handle))
        return;
    struct connection *connection = handle->data;
    if (now == INT64_MAX) {
        close_connection(connection);
        return;
    }
    note_progress(connection, now);
    int64_t waited = now - connection->since;
    if (connection->rest != 0 || (!connection->closing && !message_begun(&connection->message))) {
        if (waited > settings.idle_time)
            close_connection(connection);
    } else if (connection->closing) {
        if (waited > LINGER_MILLISECONDS)
            close_connection(connection);
    } else if (waited > settings.request_time) {
        refuse(connection, HTTP_STATUS_REQUEST_TIMEOUT);
    }
}

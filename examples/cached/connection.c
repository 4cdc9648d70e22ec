/* connection.c -- reads what came, runs every whole command in it, writes all replies at once.
 *
 * A connection and its buffers are malloc memory and belong to libuv's callbacks.  They hold copies of
 * bytes, with one exception: large values are sent from where they are, and the output that waits for the
 * socket points to them, as does libuv while it writes.  They are pinned (output.h), so they stay until the
 * write is done, whatever became of their keys.
 *
 * A client that sends but doesn't read is held back: above PAUSE_OUTPUT bytes of unsent replies its
 * commands wait, its input is no longer read, and TCP makes it wait.  One that takes nothing for
 * STUCK_MILLISECONDS is closed.
 */
#include "connection.h"

#include "command.h"
#include "parser.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { READ_SIZE = 16 * 1024, PAUSE_OUTPUT = 4 * 1024 * 1024, STUCK_MILLISECONDS = 60 * 1000 };

struct connection {
    uv_tcp_t tcp;
    uv_write_t write;
    struct buffer input;
    struct output outputs[2];
    struct output *output;  /* the one that commands reply to */
    struct output *sending; /* the other: belongs to the write in progress, if its size isn't 0 */
    struct parser parser;
    size_t unsent; /* of that write, when last looked at */
    int64_t unsent_since;
    bool reading, quit;
};

/* Figures for INFO: relaxed order is enough. */
static atomic_uint_fast64_t n_open, n_accepted, n_commands;

static void run_commands(struct connection *connection);

struct connection_figures connection_figures(void)
{
    return (struct connection_figures){atomic_load_explicit(&n_open, memory_order_relaxed),
                                       atomic_load_explicit(&n_accepted, memory_order_relaxed),
                                       atomic_load_explicit(&n_commands, memory_order_relaxed)};
}

static void on_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;

    buffer_free(&connection->input);
    output_close(&connection->outputs[0]);
    output_close(&connection->outputs[1]);
    parser_free(&connection->parser);
    free(connection);
    atomic_fetch_sub_explicit(&n_open, 1, memory_order_relaxed);
}

static void close_connection(struct connection *connection)
{
    if (!uv_is_closing((uv_handle_t *)&connection->tcp))
        uv_close((uv_handle_t *)&connection->tcp, on_closed);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct connection *connection = handle->data;
    struct buffer *input = &connection->input;

    (void)suggested;
    *buffer = buffer_reserve(input, READ_SIZE)
                  ? (uv_buf_t){.base = input->at + input->size, .len = input->capacity - input->size}
                  : (uv_buf_t){.base = NULL, .len = 0};
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct connection *connection = stream->data;

    (void)buffer;
    if (n < 0) {
        close_connection(connection);
    } else if (n > 0) {
        connection->input.size += (size_t)n;
        run_commands(connection);
    }
}

static void set_reading(struct connection *connection, bool reading)
{
    if (connection->reading == reading)
        return;
    connection->reading = reading;
    if (reading)
        uv_read_start((uv_stream_t *)&connection->tcp, on_alloc, on_read);
    else
        uv_read_stop((uv_stream_t *)&connection->tcp);
}

static void on_written(uv_write_t *write, int status)
{
    struct connection *connection = write->data;

    output_reset(connection->sending);
    if (status < 0)
        close_connection(connection);
    else
        run_commands(connection);
}

/* Sends the output: at once as far as the socket takes it, the rest when it can.  Not inlined: the vector
 * is full of pointers to values, and in the frame of the caller, who goes on to run commands, old ones would
 * keep values that are gone. */
__attribute__((noinline)) static void flush(struct connection *connection)
{
    struct output *output = connection->output;
    uv_stream_t *stream = (uv_stream_t *)&connection->tcp;
    uv_buf_t vector[OUTPUT_VECTOR];

    if (output_size(output) == 0 || output_size(connection->sending) != 0)
        return;
    int n = uv_try_write(stream, vector, output_vector(output, 0, vector));
    if (n >= 0 && (size_t)n == output_size(output)) {
        output_reset(output);
        return;
    }
    if (n < 0 && n != UV_EAGAIN) {
        close_connection(connection);
        return;
    }
    connection->output = connection->sending;
    connection->sending = output;
    connection->unsent = 0;
    connection->write.data = connection;
    unsigned pieces = output_vector(output, n > 0 ? (size_t)n : 0, vector);
    if (uv_write(&connection->write, stream, vector, pieces, on_written) != 0)
        close_connection(connection);
}

static size_t unsent_output(const struct connection *connection)
{
    return output_size(connection->output) + output_size(connection->sending);
}

static bool may_run(const struct connection *connection)
{
    return !connection->quit && unsent_output(connection) < PAUSE_OUTPUT &&
           !uv_is_closing((const uv_handle_t *)&connection->tcp);
}

/* Runs commands until the input or the room for output is used up; true: the input. */
static bool run_some(struct connection *connection, uint64_t *n)
{
    struct parser *parser = &connection->parser;

    while (may_run(connection)) {
        enum parser_result result = parser_next(parser, &connection->input);
        if (result == PARSER_MORE)
            return true;
        if (result == PARSER_ERROR) {
            reply_error(connection->output, parser->error);
            connection->quit = true;
        } else if (parser->n_args > 0) {
            struct call call = {parser->args, parser->n_args, connection->output,
                                (int64_t)uv_now(connection->tcp.loop), false};
            command_run(&call);
            ++*n;
            connection->quit = call.quit;
        }
    }
    return connection->quit;
}

static void run_commands(struct connection *connection)
{
    uint64_t n = 0;
    bool done = false;

    while (!done && may_run(connection)) {
        done = run_some(connection, &n);
        buffer_consume(&connection->input, parser_done(&connection->parser));
        parser_consumed(&connection->parser);
        flush(connection);
    }
    atomic_fetch_add_explicit(&n_commands, n, memory_order_relaxed);
    if (connection->output->text.failed || connection->input.failed)
        close_connection(connection);
    if (uv_is_closing((uv_handle_t *)&connection->tcp))
        return;
    flush(connection);
    if (connection->quit && unsent_output(connection) == 0)
        close_connection(connection);
    else
        set_reading(connection, may_run(connection));
}

void connection_accept(uv_stream_t *listener)
{
    struct connection *connection = calloc(1, sizeof *connection);

    if (connection == NULL)
        return; /* the client stays in the listener's queue */
    connection->output = &connection->outputs[0];
    connection->sending = &connection->outputs[1];
    uv_tcp_init(listener->loop, &connection->tcp);
    connection->tcp.data = connection;
    atomic_fetch_add_explicit(&n_open, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&n_accepted, 1, memory_order_relaxed);
    if (uv_accept(listener, (uv_stream_t *)&connection->tcp) != 0) {
        close_connection(connection);
        return;
    }
    uv_tcp_nodelay(&connection->tcp, 1);
    set_reading(connection, true);
}

void connection_check(uv_handle_t *handle, int64_t now)
{
    /* A connection is known by having data and being a stream; listeners have no data. */
    if (handle->type != UV_TCP || handle->data == NULL)
        return;
    struct connection *connection = handle->data;
    size_t unsent = uv_stream_get_write_queue_size((uv_stream_t *)&connection->tcp);
    if (unsent != connection->unsent) {
        connection->unsent = unsent;
        connection->unsent_since = now;
    }
    bool stuck = unsent != 0 && now - connection->unsent_since > STUCK_MILLISECONDS;
    if (stuck || now == INT64_MAX)
        close_connection(connection);
}

/* metrics.c -- the least HTTP server: one request, one answer, close.
 *
 * grey_metrics_write writes to a descriptor.  A memfd takes the text without blocking, so that its
 * length is known for the header.
 */
#define _GNU_SOURCE
#include "metrics.h"

#include "buffer.h"

#include <grey.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LONGEST_REQUEST = 8192, MOST_CLIENTS = 32, BACKLOG = 16 };

struct client {
    uv_tcp_t tcp;
    uv_write_t write;
    struct buffer answer;
    size_t size;
    char request[LONGEST_REQUEST];
};

/* The main thread's only. */
static unsigned n_clients;
static int page; /* the memfd, used for one answer after the other */

static void on_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;

    buffer_free(&client->answer);
    free(client);
    n_clients--;
}

void metrics_close(uv_handle_t *handle)
{
    if (handle->type == UV_TCP && handle->data != NULL && !uv_is_closing(handle))
        uv_close(handle, on_closed);
}

static void on_written(uv_write_t *write, int status)
{
    (void)status;
    metrics_close((uv_handle_t *)write->handle);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct client *client = handle->data;

    (void)suggested;
    *buffer = uv_buf_init(client->request + client->size, (unsigned)(LONGEST_REQUEST - client->size));
}

/* The text of all metrics; false: some call failed. */
static bool write_metrics(struct buffer *body)
{
    struct stat status;

    if (lseek(page, 0, SEEK_SET) != 0 || ftruncate(page, 0) != 0 || grey_metrics_write(page) != 0 ||
        fstat(page, &status) != 0 || !buffer_reserve(body, (size_t)status.st_size) ||
        pread(page, body->at, (size_t)status.st_size, 0) != status.st_size)
        return false;
    body->size = (size_t)status.st_size;
    return true;
}

static void answer(struct client *client)
{
    struct buffer body = {.at = NULL};
    const char *status = "404 Not Found";
    char header[256];

    if (strncmp(client->request, "GET /metrics ", 13) == 0)
        status = write_metrics(&body) ? "200 OK" : "500 Internal Server Error";
    int n = snprintf(header, sizeof header,
                     "HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %zu\r\n"
                     "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\r\n",
                     status, body.size);
    buffer_append(&client->answer, header, (size_t)n);
    buffer_append(&client->answer, body.at, body.size);
    buffer_free(&body);
    uv_buf_t bytes = uv_buf_init(client->answer.at, (unsigned)client->answer.size);
    if (client->answer.failed ||
        uv_write(&client->write, (uv_stream_t *)&client->tcp, &bytes, 1, on_written) != 0)
        metrics_close((uv_handle_t *)&client->tcp);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct client *client = stream->data;

    (void)buffer;
    if (n < 0) {
        metrics_close((uv_handle_t *)stream);
        return;
    }
    client->size += (size_t)n;
    if (memmem(client->request, client->size, "\r\n\r\n", 4) != NULL) {
        uv_read_stop(stream);
        answer(client);
    } else if (client->size == LONGEST_REQUEST) {
        metrics_close((uv_handle_t *)stream);
    }
}

static void on_client(uv_stream_t *listener, int status)
{
    struct client *client = status == 0 ? calloc(1, sizeof *client) : NULL;

    if (client == NULL)
        return;
    uv_tcp_init(listener->loop, &client->tcp);
    client->tcp.data = client;
    n_clients++;
    if (uv_accept(listener, (uv_stream_t *)&client->tcp) != 0 || n_clients > MOST_CLIENTS ||
        uv_read_start((uv_stream_t *)&client->tcp, on_alloc, on_read) != 0)
        metrics_close((uv_handle_t *)&client->tcp);
}

int metrics_listen(uv_tcp_t *listener)
{
    page = memfd_create("metrics", MFD_CLOEXEC);
    if (page < 0)
        return uv_translate_sys_error(errno);
    return uv_listen((uv_stream_t *)listener, BACKLOG, on_client);
}

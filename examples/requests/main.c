/* main.c -- requests: an HTTP server in which each request has an arena of its own.
 *
 * The main thread starts Grey and the workers, then runs an event loop of its own for signals.  SIGINT and
 * SIGTERM end that loop; the workers are stopped and joined, and grey_shutdown, which wants all other threads
 * gone, unmaps the heap.
 */
#include "event_loop.h"
#include "settings.h"
#include "worker.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grey.h>
#include <http_parser.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct main_loop {
    uv_loop_t loop;
    uv_signal_t interrupt, terminate;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "requests: %s: %s\n", what, why);
    exit(1);
}

static void check(const char *what, int uv_error)
{
    if (uv_error != 0)
        die(what, uv_strerror(uv_error));
}

static struct sockaddr_storage address_of(const char *text, int port)
{
    struct sockaddr_storage address;

    if (uv_ip4_addr(text, port, (struct sockaddr_in *)&address) != 0)
        check(text, uv_ip6_addr(text, port, (struct sockaddr_in6 *)&address));
    return address;
}

static int port_of(const struct sockaddr_storage *address)
{
    /* The port is at the same place in both. */
    return ntohs(((const struct sockaddr_in *)address)->sin_port);
}

/* Turns port 0 into a free one, and finds out if another server has the port: once SO_REUSEPORT is
 * set, the kernel would silently share the clients with it. */
static void claim_port(struct sockaddr_storage *address)
{
    int one = 1;
    socklen_t size = sizeof *address;
    int descriptor = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (descriptor < 0 || setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(descriptor, (struct sockaddr *)address,
             address->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) != 0 ||
        getsockname(descriptor, (struct sockaddr *)address, &size) != 0)
        die(settings.bind, strerror(errno));
    close(descriptor);
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void on_signal(uv_signal_t *handle, int number)
{
    (void)number;
    uv_walk(handle->loop, close_handle, NULL);
}

static void open_main_loop(struct main_loop *loop)
{
    check("event loop", uv_loop_init(&loop->loop));
    check("signal", uv_signal_init(&loop->loop, &loop->interrupt));
    check("signal", uv_signal_init(&loop->loop, &loop->terminate));
    check("SIGINT", uv_signal_start(&loop->interrupt, on_signal, SIGINT));
    check("SIGTERM", uv_signal_start(&loop->terminate, on_signal, SIGTERM));
}

int main(int argc, char **argv)
{
    static struct worker workers[MOST_THREADS];
    static struct main_loop loop;

    settings_read_arguments(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    int error = grey_init(NULL);
    if (error != 0)
        die("grey", strerror(error));
    http_parser_set_max_header_size(settings.max_header);
    open_main_loop(&loop);
    struct sockaddr_storage address = address_of(settings.bind, settings.port);
    claim_port(&address);
    settings.port = port_of(&address);
    for (unsigned i = 0; i < settings.threads; i++)
        check("listen", worker_start(&workers[i], (struct sockaddr *)&address));
    printf("requests: listening on http://%s:%d, %u threads, %s\n", settings.bind, settings.port,
           settings.threads, settings.arenas ? "an arena a request" : "no arenas");
    fflush(stdout);

    event_loop_run(&loop.loop);
    for (unsigned i = 0; i < settings.threads; i++)
        worker_stop(&workers[i]);
    uv_loop_close(&loop.loop);
    grey_shutdown();
    return 0;
}

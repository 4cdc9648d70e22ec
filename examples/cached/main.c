/* main.c -- cached: a cache server that speaks the Redis protocol and keeps its data in a Grey heap.
 *
 * The main thread starts Grey, the store and the workers, then runs an event loop of its own for
 * signals and the metrics page.  SIGINT and SIGTERM end that loop; the workers are stopped and joined,
 * and grey_shutdown, which wants all other threads gone, unmaps the heap.
 */
#include "event_loop.h"
#include "extents.h"
#include "metrics.h"
#include "settings.h"
#include "store.h"
#include "worker.h"

#include <arpa/inet.h>
#include <grey.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

struct main_loop {
    uv_loop_t loop;
    uv_signal_t interrupt, terminate;
    uv_tcp_t metrics;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "cached: %s: %s\n", what, why);
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
    if (handle->data != NULL)
        metrics_close(handle);
    else if (!uv_is_closing(handle))
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
    if (settings.metrics_port < 0)
        return;
    struct sockaddr_storage address = address_of(settings.bind, settings.metrics_port);
    int size = sizeof address;
    check("metrics", uv_tcp_init(&loop->loop, &loop->metrics));
    check("metrics port", uv_tcp_bind(&loop->metrics, (struct sockaddr *)&address, 0));
    check("metrics port", metrics_listen(&loop->metrics));
    check("metrics port", uv_tcp_getsockname(&loop->metrics, (struct sockaddr *)&address, &size));
    settings.metrics_port = port_of(&address);
}

static void open_store(void)
{
    uint64_t seed[2];
    int error = grey_init(NULL);

    if (error != 0)
        die("grey", strerror(error));
    if (getrandom(seed, sizeof seed, 0) != sizeof seed)
        die("getrandom", strerror(errno));
    slice_hash_seed(seed[0], seed[1]);
    error = store_init();
    if (error != 0)
        die("store", strerror(error));
    if (settings.mmap_file == NULL)
        return;
    error = extents_open(settings.mmap_file, settings.mmap_size, settings.mmap_threshold);
    if (error != 0)
        die(settings.mmap_file, strerror(error));
}

int main(int argc, char **argv)
{
    static struct worker workers[256];
    static struct main_loop loop;

    settings_read_arguments(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    open_store();
    open_main_loop(&loop);
    struct sockaddr_storage address = address_of(settings.bind, settings.port);
    claim_port(&address);
    settings.port = port_of(&address);
    for (unsigned i = 0; i < settings.threads; i++)
        check("listen", worker_start(&workers[i], i, settings.threads, (struct sockaddr *)&address));
    printf("cached: listening on %s port %d, %u threads\n", settings.bind, settings.port, settings.threads);
    if (settings.metrics_port >= 0)
        printf("cached: metrics on http://%s:%d/metrics\n", settings.bind, settings.metrics_port);
    fflush(stdout);

    event_loop_run(&loop.loop);
    for (unsigned i = 0; i < settings.threads; i++)
        worker_stop(&workers[i]);
    uv_loop_close(&loop.loop);
    grey_shutdown();
    extents_close();
    return 0;
}

/* cache.c -- the latency of a cache under an open load: what a user of a server feels of a collector.
 *
 * The cache is cache.h's, of 2 million entries if not said.  First a closed loop, operations one after the
 * other, finds the program's capacity.  Then operations arrive by a fixed schedule, at 25, 50 and 75 % of it (or
 * --rate operations a second), 16 at a time on each thread, as from a client that pipelines; between arrivals the
 * thread sleeps.  Latency is from the time at which the schedule wanted the operation to its end: what waits behind
 * a pause counts as well, which a loop that begins the next operation when the last one has ended would leave out.
 */
#include "cache.h"

static struct bench_section all; /* what the loads cost together */

static void *open_loop(void *arg)
{
    struct client *client = arg;
    for (uint64_t arrival = 0;; arrival++) {
        uint64_t due = client->start + (uint64_t)((double)arrival * client->period);
        if (due >= client->end)
            return NULL;
        if (bench_now() < due)
            peer_blocking_call(sleep_until, &due);
        for (int i = 0; i < BATCH; i++) {
            operate(client);
            bench_count(&client->latency, bench_now() - due);
        }
    }
}

static void open_at(double rate, const char *name)
{
    struct bench_section section;
    bench_begin(&section);
    uint64_t start = bench_now() + 1000000;
    for (unsigned i = 0; i < threads; i++) {
        memset(&clients[i].latency, 0, sizeof clients[i].latency);
        clients[i].operations = 0;
        clients[i].period = BATCH * threads / rate * 1e9;
        clients[i].start = start + (uint64_t)(clients[i].period * i / threads);
        clients[i].end = start + duration;
    }
    peer_run(threads, open_loop, clients, sizeof clients[0]);
    bench_end(&section);
    static struct bench_histogram latency;
    memset(&latency, 0, sizeof latency);
    for (unsigned i = 0; i < threads; i++)
        bench_merge(&latency, &clients[i].latency);
    BENCH_CHECK(latency.n > 0);
    struct bench_result result = {"cache", PEER_NAME,    "rate",
                                  "k/s",   BENCH_HIGHER, (double)latency.n / ((double)section.wall_ns / 1e6)};
    bench_print(&result, &section, "%s", name);
    print_latency("cache", &latency, &section, name);
    all.cpu_ns += section.cpu_ns;
    all.rss_mib = section.rss_mib > all.rss_mib ? section.rss_mib : all.rss_mib;
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    const char *name = cache_start(&options, 2000000, 15);
    char load[96];
    double capacity = closed("cache", name);
    if (options.rate != 0) {
        snprintf(load, sizeof load, "%s,load=%u/s", name, options.rate);
        open_at(options.rate, load);
    } else
        for (unsigned percent = 25; percent <= 75; percent += 25) {
            snprintf(load, sizeof load, "%s,load=%u%%", name, percent);
            open_at(capacity * percent / 100, load);
        }
    peer_print_pauses("cache", &all, name);
    return 0;
}

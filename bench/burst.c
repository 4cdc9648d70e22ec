/* burst.c -- the latency of the cache while it allocates ten times as much as before.
 *
 * The cache of cache.h, under an open load of a tenth of its capacity (or --rate operations a second) that
 * never changes.  After a quiet section comes a burst: for each object that an operation makes it makes nine
 * more of that size and drops them; then it is quiet again.  Nothing warns the collector: its goal, its
 * trigger and its idea of how much is allocated while it marks are those of the quiet section.  With 300,000
 * entries if not said, so that the quiet sections see some cycles too: with cycles in the burst alone the
 * question would be what a cycle costs.
 *
 * Latencies are from the scheduled time, as in cache.c, and by the section in which the operation was due.
 * The work of a burst takes time itself, whoever allocates: what the peer with malloc and free shows is that.
 */
#include "cache.h"

enum { QUIET, BURST, AFTER, SECTIONS, EXTRA = 9 };
static const char *const section_names[] = {"quiet", "burst", "after"};
static struct bench_histogram (*latencies)[SECTIONS]; /* of each client */

static void *open_loop(void *arg)
{
    struct client *client = arg;
    struct bench_histogram *latency = latencies[client - clients];
    for (uint64_t arrival = 0;; arrival++) {
        uint64_t due = client->start + (uint64_t)((double)arrival * client->period);
        if (due >= client->end)
            return NULL;
        uint64_t section = (due - client->start) / duration;
        client->extra = section == BURST ? EXTRA : 0;
        if (bench_now() < due)
            peer_blocking_call(sleep_until, &due);
        for (int i = 0; i < BATCH; i++) {
            operate(client);
            bench_count(&latency[section], bench_now() - due);
        }
    }
}

static void print_section(int which, const struct bench_section *section, const char *name, double *p999)
{
    static struct bench_histogram latency;
    memset(&latency, 0, sizeof latency);
    for (unsigned i = 0; i < threads; i++)
        bench_merge(&latency, &latencies[i][which]);
    BENCH_CHECK(latency.n > 0);
    char load[128];
    snprintf(load, sizeof load, "%s,section=%s", name, section_names[which]);
    print_latency("burst", &latency, section, load);
    *p999 = bench_percentile(&latency, 0.999);
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    const char *name = cache_start(&options, 300000, 15);
    latencies = peer_checked(calloc(threads, sizeof *latencies));
    double rate = closed("burst", name) / 10, p999[SECTIONS];
    if (options.rate != 0)
        rate = options.rate;

    struct bench_section section;
    bench_begin(&section);
    uint64_t start = bench_now() + 1000000;
    for (unsigned i = 0; i < threads; i++) {
        clients[i].period = BATCH * threads / rate * 1e9;
        clients[i].start = start + (uint64_t)(clients[i].period * i / threads);
        clients[i].end = clients[i].start + SECTIONS * duration;
    }
    peer_run(threads, open_loop, clients, sizeof clients[0]);
    bench_end(&section);

    for (int i = 0; i < SECTIONS; i++)
        print_section(i, &section, name, &p999[i]);
    struct bench_result result = {"burst", PEER_NAME, "burst_to_quiet_p99.9", "x", BENCH_LOWER, 0};
    result.value = p999[BURST] / p999[QUIET];
    bench_print(&result, &section, "%s", name);
    peer_print_pauses("burst", &section, name);
    return 0;
}

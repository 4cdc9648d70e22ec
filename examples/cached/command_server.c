/* command_server.c -- commands about the connection and the server; INFO shows the collector's figures. */
#define _GNU_SOURCE
#include "command.h"
#include "connection.h"
#include "extents.h"
#include "settings.h"

#include <fnmatch.h>
#include <grey.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void command_ping(struct call *call)
{
    if (call->n > 2)
        command_wrong_arguments(call);
    else if (call->n == 2)
        reply_bulk(call->out, call->args[1]);
    else
        reply_status(call->out, "PONG");
}

void command_echo(struct call *call) { reply_bulk(call->out, call->args[1]); }

void command_select(struct call *call)
{
    int64_t db;

    if (!command_integer(call, 1, &db))
        return;
    if (db == 0)
        reply_status(call->out, "OK");
    else
        reply_error(call->out, "ERR DB index is out of range");
}

void command_quit(struct call *call)
{
    reply_status(call->out, "OK");
    call->quit = true;
}

/* What client libraries say about themselves when they connect. */
void command_client(struct call *call)
{
    if ((slice_is(call->args[1], "SETNAME") && call->n == 3) ||
        (slice_is(call->args[1], "SETINFO") && call->n == 4))
        reply_status(call->out, "OK");
    else
        reply_error(call->out, "ERR unknown subcommand or wrong number of arguments for 'client'");
}

void command_command(struct call *call) { reply_array(call->out, 0); }

static bool matches(struct slice pattern, const char *name)
{
    char text[64];

    if (pattern.size >= sizeof text)
        return false;
    memcpy(text, pattern.at, pattern.size);
    text[pattern.size] = '\0';
    return fnmatch(text, name, FNM_CASEFOLD) == 0;
}

static void config_get(struct call *call)
{
    size_t n_knobs, n = 0;
    const struct knob *knobs = settings_knobs(&n_knobs);
    char value[64];

    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1)
            reply_array(call->out, 2 * n);
        for (size_t k = 0; k < n_knobs; k++) {
            bool wanted = false;
            for (size_t i = 2; i < call->n && !wanted; i++)
                wanted = matches(call->args[i], knobs[k].name);
            if (!wanted)
                continue;
            n++;
            if (pass == 0)
                continue;
            knobs[k].get(value, sizeof value);
            reply_bulk(call->out, slice_of(knobs[k].name));
            reply_bulk(call->out, slice_of(value));
        }
    }
}

static void config_set(struct call *call)
{
    size_t n_knobs;
    const struct knob *knobs = settings_knobs(&n_knobs);

    for (size_t k = 0; k < n_knobs; k++) {
        if (!slice_is(call->args[2], knobs[k].name) || knobs[k].set == NULL)
            continue;
        if (knobs[k].set(call->args[3]))
            reply_status(call->out, "OK");
        else
            reply_error(call->out, "ERR CONFIG SET failed - argument couldn't be parsed");
        return;
    }
    reply_error(call->out, "ERR Unknown option or number of arguments for CONFIG SET");
}

void command_config(struct call *call)
{
    if (slice_is(call->args[1], "GET") && call->n >= 3)
        config_get(call);
    else if (slice_is(call->args[1], "SET") && call->n == 4)
        config_set(call);
    else
        reply_error(call->out, "ERR unknown subcommand or wrong number of arguments for 'config'");
}

/* A cycle now, and all that is free back to the system; extents that nobody uses are free when it answers.
 * The other clients of this thread wait for it. */
void command_memory(struct call *call)
{
    if (!slice_is(call->args[1], "PURGE") || call->n != 2) {
        reply_error(call->out, "ERR unknown subcommand or wrong number of arguments for 'memory'");
        return;
    }
    grey_trim();
    grey_cleanup_wait(-1);
    reply_status(call->out, "OK");
}

struct info {
    char text[8192];
    size_t size;
};

__attribute__((format(printf, 2, 3))) static void line(struct info *info, const char *format, ...)
{
    size_t room = sizeof info->text - info->size;
    va_list list;

    va_start(list, format);
    int n = vsnprintf(info->text + info->size, room, format, list);
    va_end(list);
    info->size += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

static void info_server(struct info *info)
{
    line(info, "# Server\r\nredis_version:7.0.0\r\nserver_name:cached\r\ngrey_version:%s\r\n",
         grey_version());
    line(info, "process_id:%d\r\ntcp_port:%d\r\nserver_threads:%u\r\n", (int)getpid(), settings.port,
         settings.threads);
}

static void info_clients(struct info *info)
{
    line(info, "# Clients\r\nconnected_clients:%" PRIu64 "\r\n", connection_figures().open);
}

static void info_memory(struct info *info)
{
    unsigned long all = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");

    if (statm != NULL) {
        if (fscanf(statm, "%lu %lu", &all, &resident) != 2)
            resident = 0;
        fclose(statm);
    }
    line(info, "# Memory\r\nused_memory:%" PRIu64 "\r\nmaxmemory:%" PRIu64 "\r\n", store_bytes(),
         settings_maxmemory());
    line(info, "used_memory_rss:%lu\r\nmaxmemory_policy:allkeys-lru\r\n",
         resident * (unsigned long)sysconf(_SC_PAGESIZE));
}

static void info_stats(struct info *info)
{
    struct store_events events = store_events();
    struct connection_figures figures = connection_figures();

    line(info, "# Stats\r\ntotal_connections_received:%" PRIu64 "\r\n", figures.accepted);
    line(info, "total_commands_processed:%" PRIu64 "\r\n", figures.commands);
    line(info, "expired_keys:%" PRIu64 "\r\nevicted_keys:%" PRIu64 "\r\n", events.expired, events.evicted);
    line(info, "zero_copy_bytes:%" PRIu64 "\r\n", output_all_spliced());
}

static void info_mmap(struct info *info)
{
    struct extents_figures figures = extents_figures();

    line(info, "# mmap\r\nmmap_file_size:%" PRIu64 "\r\nmmap_file_used:%" PRIu64 "\r\n", figures.file,
         figures.used);
    line(info, "mmap_made:%" PRIu64 "\r\nmmap_returned:%" PRIu64 "\r\nmmap_refused:%" PRIu64 "\r\n",
         figures.made, figures.returned, figures.refused);
}

static void info_keyspace(struct info *info)
{
    size_t keys = store_count();

    line(info, "# Keyspace\r\n");
    if (keys != 0)
        line(info, "db0:keys=%zu\r\n", keys);
}

/* The upper end of the bucket in which the value of this rank lies, ns. */
static uint64_t value_at(const struct grey_metric *histogram, uint64_t rank)
{
    uint64_t seen = 0;
    for (size_t i = 0; i < histogram->n; i++) {
        seen += histogram->counts[i];
        if (seen >= rank && seen != 0)
            return (uint64_t)(histogram->bounds[i + 1] * 1e9);
    }
    return 0;
}

/* Pauses by cause: on the wall clock, and as processor time of the paused thread.  The difference is time
 * in which the system had given the processor to somebody else. */
static void info_pauses(struct info *info)
{
    static const char *const kinds[] = {"handshake", "hold", "assist", "scavenge", "wait", "total"};
    static const struct {
        const char *label, *unit;
    } clocks[] = {{"wall", "seconds"}, {"cpu", "cpu-seconds"}};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
        for (size_t c = 0; c < sizeof clocks / sizeof clocks[0]; c++) {
            char name[64];
            struct grey_metric histogram;
            snprintf(name, sizeof name, "/gc/pauses/%s:%s", kinds[k], clocks[c].unit);
            if (grey_metric_read(name, &histogram) != 0)
                continue;
            uint64_t count = 0;
            for (size_t i = 0; i < histogram.n; i++)
                count += histogram.counts[i];
            if (count == 0)
                continue;
            const char *clock = clocks[c].label;
            line(info, "pause_%s_%s_count:%" PRIu64 "\r\n", kinds[k], clock, count);
            line(info, "pause_%s_%s_p50_ns:%" PRIu64 "\r\n", kinds[k], clock,
                 value_at(&histogram, (count + 1) / 2));
            line(info, "pause_%s_%s_p99_ns:%" PRIu64 "\r\n", kinds[k], clock,
                 value_at(&histogram, count - count / 100));
            line(info, "pause_%s_%s_p9999_ns:%" PRIu64 "\r\n", kinds[k], clock,
                 value_at(&histogram, count - count / 10000));
            line(info, "pause_%s_%s_max_ns:%" PRIu64 "\r\n", kinds[k], clock, value_at(&histogram, count));
        }
}

static void info_grey(struct info *info)
{
    struct grey_stats stats = GREY_STATS_INIT;

    if (grey_stats_read(&stats) != 0)
        return;
    const struct {
        const char *name;
        uint64_t value;
    } figures[] = {
        {"cycles", stats.cycles},
        {"heap_live", stats.heap_live},
        {"heap_goal", stats.heap_goal},
        {"objects", stats.heap_objects},
        {"mapped", stats.mapped},
        {"released", stats.released},
        {"metadata", stats.metadata},
        {"allocated_bytes", stats.allocated_bytes},
        {"freed_bytes", stats.freed_bytes},
        {"pause_count", stats.pause_count},
        {"pause_total_ns", stats.pause_total_ns},
        {"pause_p50_ns", stats.pause_p50_ns},
        {"pause_p99_ns", stats.pause_p99_ns},
        {"pause_p9999_ns", stats.pause_p9999_ns},
        {"pause_max_ns", stats.pause_max_ns},
        {"assist_ns", stats.assist_ns},
        {"worker_ns", stats.worker_ns},
        {"sweep_ns", stats.sweep_ns},
        {"threads", stats.threads},
        {"rounds", stats.rescan_rounds},
        {"foreign_regions", stats.foreign_regions},
        {"foreign_bytes", stats.foreign_bytes},
        {"foreign_died", stats.foreign_died},
        {"cleanups_run", stats.cleanups_run},
        {"arena_chunks", stats.arena_chunks_active + stats.arena_chunks_reusable +
                             stats.arena_chunks_pending + stats.arena_chunks_quarantined +
                             stats.arena_chunks_ready},
        {"pins", stats.pins},
    };
    line(info, "# grey\r\n");
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
        line(info, "%s:%" PRIu64 "\r\n", figures[i].name, figures[i].value);
    info_pauses(info);
}

void command_info(struct call *call)
{
    static const struct {
        const char *name;
        void (*write)(struct info *info);
    } sections[] = {{"server", info_server}, {"clients", info_clients},   {"memory", info_memory},
                    {"stats", info_stats},   {"keyspace", info_keyspace}, {"mmap", info_mmap},
                    {"grey", info_grey}};
    struct info info = {.size = 0};

    for (size_t s = 0; s < sizeof sections / sizeof sections[0]; s++) {
        bool wanted = call->n == 1;
        for (size_t i = 1; i < call->n && !wanted; i++)
            wanted = slice_is(call->args[i], sections[s].name) || slice_is(call->args[i], "all") ||
                     slice_is(call->args[i], "everything") || slice_is(call->args[i], "default");
        if (!wanted)
            continue;
        if (info.size != 0)
            line(&info, "\r\n");
        sections[s].write(&info);
    }
    reply_bulk(call->out, (struct slice){info.text, info.size});
}

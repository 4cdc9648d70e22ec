/* tests/api/metrics_test.c -- the metrics: by name, as text, and as docs/metrics.md has them (TR-3 .. TR-8).
 *
 * The text is read back by a small checker of the OpenMetrics format that knows nothing of the library.
 * With the argument --table this program prints the table of docs/metrics.md; without, one of its tests
 * compares the two, so the page can't fall behind the code:
 *
 *     metrics_test --table        prints what belongs between the page's two marks
 */
#include "grey.h"
#include "support_heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct grey_metric_info *infos;
static size_t n_infos;

static struct grey_metric read_metric(const char *name)
{
    struct grey_metric metric;
    assert_int_equal(grey_metric_read(name, &metric), 0);
    return metric;
}
static uint64_t u64_of(const char *name)
{
    struct grey_metric metric = read_metric(name);
    assert_int_equal(metric.kind, GREY_METRIC_U64);
    return metric.u64;
}
static double f64_of(const char *name)
{
    struct grey_metric metric = read_metric(name);
    assert_int_equal(metric.kind, GREY_METRIC_F64);
    return metric.f64;
}
static uint64_t count_of(const char *name)
{
    struct grey_metric metric = read_metric(name);
    assert_int_equal(metric.kind, GREY_METRIC_HISTOGRAM);
    uint64_t count = 0;
    for (size_t i = 0; i < metric.n; i++)
        count += metric.counts[i];
    return count;
}

static struct grey_stats read_stats(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    assert_int_equal(grey_stats_read(&stats), 0);
    return stats;
}

/* ---- the list, and wrong arguments -------------------------------------------------------------------- */

/* TR-3 */
static void list_is_well_formed(void **unused)
{
    (void)unused;
    size_t again = 0;
    assert_ptr_equal(grey_metric_list(&again), infos);
    assert_int_equal(again, n_infos);
    assert_in_range(n_infos, 40, 500);
    for (size_t i = 0; i < n_infos; i++) {
        const char *name = infos[i].name, *colon = strchr(name, ':');
        assert_true(name[0] == '/' && colon != NULL && colon[1] != '\0');
        assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789/-"), colon - name);
        assert_int_equal(strspn(colon + 1, "abcdefghijklmnopqrstuvwxyz-"), strlen(colon + 1));
        assert_true(strlen(infos[i].help) > 10);
        assert_null(strpbrk(infos[i].help, "\n\\|"));
        struct grey_metric metric = read_metric(name);
        assert_int_equal(metric.kind, infos[i].kind);
        assert_true(infos[i].kind != GREY_METRIC_NONE);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(name, infos[j].name);
    }
}

static void wrong_arguments(void **unused)
{
    (void)unused;
    static const char *const names[] = {"",
                                        "/",
                                        "/gc/cycles/total",
                                        "gc/cycles/total:gc-cycles",
                                        "/gc/cycles/total:gc-cycles ",
                                        "/GC/cycles/total:gc-cycles"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct grey_metric metric;
        memset(&metric, 0xa5, sizeof(metric));
        assert_int_equal(grey_metric_read(names[i], &metric), ENOENT);
        assert_int_equal(metric.kind, GREY_METRIC_NONE);
    }
    struct grey_metric metric;
    assert_int_equal(grey_metric_read(NULL, &metric), EINVAL);
    assert_int_equal(grey_metric_read("/gc/cycles/total:gc-cycles", NULL), EINVAL);
    assert_ptr_equal(grey_metric_list(NULL), infos);
}

/* ---- figures ------------------------------------------------------------------------------------------- */

/* TestReadMetrics: idle, each metric equals its statistic. */
static void metrics_equal_statistics(void **unused)
{
    (void)unused;
    static const struct {
        const char *name;
        size_t offset;
    } pairs[] = {
#define PAIR(name, field) {name, offsetof(struct grey_stats, field)}
        PAIR("/gc/cycles/total:gc-cycles", cycles),
        PAIR("/gc/cycles/forced:gc-cycles", forced_cycles),
        PAIR("/gc/heap/live:bytes", heap_live),
        PAIR("/gc/heap/goal:bytes", heap_goal),
        PAIR("/gc/heap/objects:objects", heap_objects),
        PAIR("/memory/classes/total:bytes", mapped),
        PAIR("/memory/classes/heap/released:bytes", released),
        PAIR("/gc/heap/allocs:bytes", allocated_bytes),
        PAIR("/gc/heap/allocs:objects", allocated_objects),
        PAIR("/gc/heap/frees:bytes", freed_bytes),
        PAIR("/gc/heap/frees:objects", freed_objects),
        PAIR("/gc/handshakes/total:handshakes", handshakes),
        PAIR("/gc/rounds/total:rounds", rescan_rounds),
        PAIR("/sched/threads/now:threads", threads),
#undef PAIR
    };
    grey_collect();
    heap_figures_at_rest();
    struct grey_stats stats = read_stats();
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        uint64_t expected;
        memcpy(&expected, (char *)&stats + pairs[i].offset, sizeof(expected));
        if (u64_of(pairs[i].name) != expected)
            fail_msg("%s is %llu, the statistic %llu", pairs[i].name,
                     (unsigned long long)u64_of(pairs[i].name), (unsigned long long)expected);
    }
    double workers = f64_of("/cpu/classes/gc/mark/dedicated:cpu-seconds") +
                     f64_of("/cpu/classes/gc/mark/idle:cpu-seconds");
    assert_true(fabs(workers - (double)stats.worker_ns / 1e9) < 1e-8);
    double assists = f64_of("/cpu/classes/gc/mark/assist:cpu-seconds");
    assert_true(fabs(assists - (double)stats.assist_ns / 1e9) < 1e-9);
    double sweeping = f64_of("/cpu/classes/gc/sweep:cpu-seconds");
    assert_true(fabs(sweeping - (double)stats.sweep_ns / 1e9) < 1e-9);
    assert_true(count_of("/gc/pauses/total:seconds") == stats.pause_count);
}

/* TestReadMetrics: what was set is read back. */
static void settings_are_read_back(void **unused)
{
    (void)unused;
    int percent = grey_set_percent(99);
    size_t limit = grey_set_memory_limit((size_t)512 << 20);
    assert_int_equal(u64_of("/gc/percent:percent"), 99);
    assert_int_equal(u64_of("/gc/memory-limit:bytes"), (uint64_t)512 << 20);
    grey_set_percent(-1);
    grey_set_memory_limit(SIZE_MAX);
    assert_true(u64_of("/gc/percent:percent") == UINT64_MAX);
    assert_true(u64_of("/gc/memory-limit:bytes") == UINT64_MAX);
    grey_set_percent(percent);
    grey_set_memory_limit(limit);
}

static uint64_t sum_of_class(const char *prefix, const char *total)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n_infos; i++)
        if (strncmp(infos[i].name, prefix, strlen(prefix)) == 0 && strcmp(infos[i].name, total) != 0)
            sum += u64_of(infos[i].name);
    return sum;
}

/* TR-7, TestReadMetricsConsistency: totals are sums. */
static void totals_are_sums(void **unused)
{
    (void)unused;
    grey_collect();
    heap_figures_at_rest();
    assert_int_equal(u64_of("/gc/cycles/automatic:gc-cycles") + u64_of("/gc/cycles/forced:gc-cycles"),
                     u64_of("/gc/cycles/total:gc-cycles"));
    assert_true(u64_of("/gc/cycles/periodic:gc-cycles") <= u64_of("/gc/cycles/automatic:gc-cycles"));
    assert_int_equal(sum_of_class("/gc/scan/", "/gc/scan/total:bytes"), u64_of("/gc/scan/total:bytes"));
    assert_true(u64_of("/gc/scan/stacks:bytes") > 0);
    assert_int_equal(sum_of_class("/memory/classes/", "/memory/classes/total:bytes"),
                     u64_of("/memory/classes/total:bytes"));
    assert_int_equal(sum_of_class("/memory/classes/metadata/", ""), read_stats().metadata);
    assert_true(u64_of("/gc/rounds/held:rounds") <= u64_of("/gc/rounds/total:rounds"));
    assert_int_equal(u64_of("/gc/handshakes/polled:handshakes") +
                         u64_of("/gc/handshakes/signalled:handshakes") +
                         u64_of("/gc/handshakes/blocked:handshakes"),
                     u64_of("/gc/handshakes/total:handshakes"));
    assert_true(u64_of("/gc/handshakes/parked:handshakes") <= u64_of("/gc/handshakes/blocked:handshakes"));
    assert_true(u64_of("/gc/handshakes/total:handshakes") >= u64_of("/gc/cycles/forced:gc-cycles"));

    double collector =
        f64_of("/cpu/classes/gc/handshake:cpu-seconds") + f64_of("/cpu/classes/gc/mark/assist:cpu-seconds") +
        f64_of("/cpu/classes/gc/mark/dedicated:cpu-seconds") +
        f64_of("/cpu/classes/gc/mark/idle:cpu-seconds") + f64_of("/cpu/classes/gc/sweep:cpu-seconds");
    assert_true(fabs(collector - f64_of("/cpu/classes/gc/total:cpu-seconds")) < 1e-6);
    double low = f64_of("/cpu/classes/gc/total:cpu-seconds") + f64_of("/cpu/classes/user:cpu-seconds") +
                 f64_of("/cpu/classes/idle:cpu-seconds");
    double total = f64_of("/cpu/classes/total:cpu-seconds");
    double high = f64_of("/cpu/classes/gc/total:cpu-seconds") + f64_of("/cpu/classes/user:cpu-seconds") +
                  f64_of("/cpu/classes/idle:cpu-seconds");
    assert_true(low <= total + 1e-6 && total <= high + 1e-6); /* time goes on between readings */
}

static _Atomic int answering, started;

/* A thread that runs during the cycles, so that there are pauses to look at. */
static void *answer_handshakes(void *unused)
{
    started = 1;
    while (answering)
        grey_safepoint();
    return unused;
}

/* TR-7, TR-8: kinds add up; counts and sums of both views agree; quantiles fit the buckets. */
static void histograms_agree(void **unused)
{
    (void)unused;
    pthread_t thread;
    answering = 1;
    assert_int_equal(grey_thread_create(&thread, NULL, answer_handshakes, NULL), 0);
    while (!started)
        sched_yield();
    for (int i = 0; i < 3; i++)
        grey_collect();
    answering = 0;
    assert_int_equal(grey_thread_join(thread, NULL), 0);
    heap_figures_at_rest();
    struct grey_stats stats = read_stats();
    uint64_t parts = count_of("/gc/pauses/handshake:seconds") + count_of("/gc/pauses/hold:seconds") +
                     count_of("/gc/pauses/assist:seconds") + count_of("/gc/pauses/scavenge:seconds") +
                     count_of("/gc/pauses/wait:seconds");
    assert_true(parts > 0);
    assert_true(parts == stats.pause_count);
    assert_true(count_of("/gc/pauses/total:cpu-seconds") <= parts);

    struct grey_metric all = read_metric("/gc/pauses/total:seconds");
    double lowest = 0, highest = 0, p99_high = 0;
    uint64_t seen = 0, rank = (parts * 99 + 99) / 100;
    for (size_t i = 0; i < all.n; i++) {
        assert_true(isfinite(all.bounds[i + 1]) && all.bounds[i] < all.bounds[i + 1]);
        lowest += (double)all.counts[i] * all.bounds[i];
        highest += (double)all.counts[i] * all.bounds[i + 1];
        seen += all.counts[i];
        if (p99_high == 0 && seen >= rank)
            p99_high = all.bounds[i + 1];
    }
    assert_true(all.counts[all.n - 1] > 0);
    double total = (double)stats.pause_total_ns / 1e9, p99 = (double)stats.pause_p99_ns / 1e9;
    assert_true(lowest <= total * 1.000001 && total <= highest * 1.000001);
    assert_true(highest <= lowest * (1 + 1.0 / 64) + (double)parts * 2e-9);
    assert_true(p99 <= p99_high && p99 >= p99_high * (1 - 1.0 / 32));
}

/* TestSchedPauseMetrics: a forced cycle raises the counts of handshakes. */
static void cycle_raises_handshakes(void **unused)
{
    (void)unused;
    heap_figures_at_rest();
    uint64_t answers = u64_of("/gc/handshakes/total:handshakes");
    uint64_t cycles = u64_of("/gc/cycles/forced:gc-cycles");
    uint64_t periodic = u64_of("/gc/cycles/periodic:gc-cycles");
    grey_collect();
    heap_figures_at_rest();
    assert_true(u64_of("/gc/handshakes/total:handshakes") > answers);
    assert_in_range(u64_of("/gc/cycles/forced:gc-cycles") - cycles, 1, 2);
    assert_int_equal(u64_of("/gc/cycles/periodic:gc-cycles"), periodic);
}

/* ---- under load ---------------------------------------------------------------------------------------- */

static atomic_bool stop;

static void *load(void *large)
{
    void **kept = grey_alloc(64 * sizeof(void *));
    for (unsigned i = 0; !atomic_load(&stop); i++) {
        void *p = large != NULL ? grey_alloc_leaf(1 << 20) : grey_alloc(16 + i % 1024);
        assert_non_null(p);
        grey_store(&kept[i % (large != NULL ? 4 : 64)], p);
    }
    return NULL;
}

/* One number that rises with the metric. */
static double magnitude(const char *name)
{
    struct grey_metric metric = read_metric(name);
    double sum = 0;
    switch (metric.kind) {
    case GREY_METRIC_U64:
        return (double)metric.u64;
    case GREY_METRIC_F64:
        return metric.f64;
    default:
        for (size_t i = 0; i < metric.n; i++)
            sum += (double)metric.counts[i];
        return sum;
    }
}

/* TR-5, TestReadMetricsCumulative; TR-3: no NaN, nothing infinite. */
static void cumulative_under_load(void **unused)
{
    (void)unused;
    pthread_t thread;
    double *before = calloc(n_infos, sizeof(*before));
    atomic_store(&stop, false);
    assert_int_equal(grey_thread_create(&thread, NULL, load, NULL), 0);
    for (int reading = 0; reading < 10; reading++) {
        for (size_t i = 0; i < n_infos; i++) {
            double now = magnitude(infos[i].name);
            assert_true(isfinite(now) && now >= 0);
            if (infos[i].cumulative && now < before[i])
                fail_msg("%s went from %f to %f", infos[i].name, before[i], now);
            before[i] = now;
        }
        grey_collect();
    }
    atomic_store(&stop, true);
    assert_int_equal(grey_thread_join(thread, NULL), 0);
    free(before);
}

/* TestMetricHeapUnusedLargeObjectOverflow */
static void nothing_underflows(void **unused)
{
    (void)unused;
    pthread_t thread;
    atomic_store(&stop, false);
    assert_int_equal(grey_thread_create(&thread, NULL, load, &stop), 0);
    for (int i = 0; i < 1000; i++) {
        assert_true(u64_of("/memory/classes/heap/unused:bytes") < UINT64_C(1) << 40);
        assert_true(u64_of("/memory/classes/heap/free:bytes") < UINT64_C(1) << 40);
        assert_true(u64_of("/gc/heap/objects:objects") < UINT64_C(1) << 40);
    }
    atomic_store(&stop, true);
    assert_int_equal(grey_thread_join(thread, NULL), 0);
}

static void *read_one(void *other)
{
    struct grey_metric metric = read_metric("/gc/pauses/total:seconds");
    return metric.counts == other || grey_tls_.thread != NULL ? NULL : other;
}

/* TR-6: nothing is allocated after the first read.  Each thread has a copy of its own, which passes on to
 * another when the thread ends; reading does not attach (AL-16). */
static void reading_allocates_nothing(void **unused)
{
    (void)unused;
    static const char mapped[] = "/memory/classes/metadata/inspect:bytes";
    struct grey_metric own = read_metric("/gc/pauses/total:seconds");
    uint64_t inspect_bytes = 0;
    for (int i = 0; i < 300; i++) {
        pthread_t thread;
        void *result;
        assert_int_equal(pthread_create(&thread, NULL, read_one, (void *)own.counts), 0);
        assert_int_equal(pthread_join(thread, &result), 0);
        assert_ptr_equal(result, own.counts);
        if (i == 0)
            inspect_bytes = u64_of(mapped);
        assert_int_equal(u64_of(mapped), inspect_bytes);
    }
    assert_ptr_equal(read_metric("/gc/pauses/hold:seconds").counts, own.counts);
}

/* ---- OpenMetrics --------------------------------------------------------------------------------------- */

static char *read_all(int fd)
{
    size_t length = 0, size = 1 << 16;
    char *text = malloc(size);
    for (;;) {
        if (size - length < 2)
            text = realloc(text, size *= 2);
        ssize_t n = read(fd, text + length, size - length - 1 < 997 ? size - length - 1 : 997);
        assert_true(n >= 0);
        if (n == 0)
            break;
        length += (size_t)n;
    }
    text[length] = '\0';
    return text;
}

static void *writer(void *fd)
{
    int error = grey_metrics_write(*(int *)fd);
    close(*(int *)fd);
    return (void *)(intptr_t)error;
}

/* By way of a pipe that holds one page: the library's writes are cut short. */
static char *metrics_text(void)
{
    int ends[2];
    pthread_t thread;
    void *error;
    assert_int_equal(pipe(ends), 0);
    fcntl(ends[1], F_SETPIPE_SZ, 4096);
    assert_int_equal(pthread_create(&thread, NULL, writer, &ends[1]), 0);
    char *text = read_all(ends[0]);
    assert_int_equal(pthread_join(thread, &error), 0);
    assert_null(error);
    close(ends[0]);
    return text;
}

/* What the checker knows of the family whose lines it is reading. */
struct family {
    char name[200], type[20];
    bool helped, done;
    double bucket, le;
    bool infinite, summed;
};

static void check_sample(struct family *family, const char *line)
{
    char name[240], rest[300], *end;
    assert_int_equal(sscanf(line, "%239[a-z0-9_]%299[^\n]", name, rest), 2);
    assert_memory_equal(name, family->name, strlen(family->name));
    const char *suffix = name + strlen(family->name), *number = strrchr(rest, ' ');
    assert_non_null(number);
    double value = strtod(number + 1, &end);
    assert_true(end != number + 1 && *end == '\0' && isfinite(value) && value >= 0);
    if (strcmp(family->type, "histogram") != 0) {
        assert_string_equal(suffix, strcmp(family->type, "counter") == 0 ? "_total" : "");
        assert_ptr_equal(number, rest);
        assert_false(family->done);
        family->done = true;
    } else if (strcmp(suffix, "_bucket") == 0) {
        char le[100];
        assert_int_equal(sscanf(rest, "{le=\"%99[^\"]\"}", le), 1);
        double bound = strcmp(le, "+Inf") == 0 ? INFINITY : strtod(le, &end);
        assert_true(!family->infinite && bound > family->le && value >= family->bucket);
        family->le = bound;
        family->bucket = value;
        family->infinite = isinf(bound);
    } else if (strcmp(suffix, "_sum") == 0) {
        assert_true(family->infinite && !family->summed);
        family->summed = true;
    } else {
        assert_string_equal(suffix, "_count");
        assert_true(family->summed && value == family->bucket);
        family->done = true;
    }
}

static void check_comment(struct family *family, const char *line, const char *text)
{
    char word[20], name[200], value[300];
    assert_int_equal(sscanf(line, "# %19[A-Z] %199[a-z0-9_] %299[^\n]", word, name, value), 3);
    if (strcmp(word, "TYPE") == 0) {
        assert_true(family->done);
        *family = (struct family){.le = -1};
        strcpy(family->name, name);
        assert_true(strlen(value) < sizeof(family->type));
        strcpy(family->type, value);
        bool scalar = strcmp(value, "counter") == 0 || strcmp(value, "gauge") == 0;
        assert_true(scalar || strcmp(value, "histogram") == 0);
        char again[240];
        snprintf(again, sizeof(again), "# TYPE %s ", name);
        const char *first = strstr(text, again);
        assert_non_null(first);
        assert_null(strstr(first + 1, again));
    } else if (strcmp(word, "UNIT") == 0) {
        assert_string_equal(name, family->name);
        assert_true(strlen(name) > strlen(value));
        assert_string_equal(name + strlen(name) - strlen(value), value);
    } else {
        assert_string_equal(word, "HELP");
        assert_string_equal(name, family->name);
        family->helped = true;
    }
}

static void text_is_openmetrics(void **unused)
{
    (void)unused;
    char *text = metrics_text(), *copy = strdup(text);
    struct family family = {.done = true};
    size_t families = 0, length = strlen(text);
    assert_true(length > 6 && strcmp(text + length - 6, "# EOF\n") == 0);
    text[length - 6] = '\0';
    for (char *line = text, *next; *line != '\0'; line = next) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        next = end + 1;
        families += strncmp(line, "# TYPE ", 7) == 0;
        if (line[0] == '#') {
            check_comment(&family, line, copy);
        } else {
            assert_true(family.helped);
            check_sample(&family, line);
        }
    }
    assert_true(family.done);
    assert_int_equal(families, n_infos);
    free(text);
    free(copy);
}

static void text_equals_metrics(void **unused)
{
    (void)unused;
    heap_figures_at_rest();
    char *text = metrics_text(), line[200];
    snprintf(line, sizeof(line), "\ngrey_gc_cycles_total_gc_cycles_total %llu\n",
             (unsigned long long)u64_of("/gc/cycles/total:gc-cycles"));
    assert_non_null(strstr(text, line));
    snprintf(line, sizeof(line), "\ngrey_memory_classes_total_bytes %llu\n",
             (unsigned long long)u64_of("/memory/classes/total:bytes"));
    assert_non_null(strstr(text, line));
    snprintf(line, sizeof(line), "\ngrey_gc_pauses_total_seconds_count %llu\n",
             (unsigned long long)read_stats().pause_count);
    assert_non_null(strstr(text, line));
    snprintf(line, sizeof(line), "\ngrey_gc_pauses_total_seconds_sum %llu.%09llu\n",
             (unsigned long long)(read_stats().pause_total_ns / 1000000000),
             (unsigned long long)(read_stats().pause_total_ns % 1000000000));
    assert_non_null(strstr(text, line));
    free(text);
}

static void errors_of_write_come_back(void **unused)
{
    (void)unused;
    assert_int_equal(grey_metrics_write(-1), EBADF);
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(full >= 0);
    assert_int_equal(grey_metrics_write(full), ENOSPC);
    close(full);
    assert_int_equal(grey_metrics_write(full), EBADF);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fcntl(ends[1], F_SETPIPE_SZ, 4096);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    assert_int_equal(grey_metrics_write(ends[1]), EAGAIN);
    close(ends[0]);
    close(ends[1]);
}

/* ---- docs/metrics.md ----------------------------------------------------------------------------------- */

static const char *const kinds[] = {"none", "number", "seconds", "histogram"};

static size_t table_row(char *row, size_t size, const struct grey_metric_info *info)
{
    return (size_t)snprintf(row, size, "| `%s` | %s | %s | %s |\n", info->name, kinds[info->kind],
                            info->cumulative ? "yes" : "no", info->help);
}

static void page_has_the_table(void **unused)
{
    (void)unused;
    char path[4096];
    snprintf(path, sizeof(path), "%s", __FILE__);
    char *tail = strstr(path, "tests/api/metrics_test.c");
    assert_non_null(tail);
    strcpy(tail, "docs/metrics.md");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    char *page = read_all(fd), row[600];
    close(fd);
    char *at = strstr(page, "| --- | --- | --- | --- |\n");
    assert_non_null(at);
    at = strchr(at, '\n') + 1;
    for (size_t i = 0; i < n_infos; i++) {
        size_t length = table_row(row, sizeof(row), &infos[i]);
        if (strncmp(at, row, length) != 0)
            fail_msg("docs/metrics.md is not up to date at %s: see the head of this file", infos[i].name);
        at += length;
    }
    assert_true(*at != '|');
    free(page);
}

int main(int argc, char **argv)
{
    infos = grey_metric_list(&n_infos);
    if (argc > 1 && strcmp(argv[1], "--table") == 0) {
        char row[600];
        printf("| Name | Kind | Cumulative | What |\n| --- | --- | --- | --- |\n");
        for (size_t i = 0; i < n_infos; i++) {
            table_row(row, sizeof(row), &infos[i]);
            fputs(row, stdout);
        }
        return 0;
    }
    if (grey_init(NULL) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(list_is_well_formed),       cmocka_unit_test(wrong_arguments),
        cmocka_unit_test(metrics_equal_statistics),  cmocka_unit_test(settings_are_read_back),
        cmocka_unit_test(totals_are_sums),           cmocka_unit_test(histograms_agree),
        cmocka_unit_test(cycle_raises_handshakes),   cmocka_unit_test(cumulative_under_load),
        cmocka_unit_test(nothing_underflows),        cmocka_unit_test(reading_allocates_nothing),
        cmocka_unit_test(text_is_openmetrics),       cmocka_unit_test(text_equals_metrics),
        cmocka_unit_test(errors_of_write_come_back), cmocka_unit_test(page_has_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* tests/api/init_test.c -- start and end: options, environment, implicit start, shutdown and start again.
 *
 * Requirements: TU-1 to TU-8, TU-10, TU-11, PC-12, PC-13, AL-16, ER-6, 0.3.  The parsers are tested value by
 * value in tests/unit/os_options_test.c, set-uid there too; here, what reaches a program.  Whatever needs a
 * start of its own runs in a child.
 */
#include "support_child.h"
#include "support_heap.h"

#include "cycle/cycle.h"

#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* ---- options ------------------------------------------------------------------------------------------- */

/* No call of the interface says so without starting it. */
static bool is_up(void) { return start_is_up(); }

/* Each must be refused and leave the library as it was: not up. */
static void bad_options(void)
{
    struct grey_options options = GREY_OPTIONS_INIT;
    struct {
        struct grey_options known;
        unsigned char later[16];
    } longer = {.known = GREY_OPTIONS_INIT};
    CHILD_CHECK(!is_up());
    const size_t sizes[] = {0, 1, sizeof(options) - 1};
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        options.size = sizes[i];
        CHILD_CHECK(grey_init(&options) == EINVAL);
    }
    options.size = sizeof(options);
    const int signals[] = {-1, SIGKILL, SIGSTOP, SIGSEGV, SIGABRT, 32, 33, SIGRTMAX + 1, 1000};
    for (size_t i = 0; i < LENGTH(signals); i++) {
        options.signal = signals[i];
        CHILD_CHECK(grey_init(&options) == EINVAL);
    }
    longer.known.size = sizeof(longer);
    longer.later[15] = 1; /* asks for something unknown */
    CHILD_CHECK(grey_init(&longer.known) == EINVAL);
    CHILD_CHECK(!is_up());
    longer.later[15] = 0;
    CHILD_CHECK(grey_init(&longer.known) == 0);
    CHILD_CHECK(is_up());
    CHILD_CHECK(grey_init(&longer.known) == EBUSY);
    CHILD_CHECK(grey_init(NULL) == EBUSY);
    options.signal = -1;
    CHILD_CHECK(grey_init(&options) == EBUSY); /* up comes first */
}

static void good_options(void)
{
    const int percents[] = {0, 1, 100, 2147483647, -1, -2};
    for (size_t i = 0; i < LENGTH(percents); i++) {
        struct grey_options options = GREY_OPTIONS_INIT;
        options.percent = percents[i];
        options.memory_limit = 123456789;
        options.processors = 1 + (unsigned)i;
        options.signal = SIGRTMIN + 5;
        CHILD_CHECK(grey_init(&options) == 0);
        CHILD_CHECK(grey_set_percent(100) == (percents[i] < 0 ? -1 : percents[i]));
        CHILD_CHECK(grey_set_memory_limit(0) == 123456789);
        CHILD_CHECK(grey_set_memory_limit(0) == 123456789); /* 0 only reads (PC-12) */
        CHILD_CHECK(grey_set_memory_limit(SIZE_MAX) == 123456789);
        CHILD_CHECK(grey_set_memory_limit(1) == SIZE_MAX);
        CHILD_CHECK(grey_set_memory_limit(SIZE_MAX) == 1);
        grey_alloc(100);
        grey_collect(); /* the signal works, too */
        grey_shutdown();
    }
}

static void options(void **unused)
{
    (void)unused;
    child_passes("bad_options", NULL);
    child_passes("good_options", NULL);
    /* TU-6: they win over the environment */
    const char *const environment[] = {"GREY_GC=7", "GREY_MEMLIMIT=1MiB", "GREY_PROCS=3", NULL};
    child_passes("good_options", environment);
    const struct child_end *end = child_run("bad_options", NULL);
    assert_non_null(strstr(end->message, "grey: warning: grey_options.size is 0"));
    assert_non_null(strstr(end->message, "grey: warning: grey_options.signal: 9 "));
}

/* ---- the environment ----------------------------------------------------------------------------------- */

static void print_settings(void)
{
    fprintf(stderr, "before %d", is_up());
    int percent = grey_set_percent(100);
    size_t limit = grey_set_memory_limit(0);
    fprintf(stderr, " percent %d limit %zx up %d attached %d", percent, limit, is_up(),
            grey_tls_.thread != NULL);
}

static void assert_settings(const char *variable, int percent, size_t limit)
{
    const char *const environment[] = {variable, "GOGC=77", "GOMEMLIMIT=77MiB", NULL}; /* TU-10: not read */
    const struct child_end *end = child_run("print_settings", environment);
    char expected[100];
    snprintf(expected, sizeof(expected), "before 0 percent %d limit %zx up 1 attached 0", percent, limit);
    if (end->status != 0 || strcmp(end->message, expected) != 0)
        fail_msg("%s: status %d, signal %d, \"%s\"", variable, end->status, end->signal, end->message);
}

/* AL-16 too: the setters start the library and do not attach. */
static void environment_reaches_the_program(void **unused)
{
    (void)unused;
    const struct {
        const char *variable;
        int percent;
        size_t limit;
    } table[] = {
        {"GREY_GC", 100, SIZE_MAX}, /* unset */
        {"GREY_GC=", 100, SIZE_MAX},
        {"GREY_GC=42", 42, SIZE_MAX},
        {"GREY_GC=0", 0, SIZE_MAX},
        {"GREY_GC=off", -1, SIZE_MAX},
        {"GREY_GC=-3", -1, SIZE_MAX},
        {"GREY_GC=nonsense", 100, SIZE_MAX},
        {"GREY_GC=99999999999", 100, SIZE_MAX},
        {"GREY_MEMLIMIT", 100, SIZE_MAX},
        {"GREY_MEMLIMIT=", 100, SIZE_MAX},
        {"GREY_MEMLIMIT=off", 100, SIZE_MAX},
        {"GREY_MEMLIMIT=512MiB", 100, 512 << 20},
        {"GREY_MEMLIMIT=1000000000B", 100, 1000000000},
        {"GREY_MEMLIMIT=9223372036854775807", 100, INT64_MAX},
        {"GREY_PROCS", 100, SIZE_MAX},
        {"GREY_PROCS=", 100, SIZE_MAX},
        {"GREY_PROCS=many", 100, SIZE_MAX},
        {"GREY_PROCS=0", 100, SIZE_MAX},
        {"GREY_PROCS=3", 100, SIZE_MAX},
        {"GREY_DEBUG", 100, SIZE_MAX},
        {"GREY_DEBUG=", 100, SIZE_MAX},
        {"GREY_DEBUG=,,=,x=y,=1,gctrace,gctrace=,gctrace=x,nothing=1,membarrier=7", 100, SIZE_MAX},
    };
    for (size_t i = 0; i < LENGTH(table); i++)
        assert_settings(table[i].variable, table[i].percent, table[i].limit);
}

static void start_by_init(void) { _exit(grey_init(NULL) == EINVAL && grey_init(NULL) == EINVAL ? 0 : 1); }
static void start_by_alloc(void) { grey_alloc(16); }
static void start_by_setter(void) { grey_set_percent(100); }
static void limit_by_option(void)
{
    struct grey_options options = GREY_OPTIONS_INIT;
    options.memory_limit = SIZE_MAX;
    CHILD_CHECK(grey_init(&options) == 0); /* the variable is not looked at */
}

/* TU-2: names variable and value; grey_init says EINVAL, an implicit start dies. */
static void malformed_limit(void **unused)
{
    (void)unused;
    static const char *const values[] = {"x",    "-1", "1KB", "12MB", "0x10", "KiB", "9223372036854775808",
                                         "1 MiB"};
    for (size_t i = 0; i < LENGTH(values); i++) {
        char variable[64];
        snprintf(variable, sizeof(variable), "GREY_MEMLIMIT=%s", values[i]);
        const char *const environment[] = {variable, NULL};
        const struct child_end *end = child_run("start_by_init", environment);
        assert_int_equal(end->status, 0);
        assert_non_null(strstr(end->message, "grey: warning: "));
        assert_non_null(strstr(end->message, variable));
        child_dies("start_by_alloc", environment, variable);
        child_dies("start_by_setter", environment, variable);
        child_passes("limit_by_option", environment);
    }
}

/* ---- implicit start ------------------------------------------------------------------------------------ */

enum { STARTERS = 8, TIMES = 30 };
static atomic_int arrived, inits_that_started;

/* Until as many have come.  No pthread_barrier: an attached thread in one cannot be reached under
 * ThreadSanitizer (TR-16). */
static void line_up(int n)
{
    atomic_fetch_add(&arrived, 1);
    while (atomic_load(&arrived) < n)
        usleep(100);
}

static void *first_call(void *arg)
{
    uintptr_t i = (uintptr_t)arg;
    line_up(STARTERS);
    switch (i % 4) {
    case 0:
        CHILD_CHECK(grey_alloc(100) != NULL);
        break;
    case 1:
        atomic_fetch_add(&inits_that_started, grey_init(NULL) == 0);
        break;
    case 2:
        grey_collect();
        break;
    default:
        CHILD_CHECK(grey_thread_attach() == 0);
        break;
    }
    CHILD_CHECK(grey_init(NULL) == EBUSY);
    line_up(2 * STARTERS);
    return NULL;
}

/* TU-8: at once from many threads; it happens once. */
static void first_calls(void)
{
    for (int i = 0; i < TIMES; i++) {
        pthread_t threads[STARTERS];
        atomic_store(&arrived, 0);
        atomic_store(&inits_that_started, 0);
        for (uintptr_t t = 0; t < STARTERS; t++)
            CHILD_CHECK(pthread_create(&threads[t], NULL, first_call, (void *)t) == 0);
        for (int t = 0; t < STARTERS; t++)
            CHILD_CHECK(pthread_join(threads[t], NULL) == 0);
        CHILD_CHECK(atomic_load(&inits_that_started) <= 1);
        CHILD_CHECK(is_up());
        grey_shutdown();
        CHILD_CHECK(!is_up());
    }
}

/* What neither starts the library nor needs it. */
static void calls_before_the_start(void)
{
    struct grey_stats stats = GREY_STATS_INIT;
    struct grey_metric metric;
    size_t count;
    CHILD_CHECK(strcmp(grey_version(), GREY_VERSION) == 0);
    grey_set_fatal_handler(NULL);
    grey_shutdown();
    CHILD_CHECK(grey_thread_detach() == EPERM);
    CHILD_CHECK(grey_stats_read(&stats) == 0 && stats.cycles == 0 && stats.threads == 0);
    CHILD_CHECK(grey_metric_read("/no/such", &metric) == ENOENT);
    CHILD_CHECK(grey_metric_list(&count) != NULL && count > 0);
    CHILD_CHECK(grey_size(&stats) == 0 && grey_base(&stats) == NULL);
    grey_keep_alive(&stats);
    grey_pass(&stats);
    grey_touch(&stats);
    void *slot = NULL;
    grey_store(&slot, &stats);
    grey_clear(&slot, sizeof(slot));
    CHILD_CHECK(grey_alloc(0) != NULL);
    CHILD_CHECK(grey_root_add(NULL, 8) == EINVAL);
    CHILD_CHECK(grey_new(NULL) == NULL && errno == EINVAL);
    CHILD_CHECK(!is_up() && grey_tls_.thread == NULL);
}

static void implicit_start(void **unused)
{
    (void)unused;
    child_passes("first_calls", NULL);
    child_passes("calls_before_the_start", NULL);
}

/* ---- the end ------------------------------------------------------------------------------------------- */

struct node {
    struct node *next;
    uint64_t number;
};
GREY_TYPE(node_type, struct node, next);
GREY_ROOT(struct node *, list);
static struct node *run_time_root;

static void *use_and_end(void *unused)
{
    (void)unused;
    for (int i = 0; i < 1000; i++)
        grey_alloc(64);
    return NULL;
}

__attribute__((noinline)) static void build(struct node **root, uint64_t n)
{
    grey_store(root, NULL);
    for (uint64_t i = 0; i < n; i++) {
        struct node *node = grey_new(&node_type);
        CHILD_CHECK(node != NULL && node->next == NULL && node->number == 0);
        node->number = i;
        grey_store(&node->next, *root);
        grey_store(root, node);
    }
}
static uint64_t length(const struct node *node)
{
    uint64_t n = 0;
    for (; node != NULL; node = node->next)
        n++;
    return n;
}

/* ER-6: twenty lives with data in each; GREY_ROOTs stay, roots added at run time do not. */
static void live_again(void)
{
    for (int life = 0; life < 20; life++) {
        struct grey_options options = GREY_OPTIONS_INIT;
        options.percent = life % 3 == 0 ? 10 : 100;
        if (life % 2 == 0)
            CHILD_CHECK(grey_init(&options) == 0);
        CHILD_CHECK(grey_root_add(&run_time_root, sizeof(run_time_root)) == 0);
        CHILD_CHECK(grey_root_remove(&list, sizeof(list)) == ENOENT);
        build(&list, 20000);
        build(&run_time_root, 5000);
        pthread_t threads[3];
        for (int t = 0; t < 3; t++)
            CHILD_CHECK(grey_thread_create(&threads[t], NULL, use_and_end, NULL) == 0);
        for (int t = 0; t < 3; t++)
            CHILD_CHECK(grey_thread_join(threads[t], NULL) == 0);
        grey_collect();
        CHILD_CHECK(length(list) == 20000 && length(run_time_root) == 5000);
        struct grey_stats stats = GREY_STATS_INIT;
        CHILD_CHECK(grey_stats_read(&stats) == 0 && stats.threads == 1 && stats.cycles >= 1);
        if (life % 4 == 1)
            grey_collect_start();    /* it may be under way */
        list = run_time_root = NULL; /* would dangle */
        grey_shutdown();
        CHILD_CHECK(grey_tls_.thread == NULL);
        CHILD_CHECK(grey_root_remove(NULL, 8) == EINVAL);
        CHILD_CHECK(!is_up());
        grey_shutdown(); /* when not up: nothing */
    }
    CHILD_CHECK(grey_root_remove(&run_time_root, sizeof(run_time_root)) == ENOENT);
}

static void shutdown_and_start_again(void **unused)
{
    (void)unused;
    child_passes("live_again", NULL);
}

/* ---- the library's own threads ------------------------------------------------------------------------ */

/* SigBlk of thread `id`; 0: it is not one of ours, whose names begin with "grey-". */
static unsigned long long blocked_by(const char *id, char name[32])
{
    char path[64], line[256];
    unsigned long long blocked = 0;
    snprintf(path, sizeof(path), "/proc/self/task/%.20s/status", id);
    FILE *status = fopen(path, "r");
    if (status == NULL)
        return 0;
    name[0] = '\0';
    while (fgets(line, sizeof(line), status) != NULL) {
        sscanf(line, "Name: %31s", name);
        sscanf(line, "SigBlk: %llx", &blocked);
    }
    fclose(status);
    return strncmp(name, "grey-", 5) == 0 ? blocked : 0;
}

static bool is_fault(int signal)
{
    return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL;
}

/* The program's signals are not for them; a fault of a marker's must reach the handler (TR-18). */
static void masks_of_own_threads(void)
{
    static const char *const wanted[] = {"grey-collector", "grey-mark", "grey-sweep", "grey-scavenge",
                                         "grey-prefault"};
    unsigned seen = 0;
    CHILD_CHECK(grey_init(NULL) == 0);
    DIR *tasks = opendir("/proc/self/task");
    CHILD_CHECK(tasks != NULL);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char name[32];
        unsigned long long blocked = blocked_by(task->d_name, name);
        /* The C library starts a thread with everything blocked, and then gives it the mask it is to have. */
        for (int ms = 0; ms < 10000 && (blocked >> (SIGSEGV - 1) & 1) != 0; ms++) {
            usleep(1000);
            blocked = blocked_by(task->d_name, name);
        }
        for (size_t i = 0; i < LENGTH(wanted); i++)
            if (blocked != 0 && strcmp(name, wanted[i]) == 0)
                seen |= 1u << i;
        for (int signal = 1; blocked != 0 && signal <= SIGRTMAX; signal++)
            if (signal != SIGKILL && signal != SIGSTOP && (signal < 32 || signal >= SIGRTMIN))
                CHILD_CHECK((blocked >> (signal - 1) & 1) == !is_fault(signal));
    }
    closedir(tasks);
    CHILD_CHECK(seen == (1u << LENGTH(wanted)) - 1);
    grey_shutdown();
}

static void own_threads_get_no_signals(void **unused)
{
    (void)unused;
    child_passes("masks_of_own_threads", NULL);
}

static void versions(void **unused)
{
    (void)unused;
    char text[64];
    snprintf(text, sizeof(text), "%d.%d.%d", GREY_VERSION_MAJOR, GREY_VERSION_MINOR, GREY_VERSION_PATCH);
    assert_string_equal(GREY_VERSION, text);
    assert_string_equal(grey_version(), text);
}

int main(int argc, char **argv)
{
#define CASE(name)                                                                                           \
    {                                                                                                        \
#name, name                                                                                          \
    }
    static const struct child_case cases[] = {
        CASE(bad_options),     CASE(good_options),         CASE(print_settings),
        CASE(start_by_init),   CASE(start_by_alloc),       CASE(start_by_setter),
        CASE(limit_by_option), CASE(first_calls),          CASE(calls_before_the_start),
        CASE(live_again),      CASE(masks_of_own_threads),
    };
#undef CASE
    CHILD_MAIN(argc, argv, cases);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options),
        cmocka_unit_test(environment_reaches_the_program),
        cmocka_unit_test(malformed_limit),
        cmocka_unit_test(implicit_start),
        cmocka_unit_test(shutdown_and_start_again),
        cmocka_unit_test(own_threads_get_no_signals),
        cmocka_unit_test(versions),
    };
    return cmocka_run_group_tests_name("init", tests, NULL, NULL);
}

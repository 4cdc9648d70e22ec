/* noise.c -- how long a pause looks when the machine, not the collector, makes it.
 *
 * Threads do the same small piece of arithmetic again and again, some 20 us each as an assist does, and
 * measure it as the pause ledger does: by the wall's clock, and by the thread's processor time.  The second leaves
 * out what the scheduler gave to other threads, but not what interrupts took, nor (in a virtual machine) what
 * the host took: those look like work of the thread.  What these pieces show above their median is the floor
 * below which nobody can measure a pause on this machine.  Run it on an idle machine, and again beside the
 * load of interest.
 */
#include "peer.h"

#include <pthread.h>
#include <time.h>

enum { THREADS_MOST = 64 };
static const uint64_t piece_ns = 20000;

static size_t n_pieces = 200000;
static uint64_t steps; /* of arithmetic in a piece */

static uint64_t thread_cpu(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static __attribute__((noinline)) uint64_t work(uint64_t n)
{
    uint64_t state = 1, sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += bench_random(&state);
    __asm__ volatile("" : "+r"(sum)); /* else it is computed once */
    return sum;
}

/* The shortest of some tries: the one that nobody disturbed. */
static void calibrate(void)
{
    enum { TRIAL = 100000 };
    uint64_t least = UINT64_MAX, expected = work(TRIAL);
    for (int i = 0; i < 50; i++) {
        uint64_t begin = bench_now();
        BENCH_CHECK(work(TRIAL) == expected);
        uint64_t took = bench_now() - begin;
        least = took < least ? took : least;
    }
    steps = TRIAL * piece_ns / (least != 0 ? least : 1);
}

struct task {
    pthread_t thread;
    double *wall, *cpu;
};

static void *run(void *arg)
{
    struct task *task = arg;
    uint64_t expected = work(steps);
    for (size_t i = 0; i < n_pieces; i++) {
        uint64_t wall = bench_now(), cpu = thread_cpu();
        BENCH_CHECK(work(steps) == expected);
        task->cpu[i] = (double)(thread_cpu() - cpu);
        task->wall[i] = (double)(bench_now() - wall);
    }
    return NULL;
}

static void print(const char *clock, double *values, size_t n, const struct bench_section *section,
                  unsigned threads)
{
    static const struct {
        const char *name;
        double fraction;
    } rows[] = {{"p50", 0.5}, {"p99", 0.99}, {"p9999", 0.9999}, {"max", 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct bench_result result = {"noise",      PEER_NAME,
                                      rows[i].name, "us",
                                      BENCH_LOWER,  bench_quantile(values, n, rows[i].fraction) / 1e3};
        bench_print(&result, section, "clock=%s,threads=%u", clock, threads);
    }
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    unsigned threads = options.threads != 0 ? options.threads : 1;
    BENCH_CHECK(threads <= THREADS_MOST);
    if (options.quick)
        n_pieces = 1000;
    calibrate();
    size_t n = threads * n_pieces;
    double *wall = peer_checked(malloc(n * sizeof *wall)), *cpu = peer_checked(malloc(n * sizeof *cpu));
    struct task tasks[THREADS_MOST];
    struct bench_section section;
    bench_begin(&section);
    for (unsigned i = 0; i < threads; i++) {
        tasks[i].wall = wall + i * n_pieces;
        tasks[i].cpu = cpu + i * n_pieces;
        BENCH_CHECK(pthread_create(&tasks[i].thread, NULL, run, &tasks[i]) == 0);
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(tasks[i].thread, NULL);
    bench_end(&section);
    print("wall", wall, n, &section, threads);
    print("cpu", cpu, n, &section, threads);
    free(wall);
    free(cpu);
    return 0;
}

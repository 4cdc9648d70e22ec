/* inspect/gctrace.c -- GREY_DEBUG=gctrace=1: a line on standard error for each cycle (TR-1).
 *
 *     gc 12 @3.217s 2%: 0.012+14.250+0.310 ms clock, 3 rounds (1 held), longest pause 0.041 ms (handshake
 *     0.012), 0.030+0.100/11.200/2.400 ms cpu, 10->12->6 MB, 13 MB goal, 0.012 MB stacks, 0.001 MB roots,
 *     4 threads, 2 P (forced)
 *
 * in one line.  After "gc": the cycle's number; seconds since the library's start at which it began;
 * share of the planned processors that collecting has used since then, nice-19 workers left out as they
 * only take what nobody wants.  Clock: arm and blacken + roots and mark + rounds and finish.  Pauses are
 * those of any thread since the line before.  Cpu: handshakes + assists / workers / nice-19 workers.
 * Sizes, of 2^20 bytes: live at start -> at end -> marked.  P: processors planned for.  The last word says
 * why the cycle ran, if not because the heap had grown.
 *
 * The line is one write of less than PIPE_BUF bytes, so lines of several processes on one pipe stay whole,
 * and the collector's thread writes it before it looks for the next cycle, so lines stay in order.
 */
#include "inspect/inspect.h"
#include "inspect/text.h"
#include "os/options.h"

#include <errno.h>
#include <unistd.h>

static void milliseconds(struct text *text, uint64_t ns) { text_decimal(text, ns, 6, 3); }

static void megabytes(struct text *text, uint64_t bytes, unsigned digits)
{
    /* in thousandths: a page of stack is not 0; rounded up, so that only nothing is */
    uint64_t thousandths = (bytes >> 20) * 1000 + (((bytes & 0xfffff) * 1000 + 0xfffff) >> 20);
    text_decimal(text, thousandths, 3, digits);
}

static uint64_t percent_collecting(const struct os_cycle_event *e)
{
    uint64_t used = os_counter_read(OS_COUNT_assist_ns) + os_counter_read(OS_COUNT_worker_ns) +
                    os_counter_read(OS_COUNT_handshake_ns);
    uint64_t elapsed = e->start_ns + e->arm_ns + e->mark_ns + e->rescan_ns + e->finish_ns;
    uint64_t one_percent = elapsed / 100 * (e->processors > 0 ? e->processors : 1);
    uint64_t percent = one_percent > 0 ? used / one_percent : 0;
    return percent < 100 ? percent : 100;
}

static void put_times(struct text *t, const struct os_cycle_event *e)
{
    milliseconds(t, e->arm_ns);
    text_char(t, '+');
    milliseconds(t, e->mark_ns);
    text_char(t, '+');
    milliseconds(t, e->rescan_ns + e->finish_ns);
    text_string(t, " ms clock, ");
    text_number(t, e->rounds);
    text_string(t, " rounds (");
    text_number(t, e->rounds_held);
    text_string(t, " held), longest pause ");
    milliseconds(t, inspect_longest_pause(false, false));
    text_string(t, " ms (handshake ");
    milliseconds(t, inspect_longest_pause(true, false));
    text_string(t, "), ");
    milliseconds(t, e->handshake_cpu_ns);
    text_char(t, '+');
    milliseconds(t, e->assist_cpu_ns);
    text_char(t, '/');
    milliseconds(t, e->worker_cpu_ns);
    text_char(t, '/');
    milliseconds(t, e->idle_worker_cpu_ns);
    text_string(t, " ms cpu, ");
}

static void put_sizes(struct text *t, const struct os_cycle_event *e)
{
    megabytes(t, e->live_start, 0);
    text_string(t, "->");
    megabytes(t, e->live_end, 0);
    text_string(t, "->");
    megabytes(t, e->live_marked, 0);
    text_string(t, " MB, ");
    megabytes(t, e->goal, 0);
    text_string(t, " MB goal, ");
    megabytes(t, e->stack_bytes, 3);
    text_string(t, " MB stacks, ");
    megabytes(t, e->root_bytes, 3);
    text_string(t, " MB roots, ");
}

size_t gctrace_format(char *buffer, size_t size, const struct os_cycle_event *e)
{
    struct text t = {.buffer = buffer, .size = size - 1, .fd = -1};
    text_string(&t, "gc ");
    text_number(&t, e->number);
    text_string(&t, " @");
    text_decimal(&t, e->start_ns, 9, 3);
    text_string(&t, "s ");
    text_number(&t, percent_collecting(e));
    text_string(&t, "%: ");
    put_times(&t, e);
    put_sizes(&t, e);
    text_number(&t, e->threads);
    text_string(&t, " threads, ");
    text_number(&t, e->processors);
    text_string(&t, " P");
    text_string(&t, e->verify ? " (verify)" : e->forced ? " (forced)" : e->periodic ? " (periodic)" : "");
    buffer[t.length++] = '\n'; /* its byte was kept back: also a line that was cut is a line */
    return t.length;
}

static void write_out(size_t (*format)(char *, size_t, const struct os_cycle_event *),
                      const struct os_cycle_event *event)
{
    char line[768];
    size_t length = format(line, sizeof(line), event);
    int saved = errno;
    ssize_t written;
    do
        written = write(STDERR_FILENO, line, length);
    while (written < 0 && errno == EINTR);
    errno = saved;
}

void gctrace_cycle(const struct os_cycle_event *event)
{
    if (os_debug.gcpacertrace)
        write_out(pacertrace_format, event);
    if (os_debug.gctrace)
        write_out(gctrace_format, event);
    /* the next line is about pauses from here on */
    inspect_longest_pause(false, true);
    inspect_longest_pause(true, true);
}

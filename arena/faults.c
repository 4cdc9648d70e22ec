/* arena/faults.c -- who touched freed memory: the chained SIGSEGV handler (TR-18, UA-27).
 *
 * A freed chunk faults.  The fault alone says which instruction did it; this handler adds which arena the
 * address was in, where that was made and where it was freed, and then passes the signal on as if it had
 * never been here: the program dies, or its own handler runs, as without it.
 *
 * Why it is safe in a signal handler.  It runs on the thread whose access faulted, with that thread stopped
 * anywhere: under any lock, inside the allocator, in a marker.  So it takes no lock, allocates nothing,
 * uses no stdio, and calls only what is made for that: os_format (a buffer on the stack), one write,
 * os_describe_code, and atomic loads.  What it reads of a chunk is the chunk's record, which is mapped
 * before arena_space.extent covers the chunk (acquire in arena_contains) and stays mapped until shutdown.
 * The record may change while it is read, if another thread lets the chunk out of quarantine at this
 * moment; then the text is wrong, or is missing, but nothing is touched that could fault.  What a marker
 * reads of a foreign region is in a thread-local variable that the same thread wrote before it began: no
 * other thread is involved.  The fatal handler of grey_set_fatal_handler is not called: it isn't known to
 * be safe here, and this is the program's signal, not the end of the library.
 *
 * Passing on.  The kernel ran this handler with the flags and the mask of the one that it replaced: both
 * are copied at start, SA_ONSTACK, SA_NODEFER and SA_RESETHAND too, so that one only has to be called, with
 * the same siginfo and context.  Where there was none, the default action is put back and the same signal
 * sent to this thread again: it is pending until this handler has returned, and then kills at the
 * instruction that faulted, with its registers, which is what a core should show.  (To let the access fault
 * again would be almost the same; but by then the chunk may be in use again, and the process go on as if
 * nothing had been.)
 *
 * kill and its like (si_code <= 0) are passed on in the same way, without a word; so are addresses that no
 * arena holds, among them all below 4096.  SIG_IGN is for those only: the kernel lets no program ignore a
 * real fault.
 *
 * A program that installs a handler of its own later replaces this one, and may call it.  Shutdown takes
 * the handler off if it is still the installed one; otherwise somebody may hold its address, so it stays
 * useful: without arenas it only passes on.  In that case the next start installs nothing, lest the two
 * call each other for ever.
 */
#include "arena/arena.h"
#include "os/options.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct sigaction previous; /* written before the handler is installed, constant while it is */
static bool installed;            /* start and shutdown only, which exclude each other */

/* Small enough for an alternate stack of SIGSTKSZ. */
enum { TEXT_BYTES = 900, PLACE_BYTES = 256 };

/* ---- what the address was ---------------------------------------------------------------------------- */

static void say(const char *text, size_t length)
{
    /* One write, so that the lines of threads that fault together don't mix. */
    if (write(STDERR_FILENO, text, length) < 0)
        return; /* nobody is left to tell */
}

static size_t where(char *text, size_t size)
{
    const char *phase = "unknown";
    uint64_t cycle = 0;
    if (os_internal_context != NULL)
        os_internal_context(&phase, &cycle);
    return os_format(text, size, "grey:   thread %d, phase %s, cycle %llu\n", (int)syscall(SYS_gettid), phase,
                     (unsigned long long)cycle);
}

static void report_arena(uintptr_t address, const struct arena_freed *freed)
{
    char text[TEXT_BYTES], made[PLACE_BYTES], when[PLACE_BYTES] = "the end of a cycle: its handle was lost";
    os_describe_code(freed->made, made, sizeof(made));
    if (freed->freed != 0)
        os_describe_code(freed->freed, when, sizeof(when));
    size_t n = os_format(text, sizeof(text),
                         "grey: fatal: accessed data from freed arena %p\n"
                         "grey:   arena %p, made at %s\n"
                         "grey:   freed at %s\n",
                         (void *)address, (void *)freed->arena, made, when);
    n += where(text + n, sizeof(text) - n);
    say(text, n);
}

static void report_region(uintptr_t address, const struct mark_piece *piece)
{
    char text[TEXT_BYTES];
    size_t n =
        os_format(text, sizeof(text),
                  "grey: fatal: cannot scan foreign memory at %p: it was unmapped or protected while it is "
                  "registered\n"
                  "grey:   %zu bytes from %p were being scanned; call grey_foreign_release first\n",
                  (void *)address, piece->size, piece->start);
    n += where(text + n, sizeof(text) - n);
    say(text, n);
}

static void report(uintptr_t address)
{
    struct arena_freed freed;
    struct mark_piece piece = mark_foreign_piece;
    if (arena_freed_at(address, &freed))
        report_arena(address, &freed);
    else if (address - (uintptr_t)piece.start < piece.size)
        report_region(address, &piece);
}

/* ---- passing on -------------------------------------------------------------------------------------- */

static void die_of(int signal, siginfo_t *info)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigaction(signal, &standard, NULL);
    pid_t process = getpid(), thread = (pid_t)syscall(SYS_gettid);
    if (syscall(SYS_rt_tgsigqueueinfo, process, thread, signal, info) != 0)
        syscall(SYS_tgkill, process, thread, signal);
}

static void pass_on(int signal, siginfo_t *info, void *context)
{
    if (previous.sa_flags & SA_SIGINFO)
        previous.sa_sigaction(signal, info, context);
    else if (previous.sa_handler == SIG_DFL || (previous.sa_handler == SIG_IGN && info->si_code > 0))
        die_of(signal, info);
    else if (previous.sa_handler != SIG_IGN)
        previous.sa_handler(signal);
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    int saved = errno;
    if (info->si_code > 0) /* of an access, not sent by somebody */
        report((uintptr_t)info->si_addr);
    errno = saved;
    pass_on(signal, info, context);
}

/* ---- start and end ----------------------------------------------------------------------------------- */

static bool is_ours(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == on_fault;
}

static bool has_default(const struct sigaction *action)
{
    return !(action->sa_flags & SA_SIGINFO) && action->sa_handler == SIG_DFL;
}

void arena_faults_init(void)
{
    struct sigaction found;
    if (installed || os_debug.arenafault == 0 || sigaction(SIGSEGV, NULL, &found) != 0)
        return;
    if (os_debug.arenafault < 0 && !has_default(&found))
        return;
    previous = found;
    struct sigaction action = found; /* its mask, and its flags */
    action.sa_sigaction = on_fault;
    action.sa_flags |= SA_SIGINFO;
    if (has_default(&found))
        action.sa_flags |= SA_ONSTACK; /* a program that has such a stack wants it used */
    installed = sigaction(SIGSEGV, &action, NULL) == 0;
}

void arena_faults_shutdown(void)
{
    struct sigaction found;
    if (!installed || sigaction(SIGSEGV, NULL, &found) != 0 || !is_ours(&found))
        return;
    installed = sigaction(SIGSEGV, &previous, NULL) != 0;
}

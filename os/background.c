/* os/background.c -- threads of the library's own: how they start, and how they give way to the program's.
 *
 * The program's signals are not for them: it expects its handlers on threads that it knows.  A thread has the mask
 * of the one that starts it, so everything is blocked around the start, and no signal finds the new thread before
 * it could do so itself.  But for faults: a marker or a sweeper may meet a foreign region that is gone or a mapped
 * file that was cut off, a cleanup may do anything, and a fault that is blocked kills without a word (TR-18).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/os.h"

#include <errno.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NAME_SIZE = 16 };      /* of the kernel */
enum { SLICE_NS = 10000000 }; /* longer than the kernel's own, 0.7 to 2.8 ms; 0.1 to 100 ms are allowed */

void os_block_signals(sigset_t *old)
{
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, old);
}

/* The name is for ps and debuggers only, so whether it works does not matter.  A thread has that of the one that
 * starts it, too.  To name it afterwards, from here, takes a file in /proc, which there may be none of. */
int os_start_background(pthread_t *id, const char *name, void *(*run)(void *), void *arg)
{
    sigset_t old;
    char own[NAME_SIZE];
    os_block_signals(&old);
    bool named = prctl(PR_GET_NAME, own) == 0 && prctl(PR_SET_NAME, name) == 0;
    int error = pthread_create(id, NULL, run, arg);
    if (named)
        prctl(PR_SET_NAME, own);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return error;
}

/* A server's thread that wakes up on a processor where marking goes on would wait for the end of the marker's
 * slice, which is looked for at a tick: 4 to 8 ms.  Since Linux 6.12 a thread may ask for slices of its own,
 * and one that wakes up goes before one whose slices are longer.  SCHED_BATCH is the other half, also before
 * 6.12: it does not preempt when it wakes up.  Neither takes from anybody's share of the processor.
 * With a cache server under a burst (bench/burst.c) p99 went from 7.1 to 1.5 ms and p99.9 from 13 to 4.4. */
void os_give_way(int nice)
{
    struct { /* the kernel's struct sched_attr, first version; glibc has one since 2.41 */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = sizeof attributes, .policy = SCHED_BATCH, .runtime = SLICE_NS};
    int saved = errno, policy = sched_getscheduler(0), now = getpriority(PRIO_PROCESS, 0);
    if (policy != SCHED_OTHER && policy != SCHED_BATCH && policy != -1) { /* the program's choice */
        errno = saved;
        return;
    }
    attributes.nice = now > nice ? now : nice;
    if (syscall(SYS_sched_setattr, 0, &attributes, 0) != 0) /* a filter for system calls, perhaps */
        setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), attributes.nice);
    errno = saved;
}

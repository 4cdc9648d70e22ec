/* mutator/fence.c -- FENCE (docs/protocol.md 1): every thread has executed a full memory fence since the
 * call, and is out of every busy section that it was in then.
 *
 * membarrier(PRIVATE_EXPEDITED) makes every running thread of the process execute a fence; then a look
 * at each block's busy word: odd means the thread is in a section, which is over when the word has
 * changed (it counts).  Blocks are never freed, so the walk takes no lock; a thread that attaches after
 * the walk began fences by taking the list lock.  5 us, nobody is interrupted.
 *
 * Where membarrier is refused (old kernels, seccomp) or switched off (membarrier=0; ThreadSanitizer
 * doesn't understand it), a handshake that asks nothing does the same: a thread answers outside sections
 * only, and its answer is a release that the collector acquires.
 */
#include "mutator/internal.h"
#include "os/options.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool use_membarrier;

void fence_init(void)
{
    use_membarrier = false;
    if (os_debug.membarrier == 0)
        return;
    use_membarrier = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

bool mutator_membarrier(void) { return use_membarrier; }

void mutator_fence(void)
{
    os_count(OS_COUNT_fences, 1);
    if (FAULT(NO_FENCE))
        return;
    /* The kernel may have no memory for its set of processors: this time without it. */
    if (!use_membarrier || syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
        mutator_handshake();
        return;
    }
    struct thread *const first = atomic_load_explicit(&thread_blocks, memory_order_acquire);
    for (struct thread *t = first; t != NULL; t = t->next_block)
        /* acquire, here and below: pairs with thread_leave's release: the section's effects are visible */
        t->fenced = atomic_load_explicit(&t->busy, memory_order_acquire);
    for (struct thread *t = first; t != NULL; t = t->next_block)
        for (unsigned n = 0;
             (t->fenced & 1) && atomic_load_explicit(&t->busy, memory_order_acquire) == t->fenced;)
            os_pause(&n);
}

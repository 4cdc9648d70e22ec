/* tests/api/support_queue.c -- see support_queue.h. */
#include "support_queue.h"
#include "mutator/mutator.h"

#include <string.h>

_Atomic int wrong, gate, at_gate, queue_waited;
static _Atomic uint64_t last_order;

static void run_item(struct queued *queued)
{
    struct item *item = (struct item *)queued;
    struct thread *self = thread_self();
    wrong += self == NULL || thread_busy(self) || os_lock_held_any();
    wrong += atomic_fetch_add(&item->ran, 1) != 0;
    item->order = atomic_fetch_add(&last_order, 1) + 1;
    item->thread = pthread_self();
    if (item->fn != NULL)
        item->fn(item);
    wrong += item->done != 0;
}

static void item_done(struct queued *queued)
{
    struct item *item = (struct item *)queued;
    wrong += !thread_busy(thread_self()) || os_lock_held_any();
    wrong += item->ran != 1 || atomic_fetch_add(&item->done, 1) != 0;
    memset(queued, 0xdb, sizeof(*queued)); /* it is the owner's again */
}

void put_chain(struct item *items, int n, bool finalizers)
{
    struct queued_chain chain = {0};
    struct thread *self = thread_self();
    for (int i = 0; i < n; i++) {
        items[i].queued.run = run_item;
        items[i].queued.done = item_done;
        cleanups_chain(&chain, &items[i].queued);
    }
    if (self != NULL)
        thread_enter(self);
    if (finalizers)
        cleanups_queue_finalizers(&chain);
    else
        cleanups_queue_chain(&chain);
    if (self != NULL)
        thread_leave(self);
}

void put(struct item *item, bool finalizer) { put_chain(item, 1, finalizer); }

void put_all(struct item *items, int n, bool finalizers)
{
    for (int i = 0; i < n; i++)
        put(&items[i], finalizers);
}

int count_done(const struct item *items, int n)
{
    int done = 0;
    for (int i = 0; i < n; i++)
        done += ((struct item *)items)[i].done;
    return done;
}

void stay(struct item *item)
{
    (void)item;
    at_gate++;
    while (!gate)
        usleep(200);
    at_gate--;
}

int queue_up(void **unused)
{
    (void)unused;
    struct grey_options options = GREY_OPTIONS_INIT;
    options.processors = POOL * 4;
    wrong = gate = at_gate = queue_waited = 0;
    last_order = 0;
    return grey_init(&options) != 0 || grey_thread_attach() != 0;
}

int queue_down(void **unused)
{
    (void)unused;
    gate = 1;
    grey_shutdown();
    return wrong;
}

void queue_start(void) { wrong += cleanups_start(false) != 0 || cleanups_start(true) != 0; }

static void count_blocked(struct thread *thread, void *arg)
{
    *(int *)arg += atomic_load(&thread->state) == THREAD_BLOCKED;
}

int queue_blocked(void)
{
    int n = 0;
    mutator_each(count_blocked, &n);
    return n;
}

void *queue_wait(void *unused)
{
    queue_waited = grey_cleanup_wait(-1) ? 1 : 2;
    return unused;
}

/* mutator/created.c -- grey_thread_create and grey_thread_join: a pointer that travels from stack to stack.
 *
 * The creator stores the argument into the new thread's record, a barriered root slot, so the new thread
 * attaches with an empty stack and costs a running cycle nothing (protocol.md 0.7); it loads the argument
 * after it attached.  The result goes back the same way.  A record lives from create to join, or to the
 * thread's end if that is detached (ER-5a).
 *
 * Records are unmanaged memory, found by the collector in 1.3 through the list below, under its lock.
 */
#include "heap/heap.h"
#include "heap/unmanaged.h"
#include "mutator/internal.h"

#include <errno.h>

static struct os_lock join_lock = OS_LOCK_INIT(OS_RANK_JOIN);
static struct mutator_created *records;
static struct pool records_pool;
/* The calling thread's own record.  Not in its block: a thread may detach, attach again, and end. */
static __thread struct mutator_created *mine __attribute__((tls_model("initial-exec")));

struct os_lock *created_lock(void) { return &join_lock; }

void mutator_each_created_slot(void (*fn)(uintptr_t word, void *arg), void *arg)
{
    os_lock(&join_lock);
    for (struct mutator_created *c = records; c != NULL; c = c->next) {
        /* acquire: pairs with grey_store's release */
        fn((uintptr_t)__atomic_load_n(&c->arg, __ATOMIC_ACQUIRE), arg);
        fn((uintptr_t)__atomic_load_n(&c->result, __ATOMIC_ACQUIRE), arg);
    }
    os_unlock(&join_lock);
}

static struct mutator_created *record_new(struct thread *self)
{
    thread_enter(self);
    os_lock(&join_lock);
    if (!records_pool.ready)
        pool_init(&records_pool, sizeof(struct mutator_created), OS_THREADS, NULL);
    struct mutator_created *record = pool_alloc(&records_pool);
    if (record != NULL) {
        record->next = records;
        records = record;
    }
    os_unlock(&join_lock);
    thread_leave(self);
    return record;
}

static void unlink_and_free(struct mutator_created *record)
{
    struct mutator_created **link = &records;
    while (*link != record)
        link = &(*link)->next;
    *link = record->next;
    pool_free(&records_pool, record);
}

static void record_free(struct mutator_created *record)
{
    struct thread *self = thread_self();
    if (self != NULL)
        thread_enter(self);
    os_lock(&join_lock);
    unlink_and_free(record);
    os_unlock(&join_lock);
    if (self != NULL)
        thread_leave(self);
}

/* By the thread that ends, once: nobody joins a detached thread. */
void created_finished(void)
{
    struct thread *self = thread_self();
    if (mine == NULL)
        return;
    if (self != NULL)
        thread_enter(self);
    os_lock(&join_lock);
    /* Not there any more: the library was shut down after this thread had detached. */
    struct mutator_created *record = records;
    while (record != NULL && record != mine)
        record = record->next;
    if (record != NULL) {
        record->finished = true;
        if (record->detached)
            unlink_and_free(record);
    }
    mine = NULL;
    os_unlock(&join_lock);
    if (self != NULL)
        thread_leave(self);
}

/* A function of its own, so that the argument isn't kept in a register over the clearing of the slot: the
 * thread's function would save that on its stack, and keep the object for as long as the thread runs. */
static __attribute__((noinline)) void *take_argument(struct mutator_created *record)
{
    /* Attached, so this load is of a pointer that the next answer shows; the slot keeps it no longer. */
    void *arg = __atomic_load_n(&record->arg, __ATOMIC_ACQUIRE);
    grey_store(&record->arg, NULL);
    return arg;
}

/* Zeroes what take_argument and what it called left below this frame: the thread's function would keep it
 * wherever its own frames have room that they don't write to.  arg stays in a register meanwhile, and at last in
 * one only, its own: clang pushes another to align the stack. */
static inline __attribute__((always_inline)) void *clear_below(void *arg)
{
    enum { WORDS = 512 };
    void *only;
    __asm__ volatile("movl %2, %%ecx\n\t"
                     "leaq -8*%c2(%%rsp), %%rdi\n"
                     "1:\tmovq $0, (%%rdi)\n\t"
                     "addq $8, %%rdi\n\t"
                     "decl %%ecx\n\t"
                     "jnz 1b\n\t"
                     "movq %%rax, %%rdi\n\t"
                     "xorl %%eax, %%eax"
                     : "=&D"(only), "+a"(arg)
                     : "i"(WORDS)
                     : "rcx", "cc", "memory");
    return only;
}

/* From created_entry (capture.S): top is the stack pointer there. */
void *created_run(struct mutator_created *record, char *top)
{
    struct thread *block = record->block;
    if (registry_attach(block, top) != 0)
        os_fatal(record, "a new thread cannot be attached: out of memory");
    mine = record;
    atomic_store_explicit(&record->began, true, memory_order_release);
    void *(*start)(void *) = record->start;
    void *result = start(clear_below(take_argument(record)));
    grey_store(&record->result, result);
    return result; /* for who uses pthread_join; the record carries it safely */
}

static bool is_detached(const pthread_attr_t *attributes)
{
    int state = PTHREAD_CREATE_JOINABLE;
    if (attributes != NULL)
        pthread_attr_getdetachstate(attributes, &state);
    return state == PTHREAD_CREATE_DETACHED;
}

/* A record whose thread was detached later leaves its id to be used again. */
static void forget_stale(pthread_t id, const struct mutator_created *except)
{
    for (struct mutator_created *c = records, *next; c != NULL; c = next) {
        next = c->next;
        if (c != except && c->id_known && c->finished && pthread_equal(c->id, id))
            unlink_and_free(c);
    }
}

static void put_block(struct thread *self, struct thread *block)
{
    thread_enter(self);
    registry_put_block(block);
    thread_leave(self);
}

int grey_thread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *arg)
{
    if (thread == NULL || start == NULL)
        return EINVAL;
    struct thread *self = heap_thread("grey_thread_create");
    if (self == NULL)
        return ENOMEM;
    thread_enter(self);
    struct thread *block = registry_take_block();
    thread_leave(self);
    struct mutator_created *record = block != NULL ? record_new(self) : NULL;
    if (record == NULL) {
        if (block != NULL)
            put_block(self, block);
        return ENOMEM;
    }
    record->start = start;
    record->block = block;
    record->detached = is_detached(attributes);
    grey_store(&record->arg, arg);
    bool detached = record->detached;
    pthread_t id;
    int error = pthread_create(&id, attributes, created_entry, record);
    if (error != 0) {
        record_free(record);
        put_block(self, block);
        return error;
    }
    *thread = id;
    if (!detached) { /* a detached one may be gone already */
        thread_enter(self);
        os_lock(&join_lock);
        forget_stale(id, record);
        record->id = id;
        record->id_known = true;
        os_unlock(&join_lock);
        thread_leave(self);
    }
    return 0;
}

struct join {
    pthread_t thread;
    void *value;
};
static int do_join(void *arg)
{
    struct join *join = arg;
    return pthread_join(join->thread, &join->value);
}

/* The record of a thread, taken for a join: once that is over the id may be another thread's, whose creator
 * must not take this record for a stale one. */
static struct mutator_created *claim_record(struct thread *self, pthread_t id)
{
    thread_enter(self);
    os_lock(&join_lock);
    struct mutator_created *c = records;
    while (c != NULL && !(c->id_known && pthread_equal(c->id, id)))
        c = c->next;
    if (c != NULL)
        c->id_known = false;
    os_unlock(&join_lock);
    thread_leave(self);
    return c;
}

/* The join failed. */
static void unclaim_record(struct thread *self, struct mutator_created *record)
{
    thread_enter(self);
    os_lock(&join_lock);
    record->id_known = true;
    os_unlock(&join_lock);
    thread_leave(self);
}

int grey_thread_join(pthread_t thread, void **result)
{
    struct thread *self = heap_thread("grey_thread_join");
    if (self == NULL)
        return ENOMEM;
    struct mutator_created *record = claim_record(self, thread);
    struct join join = {thread, NULL};
    int error = mutator_blocking(do_join, &join);
    if (error != 0) {
        if (record != NULL)
            unclaim_record(self, record);
        return error;
    }
    /* The record kept it alive until here, where this stack does; its word is not used, since the record
     * may be of an earlier thread with this id, joined by pthread_join. */
    void *value = join.value;
    if (result != NULL)
        *result = value;
    if (record != NULL)
        record_free(record);
    __asm__ volatile("" : : "r"(value));
    return 0;
}

/* After fork only the calling thread exists; a record of another can be joined by nobody. */
void created_fork_child(void)
{
    os_lock_init(&join_lock, OS_RANK_JOIN);
    for (struct mutator_created *c = records, *next; c != NULL; c = next) {
        next = c->next;
        if (c != mine)
            unlink_and_free(c);
    }
}

/* No thread is on its way that will attach (ER-6). */
bool created_all_began(void)
{
    os_lock(&join_lock);
    bool all = true;
    for (struct mutator_created *c = records; c != NULL; c = c->next)
        all &= atomic_load_explicit(&c->began, memory_order_acquire);
    os_unlock(&join_lock);
    return all;
}

void created_shutdown(void)
{
    os_lock(&join_lock);
    while (records != NULL)
        unlink_and_free(records);
    os_unlock(&join_lock);
}

/* handoff.c -- objects that one thread allocates and another one is done with.
 *
 * Pairs of threads with a ring of 1,024 slots between them: the producer makes messages, each with a text
 * of 16 to 256 bytes, the consumer reads them, drops them (or frees them), and clears the slot.  An allocator
 * with memory for each thread sees it all flow one way; a collector sees pointers that move from thread to
 * thread through one hot array.  A thread that finds the ring full or empty gives the processor away.
 *
 * Messages are numbered, and their texts say whose they are: a message that was lost, changed or freed too
 * early shows.
 */
#include "peer.h"

#include <sched.h>

enum { SLOTS = 1024 };

struct message {
    uint64_t *text; /* leaf: the message's number in the first and last word */
    uint64_t number, words;
};
PEER_TYPE(message_type, struct message, text);

struct slot {
    struct message *message;
};
PEER_TYPE(slot_type, struct slot, message);

struct rings {
    struct slot *slots;
};
PEER_TYPE(rings_type, struct rings, slots);
PEER_ROOT(struct rings *, rings); /* one for each pair */

static uint64_t count;

struct task {
    unsigned pair;
    bool consumes;
    uint64_t seed;
};

static void produce(struct slot *slots, uint64_t seed)
{
    for (uint64_t i = 0; i < count; i++) {
        struct message *message = peer_new(&message_type);
        uint64_t words = 2 + bench_below(&seed, 31), *text = peer_alloc_leaf(words * sizeof(uint64_t));
        message->number = text[0] = text[words - 1] = i;
        message->words = words;
        peer_store(&message->text, text);
        struct slot *slot = &slots[i % SLOTS];
        while (__atomic_load_n(&slot->message, __ATOMIC_ACQUIRE) != NULL) /* see the consumer's last store */
            sched_yield();
        peer_store(&slot->message, message);
    }
}

static void consume(struct slot *slots)
{
    for (uint64_t i = 0; i < count; i++) {
        struct slot *slot = &slots[i % SLOTS];
        struct message *message;
        while ((message = __atomic_load_n(&slot->message, __ATOMIC_ACQUIRE)) ==
               NULL) /* see produce's store */
            sched_yield();
        peer_store(&slot->message, (struct message *)NULL);
        uint64_t *text = message->text;
        BENCH_CHECK(message->number == i && message->words >= 2 && message->words <= 32);
        BENCH_CHECK(text[0] == i && text[message->words - 1] == i);
        peer_free(text);
        peer_free(message);
    }
}

static void *run(void *arg)
{
    struct task *task = arg;
    if (task->consumes)
        consume(rings[task->pair].slots);
    else
        produce(rings[task->pair].slots, task->seed);
    return NULL;
}

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    unsigned pairs = options.threads > 1 ? options.threads / 2 : 1;
    BENCH_CHECK(2 * pairs <= PEER_THREADS);
    peer_start(options.workers);
    count = options.quick ? 100000 : 10000000;

    static struct task tasks[PEER_THREADS];
    peer_store(&rings, (struct rings *)peer_new_array(&rings_type, pairs));
    for (unsigned i = 0; i < pairs; i++) {
        peer_store(&rings[i].slots, (struct slot *)peer_new_array(&slot_type, SLOTS));
        tasks[2 * i] = (struct task){i, false, options.seed + i};
        tasks[2 * i + 1] = (struct task){i, true, 0};
    }
    struct bench_section section;
    bench_begin(&section);
    peer_run(2 * pairs, run, tasks, sizeof tasks[0]);
    bench_end(&section);

    char name[64];
    snprintf(name, sizeof name, "threads=%u", 2 * pairs);
    double millions = (double)(count * pairs) / 1e6;
    struct bench_result result = {"handoff", PEER_NAME,    "rate",
                                  "M/s",     BENCH_HIGHER, millions / ((double)section.wall_ns / 1e9)};
    bench_print(&result, &section, "%s", name);
    result = (struct bench_result){"handoff", PEER_NAME,   "cpu_per_message",
                                   "ns",      BENCH_LOWER, (double)section.cpu_ns / (millions * 1e6)};
    bench_print(&result, &section, "%s", name);
    peer_print_pauses("handoff", &section, name);
    return 0;
}

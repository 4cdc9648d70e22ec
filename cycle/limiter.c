/* cycle/limiter.c -- the leaky bucket of processor time.  See limiter.h. */
#include "cycle/limiter.h"

#include <string.h>

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t most(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }
static uint64_t plus(uint64_t a, uint64_t b) { return a + b >= a ? a + b : UINT64_MAX; }

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static void look(struct limiter *limiter, uint64_t cycle)
{
    bool full = limiter->fill == limiter->capacity;
    if (full && !limiter->limiting)
        limiter->last_cycle = cycle;
    limiter->limiting = full;
}

void limiter_init(struct limiter *limiter, const struct limiter_reading *reading, unsigned processors)
{
    memset(limiter, 0, sizeof(*limiter));
    limiter->last = *reading;
    limiter_resize(limiter, processors, 0);
}

bool limiter_is_due(const struct limiter *limiter, uint64_t now)
{
    return minus(now, limiter->last.now) > LIMITER_PERIOD_NS;
}

/* One moves the bucket by the difference of both, so the order within a period does not matter. */
static void accumulate(struct limiter *limiter, uint64_t collector, uint64_t program)
{
    uint64_t gained = minus(collector, program), room = limiter->capacity - limiter->fill;
    limiter->overflow = plus(limiter->overflow, minus(gained, room));
    limiter->fill = minus(limiter->fill + least(gained, room), minus(program, collector));
}

void limiter_update(struct limiter *limiter, const struct limiter_reading *reading, uint64_t cycle)
{
    const struct limiter_reading *last = &limiter->last;
    uint64_t window = times(minus(reading->now, last->now), limiter->processors);
    uint64_t collector = minus(reading->collector, last->collector);
    uint64_t program = minus(reading->program, last->program);
    uint64_t idle = minus(window, plus(collector, program));
    uint64_t marked = plus(collector, minus(reading->idle_workers, last->idle_workers));
    uint64_t held = least(least(minus(reading->held, last->held), idle), marked);
    accumulate(limiter, plus(collector, held), program);
    limiter->last = (struct limiter_reading){.now = most(reading->now, last->now),
                                             .collector = most(reading->collector, last->collector),
                                             .program = most(reading->program, last->program),
                                             .held = most(reading->held, last->held),
                                             .idle_workers = most(reading->idle_workers, last->idle_workers)};
    look(limiter, cycle);
}

void limiter_resize(struct limiter *limiter, unsigned processors, uint64_t cycle)
{
    limiter->processors = processors > 0 ? processors : 1;
    limiter->capacity = LIMITER_CAPACITY_NS * limiter->processors;
    limiter->fill = least(limiter->fill, limiter->capacity);
    look(limiter, cycle);
}

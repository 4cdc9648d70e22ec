/* barrier/outside.c -- the bounds of what matters outside the heap.
 *
 * Every scan loop tests a word against one pair of bounds (barrier.h), so that a program without foreign
 * regions and arenas pays one compare.  The pair spans those of each kind.  Who changes a kind's part holds
 * that kind's lock; this file's lock is for the sum.
 *
 * Readers take no lock and read low and high apart.  Growing, any mix of an old and a new end covers what
 * the old pair did, and so does 1 with a new high; what is new is found by its own argument (it is born
 * black, or its adder was seen by arm's FENCE).  Shrinking, any mix covers what is still there.
 */
#include "barrier/barrier.h"

static struct os_lock lock = OS_LOCK_INIT(OS_RANK_OUTSIDE);
struct outside_bounds outside_bounds = {1, 1}, outside_of[OUTSIDE_KINDS] = {{1, 1}, {1, 1}};

static void put(struct outside_bounds *bounds, uintptr_t low, uintptr_t high)
{
    atomic_store_explicit(&bounds->high, high, memory_order_relaxed);
    atomic_store_explicit(&bounds->low, low, memory_order_relaxed);
}

void outside_set(enum outside_kind kind, uintptr_t low, uintptr_t high)
{
    uintptr_t lowest = 1, highest = 1;
    os_lock(&lock);
    put(&outside_of[kind], low, high);
    for (int i = 0; i < OUTSIDE_KINDS; i++) {
        uintptr_t its_low = atomic_load_explicit(&outside_of[i].low, memory_order_relaxed);
        uintptr_t its_high = atomic_load_explicit(&outside_of[i].high, memory_order_relaxed);
        if (its_low == its_high)
            continue;
        if (lowest == highest || its_low < lowest)
            lowest = its_low;
        if (its_high > highest)
            highest = its_high;
    }
    put(&outside_bounds, lowest, highest);
    os_unlock(&lock);
}

void outside_fork_child(void) { os_lock_init(&lock, OS_RANK_OUTSIDE); }

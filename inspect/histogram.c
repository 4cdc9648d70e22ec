/* inspect/histogram.c -- recording into and reading from log-linear histograms.
 *
 * A reader that runs beside writers must still see p50 <= p99 <= p9999 <= max.  Three things see to it.
 * A writer raises the maximum before it counts the value, and counts it with release order; a reader
 * loads the buckets with acquire order and the maximum last, so the maximum covers every value that it
 * counted.  All quantiles come from one walk over the buckets with ranks fixed before it; buckets only
 * grow, so the walk reaches every rank, the higher ones later.  And what is reported is cut to that one
 * maximum.
 */
#include "inspect/histogram.h"

unsigned histogram_index(uint64_t value)
{
    if (value < HISTOGRAM_STEPS)
        return (unsigned)value;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(value);
    unsigned shift = exponent - HISTOGRAM_SHIFT;
    /* value >> shift is 64..127: the octave's number, one less, and the step come out of one sum */
    return (shift << HISTOGRAM_SHIFT) + (unsigned)(value >> shift);
}

uint64_t histogram_low(unsigned bucket)
{
    if (bucket < HISTOGRAM_STEPS)
        return bucket;
    unsigned shift = (bucket >> HISTOGRAM_SHIFT) - 1;
    return (uint64_t)(HISTOGRAM_STEPS + (bucket & (HISTOGRAM_STEPS - 1))) << shift;
}

uint64_t histogram_high(unsigned bucket)
{
    if (bucket < HISTOGRAM_STEPS)
        return bucket;
    unsigned shift = (bucket >> HISTOGRAM_SHIFT) - 1;
    return histogram_low(bucket) + (((uint64_t)1 << shift) - 1);
}

void histogram_record(struct histogram *histogram, uint64_t value)
{
    uint64_t max = atomic_load_explicit(&histogram->max, memory_order_relaxed);
    while (value > max && !atomic_compare_exchange_weak_explicit(&histogram->max, &max, value,
                                                                 memory_order_relaxed, memory_order_relaxed))
        ;
    atomic_fetch_add_explicit(&histogram->sum, value, memory_order_relaxed);
    /* release: pairs with the acquire in histogram_at; who sees the count sees the maximum and the sum */
    atomic_fetch_add_explicit(&histogram->counts[histogram_index(value)], 1, memory_order_release);
}

void histogram_reset(struct histogram *histogram)
{
    /* Not a memset: pages that no value ever fell into stay untouched. */
    unsigned last = histogram_index(histogram_max(histogram));
    for (unsigned i = 0; i <= last; i++)
        if (histogram_at(histogram, i) != 0)
            atomic_store_explicit(&histogram->counts[i], 0, memory_order_relaxed);
    atomic_store_explicit(&histogram->sum, 0, memory_order_relaxed);
    atomic_store_explicit(&histogram->max, 0, memory_order_relaxed);
}

uint64_t histogram_at(const struct histogram *histogram, unsigned bucket)
{
    return atomic_load_explicit(&histogram->counts[bucket], memory_order_acquire);
}

uint64_t histogram_sum(const struct histogram *histogram)
{
    return atomic_load_explicit(&histogram->sum, memory_order_relaxed);
}

uint64_t histogram_max(const struct histogram *histogram)
{
    return atomic_load_explicit(&histogram->max, memory_order_relaxed);
}

static uint64_t count_of_set(const struct histogram *const *set, size_t n)
{
    uint64_t count = 0;
    for (size_t h = 0; h < n; h++) {
        /* No value is above the maximum, so the rest need not be looked at. */
        unsigned last = histogram_index(histogram_max(set[h]));
        for (unsigned i = 0; i <= last; i++)
            count += histogram_at(set[h], i);
    }
    return count;
}

static uint64_t max_of_set(const struct histogram *const *set, size_t n)
{
    uint64_t max = 0;
    for (size_t h = 0; h < n; h++) {
        uint64_t own = histogram_max(set[h]);
        if (own > max)
            max = own;
    }
    return max;
}

/* Fills out[] for the rising shares in per_10000[]; returns the count. */
static uint64_t quantiles(const struct histogram *const *set, size_t n, const unsigned *per_10000,
                          uint64_t *out, size_t wanted)
{
    uint64_t count = count_of_set(set, n);
    size_t found = 0;
    uint64_t seen = 0;
    for (unsigned i = 0; count != 0 && found < wanted && i < HISTOGRAM_BUCKETS; i++) {
        for (size_t h = 0; h < n; h++)
            seen += histogram_at(set[h], i);
        while (found < wanted) {
            uint64_t share = per_10000[found]; /* divided first: no overflow */
            uint64_t rank = count / 10000 * share + (count % 10000 * share + 9999) / 10000;
            if (seen < (rank == 0 ? 1 : rank))
                break;
            out[found++] = histogram_high(i);
        }
    }
    for (; found < wanted; found++)
        out[found] = 0;
    return count;
}

uint64_t histogram_count(const struct histogram *histogram) { return count_of_set(&histogram, 1); }

uint64_t histogram_quantile(const struct histogram *histogram, unsigned per_10000)
{
    uint64_t value;
    quantiles(&histogram, 1, &per_10000, &value, 1);
    uint64_t max = histogram_max(histogram);
    return value < max ? value : max;
}

void histogram_summarize(const struct histogram *const *set, size_t n, struct histogram_summary *out)
{
    static const unsigned shares[] = {5000, 9900, 9999};
    uint64_t values[3];
    out->count = quantiles(set, n, shares, values, 3);
    out->sum = 0;
    for (size_t h = 0; h < n; h++)
        out->sum += histogram_sum(set[h]);
    out->max = max_of_set(set, n); /* last: it covers all that was counted */
    out->p50 = values[0] < out->max ? values[0] : out->max;
    out->p99 = values[1] < out->max ? values[1] : out->max;
    out->p9999 = values[2] < out->max ? values[2] : out->max;
}

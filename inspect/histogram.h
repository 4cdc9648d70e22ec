/* inspect/histogram.h -- a log-linear histogram of 64-bit values that signal handlers may write to.
 *
 * Each power of two is cut into 64 equal buckets, and values below 64 have a bucket each, so a bucket is
 * never wider than 1/64 of its lowest value: taking a bucket's highest value for any value in it errs by
 * at most 1/64 and never downward (TR-8).  All 64 bits are covered; nothing saturates.  The storage is
 * fixed, 30 KiB, of which only the pages that values fall into are ever touched.
 *
 * Anybody may record at any time, readers included; nobody waits.  There is no separate count: the
 * buckets are the count, so the two can't disagree.
 */
#ifndef GREY_INSPECT_HISTOGRAM_H
#define GREY_INSPECT_HISTOGRAM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_SHIFT 6
#define HISTOGRAM_STEPS (1u << HISTOGRAM_SHIFT)                           /* buckets a power of two */
#define HISTOGRAM_BUCKETS (HISTOGRAM_STEPS * (64 - HISTOGRAM_SHIFT + 1u)) /* 3776 */

struct histogram {
    _Atomic uint64_t counts[HISTOGRAM_BUCKETS];
    _Atomic uint64_t sum, max;
};

struct histogram_summary {
    uint64_t count, sum, max;
    uint64_t p50, p99, p9999;
};

/* Signal-safe. */
void histogram_record(struct histogram *histogram, uint64_t value);

/* Empties it.  Nobody may record meanwhile. */
void histogram_reset(struct histogram *histogram);

uint64_t histogram_count(const struct histogram *histogram);
uint64_t histogram_sum(const struct histogram *histogram);
uint64_t histogram_max(const struct histogram *histogram);

/* The smallest value that at least this share of the values do not exceed, at most 1/64 too high and
 * never above the maximum; 0 if there are no values.  A share of 10000 is the maximum's. */
uint64_t histogram_quantile(const struct histogram *histogram, unsigned per_10000);

/* Of n histograms taken together, from one pass: p50 <= p99 <= p9999 <= max also while others record. */
void histogram_summarize(const struct histogram *const *set, size_t n, struct histogram_summary *out);

/* Buckets in order: bucket i holds the values histogram_low(i) to histogram_high(i), both included. */
unsigned histogram_index(uint64_t value);
uint64_t histogram_low(unsigned bucket);
uint64_t histogram_high(unsigned bucket);
uint64_t histogram_at(const struct histogram *histogram, unsigned bucket);

#endif

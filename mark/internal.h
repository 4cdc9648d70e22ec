/* mark/internal.h -- between the files of mark/ only. */
#ifndef GREY_MARK_INTERNAL_H
#define GREY_MARK_INTERNAL_H

#include "mark/filter.h"
#include "mark/mark.h"

enum { EDGE_RING = 32, SCAN_RING = 16, TRACER_STACK = 1 << 14 };
/* Bytes a tracer scans between looks at the clock, and of a large object at a time.  MK-3 says 128 KiB, to
 * bound a scan to about 100 us, and MK-4 100,000; but each of the 16,384 words of a dense pointer array may
 * miss the cache, 1.2 ms were seen.  An assist holds up the program: its step is some 10 us. */
enum { WORKER_STEP = 8 << 10, ASSIST_STEP = 2 << 10 };

/* Blocks above so many bytes go through the filter (bench/scan.c, mark): at 512 it is up to 2.4 times as
 * fast and loses nothing; at 256 it gains a third with few pointers and loses a quarter with nothing
 * else.  So many words at a time: with 32 the calls show, with 128 lines come too early.  At first those
 * of the two lines that were prefetched with the object: waiting for more at once cost 40 % on objects
 * full of pointers. */
enum { FILTER_ABOVE = 256, FILTER_WORDS = 64, FILTER_FIRST = 16, LINE_WORDS = 8 };

/* What one tracer holds.  Its own thread only. */
struct tracer {
    bool assist;  /* a program thread's: short steps, and wakes nobody (a futex call is 5 us a sleeper) */
    size_t step;  /* WORKER_STEP or ASSIST_STEP */
    size_t depth; /* of the stack */
    unsigned edge_at, scan_at;   /* ring positions */
    uint32_t looks, spilled;     /* at idle tracers; the look at which the rings were last emptied for them */
    struct outside outside;      /* bounds of foreign regions, as of the last drain */
    struct epoch_reader *reader; /* of the range index; NULL until first needed */
    uint64_t tokens;             /* of work_pending */
    uint64_t marked_objects, marked_bytes, scanned;
    uint64_t credit;           /* scanned since a worker last gave it to assists */
    uintptr_t edge[EDGE_RING]; /* words whose mark line was prefetched, 0 = none */
    uintptr_t scan[SCAN_RING]; /* objects whose lines were prefetched */
    /* What a filter found: not on the thread's stack, where an assist would leave pointers behind. */
    uintptr_t found[FILTER_WORDS];
    uintptr_t stack[TRACER_STACK]; /* marked objects, and pieces of large ones: see trace.c */
    _Atomic uint32_t taken;        /* assists */
};

struct tracer *tracer_new(bool assist);
void tracer_free(struct tracer *tracer);
/* One past the end counts: what a copied stack word may mean (D-4).  True if anything white was found. */
bool tracer_stack_word(struct tracer *tracer, uintptr_t word);
/* Scans until nothing is held or about `bytes` are scanned or the deadline (os_now, 0 = none) is over;
 * false: stopped early. */
bool tracer_drain(struct tracer *tracer, size_t bytes, uint64_t deadline);
/* Reads the bounds of foreign regions anew: once after it came through the gate. */
void tracer_look_outside(struct tracer *tracer);
/* Publishes everything and gives all tokens back. */
void tracer_publish(struct tracer *tracer);
/* Claims a block.  False: none there. */
bool tracer_claim(struct tracer *tracer);
void tracer_give_tokens(struct tracer *tracer);

/* jobs.c: runs one root job; false: none left (for this kind of worker). */
bool jobs_run_one(struct tracer *tracer, bool may_hold_roots);
bool jobs_left(bool may_hold_roots);
size_t jobs_make(void);
void jobs_make_rescan(void);
void jobs_drop(void);
bool jobs_init(void); /* false: no memory */
void jobs_shutdown(void);
bool jobs_cancel(const struct grey_root_ *root);
void jobs_rescan_segments(struct tracer *tracer);

/* copies.c */
bool copies_test_one(struct tracer *tracer);
bool copies_kept(void); /* the collector alone tests then */
void copies_fork_child(void);

#endif

/* mark/ -- the tracing engine: the mark loop, copied words, root jobs, workers.
 *
 *     trace.c     the mark loop; assists
 *     filter.c    which words of a large block may be pointers: vector kernels
 *     copies.c    testing copied stack words
 *     jobs.c      root work, cut fine enough to spread; the rescan after an overflow
 *     roots.c     registered roots
 *     workers.c   the worker threads
 *
 * Work and its one counter are described in barrier/barrier.h.  May call: barrier/, mutator/, heap/, os/.
 * Invariant: no tracer touches an object while the gate is closed.
 */
#ifndef GREY_MARK_MARK_H
#define GREY_MARK_MARK_H

#include "barrier/barrier.h"

/* ---- for cycle/ ------------------------------------------------------------------------------------------ */

int mark_init(void); /* 0, ENOMEM */
void mark_shutdown(void);
/* 1.3: makes the root jobs, opens the gate, wakes the workers.  Bytes of roots. */
size_t mark_begin(bool periodic);
/* Until nothing is pending and no copy is untested, testing copies meanwhile. */
void mark_wait_idle(bool help); /* help: the collector traces too, for the few greys of a round */
/* Until this cycle's marking ends the fractional worker doesn't keep to its share, and the collector helps without
 * end, after the first round; if somebody waits, from now on, but with exactly so many workers (benchmarks). */
enum mark_hurry { MARK_AT_LEISURE, MARK_ASSISTED, MARK_WAITED_FOR };
void mark_hurry(enum mark_hurry why);
bool mark_idle(void);
/* From now on in this cycle only workers of normal priority, unless there are none: what is left is little,
 * and the end must not wait for a nice-19 worker that was switched away with some of it. */
void mark_without_idle_workers(void);
/* Called between the steps of a wait, by the collector: there it may stand still for a fork. */
void mark_set_pause_point(void (*fn)(void));
void mark_end(void); /* 1.6: gate closed; nothing may be pending */
/* Tests copied words until there are none; true if there were any.  The collector, in a round. */
bool mark_test_copies(void);
/* A word that may be a pointer: marks and queues what it points to.  The collector; for 1.3. */
void mark_root_word(uintptr_t word, void *unused);

extern _Atomic uint32_t mark_gate;
extern _Atomic uint64_t mark_scanned;      /* bytes of scan work in this cycle */
extern _Atomic int64_t mark_credit;        /* scan work of workers that assists have not used yet, bytes */
extern _Atomic uint64_t mark_tracer_bytes; /* marked by tracers in this cycle */

/* In the caller's section: marks for at most ns or bytes of scan work.  Work done; 0 also if no tracer is
 * free or there is nothing to mark. */
size_t mark_assist(size_t bytes, uint64_t ns);

/* The verifier keeps the copied words of a held round. */
void mark_keep_copies(bool keep);
void mark_walk_kept_copies(void (*fn)(uintptr_t word, void *arg), void *arg);

/* ---- workers ----------------------------------------------------------------------------------------------- */

struct mark_workers {
    unsigned dedicated, idle;
    double fractional;
    bool exact; /* as many as workers=N says */
};
struct mark_workers mark_workers_plan(unsigned processors, unsigned exactly);
int mark_workers_start(struct mark_workers plan);
void mark_workers_stop(void);
/* fork: no worker is inside a piece of work between these. */
void mark_workers_park(void);
void mark_workers_unpark(void);
void mark_fork_child(void);

/* autoroots=1, before 1.3: finds data and BSS.  Takes the loader's lock, which a stopped thread may own. */
void mark_note_segments(void);
/* autoroots=1, all threads held: scans data and BSS again. */
void mark_autoroots_again(void);

/* ---- roots --------------------------------------------------------------------------------------------------- */

/* Lock held around roots_each by the caller. */
void roots_lock(void);
void roots_unlock(void);
void roots_each(void (*fn)(void *start, size_t size, const struct grey_root_ *root, void *arg), void *arg);
void roots_shutdown(void);
void roots_fork_child(void);

/* The piece of a foreign region that this thread is scanning, size 0: none.  For the fault handler, which runs
 * on the same thread if the program has unmapped what it registered (TR-18). */
struct mark_piece {
    const void *start;
    size_t size;
};
extern __thread struct mark_piece mark_foreign_piece __attribute__((tls_model("initial-exec")));

/* ---- for rooms with roots of their own: foreign/, sweep/ ------------------------------------------------------- */

struct tracer;
/* A word that may be a pointer (conservative), and what it leads to, later. */
void tracer_word(struct tracer *tracer, uintptr_t word);
void tracer_words(struct tracer *tracer, const void *start, size_t size); /* aligned words */
struct epoch_reader **tracer_reader(struct tracer *tracer);
/* Of the 64 words at `at` those whose bit is set are pointers. */
void tracer_mask(struct tracer *tracer, uintptr_t at, uint64_t mask);
/* What the object's pointers lead to; the object itself is not marked. */
void tracer_scan_object(struct tracer *tracer, uintptr_t base);

/* ---- what an object contains ------------------------------------------------------------------------------------ */

/* Calls fn(slot, word) for each word of the object that may be a pointer.  For the verifier and for
 * messages; the mark loop has its own. */
void object_words(const struct heap_object *object, void (*fn)(const void *slot, uintptr_t word, void *arg),
                  void *arg);

#endif

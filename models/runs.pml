/* runs.pml -- free runs, sweeping, and the collector's view of both (docs/protocol.md 1.2, 1.7, 1.8, 2.4, 6).
 *
 * One span of CELLS cells; two threads, each with a stack slot and a register.  The fast path (read the
 * cursor, move it, use the cell) can be interrupted anywhere; the slow path is a busy section; a background
 * sweeper.  alloc holds the span's allocation words, mark its mark words, copy a sweep that is under way.
 * Cycle numbers are one bit each, which is enough because no two of them are ever more than one apart.
 * One scan stands for all rounds: core.pml has those.
 *
 * Checked: no cell is handed out while somebody holds it; no held cell is swept; every mark is clear when
 * marking begins (1.0); blacken marks nothing born before arm; every cycle ends (else an invalid end state).
 * SHADE adds shade with its three looks apart (phase, mark, round; 2.3) in one busy section.
 * WEAK adds a weak reference and weak_get (3) against the sweep: it returns a target that is allocated, in no
 * run, and never NULL for one that somebody holds.
 *
 * Mutants, each must fail:
 *   M_NOMARKREST   blacken forgets the rest of each run
 *   M_NOFENCE      ... or reads cursors with no FENCE before
 *   M_TORN         ... or a cursor and an end of different runs
 *   M_TAKERUN      finish takes a run from a running thread
 *   M_NOFLAG       sweep and slow path do not exclude each other
 *   M_EARLYREAD    sweep_cycle is read before the flag is taken
 *   M_NOREGISTERS  the scan ignores registers
 *   M_NOFENCE6     finish without FENCE (needs SHADE)
 *   M_EARLYSWEEP   sweep_cycle moves before finish's FENCE is complete (needs WEAK)
 * Not a mutant: M_NOOWN.  The flag alone makes taking runs exclusive; ownership only spares contention. */
#ifndef CELLS
#define CELLS 3
#endif
#define BIT(i)     (1 << (i))
#define RANGE(a,b) ((BIT(b) - 1) & ~(BIT(a) - 1))
#define RUN(t)     RANGE(cursor[t], limit[t])
#define ALL        (BIT(CELLS) - 1)
/* where a thread stands */
#define IDLE   0
#define MOVE   1              /* fast path: the cursor is read */
#define USE    2              /* ... and moved */
#define FLAG   3              /* slow path: wants the sweep flag */
#define LOOK   4              /* ... is the span swept? */
#define SWEEP  5              /* ... it is sweeping it */
#define TAKE   6              /* ... takes a run */
#define PHASE_ON 7            /* shade: phase was ON */
#define WHITE  8              /* ... and the cell unmarked */
#define GETMARK 9             /* weak_get: phase was ON; the mark comes next */
#define GOT    10             /* ... returns its target */
#define NOBODY 2

byte alloc, mark, copy[3];
byte cursor[2], limit[2];
byte pc[2], reg[2], slot[2];  /* reg, slot: cell + 1 */
byte word[2];                 /* what shade was given, what weak_get read: cell + 1 */
byte weak;                    /* the reference's target: cell + 1 */
byte busy, owes, flag, owner = NOBODY;
byte phase, closed, cycle, black_cycle, sweep_cycle, span_cycle;
byte takes_black, saw_unswept;   /* what a slow path read: threads */
byte fencing, first_, end_, c_, l_;     /* c_, l_: the run as blacken read it */
byte old;                     /* ghost: cells born before arm's FENCE was complete */

#define HOLDS(t,x)  (slot[t] == (x) || (pc[t] != FLAG && reg[t] == (x)))
#define SURVIVE(words, t) assert(!(slot[t] != 0 && !((words) & BIT(slot[t] - 1)))); \
                          assert(!(reg[t] != 0 && !((words) & BIT(reg[t] - 1))))
/* 1.8, 6: mark words into allocation words, then clear; two steps, so that somebody else can come between */
inline sweep_begin(k) { copy[k] = mark }
inline sweep_end(k) {
    SURVIVE(copy[k], 0); SURVIVE(copy[k], 1); alloc = copy[k]; copy[k] = 0; mark = 0;
    span_cycle = sweep_cycle }
#define READ_CYCLES(t) \
    if :: black_cycle != sweep_cycle -> takes_black = takes_black | BIT(t) \
       :: else -> takes_black = takes_black & ~BIT(t) fi; \
    if :: span_cycle != sweep_cycle -> saw_unswept = saw_unswept | BIT(t) \
       :: else -> saw_unswept = saw_unswept & ~BIT(t) fi
#ifdef M_NOOWN
#define MAY_TAKE(t) true
#else
#define MAY_TAKE(t) (owner == t || owner == NOBODY)
#endif
#ifdef M_NOFLAG
#define FLAG_FREE true
#else
#define FLAG_FREE (!flag)
#endif

proctype thread(byte t) {
end: do
    /* 1.4: the scan, anywhere outside busy sections */
    :: d_step { (owes & BIT(t)) && !(busy & BIT(t)) ->
         if :: slot[t] -> mark = mark | BIT(slot[t] - 1) :: else fi;
#ifndef M_NOREGISTERS
         if :: reg[t] -> mark = mark | BIT(reg[t] - 1) :: else fi;
#endif
         owes = owes & ~BIT(t) }
    :: d_step { slot[t] && pc[t] == IDLE -> slot[t] = 0 }
    /* 2.4 fast path */
    :: d_step { pc[t] == IDLE && cursor[t] < limit[t] && !slot[t] -> reg[t] = cursor[t] + 1; pc[t] = MOVE }
    :: d_step { pc[t] == MOVE -> cursor[t] = reg[t]; pc[t] = USE }
    :: d_step { pc[t] == USE -> assert(!HOLDS(1 - t, reg[t])); slot[t] = reg[t]; reg[t] = 0; pc[t] = IDLE }
    /* 2.4 slow path, a busy section: the flag first, then the cycle numbers */
    :: d_step { pc[t] == IDLE && cursor[t] == limit[t] && MAY_TAKE(t) && !(busy & BIT(t)) ->
         owner = t; busy = busy | BIT(t); pc[t] = FLAG;
#ifdef M_EARLYREAD
         READ_CYCLES(t)
#endif
         }
    :: d_step { pc[t] == FLAG && FLAG_FREE -> flag = 1; cursor[t] = 0; limit[t] = 0; pc[t] = LOOK;
#ifndef M_EARLYREAD
         READ_CYCLES(t)
#endif
         }
    :: d_step { pc[t] == LOOK ->
         if :: (saw_unswept & BIT(t)) && span_cycle != sweep_cycle -> sweep_begin(t); pc[t] = SWEEP
            :: else -> pc[t] = TAKE fi }
    :: d_step { pc[t] == SWEEP -> sweep_end(t); pc[t] = TAKE }
    :: d_step { pc[t] == TAKE ->
         first_ = 0; do :: first_ < CELLS && (alloc & BIT(first_)) -> first_++ :: else -> break od;
         if :: first_ == CELLS -> owner = NOBODY           /* full: give the span back */
            :: else -> end_ = first_;
               do :: end_ < CELLS && !(alloc & BIT(end_)) -> end_++ :: else -> break od;
               if :: takes_black & BIT(t) -> mark = mark | RANGE(first_, end_) :: else fi;
               alloc = alloc | RANGE(first_, end_);
               cursor[t] = first_; limit[t] = end_ fi;
         first_ = 0; end_ = 0; takes_black = takes_black & ~BIT(t); saw_unswept = saw_unswept & ~BIT(t);
         flag = 0; busy = busy & ~BIT(t); pc[t] = IDLE }
#ifdef SHADE
    /* 2.3: a word, held or stale, that looks like a cell of no run; the looks are steps of one section */
    :: atomic { pc[t] == IDLE && phase && !(busy & BIT(t)) && (alloc & ~RUN(0) & ~RUN(1)) != 0 ->
         do :: (alloc & ~RUN(0) & ~RUN(1)) & BIT(word[t]) -> break
            :: word[t] < CELLS - 1 -> word[t]++
            :: else -> break
         od;
         word[t]++; busy = busy | BIT(t); pc[t] = PHASE_ON }
    :: d_step { pc[t] == PHASE_ON -> 
         if :: ((alloc & ~mark) & BIT(word[t] - 1)) -> pc[t] = WHITE
            :: else -> word[t] = 0; busy = busy & ~BIT(t); pc[t] = IDLE fi }
    :: d_step { pc[t] == WHITE -> if :: closed -> skip :: else -> mark = mark | BIT(word[t] - 1) fi;
         word[t] = 0; busy = busy & ~BIT(t); pc[t] = IDLE }
#endif
#ifdef WEAK
    /* 3: weak_new, and weak_get in one busy section: phase and target, mark and round word, then the stack */
    :: d_step { slot[t] && pc[t] == IDLE && !weak -> weak = slot[t] }
    :: d_step { pc[t] == IDLE && !slot[t] && weak && !(busy & BIT(t)) -> busy = busy | BIT(t); word[t] = weak;
         pc[t] = (phase -> GETMARK : GOT) }
    :: d_step { pc[t] == GETMARK ->
         if :: mark & BIT(word[t] - 1) -> skip
            :: else -> if :: closed -> assert(slot[1 - t] != word[t]); word[t] = 0
                          :: else -> mark = mark | BIT(word[t] - 1) fi
         fi; pc[t] = GOT }
    :: d_step { pc[t] == GOT ->
         if :: word[t] -> assert((alloc & ~RUN(0) & ~RUN(1)) & BIT(word[t] - 1)) :: else fi;
         slot[t] = word[t]; word[t] = 0; busy = busy & ~BIT(t); pc[t] = IDLE }
#endif
    od
}

#define FENCE fencing = 3; do :: d_step { (fencing & 1) && !(busy & 1) -> fencing = fencing & 2 } \
                              :: d_step { (fencing & 2) && !(busy & 2) -> fencing = fencing & 1 } \
                              :: fencing == 0 -> break od; skip

active proctype collector() {
    byte t;
    run thread(0); run thread(1);
    do ::
       /* 1.1 arm */
       d_step { assert(mark == 0); phase = 1; cycle = 1 - cycle; old = alloc & ~RUN(0) & ~RUN(1) };
#ifdef M_NOFENCE
       d_step { black_cycle = cycle };
#else
       FENCE;
       d_step { old = alloc & ~RUN(0) & ~RUN(1); black_cycle = cycle };
       FENCE;
#endif
       /* 1.2 blacken: cursor and end of the same run */
       t = 0;
       do :: t < 2 ->
#ifdef M_TORN
             c_ = cursor[t]; l_ = limit[t];
#else
             d_step { c_ = cursor[t]; l_ = limit[t] };
#endif
             d_step {
#ifndef M_NOMARKREST
                if :: c_ < l_ -> assert(!(RANGE(c_, l_) & old)); mark = mark | RANGE(c_, l_) :: else fi;
#endif
                c_ = 0; l_ = 0; t++ }
          :: else -> break
       od; t = 0;
       /* 1.4 the rounds, as one */
       d_step { owes = 3 };
       d_step { owes == 0 -> closed = 1 };
       /* 1.6 finish */
#ifdef WEAK
       d_step { if :: weak && !(mark & BIT(weak - 1)) -> weak = 0 :: else fi };
#endif
       phase = 0;
#ifdef M_EARLYSWEEP
       sweep_cycle = cycle;
#endif
#ifndef M_NOFENCE6
       FENCE;
#endif
       closed = 0;
       /* 1.7 */
       sweep_cycle = cycle;
#ifdef M_TAKERUN
       t = 0; do :: t < 2 -> d_step {
                if :: pc[t] < FLAG -> alloc = alloc & ~RUN(t); mark = mark & ~RUN(t);
                                   cursor[t] = 0; limit[t] = 0
                                         :: else fi; t++ } :: else -> break od; t = 0;
#endif
       /* 1.8: a background sweeper may find the span owned, and its owner in the fast path */
       if :: span_cycle != sweep_cycle -> atomic { FLAG_FREE -> flag = 1 };
             if :: d_step { span_cycle != sweep_cycle -> sweep_begin(2) }; d_step { sweep_end(2); flag = 0 }
                :: d_step { span_cycle == sweep_cycle -> flag = 0 } fi
          :: else
       fi;
       /* the next arm waits until every span is swept */
       d_step { span_cycle == sweep_cycle -> old = 0 }
    od
}

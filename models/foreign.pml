/* foreign.pml -- records of foreign regions: registration, release, colours, scanning, death and the use of
 * a record again, as foreign/regions.c codes them (docs/protocol.md 4).
 *
 * One address; RECORDS records; two threads with a stack slot each that may hold the address, and a root
 * slot.  The program owns the memory, registers it, passes the address on, releases the region by its handle
 * at any time (stale handles and words that still point there included), and registers it again once the
 * release returned true or the cleanup ran.  A marker that tests copied words, a scanner of regions, a
 * collector that sweeps records, and somebody who runs cleanups.  Rounds and the round word as in core.pml.
 * What a region contains is core.pml's (FOREIGN); the index is one word here.  OBJECT adds a heap object
 * with a field, born anew at any time: black, and then not scanned, once black_cycle is the cycle's.  LAX
 * leaves out stale words and releases.  Cycle numbers are modulo 3: no two that are compared are further
 * apart.
 *
 * Checked: the sweep takes no region whose address a thread, the root slot or the object holds; a region is
 * cleaned up or released, once; nothing is read of it afterwards (unmapped); the program's own address is
 * never refused (EEXIST); nobody colours a region or a record that is not used once the round is CLOSED; no
 * region waits twice for a scan; what waits for a scan is in use; no cycle begins with work left.
 *
 * Mutants, each must fail:
 *   M_BORNWHITE    a region is registered with the colour 0 of "never marked"
 *   M_EARLYCOLOUR  black_cycle is read before the section of the registration
 *   M_READONCE     black_cycle is not read again after the insertion (OBJECT)
 *   M_BLINDAGAIN   what was read again is stored though it has not changed: over a colour by the barrier
 *   M_NOCLOSED     the barrier colours in a closed round too
 *   M_NOSECTION    the barrier looks up and colours outside a busy section
 *   M_SWEEPBEHIND  the next cycle arms while the sweep is under way (FR-28)
 *   M_BLINDTAKE    the sweep takes a region by a store
 *   M_QUEUEFIRST   the cleanup is queued before the range leaves the index (FR-26)
 *   M_LOOKFIRST    a scanner looks whether the region is registered, then raises the count
 *   M_NOWAIT       release does not wait for the count
 *   M_NOHOLD       what waits for a scan does not hold its record
 *   M_NOEPOCH      a record is used again while somebody may have found it in the index
 *   M_SWEEPBARE    the sweep looks at a record and takes it outside an epoch section
 * Not a mutant: M_NOFENCE6, the sweep and the next cycle do not wait for finish's FENCE.  The records do not
 * need it, because the round stays CLOSED till the next arm; objects do. */
#ifndef RECORDS
#define RECORDS 2
#endif
#define BIT(x) (1 << (x))
#define NONE   RECORDS
#define NEXT(c) (((c) + 1) % 3)
/* a record's state */
#define FREE       0
#define REGISTERED 1
#define TAKEN      2
/* round word */
#define OPEN   0
#define DIRTY  1
#define CLOSED 2
/* where a thread stands */
#define IDLE    0
#define TEST    1   /* 2.2 B: stored; the test of phase comes next */
#define COLOUR  2   /* found the record; colour and round word come next */
#define MARK    3   /* DIRTY is set; the colour comes next */
#define PUSH    4   /* coloured; a hold and the stack of work come next */
#define NUMBER  5   /* registration: has a record; black_cycle comes next */
#define STATE   6   /* ... then REGISTERED */
#define INSERT  7   /* ... then the index and the handle */
#define TAKE    8   /* release: has found the record */
#define UNLINK  9   /* ... has taken it */
#define WAIT   10   /* ... out of the index; waits for scanners, outside the section */
#define AGAIN  11   /* ... then black_cycle once more */
#define EARLY  12   /* M_EARLYCOLOUR only */
/* readers of the index: threads, and */
#define MARKER 2
#define SWEEP  3

byte state[RECORDS], colour[RECORDS], scanners[RECORDS], holds[RECORDS], generation[RECORDS];
byte published[RECORDS];      /* slot.handle: 0, or generation + 1 */
byte waits[RECORDS];          /* readers that a retired record waits for */
byte retired, spare = BIT(RECORDS) - 1;   /* records */
byte index = NONE;
byte work;                    /* scanned regions that wait: records */
byte readers;                 /* in an epoch section */
byte pc[2], r[2], number[2];  /* a thread's record; the number it works with */
byte slot, field;             /* threads that hold the address; the root slot does */
#ifdef OBJECT
byte inner, black;            /* the object's field holds the address; it was born black in this cycle */
#else
#define inner 0
#endif
byte busy, owes, fencing;
byte phase, round = CLOSED, clean, cycle, black_cycle;
byte copied, found = NONE, scan = NONE, looking;
byte dead = NONE, sweep_cycle, sweeping;
byte queued;                  /* cleanups: records */
byte handle_record = NONE, handle_number;
byte mine = 1;                /* the memory is the program's: not registered */
byte mapped;                  /* ghost: records whose region may be read */
byte i_;

#define ENTER(t) busy = busy | BIT(t)
#define DONE(t)  busy = busy & ~BIT(t); pc[t] = IDLE; r[t] = NONE; number[t] = 0
inline epoch_enter(x) { readers = readers | BIT(x) }
inline epoch_leave(x) {
    readers = readers & ~BIT(x); i_ = 0;
    do :: i_ < RECORDS -> waits[i_] = waits[i_] & ~BIT(x);
          if :: (retired & BIT(i_)) && waits[i_] == 0 -> retired = retired & ~BIT(i_); spare = spare | BIT(i_)
             :: else fi; i_++
       :: else -> break od; i_ = 0 }
inline drop_hold(k) {
    holds[k]--;
    if :: holds[k] == 0 -> state[k] = FREE;
#ifdef M_NOEPOCH
          spare = spare | BIT(k)
#else
          if :: readers == 0 -> spare = spare | BIT(k)
             :: else -> waits[k] = readers; retired = retired | BIT(k) fi
#endif
       :: else fi }
/* A hold for the stack of work, if the record still has one; then the push. */
inline push(k) {
    assert(!(work & BIT(k)));
#ifndef M_NOHOLD
    holds[k]++;
#endif
    work = work | BIT(k) }
inline unlink_range(k) { assert(index == k); index = NONE; published[k] = 0 }
#ifdef M_NOWAIT
#define LEFT(k) true
#else
#define LEFT(k) (scanners[k] == 0)
#endif
#if defined(M_READONCE) || defined(M_BORNWHITE) || defined(M_EARLYCOLOUR)
#define READ_ONCE
#endif
#define MAY_COLOUR(k) assert(round != CLOSED && !(spare & BIT(k)))

proctype thread(byte t) {
    r[t] = NONE;
end: do
    /* 1.4 the answer, never in a section */
    :: d_step { (owes & BIT(t)) && !(busy & BIT(t)) ->
         if :: slot & BIT(t) -> copied = 1 :: else fi; owes = owes & ~BIT(t) }
    /* load, drop, clear, and a store by barrier B */
    :: d_step { pc[t] == IDLE && field && !(slot & BIT(t)) -> slot = slot | BIT(t) }
    :: d_step { pc[t] == IDLE && (slot & BIT(t)) -> slot = slot & ~BIT(t) }
    :: d_step { pc[t] == IDLE && field -> field = 0 }
    :: d_step { pc[t] == IDLE && (slot & BIT(t)) && !field -> field = 1; pc[t] = TEST }
#ifdef OBJECT
    :: d_step { pc[t] == IDLE && inner && !(slot & BIT(t)) -> slot = slot | BIT(t) }
    :: d_step { pc[t] == IDLE && (slot & BIT(t)) && !inner -> inner = 1; pc[t] = TEST }
    :: d_step { pc[t] == IDLE -> inner = 0; black = (black_cycle == cycle) }
#endif
#ifndef LAX
    /* a stale word comes to shade */
    :: d_step { pc[t] == IDLE && phase && index != NONE -> pc[t] = TEST }
#endif
    :: d_step { pc[t] == TEST ->
         if :: (phase && index != NONE) -> epoch_enter(t); r[t] = index; pc[t] = COLOUR;
#ifndef M_NOSECTION
               ENTER(t)
#endif
            :: else -> pc[t] = IDLE fi }
    /* 2.3, with a colour for the mark */
    :: d_step { pc[t] == COLOUR -> number[t] = cycle;
         if :: colour[r[t]] == cycle -> epoch_leave(t); DONE(t)
#ifndef M_NOCLOSED
            :: colour[r[t]] != cycle && round == CLOSED -> epoch_leave(t); DONE(t)
            :: colour[r[t]] != cycle && round != CLOSED -> round = DIRTY; pc[t] = MARK
#else
            :: colour[r[t]] != cycle -> if :: round == OPEN -> round = DIRTY :: else fi; pc[t] = MARK
#endif
         fi }
    :: d_step { pc[t] == MARK -> MAY_COLOUR(r[t]);
         if :: colour[r[t]] != number[t] -> colour[r[t]] = number[t]; pc[t] = PUSH
            :: else -> epoch_leave(t); DONE(t) fi }
    :: d_step { pc[t] == PUSH -> if :: holds[r[t]] > 0 -> push(r[t]); clean = 0 :: else fi;
         epoch_leave(t); DONE(t) }
    /* registration: one section */
#ifdef M_EARLYCOLOUR
    :: d_step { pc[t] == IDLE && mine && spare -> mine = 0; slot = slot | BIT(t);
         number[t] = black_cycle; pc[t] = EARLY }
    :: d_step { pc[t] == EARLY && spare -> ENTER(t);
#else
    :: d_step { pc[t] == IDLE && mine && spare -> mine = 0; slot = slot | BIT(t); ENTER(t);
#endif
         r[t] = 0; do :: !(spare & BIT(r[t])) -> r[t]++ :: else -> break od;
         spare = spare & ~BIT(r[t]); generation[r[t]] = 1 - generation[r[t]]; holds[r[t]] = 1;
         mapped = mapped | BIT(r[t]); pc[t] = NUMBER }
    :: d_step { pc[t] == NUMBER ->
#ifdef M_EARLYCOLOUR
         colour[r[t]] = number[t]; number[t] = 0;
#elif defined(M_BORNWHITE)
         colour[r[t]] = NEXT(NEXT(black_cycle));
#else
         number[t] = black_cycle; colour[r[t]] = number[t];
#endif
         pc[t] = STATE }
    :: d_step { pc[t] == STATE -> state[r[t]] = REGISTERED; pc[t] = INSERT }
    :: d_step { pc[t] == INSERT -> assert(index == NONE); index = r[t];
#ifndef READ_ONCE
         pc[t] = AGAIN }
    /* Who read the new number and then missed the range did so before the insertion: this sees it too. */
    :: d_step { pc[t] == AGAIN ->
#ifdef M_BLINDAGAIN
         colour[r[t]] = black_cycle;
#else
         if :: black_cycle != number[t] -> colour[r[t]] = black_cycle :: else fi;
#endif
#endif
         published[r[t]] = generation[r[t]] + 1;
         handle_record = r[t]; handle_number = published[r[t]]; DONE(t) }
#ifdef LAX
    /* the memory is the program's: any of its threads may know where it is */
    :: d_step { pc[t] == IDLE && mine && !(slot & BIT(t)) -> slot = slot | BIT(t) }
#else
    /* release, by any thread, at any time: by the handle of now or of before */
    :: d_step { pc[t] == IDLE && handle_record != NONE && published[handle_record] == handle_number ->
         ENTER(t); epoch_enter(t); r[t] = handle_record; pc[t] = TAKE }
    :: d_step { pc[t] == TAKE -> epoch_leave(t);
         if :: state[r[t]] == REGISTERED -> state[r[t]] = TAKEN; pc[t] = UNLINK
            :: else -> DONE(t) fi }
    :: d_step { pc[t] == UNLINK -> unlink_range(r[t]); busy = busy & ~BIT(t); pc[t] = WAIT }
    :: d_step { pc[t] == WAIT && LEFT(r[t]) -> assert(!mine && (mapped & BIT(r[t])));
         mapped = mapped & ~BIT(r[t]); mine = 1; drop_hold(r[t]); DONE(t) }
#endif
    od
}

/* 1.4: tests a copied word; such greys count as not clean */
proctype marker() {
end: do
    :: d_step { copied && found == NONE ->
         if :: index != NONE -> epoch_enter(MARKER); found = index :: else -> copied = 0 fi }
    :: d_step { found != NONE ->
         if :: colour[found] != cycle -> MAY_COLOUR(found); colour[found] = cycle; clean = 0;
               if :: holds[found] > 0 -> push(found) :: else fi
            :: else fi;
         epoch_leave(MARKER); found = NONE; copied = 0 }
    od
}

/* Takes a piece, and may put the rest back. */
#define TAKE_WORK(k) :: d_step { (work & BIT(k)) != 0 && scan == NONE -> \
    assert(!(spare & BIT(k)) && state[k] != FREE); work = work & ~BIT(k); scan = k; looking = 1 }
proctype scanner() {
end: do
    TAKE_WORK(0)
#if RECORDS > 1
    TAKE_WORK(1)
#endif
#ifdef M_LOOKFIRST
    :: d_step { looking == 1 -> looking = (state[scan] == REGISTERED -> 2 : 5) }
    :: d_step { looking == 2 -> scanners[scan]++; looking = 3 }
    :: d_step { looking == 5 -> scanners[scan]++; looking = 4 }
#else
    :: d_step { looking == 1 -> scanners[scan]++; looking = 2 }
    :: d_step { looking == 2 -> looking = (state[scan] == REGISTERED -> 3 : 4) }
#endif
    :: d_step { looking == 3 -> push(scan); looking = 6 }
    :: d_step { looking == 3 || looking == 6 -> assert(mapped & BIT(scan)); looking = 4 }
    :: d_step { looking == 4 -> scanners[scan]--;
#ifndef M_NOHOLD
         drop_hold(scan);
#endif
         scan = NONE; looking = 0 }
    od
}

#define CLEAN_UP(k) :: d_step { (queued & BIT(k)) != 0 -> \
    assert(!mine && state[k] == TAKEN && (mapped & BIT(k))); \
    mapped = mapped & ~BIT(k); mine = 1; queued = queued & ~BIT(k); drop_hold(k) }
proctype cleaner() {
end: do
    CLEAN_UP(0)
#if RECORDS > 1
    CLEAN_UP(1)
#endif
    od
}

#define FENCE fencing = 3; do :: d_step { (fencing & 1) && !(busy & 1) -> fencing = fencing & 2 } \
                              :: d_step { (fencing & 2) && !(busy & 2) -> fencing = fencing & 1 } \
                              :: fencing == 0 -> break od; skip
#define QUIET (work == 0 && scan == NONE && !copied)

/* 1.7: record by record */
inline sweep() {
    byte k;
    k = 0;
    do :: k < RECORDS ->
          d_step {
#ifndef M_SWEEPBARE
            epoch_enter(SWEEP);
#endif
            dead = (state[k] == REGISTERED && colour[k] != sweep_cycle -> k : NONE) };
          d_step {
#ifdef M_BLINDTAKE
            if :: dead != NONE -> state[k] = TAKEN
#else
            if :: dead != NONE && state[k] == REGISTERED -> state[k] = TAKEN
               :: dead != NONE && state[k] != REGISTERED -> dead = NONE
#endif
               :: else fi;
            if :: dead != NONE -> assert(slot == 0 && !field && !inner) :: else fi;
#ifndef M_SWEEPBARE
            epoch_leave(SWEEP)
#endif
            };
          if :: dead != NONE ->
#ifdef M_QUEUEFIRST
                d_step { queued = queued | BIT(k) };
                d_step { unlink_range(k); dead = NONE }
#else
                d_step { unlink_range(k) };
                d_step { queued = queued | BIT(k); dead = NONE }
#endif
             :: else fi;
          k++
       :: else -> break
    od; k = 0 }

#ifdef M_SWEEPBEHIND
proctype sweeper() {
end: do :: sweeping -> sweep(); sweeping = 0 od
}
#endif

active proctype collector() {
    atomic { run thread(0); run thread(1); run marker(); run scanner(); run cleaner();
#ifdef M_SWEEPBEHIND
             run sweeper()
#endif
           };
end: do ::
    /* 1.1, 1.2 */
    d_step { assert(work == 0); round = OPEN; cycle = NEXT(cycle); phase = 1;
#ifdef OBJECT
             black = 0
#endif
           };
    FENCE;
    black_cycle = cycle;
    FENCE;
    /* 1.3 */
    d_step { if :: field -> copied = 1 :: else fi;
#ifdef OBJECT
             if :: inner && !black -> copied = 1 :: else fi
#endif
           };
    /* 1.4 */
    do :: d_step { QUIET -> clean = 1; round = OPEN; owes = 3 };
          d_step { owes == 0 && !copied -> skip };
          if :: d_step { clean && round == OPEN -> round = CLOSED }; break :: else fi
    od; skip;
    /* 1.6 */
    d_step { assert(QUIET); phase = 0; clean = 0 };
#ifndef M_NOFENCE6
    FENCE;
#endif
    /* 1.7 */
#ifdef M_SWEEPBEHIND
    d_step { !sweeping -> sweep_cycle = cycle; sweeping = 1 }
#else
    sweep_cycle = cycle;
    sweep()
#endif
    od
}

/* arena.pml -- the life of an arena's chunks: free, faulting, scanning, quarantine and use again
 * (docs/protocol.md 5), as arena/ codes it.
 *
 * CHUNKS chunks with one pointer word each, two threads with a stack slot each, and a root slot.  A slot
 * holds nothing, a pointer into a chunk, or (OBJECT) a heap object.  Threads allocate in chunks, load from
 * and store to every slot and chunk by barrier B, and free chunks at any time; afterwards they go on
 * holding, copying and storing pointers into them, and read chunks that are freed and not faulted yet,
 * which a wrong program can do.  A tracer scans the chunks that hold data, a marker tests copied words, a
 * collector never stops.  Rounds and the round word as in core.pml.  What is marked here has no children,
 * so there are no grey buffers.
 *
 * Without HANDLES chunks are freed one by one, which covers every order of freeing arenas.  With it all
 * belong to one arena at a time, whose handle lies in a second slot of each thread and a second root slot,
 * and which is freed by a thread or when its handle dies.  NOPASS: the first root slot stays empty.
 *
 * Numbers are bits: `coloured` is colour = cycle, `fresh` is quarantined_at = cycle, `numbers` is what a
 * thread read of the cycle, and arm clears all of them.  That is exact: nothing but equality with the
 * cycle of now, which is the largest, is ever asked.
 *
 * Checked: nobody scans a chunk that faults; none becomes ready while a thread or a slot holds a pointer
 * into its old life; the object is not swept while a thread, a slot or a chunk that can be read leads to
 * it; what is used again is zero; at each arm nothing is pending (UA-24), and after its FENCE every chunk
 * is on the list that its state says; an arena that the collector frees has no handle left; (GHOST) a
 * chunk into which nothing points at arm leaves quarantine in that cycle.
 *
 * Mutants, each must fail:
 *   M_FAULTNOW     a free faults whatever the phase is (UA-23)
 *   M_NOSECTION    the phase is read, and acted on, outside a busy section
 *   M_EARLYNUMBER  the cycle's number is read before the section
 *   M_DRAINFIRST   what is pending is drained before finish's FENCE
 *   M_SAMECYCLE    a chunk may leave quarantine in the cycle in which it went there
 *   M_NOCOLOUR     the barrier does not colour
 *   M_REUSENOROOT  chunks on the reuse list are no roots
 *   M_PENDNOROOT   chunks that are pending are no roots
 *   M_EARLYDEAD    which handle is dead is decided before the last round (HANDLES)
 *   M_DEADUNTRACED chunks are scanned only once their handle is marked (HANDLES, OBJECT)
 * Not mutants: M_CLOSEDTOO, the barrier colours in a closed round too, and M_NODIRTY, it does not set
 * DIRTY.  A chunk in quarantine has no children, so nothing is lost if somebody steals its mark, and a
 * colour that comes late keeps it a cycle longer.  The code does as for objects all the same. */
#ifndef CHUNKS
#define CHUNKS 1
#endif
#define BIT(x) (1 << (x))
#define NONE   CHUNKS
#define ALL    (BIT(CHUNKS) - 1)
/* what a slot holds */
#define NIL    0
#define OBJ    1
#define HANDLE 2
#define P(k)   (3 + (k))
#define IS_CHUNK(v) ((v) >= 3)
#define OF(v)  ((v) - 3)
/* a chunk's state */
#define READY      0
#define ACTIVE     1
#define FULL       2
#define PENDING    3
#define REUSABLE   4
#define QUARANTINE 5
#define HAS_DATA(k) (state[k] != READY && state[k] != QUARANTINE)
/* round word */
#define OPEN   0
#define DIRTY  1
#define CLOSED 2
/* where a thread stands */
#define IDLE   0
#define TEST   1    /* 2.2 B: stored; the test of phase comes next */
#define LOOK   2    /* 2.3: in a section, phase was ON */
#define MARK   3    /* DIRTY is set; the mark or the colour comes next */
#define PHASE  4    /* free of a full chunk: the phase comes next */
#define NUMBER 5    /* ... was OFF: the number comes next */
#define STATE  6    /* ... then QUARANTINE */
#define FAULT  7    /* ... then the mapping goes */
#define QUEUE  8    /* ... then the list */
#define PEND   9    /* ... was ON: PENDING comes next */
#define PUSH  10    /* ... then the list */
#define REUSE 11    /* free of the active chunk: REUSABLE; the list comes next */
#define EARLY 12    /* M_EARLYNUMBER only */

byte state[CHUNKS];
byte content[CHUNKS];         /* the word in it */
byte faulted;                 /* chunks without a mapping */
byte ready = ALL, reuse, pending, quarantine;   /* lists */
byte coloured, fresh, numbers;
byte going;                   /* chunks that a thread is freeing (UA-32) */
byte slot[2], field;
byte pc[2], value[2], chunk[2] = NONE;
byte busy, owes, fencing;
byte phase, round = CLOSED, clean, gate;
byte copied;                  /* words from stacks and root slots that wait for the test: values */
byte roots, scan = NONE;      /* chunks still to be scanned; the one that is */
byte doomed;                  /* ghost: chunks that must leave quarantine in this cycle */
#ifdef OBJECT
byte live, marked, black = 1;
#endif
#ifdef HANDLES
/* the arena: none, in use, being freed by a thread, found dead */
#define NO_ARENA 0
#define IN_USE   1
#define DEFUNCT  2
#define DEAD     3
byte arena, handle_slot, handle_field, handle_marked, handle_black = 1;
#define MAY_ALLOCATE(t) (arena == IN_USE && (handle_slot & BIT(t)))
#define MAY_FREE        (arena == DEFUNCT)
#define BELONGS(k) (state[k] == ACTIVE || state[k] == FULL)
#if CHUNKS > 1
#define NO_CHUNK_OF_IT (!BELONGS(0) && !BELONGS(1))
#else
#define NO_CHUNK_OF_IT (!BELONGS(0))
#endif
#else
#define MAY_ALLOCATE(t) true
#define MAY_FREE        true
#endif
byte i_, hit_;

#define ENTER(t) busy = busy | BIT(t)
#define DONE(t)  busy = busy & ~BIT(t); pc[t] = IDLE; value[t] = NIL
#define POINTS_INTO(k) (slot[0] == P(k) || slot[1] == P(k) || field == P(k) || COPY_INSIDE(k))
#if CHUNKS > 1
#define COPY_INSIDE(k) (content[0] == P(k) || content[1] == P(k))
#else
#define COPY_INSIDE(k) (content[0] == P(k))
#endif

/* Of what leads nowhere but to itself: a white object, a handle, a chunk in quarantine without this cycle's
 * colour.  hit_ says whether it was one. */
inline test_word(v) {
    hit_ = 1;
    if :: IS_CHUNK(v) && state[OF(v)] == QUARANTINE && !(coloured & BIT(OF(v))) ->
          coloured = coloured | BIT(OF(v))
#ifdef OBJECT
       :: v == OBJ && live && !marked -> marked = 1
#endif
#ifdef HANDLES
       :: v == HANDLE && arena == IN_USE && !handle_marked -> handle_marked = 1
#endif
       :: else -> hit_ = 0 fi }
#ifdef OBJECT
#define WHITE_OBJECT(v) ((v) == OBJ && live && !marked)
#else
#define WHITE_OBJECT(v) false
#endif
#ifdef HANDLES
#define WHITE_HANDLE(v) ((v) == HANDLE && arena == IN_USE && !handle_marked)
#else
#define WHITE_HANDLE(v) false
#endif
#ifdef M_NOCOLOUR
#define WHITE_CHUNK(v) false
#else
#define WHITE_CHUNK(v) (IS_CHUNK(v) && state[OF(v)] == QUARANTINE && !(coloured & BIT(OF(v))))
#endif
#ifdef M_CLOSEDTOO
#define MAY_MARK(v) (round != CLOSED || IS_CHUNK(v))
#else
#define MAY_MARK(v) (round != CLOSED)
#endif
#ifdef M_NODIRTY
#define SET_DIRTY(v) if :: round == OPEN && !IS_CHUNK(v) -> round = DIRTY :: else fi
#else
#define SET_DIRTY(v) if :: round == OPEN -> round = DIRTY :: else fi
#endif

/* The mapping goes, and with it what was in it. */
#define UNMAP(k) faulted = faulted | BIT(k); content[k] = NIL

#define EACH_CHUNK(step, t) FIRST(step, t) SECOND(step, t)
#define FIRST(step, t) step(0, t)
#if CHUNKS > 1
#define SECOND(step, t) step(1, t)
#else
#define SECOND(step, t)
#endif

#ifdef M_NOSECTION
#define ENTER_FREE(t) skip
#else
#define ENTER_FREE(t) ENTER(t)
#endif
#define CHUNK_STEPS(k, t) \
    /* an object in the active chunk; the last of it */ \
    :: d_step { pc[t] == IDLE && MAY_ALLOCATE(t) && state[k] == ACTIVE && slot[t] == NIL -> slot[t] = P(k) } \
    :: d_step { pc[t] == IDLE && MAY_ALLOCATE(t) && state[k] == ACTIVE && !(going & BIT(k)) -> \
         state[k] = FULL } \
    /* refill */ \
    :: d_step { pc[t] == IDLE && MAY_ALLOCATE(t) && (reuse & BIT(k)) -> assert(state[k] == REUSABLE); \
         reuse = reuse & ~BIT(k); state[k] = ACTIVE } \
    :: d_step { pc[t] == IDLE && MAY_ALLOCATE(t) && (ready & BIT(k)) -> \
         assert(state[k] == READY && content[k] == NIL && !POINTS_INTO(k)); \
         ready = ready & ~BIT(k); faulted = faulted & ~BIT(k); state[k] = ACTIVE } \
    /* stores into the chunk, by barrier B; loads from it */ \
    :: d_step { pc[t] == IDLE && HAS_DATA(k) && slot[t] != NIL && content[k] != slot[t] -> \
         content[k] = slot[t]; value[t] = slot[t]; pc[t] = TEST } \
    :: d_step { pc[t] == IDLE && HAS_DATA(k) && slot[t] == P(k) && content[k] != NIL -> \
         slot[t] = content[k] } \
    :: d_step { pc[t] == IDLE && HAS_DATA(k) && slot[t] == P(k) && content[k] != NIL -> content[k] = NIL } \
    /* UA-22: the active chunk goes to the reuse list, a full one is faulted or waits */ \
    :: d_step { pc[t] == IDLE && MAY_FREE && state[k] == ACTIVE && !(going & BIT(k)) -> \
         going = going | BIT(k); chunk[t] = k; ENTER(t); state[k] = REUSABLE; pc[t] = REUSE } \
    :: d_step { pc[t] == IDLE && MAY_FREE && state[k] == FULL && !(going & BIT(k)) -> \
         going = going | BIT(k); chunk[t] = k; BEGIN_FREE(t) }
#ifdef M_EARLYNUMBER
#define BEGIN_FREE(t) numbers = numbers | BIT(t); pc[t] = EARLY
#else
#define BEGIN_FREE(t) ENTER_FREE(t); pc[t] = PHASE
#endif

proctype thread(byte t) {
end: do
    /* 1.4 the answer, never in a section */
    :: d_step { (owes & BIT(t)) && !(busy & BIT(t)) -> copied = (copied | BIT(slot[t])) & ~BIT(NIL);
#ifdef HANDLES
         if :: handle_slot & BIT(t) -> copied = copied | BIT(HANDLE) :: else fi;
#endif
         owes = owes & ~BIT(t) }
    :: d_step { pc[t] == IDLE && slot[t] != NIL -> slot[t] = NIL }
    :: d_step { pc[t] == IDLE && slot[t] == NIL && field != NIL -> slot[t] = field }
    :: d_step { pc[t] == IDLE && field != NIL -> field = NIL }
#ifndef NOPASS
    :: d_step { pc[t] == IDLE && slot[t] != NIL && field != slot[t] ->
         field = slot[t]; value[t] = slot[t]; pc[t] = TEST }
#endif
    /* 2.2 B, 2.3 */
    :: d_step { pc[t] == TEST -> if :: phase -> ENTER(t); pc[t] = LOOK :: else -> DONE(t) fi }
    :: d_step { pc[t] == LOOK ->
         if :: (WHITE_CHUNK(value[t]) || WHITE_OBJECT(value[t]) || WHITE_HANDLE(value[t])) &&
               MAY_MARK(value[t]) -> SET_DIRTY(value[t]); pc[t] = MARK
            :: else -> DONE(t) fi }
    :: d_step { pc[t] == MARK -> test_word(value[t]); hit_ = 0; DONE(t) }
    EACH_CHUNK(CHUNK_STEPS, t)
#ifdef M_EARLYNUMBER
    :: d_step { pc[t] == EARLY -> ENTER(t); pc[t] = PHASE }
#endif
    :: d_step { pc[t] == PHASE ->
#ifdef M_FAULTNOW
         pc[t] = NUMBER }
#else
         if :: phase -> numbers = numbers & ~BIT(t); pc[t] = PEND :: else -> pc[t] = NUMBER fi }
#endif
    :: d_step { pc[t] == NUMBER ->
#ifndef M_EARLYNUMBER
         numbers = numbers | BIT(t);
#endif
         pc[t] = STATE }
    :: d_step { pc[t] == STATE -> assert(state[chunk[t]] == FULL); state[chunk[t]] = QUARANTINE;
         if :: numbers & BIT(t) -> fresh = fresh | BIT(chunk[t]) :: else -> fresh = fresh & ~BIT(chunk[t]) fi;
         numbers = numbers & ~BIT(t); pc[t] = FAULT }
    :: d_step { pc[t] == FAULT -> UNMAP(chunk[t]); pc[t] = QUEUE }
    :: d_step { pc[t] == QUEUE -> quarantine = quarantine | BIT(chunk[t]);
         going = going & ~BIT(chunk[t]); chunk[t] = NONE; DONE(t) }
    :: d_step { pc[t] == PEND -> assert(state[chunk[t]] == FULL); state[chunk[t]] = PENDING; pc[t] = PUSH }
    :: d_step { pc[t] == PUSH -> pending = pending | BIT(chunk[t]);
         going = going & ~BIT(chunk[t]); chunk[t] = NONE; DONE(t) }
    :: d_step { pc[t] == REUSE -> reuse = reuse | BIT(chunk[t]);
         going = going & ~BIT(chunk[t]); chunk[t] = NONE; DONE(t) }
#ifdef OBJECT
    :: d_step { pc[t] == IDLE && slot[t] == NIL && !live -> live = 1; marked = black; slot[t] = OBJ }
#endif
#ifdef HANDLES
    :: d_step { pc[t] == IDLE && arena == NO_ARENA && value[1 - t] != HANDLE ->
         arena = IN_USE; handle_slot = BIT(t); handle_marked = handle_black }
    :: d_step { pc[t] == IDLE && (handle_slot & BIT(t)) -> handle_slot = handle_slot & ~BIT(t) }
    :: d_step { pc[t] == IDLE && handle_field && !(handle_slot & BIT(t)) ->
         handle_slot = handle_slot | BIT(t) }
    :: d_step { pc[t] == IDLE && handle_field -> handle_field = 0 }
    :: d_step { pc[t] == IDLE && (handle_slot & BIT(t)) && !handle_field ->
         handle_field = 1; value[t] = HANDLE; pc[t] = TEST }
    :: d_step { pc[t] == IDLE && arena == IN_USE && (handle_slot & BIT(t)) -> arena = DEFUNCT }
    :: d_step { arena == DEFUNCT && pc[t] == IDLE && !going && NO_CHUNK_OF_IT ->
         arena = NO_ARENA; handle_slot = 0; handle_field = 0; handle_marked = 0 }
#endif
    od
}

/* 1.4: tests a copied word; such greys count as not clean */
proctype marker() {
    byte v;
end: do
    :: d_step { copied != 0 ->
         v = 1; do :: !(copied & BIT(v)) -> v++ :: else -> break od;
         copied = copied & ~BIT(v); test_word(v); clean = clean && !hit_; hit_ = 0; v = 0 }
    od
}

/* 1.5: a chunk's word is read once while the program may be storing to it */
#ifdef M_DEADUNTRACED
#define MAY_SCAN(k) (state[k] == REUSABLE || state[k] == PENDING || handle_marked)
#else
#define MAY_SCAN(k) true
#endif
#define TAKE_ROOT(k, t) \
    :: d_step { gate && scan == NONE && (roots & BIT(k)) && MAY_SCAN(k) -> roots = roots & ~BIT(k); scan = k }
proctype tracer() {
end: do
    EACH_CHUNK(TAKE_ROOT, 0)
    :: d_step { scan != NONE -> assert(!(faulted & BIT(scan)));
         test_word(content[scan]); hit_ = 0; scan = NONE }
    od
}

#define FENCE fencing = 3; do :: d_step { (fencing & 1) && !(busy & 1) -> fencing = fencing & 2 } \
                              :: d_step { (fencing & 2) && !(busy & 2) -> fencing = fencing & 1 } \
                              :: fencing == 0 -> break od; skip
#ifdef M_DEADUNTRACED
#define QUIET (!copied && scan == NONE && !((roots & 1) && MAY_SCAN(0)))
#else
#define QUIET (!copied && scan == NONE && roots == 0)
#endif
#ifdef M_REUSENOROOT
#define ROOT(k) (HAS_DATA(k) && state[k] != REUSABLE)
#elif defined(M_PENDNOROOT)
#define ROOT(k) (HAS_DATA(k) && state[k] != PENDING)
#else
#define ROOT(k) HAS_DATA(k)
#endif
#define ON_ITS_LIST(k) \
    (((ready >> (k)) & 1) == (state[k] == READY) && ((reuse >> (k)) & 1) == (state[k] == REUSABLE) && \
     ((pending >> (k)) & 1) == (state[k] == PENDING) && \
     ((quarantine >> (k)) & 1) == (state[k] == QUARANTINE) && \
     ((faulted >> (k)) & 1) <= (state[k] == QUARANTINE || state[k] == READY))

/* By the collector: one step, for nobody looks at states now. */
inline fault(k) {
    state[k] = QUARANTINE; fresh = fresh | BIT(k); UNMAP(k); quarantine = quarantine | BIT(k) }
inline drain() {
    do :: d_step { pending != 0 ->
            i_ = 0; do :: !(pending & BIT(i_)) -> i_++ :: else -> break od;
            assert(state[i_] == PENDING); pending = pending & ~BIT(i_); fault(i_); i_ = 0 }
       :: pending == 0 -> break od; skip }

#ifdef M_SAMECYCLE
#define OLD(k) true
#else
#define OLD(k) (!(fresh & BIT(k)))
#endif
#define RELEASE(k, t) \
    d_step { if :: (quarantine & BIT(k)) && OLD(k) && !(coloured & BIT(k)) -> assert(!POINTS_INTO(k)); \
                   quarantine = quarantine & ~BIT(k); state[k] = READY \
                :: else -> assert(!(doomed & BIT(k))) fi; doomed = doomed & ~BIT(k) }; \
    d_step { if :: (ready | quarantine) & BIT(k) -> skip \
                :: state[k] == READY -> ready = ready | BIT(k) :: else fi };
inline free_dead() {
#ifdef HANDLES
    if :: arena == DEAD ->
          d_step { assert(handle_slot == 0 && !handle_field);
            i_ = 0;
            do :: i_ < CHUNKS ->
                  if :: state[i_] == FULL -> fault(i_)
                     :: state[i_] == ACTIVE -> state[i_] = REUSABLE; reuse = reuse | BIT(i_)
                     :: else fi; i_++
               :: else -> break od; i_ = 0; arena = NO_ARENA; handle_marked = 0 }
       :: else fi
#else
    skip
#endif
}
/* 1.8 */
#ifdef OBJECT
#define LEADS(k) (HAS_DATA(k) && content[k] == OBJ)
#if CHUNKS > 1
#define A_CHUNK_LEADS (LEADS(0) || LEADS(1))
#else
#define A_CHUNK_LEADS LEADS(0)
#endif
#define SWEEP d_step { if :: live && !marked -> \
    assert(slot[0] != OBJ && slot[1] != OBJ && field != OBJ && !A_CHUNK_LEADS); live = 0 :: else fi }
#else
#define SWEEP skip
#endif

active proctype collector() {
    byte k;
    atomic { run thread(0); run thread(1); run marker(); run tracer() };
end: do ::
    /* 1.1 arm */
    d_step { round = OPEN; coloured = 0; fresh = 0; numbers = 0;
#ifdef OBJECT
             marked = 0; black = 0;
#endif
#ifdef HANDLES
             handle_marked = 0; handle_black = 0;
#endif
#ifdef GHOST
             k = 0;
             do :: k < CHUNKS -> if :: state[k] == QUARANTINE && !POINTS_INTO(k) -> doomed = doomed | BIT(k)
                                    :: else fi; k++
                :: else -> break od; k = 0;
#endif
             assert(pending == 0) };
    phase = 1;
    FENCE;
    /* 1.2 */
    d_step { skip;
#ifdef OBJECT
             black = 1;
#endif
#ifdef HANDLES
             handle_black = 1;
#endif
           };
    FENCE;
    /* 1.3: which chunks hold data is known before the gate opens */
    d_step { k = 0;
             do :: k < CHUNKS ->
                   assert((going & BIT(k)) || ON_ITS_LIST(k));
                   if :: ROOT(k) -> roots = roots | BIT(k) :: else fi;
                   k++
                :: else -> break od; k = 0 };
    gate = 1;
    d_step { copied = (copied | BIT(field)) & ~BIT(NIL);
#ifdef HANDLES
             if :: handle_field -> copied = copied | BIT(HANDLE) :: else fi
#endif
           };
#ifdef M_EARLYDEAD
    d_step { QUIET -> if :: arena == IN_USE && !handle_marked -> arena = DEAD :: else fi };
#endif
    /* 1.4 */
    do :: d_step { QUIET -> clean = 1; round = OPEN; owes = 3 };
          d_step { owes == 0 && !copied -> skip };
          if :: d_step { clean && round == OPEN && QUIET -> round = CLOSED }; break :: else fi
    od; skip;
    /* 1.6 */
    d_step { gate = 0; roots = 0; clean = 0;
#ifdef HANDLES
             if :: arena == IN_USE && !handle_marked -> arena = DEAD :: else fi
#endif
           };
    phase = 0;
#ifdef M_DRAINFIRST
    free_dead(); drain();
    FENCE;
#else
    FENCE;
#endif
    /* 1.7, 1.8: the heap is swept by anyone at any time from here on */
    if :: SWEEP :: skip fi;
#ifndef M_DRAINFIRST
    free_dead(); drain();
#endif
    EACH_CHUNK(RELEASE, 0)
    SWEEP;
    skip
    od
}

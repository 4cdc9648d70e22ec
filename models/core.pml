/* core.pml -- the mark protocol of docs/protocol.md as Grey codes it, for spin.
 *
 * NM mutators that choose every operation freely, a collector that never stops, one tracer and one worker
 * that tests copied words, over NOBJ objects with one field each and a barriered root slot (the field of
 * object 0, which is NIL as well).  Everybody runs for ever, so a search that ends covers every program of
 * this size over any number of cycles.  The question asked of each: does the sweep ever take an object
 * that the program can still reach (1.8)?
 *
 * Sets are bit masks.  Steps carry the numbers of the protocol's sections.  Reductions, all of which keep
 * every behaviour: after each step canon() clears the fields of objects that nothing can read again and
 * relabels objects and threads to the least of all labellings; a step that cannot be told from a later
 * execution of itself is merged with its successor.  The mark sense flips at each arm, which stands for
 * "the sweep left every mark clear" (1.0; runs.pml models the words themselves).
 *
 * An answer given by the collector for a thread in a blocking region (2.6) does what the thread's own does,
 * so one step stands for both; handshake.pml shows that exactly one of them happens, and hold.pml what a
 * hold adds to it.
 *
 * Features (each adds operations):
 *   MOVE     bulk stores by barrier A (2.2)           ATTACH  attach with an empty stack, and exit (2.5)
 *   PASS     publish, then shade while held (2.5)     STALE   words that are no pointer given to shade (2.3)
 *   FLUSH    a full buffer published (2.3)            HELD    any round may be held, and called off (1.4)
 *   FORK     the child gives the cycle up (9)         REGS    a stack slot may die while its word is in a
 *   LATE     a thread may see phase late                      register only
 *   SPLIT    section entry and first look are two     TSO=d   store buffers of depth d; the answer is a
 *            steps                                            store like any other
 *   WEAK     weak_new, weak_get; CELLS=2: two     FINAL   finalizers: set, cleared, queued, run
 *            references an object, at two offsets  FOREIGN scanned regions: registered with contents
 *   HANDLES  references as the heap objects they           that were stored without the barrier
 *            are, found again by weak_new
 *   NOSTORE  no single stores (to check MOVE alone)
 *   ROUNDS=n assert that n rounds are enough          GHOST   assert that garbage of before arm is freed
 * LAX leaves only the loss of an object as an error.  Mutants are named M_...; each must fail. */
#ifndef NOBJ
#define NOBJ 2
#endif
#ifndef NM
#define NM 2
#endif
#ifndef NSL
#define NSL 2                 /* stack slots of a thread */
#endif
#ifdef TSO
#define DEPTH TSO
#else
#define DEPTH 1
#endif
#define BIT(x)    (1 << (x))
#define OBJECTS   ((1 << (NOBJ + 1)) - 2)
#define THREADS   ((1 << NM) - 1)
#define LIVE(o)   (live & BIT(o))
#define MARKED(o) (mark & BIT(o))
#define SLOT(t,i) slot[(t) * NSL + (i)]
#define LAST      (NSL - 1)

/* phase and round word */
#define OPEN   0
#define DIRTY  1
#define CLOSED 2
/* hold word; round numbers matter only to hold.pml */
#define NOHOLD 0
#define HOLD   1
#define SEALED 2
/* where a mutator stands */
#define IDLE    0   /* between operations */
#define STORE   1   /* 2.2 B: the store itself comes next */
#define TEST    2   /* 2.2 B, 2.5 pass: stored; the test of phase comes next */
#define SHADE   3   /* 2.3: in a section, phase was ON; the first look comes next */
#define MARK    4   /* 2.3: DIRTY is set; marking comes next */
#define MSHADE  5   /* 2.2 A: the same two inside a move */
#define MMARK   6
#define WRITE   7   /* 2.2 A: the store of a move comes next */
#define PUBLISH 8   /* M_PASSFIRST only */
#define LATEDIRTY 9 /* M_DIRTYLATE only */
#define GONE   10   /* lost in a fork */
#define GETON  11   /* 3 weak_get, in its section: phase was ON; the target comes next */
#define GETOFF 12   /* ... was OFF */
#define GETTEST 13  /* ... has a target: the mark comes next */
#define GETLOOK 14  /* ... which was white: the round word comes next */
#define GETMARK 15  /* ... DIRTY is set: marking comes next */
#define GOT    16   /* ... returns it */
#define GETPHASE 17 /* M_WTARGETFIRST only */
#define GETLATE 18  /* M_WDIRTYLATE only */
#define NEWHANDLE 19 /* 3 weak_new: has a new reference, and will look once more for an old one */
#define HANDOUT 20  /* ... in its section, has one: shading comes next */
#define ADDON  21   /* 4, in its section: phase was ON; black_cycle comes next */
#define ADDOFF 22   /* ... was OFF */
#define ADDON2 23   /* ... then the insertion */
#define ADDOFF2 24
#define ADDEARLY 25 /* M_EARLYCOLOUR only */

byte field[NOBJ + 1];
byte live, mark;
byte slot[NM * NSL];
byte grey[NM];                /* grey buffers */
byte queue;                   /* the shared mark queue */
byte copies;                  /* words copied by answers, not yet tested */
byte pc[NM], to[NM], value[NM];
byte phase, round, hold;
byte seen;                    /* LATE: threads that see phase = ON */
byte black = THREADS;         /* threads whose current run is black */
byte black_on = 1;            /* black_cycle = cycle: a run taken now is black */
byte owes;                    /* threads that have still to answer */
byte clean;
byte gate;                    /* tracers may run */
byte busy;                    /* threads in a busy section */
byte held;                    /* threads that answered in a held round and wait */
byte fencing;                 /* threads that a FENCE, or blacken, has still to look at */
byte unborn;                  /* blacken: cells of the runs as read */
byte object, child;           /* the tracer's */
byte gr;                      /* the collector's register */
#ifdef TSO
byte buffer[NM * DEPTH];      /* 0 empty, 255 an answer, else 1 + address * 8 + value */
byte handed[NM];              /* buffer handed over with the answer on its way */
byte answering;
#endif
#ifdef ATTACH
byte attached = THREADS;
#else
#define attached THREADS
#endif
#ifdef FORK
byte forked;
#endif
#ifdef GHOST
byte garbage;
#endif
#ifdef ROUNDS
byte rounds;
#endif
#ifdef WEAK
#ifndef CELLS
#define CELLS 1
#endif
byte cells[CELLS];            /* objects that have a reference whose cell is not cleared */
byte dead;                    /* ghost: objects for which somebody was told, or could be told, NULL */
#endif
#ifdef HANDLES
byte handle[NOBJ + 1];        /* the reference that hangs on an object as a special */
#endif
#ifdef FINAL
byte final;                   /* objects with a finalizer */
byte ready;                   /* finalizers queued */
#endif
#if defined(FINAL) || defined(HANDLES)
byte todo;                    /* 1.3: specials still to be marked from; new ones are not among them */
#endif
#ifdef FOREIGN
byte foreign;                 /* objects that are regions; for them live is "registered", mark the colour */
byte numbers;                 /* threads that registering read black_cycle = cycle */
#define REGIONS foreign
#else
#define REGIONS 0
#endif
byte i_, v_, o_;

#include "canon.pml"
#define CANON          c_code { canon(); }
#define UNREACHABLE_GR c_expr { !(reachable() & (1 << now.gr)) }

#ifdef LATE
#define ON(t)    (seen & BIT(t))
#define LOOK(t)  if :: phase -> seen = seen | BIT(t) :: else -> seen = seen & ~BIT(t) fi
#else
#define ON(t)    phase
#define LOOK(t)  skip
#endif
#define ENTER(t) busy = busy | BIT(t)
#define LEAVE(t) busy = busy & ~BIT(t); pc[t] = IDLE; to[t] = 0; value[t] = 0
#define AT(t,p)  (pc[t] == p && (attached & BIT(t)) && !(held & BIT(t)))
#ifdef M_IRQ
#define IN_SECTION(t) false
#else
#define IN_SECTION(t) (busy & BIT(t))
#endif
#ifdef M_HOLDATTACH
#define NO_HOLD true
#else
#define NO_HOLD (hold == NOHOLD)
#endif

/* --- store buffers (x86-TSO) --------------------------------------------------------------------------- */
#ifdef TSO
#define ROOM(t)    (buffer[(t) * DEPTH + DEPTH - 1] == 0)
#define DRAINED(t) (buffer[(t) * DEPTH] == 0)
#define ENTRY(t,i) buffer[(t) * DEPTH + (i)]
inline push(t, e) { i_ = 0; do :: ENTRY(t,i_) == 0 -> ENTRY(t,i_) = e; break :: else -> i_++ od; i_ = 0 }
inline heap_store(t, a, v) { push(t, 1 + (a) * 8 + (v)) }
inline heap_load(t, a, v) {                     /* own buffer first, newest entry wins */
  v = field[a]; i_ = 0;
  do :: i_ < DEPTH ->
        if :: ENTRY(t,i_) != 0 && ENTRY(t,i_) != 255 && ((ENTRY(t,i_) - 1) >> 3) == a ->
              v = (ENTRY(t,i_) - 1) & 7
           :: else fi; i_++
     :: else -> break od; i_ = 0 }
#else
#define ROOM(t)    true
#define DRAINED(t) true
inline heap_store(t, a, v) { assert((a) == 0 || LIVE(a)); field[a] = v }
inline heap_load(t, a, v)  { v = field[a] }
#endif

/* --- 1.4 the answer ------------------------------------------------------------------------------------- */
inline deliver(t, from) {                       /* it becomes visible to the collector */
  queue = queue | from;
#ifndef M_NOBUFCOUNT
  if :: from != 0 -> clean = 0 :: else fi;
#endif
  from = 0; owes = owes & ~BIT(t) }

#ifdef M_HOLDRELEASE
#define STAYS(t) (pc[t] != IDLE)
#else
#define STAYS(t) true
#endif
inline answer(t) {
  LOOK(t);
  i_ = 0; do :: i_ < NSL -> copies = (copies | BIT(SLOT(t,i_))) & OBJECTS; i_++ :: else -> break od; i_ = 0;
#ifndef M_NOREGISTERS
  copies = (copies | BIT(value[t]) | BIT(to[t])) & OBJECTS;
#endif
#ifdef HELD                                     /* a thread answered for in a blocking region stays HELD */
  if :: hold == HOLD && STAYS(t) -> held = held | BIT(t) :: else fi;
#endif
#ifdef M_BLOCKEDBUF                             /* the collector forgets the buffer of a blocked thread */
  if :: pc[t] == IDLE -> queue = queue | grey[t]; grey[t] = 0 :: else fi;
#endif
#ifdef TSO
  handed[t] = grey[t]; grey[t] = 0;
#ifdef M_ACKNOFENCE
  deliver(t, handed[t])
#else
  answering = answering | BIT(t); push(t, 255)
#endif
#else
  deliver(t, grey[t])
#endif
}

/* --- 2.3 shade ------------------------------------------------------------------------------------------ */
/* First look: a dead or marked object, or a CLOSED round, ends it; DIRTY comes before the mark. */
#define WHITE(o) ((o) != 0 && LIVE(o) && !MARKED(o))
#ifdef M_NODIRTY
#define SET_DIRTY skip
#elif defined(M_DIRTYLATE)
#define SET_DIRTY skip
#else
#define SET_DIRTY if :: round == OPEN -> round = DIRTY :: else fi
#endif
inline blacken_grey(o, list) { if :: WHITE(o) -> mark = mark | BIT(o); list = list | BIT(o) :: else fi }
#define FIRST_LOOK(t, next, done) \
  if :: WHITE(value[t]) && round != CLOSED -> SET_DIRTY; pc[t] = next :: else -> done fi

#define CHOOSE_OBJECT(t,x) \
  if :: x = 0 :: SLOT(t,0) != 0 -> x = SLOT(t,0) :: SLOT(t,LAST) != 0 -> x = SLOT(t,LAST) fi

/* The end of an operation that tested phase (2.2 B, 2.5): into the section, or done. */
inline test_phase(t) {
  if :: ON(t) && value[t] != 0 -> ENTER(t); to[t] = 0;
#ifdef SPLIT
        pc[t] = SHADE
#else
        FIRST_LOOK(t, MARK, LEAVE(t))
#endif
     :: else -> pc[t] = IDLE; to[t] = 0; value[t] = 0 fi }

#if NOBJ > 2
#define PICK(set, x) if :: (set) & BIT(1) -> x = 1 :: (set) & BIT(2) -> x = 2 :: (set) & BIT(3) -> x = 3 fi
#else
#define PICK(set, x) if :: (set) & BIT(1) -> x = 1 :: (set) & BIT(2) -> x = 2 fi
#endif
#ifdef M_BORNWHITE
#define ADD_NUMBER(t) skip
#else
#define ADD_NUMBER(t) if :: black_on -> numbers = numbers | BIT(t) :: else -> skip fi
#endif
#ifdef M_INITNOSHADE
#define SHADES_CONTENTS false
#else
#define SHADES_CONTENTS true
#endif
proctype mutator(byte t) {
end: do
  /* 1.4: at a poll, in the handler, or by the collector for a blocked thread; never in a busy section */
#ifdef TSO
  :: d_step { (owes & BIT(t)) && !(answering & BIT(t)) && !IN_SECTION(t) && ROOM(t) -> answer(t); CANON }
  :: d_step { buffer[t * DEPTH] != 0 ->
       if :: buffer[t * DEPTH] == 255 -> deliver(t, handed[t]); answering = answering & ~BIT(t)
          :: else -> v_ = buffer[t * DEPTH] - 1; assert((v_ >> 3) == 0 || LIVE((v_ >> 3)));
                     field[v_ >> 3] = v_ & 7; v_ = 0 fi;
       i_ = 0; do :: i_ < DEPTH - 1 -> ENTRY(t,i_) = ENTRY(t,i_ + 1); i_++ :: else -> break od;
       buffer[t * DEPTH + DEPTH - 1] = 0; i_ = 0; CANON }
#else
  :: d_step { (owes & BIT(t)) && !IN_SECTION(t) -> answer(t); CANON }
#endif
#ifdef LATE
  :: d_step { ((seen >> t) & 1) != phase -> LOOK(t); CANON }
#endif
#ifdef HELD
  /* 1.4: a held thread calls it off */
  :: d_step { (held & BIT(t)) && hold == HOLD -> hold = NOHOLD; held = 0; CANON }
#endif
  /* 2.4: a run taken after black_cycle := cycle is black from the start */
  :: d_step { AT(t,IDLE) && black_on && !(black & BIT(t)) -> black = black | BIT(t); CANON }
  /* load */
  :: atomic { AT(t,IDLE) -> CHOOSE_OBJECT(t, to[t]);
       d_step { assert(to[t] == 0 || LIVE(to[t])); heap_load(t, to[t], value[t]); to[t] = 0;
                if :: value[t] != 0 -> assert(LIVE(value[t])) :: else fi }
       if :: SLOT(t,0) = value[t] :: SLOT(t,LAST) = value[t] fi; d_step { value[t] = 0; CANON } }
  /* drop */
#ifdef REGS
#define MAY_DROP(t) (AT(t,IDLE) || AT(t,STORE) || AT(t,TEST))
#else
#define MAY_DROP(t) AT(t,IDLE)
#endif
  :: d_step { MAY_DROP(t) && SLOT(t,0) != 0 -> SLOT(t,0) = 0; CANON }
#if NSL > 1
  :: d_step { MAY_DROP(t) && SLOT(t,LAST) != 0 -> SLOT(t,LAST) = 0; CANON }
#endif
  /* 2.4 allocation, fast path */
  :: d_step { AT(t,IDLE) && (live & OBJECTS) != OBJECTS && SLOT(t,LAST) == 0 ->
       o_ = 1; do :: LIVE(o_) -> o_++ :: else -> break od;
       live = live | BIT(o_);
       if :: black & BIT(t) -> mark = mark | BIT(o_) :: else -> mark = mark & ~BIT(o_) fi;
       SLOT(t,LAST) = o_; o_ = 0; CANON }
#ifndef NOSTORE
  /* 2.2 B: store, then test */
  :: atomic { AT(t,IDLE) -> CHOOSE_OBJECT(t, to[t]); CHOOSE_OBJECT(t, value[t]);
       d_step { pc[t] = STORE; CANON } }
  :: d_step { AT(t,STORE) && ROOM(t) -> heap_store(t, to[t], value[t]); to[t] = 0; pc[t] = TEST; CANON }
#endif
#ifdef EXCHANGE
  /* 2.2 B: a locked exchange; what was there comes to the stack */
  :: atomic { AT(t,IDLE) && DRAINED(t) -> CHOOSE_OBJECT(t, to[t]); CHOOSE_OBJECT(t, value[t]);
       d_step { o_ = field[to[t]]; field[to[t]] = value[t]; SLOT(t,LAST) = o_; o_ = 0; to[t] = 0;
                pc[t] = TEST; CANON } }
#endif
  :: d_step { AT(t,TEST) -> test_phase(t); CANON }
#ifdef WEAK
  /* 3: a reference to an object that the thread holds needs no barrier */
  :: d_step { AT(t,IDLE) && SLOT(t,0) != 0 && !(cells[0] & BIT(SLOT(t,0))) ->
       cells[0] = cells[0] | BIT(SLOT(t,0)); CANON }
#if CELLS > 1
  :: d_step { AT(t,IDLE) && SLOT(t,0) != 0 && !(cells[1] & BIT(SLOT(t,0))) ->
       cells[1] = cells[1] | BIT(SLOT(t,0)); CANON }
#define ANY_CELL(x) if :: PICK(cells[0], x) :: PICK(cells[1], x) fi
#define SOME_CELL   ((cells[0] | cells[1]) != 0)
#else
#define ANY_CELL(x) PICK(cells[0], x)
#define SOME_CELL   (cells[0] != 0)
#endif
  /* 3: weak_get, one section: phase, target, mark, round word, mark.  (A cleared cell gives NULL, which is
   * no step.)  CLOSED: the target must be unreachable. */
#ifdef M_WTARGETFIRST
  :: atomic { AT(t,IDLE) && SLOT(t,LAST) == 0 && SOME_CELL -> ANY_CELL(value[t]);
       d_step { ENTER(t); pc[t] = GETPHASE; CANON } }
  :: d_step { AT(t,GETPHASE) -> if :: ON(t) -> pc[t] = GETTEST :: else -> pc[t] = GOT fi; CANON }
#else
  :: d_step { AT(t,IDLE) && SLOT(t,LAST) == 0 && SOME_CELL -> ENTER(t);
       if :: ON(t) -> pc[t] = GETON :: else -> pc[t] = GETOFF fi; CANON }
  :: atomic { (AT(t,GETON) || AT(t,GETOFF)) && SOME_CELL -> ANY_CELL(value[t]);
       d_step { if :: pc[t] == GETON -> pc[t] = GETTEST :: else -> pc[t] = GOT fi; CANON } }
  :: d_step { (AT(t,GETON) || AT(t,GETOFF)) && !SOME_CELL -> LEAVE(t); CANON }
#endif
#ifdef M_WNOSHADE
  :: d_step { AT(t,GETTEST) -> pc[t] = GOT; CANON }
#else
  :: d_step { AT(t,GETTEST) -> if :: MARKED(value[t]) -> pc[t] = GOT :: else -> pc[t] = GETLOOK fi; CANON }
#endif
  :: d_step { AT(t,GETLOOK) && DRAINED(t) ->
#ifndef M_WNOCLOSED
       if :: round == CLOSED ->
             c_code { if (reachable() & (1 << now.value[Pmutator->t]))
                          Uerror("NULL for a reachable target"); };
             dead = dead | BIT(value[t]); LEAVE(t)
          :: else ->
#else
       if :: true ->
#endif
#ifndef M_WDIRTYLATE
             SET_DIRTY;
#endif
             pc[t] = GETMARK fi; CANON }
  :: d_step { AT(t,GETMARK) -> blacken_grey(value[t], grey[t]);
#ifdef M_WDIRTYLATE
       pc[t] = GETLATE; CANON }
  :: d_step { AT(t,GETLATE) -> if :: round == OPEN -> round = DIRTY :: else fi;
#endif
       pc[t] = GOT; CANON }
  :: d_step { AT(t,GOT) -> assert(LIVE(value[t]));
#ifndef LAX
       assert(!(dead & BIT(value[t])));
#endif
       SLOT(t,LAST) = value[t]; LEAVE(t); CANON }
#endif
#ifdef HANDLES
  /* 3: weak_new(o), o in the first slot: in one section o's specials are looked at, and the reference that is
   * found or put there is shaded.  If there is none, one is allocated and they are looked at once more.  It
   * comes to the last slot; o is dropped if there is only one. */
#ifdef M_HANDLENOSHADE
#define HANDLE_SHADES false
#else
#define HANDLE_SHADES true
#endif
  :: d_step { AT(t,IDLE) && SLOT(t,0) != 0 && handle[SLOT(t,0)] != 0 ->
       ENTER(t); value[t] = handle[SLOT(t,0)]; SLOT(t,LAST) = value[t]; pc[t] = HANDOUT; CANON }
  :: d_step { AT(t,IDLE) && SLOT(t,0) != 0 && handle[SLOT(t,0)] == 0 && (live & OBJECTS) != OBJECTS ->
       o_ = 1; do :: LIVE(o_) -> o_++ :: else -> break od;
       live = live | BIT(o_);
       if :: black & BIT(t) -> mark = mark | BIT(o_) :: else -> mark = mark & ~BIT(o_) fi;
       to[t] = SLOT(t,0); value[t] = o_; o_ = 0; pc[t] = NEWHANDLE; CANON }
  :: d_step { AT(t,NEWHANDLE) -> ENTER(t);
       if :: handle[to[t]] != 0 -> value[t] = handle[to[t]] :: else -> handle[to[t]] = value[t] fi;
       SLOT(t,LAST) = value[t]; to[t] = 0; pc[t] = HANDOUT; CANON }
  :: d_step { AT(t,HANDOUT) ->
       if :: ON(t) && HANDLE_SHADES -> FIRST_LOOK(t, MARK, LEAVE(t)) :: else -> LEAVE(t) fi; CANON }
#endif
#ifdef FINAL
  /* CF-17: set, then shaded by the setter, who holds it; its special is not among those of 1.3 */
  :: d_step { AT(t,IDLE) && SLOT(t,0) != 0 && !((final | ready) & BIT(SLOT(t,0))) ->
       final = final | BIT(SLOT(t,0));
#ifndef M_FINALNOSHADE
       value[t] = SLOT(t,0); pc[t] = TEST;
#endif
       CANON }
  :: d_step { AT(t,IDLE) && SLOT(t,0) != 0 && (final & BIT(SLOT(t,0))) ->
       final = final & ~BIT(SLOT(t,0)); CANON }
  /* a finalizer runs: its object comes to the stack, and then leaves the queue */
  :: atomic { AT(t,IDLE) && SLOT(t,LAST) == 0 && ready != 0 -> PICK(ready, SLOT(t,LAST));
       d_step { ready = ready & ~BIT(SLOT(t,LAST)); CANON } }
#endif
#ifdef FOREIGN
  /* 4: registered in one section: phase, black_cycle, insertion.  What the region contains was stored before.
   * If the phase was ON that is shaded in later sections, while the caller holds it.  Nobody knows a region's
   * address before; foreign.pml has the second look at black_cycle, for when somebody does. */
#ifdef M_EARLYCOLOUR
  :: d_step { AT(t,IDLE) && SLOT(t,LAST) == 0 -> ADD_NUMBER(t); pc[t] = ADDEARLY; CANON }
  :: atomic { AT(t,ADDEARLY) && SLOT(t,LAST) == 0 -> CHOOSE_OBJECT(t, value[t]);
       d_step { ENTER(t); if :: ON(t) -> pc[t] = ADDON2 :: else -> pc[t] = ADDOFF2 fi; CANON } }
#else
  :: atomic { AT(t,IDLE) && SLOT(t,LAST) == 0 && (live & OBJECTS) != OBJECTS -> CHOOSE_OBJECT(t, value[t]);
       d_step { ENTER(t); if :: ON(t) -> pc[t] = ADDON :: else -> pc[t] = ADDOFF fi; CANON } }
  :: d_step { AT(t,ADDON) || AT(t,ADDOFF) -> ADD_NUMBER(t);
       if :: pc[t] == ADDON -> pc[t] = ADDON2 :: else -> pc[t] = ADDOFF2 fi; CANON }
#endif
  :: d_step { AT(t,ADDON2) || AT(t,ADDOFF2) ->
       if :: (live & OBJECTS) != OBJECTS ->
             o_ = 1; do :: LIVE(o_) -> o_++ :: else -> break od;
             live = live | BIT(o_); foreign = foreign | BIT(o_); field[o_] = value[t];
             if :: numbers & BIT(t) -> mark = mark | BIT(o_) :: else -> mark = mark & ~BIT(o_) fi;
             SLOT(t,LAST) = o_; o_ = 0; busy = busy & ~BIT(t);
             if :: pc[t] == ADDON2 && SHADES_CONTENTS && value[t] != 0 -> pc[t] = TEST
                :: else -> pc[t] = IDLE; value[t] = 0 fi
          :: else -> LEAVE(t) fi;
       numbers = numbers & ~BIT(t); CANON }
#endif
  /* 2.3 */
#ifdef SPLIT
  :: d_step { AT(t,SHADE) -> FIRST_LOOK(t, MARK, LEAVE(t)); CANON }
#endif
#if defined(STALE) && !defined(LAX)
#define CHECK_ALIVE(o) assert(LIVE(o))
#else
#define CHECK_ALIVE(o) skip
#endif
  :: d_step { AT(t,MARK) && DRAINED(t) -> CHECK_ALIVE(value[t]); blacken_grey(value[t], grey[t]);
#ifdef M_DIRTYLATE
       pc[t] = LATEDIRTY; CANON }
  :: d_step { AT(t,LATEDIRTY) -> if :: round == OPEN -> round = DIRTY :: else fi;
#endif
       LEAVE(t); CANON }
#ifdef MOVE
  /* 2.2 A: one word of a move; test, then store, in one section.  It comes from the heap, and then it may
   * be in no slot of this thread, or from a frame. */
  :: atomic { AT(t,IDLE) && ROOM(t) -> CHOOSE_OBJECT(t, to[t]);
       if :: CHOOSE_OBJECT(t, o_); d_step { heap_load(t, o_, value[t]); o_ = 0 }
          :: CHOOSE_OBJECT(t, value[t]) fi;
       d_step { ENTER(t);
                if :: ON(t) ->
#ifdef SPLIT
                      pc[t] = MSHADE
#else
                      FIRST_LOOK(t, MMARK, pc[t] = WRITE)
#endif
                   :: else -> pc[t] = WRITE fi; CANON } }
#ifdef SPLIT
  :: d_step { AT(t,MSHADE) -> FIRST_LOOK(t, MMARK, pc[t] = WRITE); CANON }
#endif
  :: d_step { AT(t,MMARK) && DRAINED(t) -> blacken_grey(value[t], grey[t]); pc[t] = WRITE; CANON }
  :: d_step { AT(t,WRITE) && ROOM(t) -> heap_store(t, to[t], value[t]); LEAVE(t); CANON }
#endif
#ifdef FLUSH
  /* 2.3: published under the list lock, outside an answer: the round is then not clean */
  :: d_step { AT(t,IDLE) && grey[t] != 0 && DRAINED(t) -> queue = queue | grey[t]; grey[t] = 0;
#ifndef M_FLUSHNOCOUNT
       clean = 0;
#endif
       CANON }
#endif
#ifdef STALE
  /* a word that only looks like a pointer comes to shade, by a store or a root */
  :: atomic { AT(t,IDLE) && ON(t) -> if :: value[t] = 1 :: value[t] = NOBJ fi;
       d_step { test_phase(t); CANON } }
#endif
#ifdef PASS
  /* 2.5 pass: straight to the other thread's stack; held here until the other has it and phase is tested */
#define RECEIVES(t) (AT(1-t,IDLE) && SLOT(1-t,LAST) == 0)
#ifdef M_PASSFIRST
  :: d_step { AT(t,IDLE) && SLOT(t,0) != 0 -> value[t] = SLOT(t,0);
       if :: ON(t) && WHITE(value[t]) && round != CLOSED -> SET_DIRTY; blacken_grey(value[t], grey[t])
          :: else fi;
       pc[t] = PUBLISH; CANON }
  :: d_step { AT(t,PUBLISH) -> if :: RECEIVES(t) -> SLOT(1-t,LAST) = value[t] :: else fi;
       value[t] = 0; pc[t] = IDLE; CANON }
#else
  :: d_step { AT(t,IDLE) && SLOT(t,0) != 0 && RECEIVES(t) -> SLOT(1-t,LAST) = SLOT(t,0);
#ifndef M_PASSNOSHADE
       value[t] = SLOT(t,0); pc[t] = TEST;
#endif
       CANON }
#endif
#endif
#ifdef ATTACH
  /* 2.5 exit: one step under the list lock; waits before it while a hold is on.  (The last thread's exit
   * adds nothing.) */
  :: d_step { AT(t,IDLE) && (attached & ~BIT(t)) != 0 && NO_HOLD && DRAINED(t) ->
       i_ = 0; do :: i_ < NSL -> SLOT(t,i_) = 0; i_++ :: else -> break od; i_ = 0;
#ifndef M_EXITDROP
#ifndef M_EXITNOCOUNT
       if :: grey[t] != 0 -> clean = 0 :: else fi;
#endif
       queue = queue | grey[t];
#endif
       grey[t] = 0; owes = owes & ~BIT(t); attached = attached & ~BIT(t);
       black = black & ~BIT(t); seen = seen & ~BIT(t); CANON }
  /* 2.5 attach, under the list lock: not part of the round in progress; its stack is empty */
  :: d_step { !(attached & BIT(t)) && pc[t] == IDLE && NO_HOLD -> attached = attached | BIT(t); LOOK(t);
       if :: black_on -> black = black | BIT(t) :: else -> black = black & ~BIT(t) fi;
#ifdef M_ATTACHWITH
       SLOT(t,0) = SLOT(1-t,0);                   /* ... but it comes with its creator's pointer */
#endif
       CANON }
#endif
#ifdef FORK
  /* 9: in the child the other thread is gone, perhaps between a store and its test.  fork() waits until it is
   * in no section, and never comes between CLOSED and the end of 1.7. */
  :: d_step { forked == 0 && AT(t,IDLE) && !(busy & BIT(1-t)) && phase && round != CLOSED ->
       i_ = 0; do :: i_ < NSL -> SLOT(1-t,i_) = 0; i_++ :: else -> break od; i_ = 0;
       to[1-t] = 0; value[1-t] = 0; pc[1-t] = GONE;
#ifdef M_FORKGOESON                              /* the child goes on with the cycle */
       forked = 2; owes = owes & ~BIT(1-t);
       if :: grey[1-t] != 0 -> clean = 0 :: else fi;
       queue = queue | grey[1-t]; grey[1-t] = 0
#else
       forked = 1; phase = 0; gate = 0; round = OPEN; mark = live; black = THREADS; black_on = 1; seen = 0;
       i_ = 0; do :: i_ < NM -> grey[i_] = 0; i_++ :: else -> break od; i_ = 0;
       queue = 0; copies = 0; object = 0; child = 0; owes = 0; clean = 0; fencing = 0; unborn = 0; gr = 0
#endif
       ; CANON }
#endif
  od
}

/* 1.5: a tracer.  Taking an object and reading its field are one step; a child that is NIL or already
 * marked when read is not held. */
#ifdef M_TRACEEARLY
#define GATE true
#else
#define GATE gate
#endif
proctype tracer() {
end: do
  :: atomic { GATE && queue != 0 && object == 0 -> PICK(queue, object);
       d_step { queue = queue & ~BIT(object); CHECK_ALIVE(object); child = field[object];
                if :: child == 0 || MARKED(child) -> child = 0; object = 0 :: else fi; CANON } }
  :: d_step { child != 0 -> blacken_grey(child, queue); child = 0; object = 0; CANON }
  od
}

/* 1.4: a worker tests copied words as they come in; such greys need not touch the round word */
proctype worker() {
end: do
  :: atomic { copies != 0 -> PICK(copies, o_);
       d_step { if :: WHITE(o_) -> blacken_grey(o_, queue);
#ifndef M_COPYNOCOUNT
                      clean = 0
#endif
                   :: else fi; copies = copies & ~BIT(o_); o_ = 0; CANON } }
  od
}

/* FENCE: every thread has executed a full fence since the call, and is out of the section it was in then */
#ifdef M_FENCENOWAIT
#define FENCED(t) true
#elif defined(M_FENCENODRAIN)
#define FENCED(t) (!(busy & BIT(t)))
#else
#define FENCED(t) (!(busy & BIT(t)) && DRAINED(t))
#endif
#define FENCE_ONE(t) :: d_step { (fencing & BIT(t)) && FENCED(t) -> \
                         fencing = fencing & ~BIT(t); LOOK(t); CANON }
#define BLACKEN_ONE(t) :: d_step { fencing & BIT(t) -> mark = mark | (unborn & live & ~REGIONS); unborn = 0; \
                           black = black | BIT(t); fencing = fencing & ~BIT(t); CANON }
#if NM == 1
#define EACH(step) step(0)
#elif NM > 2
#define EACH(step) step(0) step(1) step(2)
#else
#define EACH(step) step(0) step(1)
#endif
#define FENCE fencing = THREADS; do EACH(FENCE_ONE) :: fencing == 0 -> break od; skip

#define QUIET (queue == 0 && object == 0)
#if defined(M_NOQEMPTY) || defined(M_STARTNOTATOMIC)
#define MAY_START true
#else
#define MAY_START (QUIET && copies == 0)
#endif
#ifdef ROUNDS
#define COUNT_ROUND rounds++; assert(rounds <= ROUNDS)
#else
#define COUNT_ROUND skip
#endif
#define START_ROUND(how) \
  d_step { MAY_START -> clean = 1; round = OPEN; hold = how; COUNT_ROUND; owes = attached; CANON }
#ifdef FORK
#define ESCAPE unless { atomic { forked == 1 -> forked = 2 } }
#else
#define ESCAPE
#endif

active proctype collector() {
  byte i;
  /* Every thread holds the head of a list of all objects: with one slot a thread could not build it. */
  d_step { live = OBJECTS; mark = OBJECTS; i = 1;
           do :: i < NOBJ -> field[i] = i + 1; i++ :: else -> break od; i = 0;
           do :: i < NM -> SLOT(i,0) = 1; i++ :: else -> break od; CANON };
  atomic { i = 0; do :: i < NM -> run mutator(i); i++ :: else -> break od; i = 0;
           run tracer(); run worker() }; skip;
end: do :: {
    /* 1.1 arm */
    d_step { mark = live & ~mark; black = 0; black_on = 0; round = OPEN; phase = 1;
#ifdef FOREIGN
             numbers = 0;                         /* what was read is the number of the last cycle */
#endif
#ifdef GHOST
             c_code { now.garbage = now.live & OBJ_MASK & ~reachable(); };
#endif
             CANON };
#ifndef M_NOFENCE1
    FENCE;
#endif
    /* 1.2 blacken.  Whatever is born between the reading of a run and its marking becomes black unscanned. */
    black_on = 1;
#ifndef M_ALLOCWHITE
    fencing = THREADS;
    do :: d_step { fencing != 0 -> unborn = OBJECTS & ~live; CANON }; if EACH(BLACKEN_ONE) fi
       :: fencing == 0 -> break od; skip;
#endif
    /* 1.3 roots */
    d_step { gate = 1; gr = field[0];
#ifdef FINAL
             todo = final | ready;
#endif
#ifdef HANDLES
             todo = live & OBJECTS;
#endif
             CANON };
    d_step { blacken_grey(gr, queue); gr = 0; CANON };
#ifdef FINAL
    /* what an object with a finalizer leads to; the object itself only when it is queued */
    do :: todo != 0 -> atomic { PICK(todo, gr);
            d_step { todo = todo & ~BIT(gr);
#ifdef M_FINALMARKSELF
                     if :: true -> skip
#else
                     if :: ready & BIT(gr) -> skip
                        :: final & BIT(gr) -> gr = field[gr]
#endif
                        :: else -> gr = 0 fi; CANON } };
          d_step { blacken_grey(gr, queue); gr = 0; CANON }
       :: else -> break od; skip;
#endif
#ifdef HANDLES
    /* the references that hang on objects now */
    do :: todo != 0 -> atomic { PICK(todo, gr);
            d_step { todo = todo & ~BIT(gr); gr = handle[gr]; CANON } };
          d_step { blacken_grey(gr, queue); gr = 0; CANON }
       :: else -> break od; skip;
#endif
    /* 1.4 rounds.  The test for work, the snapshot of the threads and clean := true are one step under the
     * list lock. */
    do ::
#ifdef M_STARTNOTATOMIC
       d_step { QUIET && copies == 0 -> skip };
#endif
       if :: START_ROUND(NOHOLD)
#ifdef HELD
          :: START_ROUND(HOLD)
#endif
       fi; skip;
       d_step { owes == 0 && copies == 0 -> skip };
       if
#ifdef HELD
#ifdef M_SEALBLIND
       :: d_step { hold == HOLD -> skip }; hold = SEALED; d_step { QUIET -> round = CLOSED }; break
#else
       :: d_step { hold == HOLD -> hold = SEALED }; d_step { QUIET -> round = CLOSED }; break
#endif
#endif
       :: d_step { hold == NOHOLD && clean && round == OPEN -> round = CLOSED }; break
       :: else
       fi
    od; skip;
    /* 1.6 finish */
#ifdef WEAK
    /* Cells of white targets: looked at, then cleared. */
#define CLEAR_CELL(c) \
    :: cells[c] & ~mark -> atomic { PICK(cells[c] & ~mark, gr); d_step { CANON } }; \
       d_step { if :: cells[c] & BIT(gr) -> assert(UNREACHABLE_GR); dead = dead | BIT(gr); \
                      cells[c] = cells[c] & ~BIT(gr) :: else fi; gr = 0; CANON }
#if CELLS > 1
#define CLEAR_WEAK do CLEAR_CELL(0) CLEAR_CELL(1) :: else -> break od; skip
#else
#define CLEAR_WEAK do CLEAR_CELL(0) :: else -> break od; skip
#endif
#ifndef M_WCLEARLATE
    CLEAR_WEAK;
#endif
#endif
    d_step { clean = 0; gate = 0; phase = 0; hold = NOHOLD; held = 0;
#ifdef M_REOPEN
             round = OPEN;
#endif
#ifdef ROUNDS
             rounds = 0;
#endif
             CANON };
#if defined(WEAK) && defined(M_WCLEARLATE)
    CLEAR_WEAK;
#endif
#ifndef M_NOFENCE6
    FENCE;
#endif
    d_step {
#ifndef LAX
      i = 0; do :: i < NM -> assert(grey[i] == 0); i++ :: else -> break od;
#endif
      i = 0; do :: i < NM -> grey[i] = 0; i++ :: else -> break od; i = 0; round = OPEN; CANON };
    /* 1.7, 1.8 sweep, in any order */
    do :: (live & ~mark & OBJECTS) != 0 ->
          atomic { PICK(live & ~mark, gr);
            d_step {
#ifdef FINAL
                     /* kept for its finalizer by a mark; what it leads to was marked in marking */
                     if :: final & BIT(gr) -> mark = mark | BIT(gr); final = final & ~BIT(gr);
                                              ready = ready | BIT(gr)
                        :: else ->
#endif
                     assert(UNREACHABLE_GR); live = live & ~BIT(gr); field[gr] = 0;
#ifdef HANDLES
                     handle[gr] = 0;
#endif
#ifdef FOREIGN
                     foreign = foreign & ~BIT(gr);
#endif
#ifdef FINAL
                     fi;
#endif
#ifdef WEAK
                     /* its references are cleared, if it is kept for its finalizer too; later ones are new */
                     i = 0; do :: i < CELLS -> assert(!(cells[i] & BIT(gr))); i++ :: else -> break od; i = 0;
                     dead = dead & ~BIT(gr);
#endif
#ifdef GHOST
                     garbage = garbage & ~BIT(gr);
#endif
                     gr = 0; CANON } }
       :: else -> break od;
#ifdef GHOST
    assert(garbage == 0);
#endif
    skip } ESCAPE
  od
}

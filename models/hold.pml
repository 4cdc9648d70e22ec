/* hold.pml -- held rounds (docs/protocol.md 1.4): a hold must lose nothing and block nobody for good.
 *
 * In a held round a thread that has answered waits until the round is over, so that the collector can trace
 * to the end and close.  A thread is stopped wherever it stands, perhaps with a lock of the program that
 * another thread wants while its signals are blocked: that one will never answer, and anybody may then call
 * the hold off.  Here two threads with one lock of the program (taken plainly, or with signals blocked, or
 * waited for in a blocking region) exit, attach and block while the collector makes ROUNDS rounds, held or
 * not, and may close each.  Everything is finite, so that every thread that is left waiting is an invalid
 * end state.  What a timeout guards may happen at any time.
 *
 * Checked: when a held round closes, no attached thread has run since its answer (else it may have hidden a
 * white object, core.pml), and at the end of all rounds nobody waits.
 *
 * Mutants, each must fail:
 *   M_NOCALLOFF      a hold is never called off
 *   M_LATERELEASE    after a call-off, threads HELD in regions are released only when all have answered
 *   M_SEALBLIND      the hold is sealed by a store, not by CAS(hold, r -> r sealed)
 *   M_SEALFREES      a held thread waits while hold = r, but not while it is sealed
 *   M_ATTACHNOWAIT   attach does not wait for a hold
 *   M_NORECHECK      attach looks at hold before it has the list lock, and not again
 *   M_RELEASEBLOCKED a thread in a blocking region is released after its answer, as in an ordinary round
 *   M_PARKEDFREE     a parked one is counted as answered and left BLOCKED
 * Not a mutant: M_EXITNOWAIT, an exit that does not wait for a hold.  Nothing here fails then. */
#ifndef OPS
#define OPS 2                 /* operations of a thread */
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#define BIT(t)   (1 << (t))
#define RUNNING  0
#define BLOCKED  1
#define HELD     2
#define SEAL     8            /* hold = r + SEAL: r is sealed */

byte hold, round;
byte state[2];
byte owes, attached = 3;
byte section, masked, stopped;   /* threads in a busy section, with signals blocked, waiting in an answer */
byte parked;                  /* scanned in the region they are in */
byte list_lock;
byte mutex;                   /* a lock of the program: its owner + 1 */
byte ran;                     /* ghost: threads that ran since their last answer */

#define T(step)     atomic { !(stopped & BIT(t)) -> step }
#define RUN         assert(state[t] == RUNNING); ran = ran | BIT(t)
#define HOLD_IS(r)  (hold == (r) || hold == (r) + SEAL)

/* 2.6: enter and leave a region; leave waits while HELD, and may call the hold off as anybody may */
inline block() { T(parked = parked & ~BIT(t); state[t] = BLOCKED) }
inline unblock() {
    atomic { state[t] == BLOCKED && !(stopped & BIT(t)) -> state[t] = RUNNING; parked = parked & ~BIT(t) }
}
/* 2.5: wait for a hold outside the section; look again under the list lock */
inline list_enter(waits) {
    do ::
       if :: waits -> atomic { hold == 0 && !(stopped & BIT(t)) -> skip } :: !(waits) -> skip fi;
       T(section = section | BIT(t));
       atomic { !list_lock -> list_lock = 1 };
       if
#ifndef M_NORECHECK
       :: waits && hold != 0 -> list_lock = 0; section = section & ~BIT(t)
       :: !(waits) || hold == 0 -> break
#else
       :: break
#endif
       fi
    od
}
inline list_leave() { atomic { list_lock = 0; section = section & ~BIT(t) } }
#ifdef M_EXITNOWAIT
#define EXIT_WAITS false
#else
#define EXIT_WAITS true
#endif
#ifdef M_ATTACHNOWAIT
#define ATTACH_WAITS false
#else
#define ATTACH_WAITS true
#endif

proctype thread(byte t) {
    byte n;
    do
    :: n < OPS -> n++;
       if
       :: T(RUN)
       :: /* with the program's lock */
          atomic { !(stopped & BIT(t)) && mutex == 0 -> RUN; mutex = t + 1 }; T(RUN); T(RUN; mutex = 0)
       :: /* signals blocked while it waits: it cannot answer */
          T(RUN; masked = masked | BIT(t));
          atomic { mutex == 0 -> mutex = t + 1 };
          T(RUN; mutex = 0; masked = masked & ~BIT(t))
       :: /* waits for it in a blocking region */
          block(); atomic { mutex == 0 -> mutex = t + 1 }; unblock(); T(RUN; mutex = 0)
       :: block(); unblock()
       :: /* exit, then attach again */
          list_enter(EXIT_WAITS);
          atomic { attached = attached & ~BIT(t); owes = owes & ~BIT(t); ran = ran & ~BIT(t) }; list_leave();
          list_enter(ATTACH_WAITS); atomic { attached = attached | BIT(t); RUN }; list_leave(); T(RUN)
       fi
    :: n == OPS -> break
    od;
    if :: block() :: T(RUN) fi    /* ends blocked, or computing; its handler still answers */
}

/* The thread's handler: anywhere outside a section.  The answer, and then the wait. */
proctype handler(byte t) {
    byte r;
end: do
    :: atomic { (owes & BIT(t)) && state[t] == RUNNING && !((section | masked) & BIT(t)) ->
         stopped = stopped | BIT(t); r = round; ran = ran & ~BIT(t) };
       owes = owes & ~BIT(t);
       do
#ifdef M_SEALFREES
       :: hold != r -> break
#else
       :: !HOLD_IS(r) -> break
#endif
#ifndef M_NOCALLOFF
       :: atomic { hold == r -> hold = 0 }                 /* 10 ms are over */
#endif
       od;
       atomic { stopped = stopped & ~BIT(t); r = 0 }
    od
}

inline release() {
    atomic { if :: state[0] == HELD -> state[0] = BLOCKED :: else fi;
             if :: state[1] == HELD -> state[1] = BLOCKED :: else fi }
}
/* The collector answers for a blocked thread. */
#ifdef M_RELEASEBLOCKED
#define STAYS false
#else
#define STAYS (hold == round)
#endif
#ifdef M_PARKEDFREE
#define MUST_HOLD(t) (!(parked & BIT(t)))
#else
#define MUST_HOLD(t) true
#endif
#define ANSWER_FOR(t) \
    :: atomic { (owes & BIT(t)) && state[t] == BLOCKED && MUST_HOLD(t) -> state[t] = HELD }; \
       atomic { ran = ran & ~BIT(t); parked = parked | BIT(t) }; owes = owes & ~BIT(t); \
       atomic { if :: STAYS -> skip :: else -> state[t] = BLOCKED fi } \
    :: atomic { (owes & BIT(t)) && state[t] == BLOCKED && !MUST_HOLD(t) -> owes = owes & ~BIT(t) }

active proctype collector() {
    atomic { run thread(0); run thread(1); run handler(0); run handler(1) };
    do
    :: round < ROUNDS ->
       /* one step under the list lock */
       atomic { !list_lock -> round++; if :: hold = round :: hold = 0 fi; owes = attached };
       do
       ANSWER_FOR(0)
       ANSWER_FOR(1)
#ifndef M_LATERELEASE
       :: atomic { hold != round && (state[0] == HELD || state[1] == HELD) -> release() }
#endif
#ifndef M_NOCALLOFF
       :: atomic { hold == round && owes != 0 -> hold = 0 }
#endif
       :: owes == 0 -> break
       od;
#ifdef M_SEALBLIND
       if :: hold == round -> hold = round + SEAL;
#else
       if :: atomic { hold == round -> hold = round + SEAL };
#endif
             assert((ran & attached) == 0);                /* the trace to the end; CLOSED */
             atomic { assert((ran & attached) == 0); hold = 0 }
          :: hold != round
       fi;
       release()
    :: round == ROUNDS -> break
    od
}

/* handshake.pml -- who answers a request: poll, signal handler, end of a busy section, or the collector.
 *
 * One thread, its handler and a collector, instruction by instruction, on the three words of os/thread.h:
 * request, busy and state (docs/protocol.md 2.1 and 2.6).  The collector makes requests for ever, each with
 * its own ticket.  Checked:
 *   - each request is answered exactly once;
 *   - never while a busy section of the thread is open, unless that is the answer's own;
 *   - never by two at a time (they would fill one copy buffer);
 *   - no lost wake-up: the thread may compute for ever without a poll once it likes to, and still every
 *     request is answered (else the collector stands still: an invalid end state).
 *
 * The handler runs on the thread's own processor, between any two of its instructions and to its end before
 * the thread goes on; the collector runs at the same time as either.  The thread's own stores are seen in
 * order by its handler, whatever the processor does, and the kernel orders a signal after the stores that
 * went before it was sent, so plain interleaving is enough for these words.
 *
 * Mutants, each must fail:
 *   M_CHECKFIRST      leave looks at request, then clears busy
 *   M_NOLEAVECHECK    leave does not look at all
 *   M_POLLBARE        poll answers outside a section
 *   M_BUSYHANDLER     the handler ignores busy
 *   M_BLOCKEDHANDLER  the handler ignores state
 *   M_NOREGIONCHECK   no look at request after a blocking region
 *   M_NOWAITHELD      leaving a region does not wait while HELD
 *   M_CLEARLATE       the answer is counted first, and request cleared after that
 *   M_NOSIGNAL        the collector relies on polls
 *   M_NOLOOKAGAIN     the collector, once it holds a blocked thread, does not look at request again */
#define RUNNING 0
#define BLOCKED 1
#define HELD    2

byte busy, state, request;
byte ticket;                   /* of the request being made; 1 or 2 */
bit counted;                   /* the collector sees the answer */
bit signal;                    /* pending */
byte copying;                  /* answers in progress */
bit in_handler, section, computing;
byte thread_value, thread_ticket, handler_ticket;

/* A step of the thread: not while its handler runs. */
#define T(step) atomic { !in_handler -> step }

/* Count the answer of request w once, then let the collector see it. */
#define BEGIN  copying++; assert(copying == 1); assert(!section)
#define FINISH assert(!counted); counted = 1; copying--

/* 2.1: load and store of busy are two instructions; the handler may come between */
inline enter() { T(thread_value = busy); T(busy = (thread_value + 1) % 8); T(assert(busy & 1)) }

/* An answer by the thread, in a section of its own. */
inline thread_answer() {
    T(thread_ticket = request);
    if :: thread_ticket != 0 ->
          T(BEGIN);
#ifdef M_CLEARLATE
          T(FINISH); T(request = 0)
#else
          T(request = 0); T(FINISH)
#endif
       :: else fi;
    thread_ticket = 0
}

/* 2.1 leave: busy even, then a look at request; poll until there is none */
inline leave() {
    do ::
#ifdef M_CHECKFIRST
       T(thread_ticket = request); T(busy = (busy + 1) % 8);
       if :: thread_ticket == 0 -> break :: else fi;
#elif defined(M_NOLEAVECHECK)
       T(busy = (busy + 1) % 8); break;
#else
       T(busy = (busy + 1) % 8);
       T(thread_ticket = request);
       if :: thread_ticket == 0 -> break :: else fi;
#endif
       enter(); thread_answer()
    od; thread_ticket = 0
}
inline poll() {
    T(thread_ticket = request);
    if :: thread_ticket != 0 ->
#ifdef M_POLLBARE
          thread_answer()
#else
          enter(); thread_answer(); leave()
#endif
       :: else fi; thread_ticket = 0
}

active proctype thread() {
program: do
    :: poll()
    :: /* a busy section */
       enter(); T(section = 1); T(section = 0); leave()
    :: /* 2.6: a blocking region; leaving waits while the collector acts for us */
       T(assert(state == RUNNING); state = BLOCKED);
       if :: skip :: T(skip); goto end fi;                /* it may stay there for ever */
#ifdef M_NOWAITHELD
       T(state = RUNNING);
#else
       atomic { !in_handler && state == BLOCKED -> state = RUNNING };
#endif
#ifndef M_NOREGIONCHECK
       poll()
#endif
    :: /* computes for ever: no poll, no section; only the handler can answer now */
       T(computing = 1); break
    od;
end: !true
}

/* The handler: nothing if a section is open (its end will look) or if the thread is in a region (the
 * collector answers).  Else enter, answer, leave, as above. */
active proctype handler() {
end: do
    :: atomic { signal && !in_handler -> signal = 0; in_handler = 1 };
       if
#ifndef M_BUSYHANDLER
       :: busy & 1 -> goto out
#endif
#ifndef M_BLOCKEDHANDLER
       :: !(busy & 1) && state != RUNNING -> goto out
#endif
       :: else
       fi;
       do :: handler_ticket = request;
             if :: handler_ticket == 0 -> break :: else fi;
             busy = (busy + 1) % 8;
             d_step { BEGIN };
             request = 0;
             d_step { FINISH };
             busy = (busy + 1) % 8
       od;
out:   handler_ticket = 0; in_handler = 0
    od
}

/* On the thread's behalf: only between the two state changes, and only if it has not answered meanwhile. */
inline act() {
    if
#ifdef M_NOLOOKAGAIN
    :: d_step { BEGIN }; request = 0; d_step { FINISH }
#else
    :: request != 0 -> d_step { BEGIN }; request = 0; d_step { FINISH } :: else
#endif
    fi;
    state = BLOCKED
}
active proctype collector() {
    do
    :: ticket = 3 - (ticket == 0 -> 2 : ticket);
       counted = 0;
       request = ticket;
       if
       :: atomic { state == BLOCKED -> state = HELD }; act()
       :: atomic { state != BLOCKED ->
#ifndef M_NOSIGNAL
            signal = 1
#else
            skip
#endif
          }
       fi;
       do
       :: counted -> break
       :: request != 0 ->           /* the look and the CAS are two */
          if :: atomic { state == BLOCKED -> state = HELD }; act()
             :: counted
          fi
       od
    od
}

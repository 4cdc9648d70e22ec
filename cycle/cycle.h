/* cycle/ -- the phase machine, requests for cycles, pacing, start and end of the library, fork.
 *
 *     cycle.c     one cycle as the numbered steps of docs/protocol.md
 *     control.c   the collector's thread, requests, setters, what allocation owes
 *     start.c     grey_init, implicit start, grey_shutdown
 *     fork.c      pthread_atfork
 *     pacer.c     goal, trigger, runway, assist ratio
 *     limiter.c   when assists stop; limiting.c keeps it up to date
 *     scavenger.c how much free memory to give back, and how fast; scavenging.c gives it back
 *     prefault.c  touches free memory ahead of its use
 *
 * May call all rooms but inspect/, which it reaches through events and calls set at start.
 */
#ifndef GREY_CYCLE_CYCLE_H
#define GREY_CYCLE_CYCLE_H

#include "cycle/pacer.h"
#include "os/os.h"
#include "os/thread.h"

enum cycle_step { STEP_OFF, STEP_ARM, STEP_BLACKEN, STEP_ROOTS, STEP_MARK, STEP_RESCAN, STEP_FINISH };

struct cycle_request {
    bool forced, periodic;
    bool verify; /* grey_verify: report to fd and count */
    int verify_fd;
    size_t verify_found;
    _Atomic uint32_t done; /* the cycle is over, and nobody uses the request any more */
};

/* ---- cycle.c ------------------------------------------------------------------------------------------ */

void cycle_run(struct cycle_request *request); /* the collector's thread */
uint64_t cycle_number(void);
enum cycle_step cycle_step(void);
const char *cycle_step_name(enum cycle_step step);
/* In a fork's child: the cycle under way is abandoned (protocol.md 9). */
void cycle_abandon(void);
void cycle_reset(void); /* at start */

/* ---- control.c ------------------------------------------------------------------------------------------ */

int control_init(void);
void control_shutdown(void); /* stops the threads */
/* The collector between two steps: stands still while a fork is prepared. */
void control_pause_point(void);
/* A fork: waits until the collector is at a pause point, and keeps it there. */
void control_fork_wait(void);
void control_fork_lock(void);
void control_fork_parent(void);
void control_fork_child(void);
void control_cycle_began(uint64_t number);
void control_cycle_ended(struct pacer_cycle *measured); /* fills in the time since the last */
struct pacer control_pacer(void);                       /* as it is now */
struct pacer control_plan(void);                        /* as the cycle began; the collector's thread */
extern _Atomic uint64_t control_period_ns;              /* of periodic cycles; tests shorten it */
/* Calls for heap/ (heap_calls). */
void control_allocated(struct thread *self, size_t bytes);
bool control_collect_for_memory(void);
void control_ask_for_cycle(void);

/* ---- limiting.c ------------------------------------------------------------------------------------------- */

bool limiting(void);              /* no assists (PC-14) */
bool limiting_due(uint64_t now);  /* 10 ms have passed since it was updated */
void limiting_look(bool at_once); /* updates it; else only if due */
void limiting_begin(void);        /* at start and in a fork's child: there is one thread */

/* ---- scavenging.c ----------------------------------------------------------------------------------------- */

int scavenging_start(void); /* its thread */
void scavenging_stop(void);
void scavenging_park(void); /* fork */
void scavenging_unpark(void);
void scavenging_fork_child(void);
/* The pacer's lock: a cycle has ended that had this goal; then, and whenever they change, goal and limit. */
void scavenging_note_end(uint64_t goal);
void scavenging_plan(uint64_t goal, size_t memory_limit);
void scavenging_wake(bool cycle_ended);
void scavenging_allocated(size_t bytes);  /* SC-4; outside sections */
void scavenging_release_all(void);        /* SC-7; outside sections */
bool scavenging_has_room(uint64_t bytes); /* below the limit's goal, if so much more had memory */

/* ---- prefault.c ------------------------------------------------------------------------------------------- */

int prefault_start(void); /* its thread */
void prefault_stop(void);
void prefault_park(void); /* fork */
void prefault_unpark(void);
void prefault_fork_child(void);
void prefault_allocated(void); /* outside sections */

/* ---- start.c ---------------------------------------------------------------------------------------------- */

bool start_is_up(void);
struct thread *start_and_attach(void);
void start_ensure(void);
void fork_init(void);
/* A start or end of the library is not under way between these. */
void start_fork_lock(void);
void start_fork_parent(void);
void start_fork_child(void);

/* Set by inspect/'s start, called by cycle.c with all threads held: marks again from scratch; the number
 * of reachable unmarked objects, reported on fd. */
extern size_t (*cycle_verify)(int fd);

#endif

/* mutator/internal.h -- between the files of mutator/ only. */
#ifndef GREY_MUTATOR_INTERNAL_H
#define GREY_MUTATOR_INTERNAL_H

#include "mutator/mutator.h"

int handshake_init(int signal);
int handshake_signal_number(void);
void handshake_enter_list(struct thread *self);
void handshake_count_exit(struct thread *self);
void handshake_fork_child(void);
void fence_init(void);
long blocking_begin(void *unused, char *sp); /* called by capture.S */

/* A thread made by grey_thread_create: argument and result travel in barriered root slots (2.5). */
struct mutator_created {
    pthread_t id;
    void *(*start)(void *arg);
    void *arg, *result; /* roots (1.3) */
    struct thread *block;
    bool id_known, detached, finished;
    atomic_bool began;            /* the thread has attached */
    struct mutator_created *next; /* join lock */
};
void created_finished(void);
void created_fork_child(void);
void created_shutdown(void);
bool created_all_began(void);
struct os_lock *created_lock(void);
struct thread *registry_take_block(void);
void registry_put_block(struct thread *block);
/* top: the frames from there up to the stack's end hold nothing of the program's; NULL: they may. */
int registry_attach(struct thread *block, char *top);
struct mutator_created;
void *created_run(struct mutator_created *record, char *top);
void *created_entry(void *record); /* capture.S */
/* List lock: a thread that is gone and never detached. */
void registry_lost(struct thread *block);
void stacks_forget(struct thread *self); /* list lock: its registered stacks */

#endif

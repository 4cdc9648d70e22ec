/* check.h -- cached_check: a client that knows what each reply must be.
 *
 * Each connection has keys of its own, and a model of them: what the server must hold once it has
 * carried out everything sent so far.  Since a server answers a connection's commands in order, the
 * right answer to each is known when it is sent, however deep the pipeline.
 */
#ifndef CACHED_CHECK_H
#define CACHED_CHECK_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct options {
    const char *host;
    int port;
    double seconds;
    unsigned keys, threads, connections, pipeline;
    size_t value_min, value_max;
    uint64_t seed;
    bool evicting; /* the server may forget a key at any time */
    bool hostile;
};
extern struct options options;

struct faults {
    uint64_t lost;    /* a value that must be there was not */
    uint64_t corrupt; /* a value that is not what was written */
    uint64_t errors;  /* an error instead of an answer */
};

int64_t now_ns(void);
uint64_t next_random(uint64_t *state);

/* check_model.c.  One thread at a time on one model. */
struct model;
struct model *model_new(unsigned connection, unsigned keys, uint64_t seed);
void model_free(struct model *model);
/* Appends the next random command, or a given read of key number i, to the connection's output;
 * returns about how many bytes of request that is. */
size_t model_send(struct model *model, redisContext *context);
size_t model_send_read(struct model *model, redisContext *context, unsigned i);
/* Checks the answer to the oldest command that has none yet. */
void model_check(struct model *model, const redisReply *reply, struct faults *faults);

/* check_hostile.c: the number of faults found. */
unsigned hostile_run(void);

#endif

/* settings.h -- what the command line and CONFIG SET decide. */
#ifndef CACHED_SETTINGS_H
#define CACHED_SETTINGS_H

#include "bytes.h"

/* Fixed at start. */
struct settings {
    const char *bind;
    int port;         /* 0: any free one */
    int metrics_port; /* -1: no metrics page, 0: any free one */
    unsigned threads;
    const char *mmap_file; /* for large values; NULL: all go into the heap */
    size_t mmap_size, mmap_threshold;
};
extern struct settings settings;

/* Fills settings; on a bad option says so and exits with 2, on --help with 0. */
void settings_read_arguments(int argc, char **argv);

/* The knobs that CONFIG knows.  Any thread. */
uint64_t settings_maxmemory(void); /* 0 = no limit */
size_t settings_zero_copy(void);   /* values of this size and more are not copied into replies; 0 = all are */

struct knob {
    const char *name;
    void (*get)(char *text, size_t size);
    bool (*set)(struct slice value); /* NULL: cannot be set; false: bad value */
};
const struct knob *settings_knobs(size_t *n);

#endif

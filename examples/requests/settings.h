/* settings.h -- what the command line decides. */
#ifndef REQUESTS_SETTINGS_H
#define REQUESTS_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOST_THREADS = 256 };

/* Fixed at start. */
struct settings {
    const char *bind;
    int port; /* 0: any free one */
    unsigned threads;
    bool arenas;          /* false: what belongs to a request goes into the heap */
    unsigned max_header;  /* bytes of request line and headers */
    size_t max_body;      /* bytes */
    int64_t request_time; /* milliseconds from a request's first byte to its last */
    int64_t idle_time;    /* between two requests, and for a client that takes nothing */
};
extern struct settings settings;

/* Fills settings; on a bad option says so and exits with 2, on --help with 0. */
void settings_read_arguments(int argc, char **argv);

#endif

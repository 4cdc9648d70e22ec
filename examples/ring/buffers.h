/* buffers.h -- I/O buffers that come back by themselves.
 *
 * A buffer that is out is a foreign region.  Whoever got data in it passes on plain pointers to the data;
 * when the last of them is gone the region's cleanup puts the buffer back among the free ones.
 */
#ifndef RING_BUFFERS_H
#define RING_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

enum { BUFFER_SIZE = 16 * 1024 };

/* Once, before the threads start; 0 or an errno value.  close: after grey_shutdown. */
int buffers_open(unsigned n);
void buffers_close(void);

/* A page-aligned buffer.  When all are out, waits for the collector to find some that nobody uses.  NULL:
 * ENOMEM. */
void *buffer_get(void);

struct buffer_figures {
    uint64_t taken, back, waits;
};
struct buffer_figures buffer_figures(void);

#endif

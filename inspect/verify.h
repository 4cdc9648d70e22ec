/* inspect/verify.h -- marking again from scratch (TR-11). */
#ifndef GREY_INSPECT_VERIFY_H
#define GREY_INSPECT_VERIFY_H

#include <stddef.h>

/* The collector, all threads held and marking over: reports on fd each object that is reachable but not
 * marked, and the slot that holds it; returns their number. */
size_t verify_heap(int fd);

#endif

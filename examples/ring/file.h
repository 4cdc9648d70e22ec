/* file.h -- the file that both programs read: every word of it says where it belongs. */
#ifndef RING_FILE_H
#define RING_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Makes the file, in TMPDIR or /tmp, opens it and removes its name.  direct: past the page cache.  The
 * descriptor; ends the program if it can't. */
int file_make(uint64_t seed, size_t size, bool direct);

/* These are the bytes at that offset.  size is a multiple of 8. */
bool file_is_right(const void *data, size_t size, uint64_t offset);

/* Random numbers, good enough for tests. */
uint64_t next_random(uint64_t *state);

/* Says what failed and why, and exits with 1. */
_Noreturn void die(const char *what, int error);

#endif

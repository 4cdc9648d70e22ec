/* inspect/text.h -- text written into a buffer, without stdio.
 *
 * stdio locks, may allocate, and prints decimals as the program's locale has them; a line for a parser
 * can afford none of it.  A struct text is a buffer, what is in it, and optionally a file descriptor that
 * it is emptied into when full.  Without one, what doesn't fit is cut.
 */
#ifndef GREY_INSPECT_TEXT_H
#define GREY_INSPECT_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct text {
    char *buffer;
    size_t size, length;
    int fd;    /* -1: none */
    int error; /* errno of the first write that failed; nothing is written after it */
};
#define TEXT_INIT(buffer_, fd_)                                                                              \
    {                                                                                                        \
        .buffer = (buffer_), .size = sizeof(buffer_), .fd = (fd_)                                            \
    }

void text_char(struct text *text, char c);
void text_string(struct text *text, const char *string);
void text_number(struct text *text, uint64_t number);
/* value / 10^scale with the first `digits` of its decimals (digits <= scale <= 19), rounded down. */
void text_decimal(struct text *text, uint64_t value, unsigned scale, unsigned digits);
/* Writes out what is in the buffer.  0 or the error. */
int text_flush(struct text *text);

/* All of it, whatever the number of system calls; EINTR is not an error.  0 or errno. */
int text_write(int fd, const char *bytes, size_t size);

#endif

/* inspect/text.c -- text into a buffer, and the buffer to a file descriptor.
 *
 * A write may be short (pipes, sockets, full disks) or interrupted (our own handshake signal, on a
 * descriptor that SA_RESTART does not cover), so it is a loop.  A descriptor in non-blocking mode that
 * is full is the caller's business: EAGAIN comes back.
 */
#include "inspect/text.h"

#include <errno.h>
#include <unistd.h>

int text_write(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);
        if (n > 0) {
            bytes += n;
            size -= (size_t)n;
        } else if (n == 0) {
            return EIO; /* would go on for ever */
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

int text_flush(struct text *text)
{
    if (text->error == 0 && text->fd >= 0)
        text->error = text_write(text->fd, text->buffer, text->length);
    text->length = 0;
    return text->error;
}

void text_char(struct text *text, char c)
{
    if (text->length == text->size) {
        if (text->fd < 0)
            return;
        text_flush(text);
    }
    text->buffer[text->length++] = c;
}

void text_string(struct text *text, const char *string)
{
    while (*string != '\0')
        text_char(text, *string++);
}

void text_number(struct text *text, uint64_t number)
{
    char digits[20];
    unsigned n = 0;
    do {
        digits[n++] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    while (n > 0)
        text_char(text, digits[--n]);
}

void text_decimal(struct text *text, uint64_t value, unsigned scale, unsigned digits)
{
    uint64_t unit = 1;
    for (unsigned i = 0; i < scale; i++)
        unit *= 10;
    text_number(text, value / unit);
    if (digits == 0)
        return;
    text_char(text, '.');
    for (unsigned i = 0; i < digits && unit > 1; i++) {
        value %= unit;
        unit /= 10;
        text_char(text, (char)('0' + value / unit));
    }
}

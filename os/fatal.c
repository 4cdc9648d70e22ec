/* os/fatal.c -- the library's last words.
 *
 * A fatal error is found at the worst time: in a signal handler, under any lock, with a broken heap, in
 * a child between fork and exec.  So nothing here allocates, locks, or uses stdio (ER-3).  The line is
 * put together in a buffer on the stack by a formatter of our own and leaves in one write, so that the
 * lines of threads that fail together don't mix.
 *
 * Then the handler of grey_set_fatal_handler runs, on the failing thread, and after it abort() in any
 * case (behaviour 0.2).  The handler is taken off before it is called: if it fails too, that second
 * error aborts at once instead of calling it again.  A handler that leaves by longjmp, as tests may
 * (ER-4), sets itself again.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/os.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1024 };

void (*os_internal_context)(const char **phase, uint64_t *cycle);

static void (*_Atomic fatal_handler)(const char *message, const void *address);

void os_set_fatal_handler(void (*handler)(const char *message, const void *address))
{
    /* release: what the handler reads was written before; pairs with the exchange in die */
    atomic_store_explicit(&fatal_handler, handler, memory_order_release);
}

/* ---- formatting -------------------------------------------------------------------------------------- */

struct text {
    char *at, *end; /* end: where the terminating 0 goes at the latest */
};

static void put(struct text *text, char c)
{
    if (text->at < text->end)
        *text->at++ = c;
}

static void put_string(struct text *text, const char *string)
{
    for (const char *c = string != NULL ? string : "(null)"; *c != '\0'; c++)
        put(text, *c);
}

static void put_number(struct text *text, unsigned long long value, unsigned base)
{
    char digits[24];
    unsigned n = 0;
    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    while (n > 0)
        put(text, digits[--n]);
}

static void put_signed(struct text *text, long long value)
{
    if (value < 0)
        put(text, '-');
    put_number(text, value < 0 ? 0 - (unsigned long long)value : (unsigned long long)value, 10);
}

enum length { INT, LONG, LONG_LONG, SIZE };

static enum length read_length(const char **format)
{
    if (**format == 'z') {
        ++*format;
        return SIZE;
    }
    if (**format != 'l')
        return INT;
    ++*format;
    if (**format != 'l')
        return LONG;
    ++*format;
    return LONG_LONG;
}

/* On x86-64 Linux all but int are one 64-bit word in a va_list. */
_Static_assert(sizeof(long) == sizeof(long long) && sizeof(size_t) == sizeof(long long), "LP64");

static unsigned long long take_unsigned(va_list *arguments, enum length length)
{
    return length == INT ? va_arg(*arguments, unsigned) : va_arg(*arguments, unsigned long long);
}

static long long take_signed(va_list *arguments, enum length length)
{
    return length == INT ? va_arg(*arguments, int) : va_arg(*arguments, long long);
}

static void format_list(struct text *text, const char *format, va_list *arguments)
{
    for (; *format != '\0'; format++) {
        if (*format != '%') {
            put(text, *format);
            continue;
        }
        format++;
        enum length length = read_length(&format);
        switch (*format) {
        case 's':
            put_string(text, va_arg(*arguments, const char *));
            break;
        case 'c':
            put(text, (char)va_arg(*arguments, int));
            break;
        case 'd':
            put_signed(text, take_signed(arguments, length));
            break;
        case 'u':
            put_number(text, take_unsigned(arguments, length), 10);
            break;
        case 'x':
            put_number(text, take_unsigned(arguments, length), 16);
            break;
        case 'p':
            put_string(text, "0x");
            put_number(text, (uintptr_t)va_arg(*arguments, const void *), 16);
            break;
        case '%':
            put(text, '%');
            break;
        default: /* its argument's size isn't known, so nothing after it can be read */
            put_string(text, "%?");
            return;
        }
    }
}

__attribute__((format(printf, 2, 3))) static void put_format(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    format_list(text, format, &arguments);
    va_end(arguments);
}

size_t os_format(char *buffer, size_t size, const char *format, ...)
{
    if (size == 0)
        return 0;
    struct text text = {buffer, buffer + size - 1};
    va_list arguments;
    va_start(arguments, format);
    format_list(&text, format, &arguments);
    va_end(arguments);
    *text.at = '\0';
    return (size_t)(text.at - buffer);
}

/* ---- warnings and deaths ----------------------------------------------------------------------------- */

/* buffer[length] receives the newline, in the place of the terminating 0. */
static void write_line(char *buffer, size_t length)
{
    int saved = errno;
    buffer[length] = '\n';
    /* Once: if standard error is gone there is nobody left to tell. */
    if (write(STDERR_FILENO, buffer, length + 1) < 0)
        errno = saved;
    buffer[length] = '\0';
    errno = saved;
}

void os_warn(const char *format, ...)
{
    char line[LINE_MAX_BYTES];
    struct text text = {line, line + sizeof(line) - 1};
    va_list arguments;
    put_string(&text, "grey: warning: ");
    va_start(arguments, format);
    format_list(&text, format, &arguments);
    va_end(arguments);
    write_line(line, (size_t)(text.at - line));
}

/* message: the part of the line after "grey: ...: ", which the handler gets. */
_Noreturn static void die(char *line, struct text *text, const char *message, const void *address)
{
    if (address != NULL)
        put_format(text, " (address %p)", address);
    write_line(line, (size_t)(text->at - line));
    void (*handler)(const char *, const void *) =
        atomic_exchange_explicit(&fatal_handler, NULL, memory_order_acq_rel);
    if (handler != NULL)
        handler(message, address);
    abort();
}

void os_fatal(const void *address, const char *format, ...)
{
    char line[LINE_MAX_BYTES];
    struct text text = {line, line + sizeof(line) - 1};
    va_list arguments;
    put_string(&text, "grey: fatal: ");
    char *message = text.at;
    va_start(arguments, format);
    format_list(&text, format, &arguments);
    va_end(arguments);
    die(line, &text, message, address);
}

void os_internal(const void *address, const char *format, ...)
{
    char line[LINE_MAX_BYTES];
    struct text text = {line, line + sizeof(line) - 1};
    const char *phase = "unknown";
    uint64_t cycle = 0;
    va_list arguments;
    put_string(&text, "grey: internal: ");
    char *message = text.at;
    va_start(arguments, format);
    format_list(&text, format, &arguments);
    va_end(arguments);
    if (os_internal_context != NULL)
        os_internal_context(&phase, &cycle);
    put_format(&text, " [phase %s, thread %d, cycle %llu]", phase, (int)syscall(SYS_gettid),
               (unsigned long long)cycle);
    die(line, &text, message, address);
}

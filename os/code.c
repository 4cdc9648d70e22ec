/* os/code.c -- where in which file an address of code lies.
 *
 * For messages that name the place of a call.  dladdr takes the loader's lock and backtrace_symbols
 * allocates, and both may be what was interrupted; so /proc/self/maps is read, line by line, with a buffer on
 * the stack. The offset counts from where the file's first part lies, which is what addr2line wants for
 * shared libraries and position independent programs.
 */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 512 };

struct reader {
    int fd;
    size_t at, end;
    char buffer[1024];
};

/* The next line, cut to what fits; false: no more. */
static bool read_line(struct reader *reader, char *line)
{
    size_t length = 0;
    for (;;) {
        if (reader->at == reader->end) {
            ssize_t n = read(reader->fd, reader->buffer, sizeof(reader->buffer));
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                return false;
            reader->at = 0;
            reader->end = (size_t)n;
        }
        char c = reader->buffer[reader->at++];
        if (c == '\n') {
            line[length] = '\0';
            return true;
        }
        if (length < LINE - 1)
            line[length++] = c;
    }
}

static uintptr_t read_hex(const char **at)
{
    uintptr_t value = 0;
    for (;; ++*at) {
        char c = **at;
        if (c >= '0' && c <= '9')
            value = value * 16 + (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (uintptr_t)(c - 'a' + 10);
        else
            return value;
    }
}

/* "start-end rwxp offset device inode   path" */
static const char *path_of(const char *at)
{
    const char *path = strchr(at, '/');
    return path != NULL ? path : "";
}

size_t os_describe_code(uintptr_t address, char *buffer, size_t size)
{
    int saved = errno;
    struct reader reader = {.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
    char line[LINE], path[LINE] = "";
    uintptr_t first = 0;
    size_t length = 0;
    while (length == 0 && reader.fd >= 0 && read_line(&reader, line)) {
        const char *at = line;
        uintptr_t start = read_hex(&at);
        at += *at == '-';
        uintptr_t end = read_hex(&at);
        if (strcmp(path, path_of(at)) != 0) {
            strcpy(path, path_of(at));
            first = start;
        }
        if (address >= start && address < end && path[0] != '\0')
            length = os_format(buffer, size, "%s+0x%lx", path, (unsigned long)(address - first));
    }
    if (reader.fd >= 0)
        close(reader.fd);
    errno = saved;
    return length != 0 ? length : os_format(buffer, size, "%p", (void *)address);
}

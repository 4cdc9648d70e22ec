/* file.c -- making and checking the file; see file.h. */
#define _GNU_SOURCE /* O_DIRECT */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t file_seed;

void die(const char *what, int error)
{
    fprintf(stderr, "ring: %s: %s\n", what, strerror(error));
    exit(1);
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

uint64_t next_random(uint64_t *state) { return mix(*state += 0x9e3779b97f4a7c15); }

static uint64_t word_at(uint64_t offset) { return (file_seed + offset) * 0x9e3779b97f4a7c15; }

int file_make(uint64_t seed, size_t size, bool direct)
{
    static uint64_t block[1 << 17];
    static char path[4096];

    file_seed = seed;
    snprintf(path, sizeof path, "%s/ring.XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    int out = mkstemp(path);
    if (out < 0)
        die(path, errno);
    for (uint64_t offset = 0; offset < size; offset += sizeof block) {
        for (size_t i = 0; i < sizeof block / sizeof block[0]; i++)
            block[i] = word_at(offset + i * sizeof block[0]);
        if (write(out, block, sizeof block) != (ssize_t)sizeof block)
            die(path, errno);
    }
    int file = open(path, O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (file < 0)
        die(path, errno);
    close(out);
    unlink(path);
    return file;
}

bool file_is_right(const void *data, size_t size, uint64_t offset)
{
    const uint64_t *words = data;

    for (size_t i = 0; i < size / sizeof *words; i++)
        if (words[i] != word_at(offset + i * sizeof *words))
            return false;
    return true;
}

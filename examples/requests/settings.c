/* settings.c -- options. */
#include "settings.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

struct settings settings = {.bind = "127.0.0.1",
                            .port = 8080,
                            .threads = 2,
                            .arenas = true,
                            .max_header = 16 << 10,
                            .max_body = 1 << 20,
                            .request_time = 10 * 1000,
                            .idle_time = 60 * 1000};

static void usage(FILE *to)
{
    fputs("usage: requests [options]\n"
          "  --bind ADDRESS       listen on this address (127.0.0.1)\n"
          "  --port N             listen on this port (8080); 0 takes a free one\n"
          "  --threads N          threads that serve clients (2)\n"
          "  --no-arenas          put what belongs to a request into the heap, to compare\n"
          "  --max-header BYTES   of a request's line and headers (16384)\n"
          "  --max-body BYTES     of a request (1048576)\n"
          "  --request-time MS    for a request to arrive in (10000)\n"
          "  --idle-time MS       without a request, or with a client that takes no answer (60000)\n"
          "  --help               print this\n",
          to);
}

static long long number(const char *text, long long least, long long most)
{
    char *end;
    long long n = strtoll(text, &end, 10);

    if (end != text && *end == '\0' && n >= least && n <= most)
        return n;
    fprintf(stderr, "requests: %s is not a number from %lld to %lld\n", text, least, most);
    exit(2);
}

void settings_read_arguments(int argc, char **argv)
{
    static const struct option options[] = {{"bind", required_argument, NULL, 'b'},
                                            {"port", required_argument, NULL, 'p'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"no-arenas", no_argument, NULL, 'n'},
                                            {"max-header", required_argument, NULL, 'e'},
                                            {"max-body", required_argument, NULL, 'o'},
                                            {"request-time", required_argument, NULL, 'r'},
                                            {"idle-time", required_argument, NULL, 'i'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'b')
            settings.bind = optarg;
        else if (option == 'p')
            settings.port = (int)number(optarg, 0, 65535);
        else if (option == 't')
            settings.threads = (unsigned)number(optarg, 1, MOST_THREADS);
        else if (option == 'n')
            settings.arenas = false;
        else if (option == 'e')
            settings.max_header = (unsigned)number(optarg, 256, 1 << 20);
        else if (option == 'o')
            settings.max_body = (size_t)number(optarg, 0, 1 << 30);
        else if (option == 'r')
            settings.request_time = number(optarg, 1, 1 << 30);
        else if (option == 'i')
            settings.idle_time = number(optarg, 1, 1 << 30);
        else {
            usage(option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    }
    if (optind < argc) {
        usage(stderr);
        exit(2);
    }
}

/* What the load generator and the sink share: a clock, their own CPU time, and plain endings.
 *
 * Both programs are one thread around one epoll loop. Every time they print is CLOCK_MONOTONIC in seconds, which is
 * one clock for the whole machine (and what Python calls time.monotonic()), so their reports can be subtracted from
 * each other.
 */
#ifndef RIG_COMMON_H
#define RIG_COMMON_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

/* The number that tells one benchmark message from another; it survives a relay, unlike the order of arrival. */
#define SERIAL_HEADER "X-Bench-Serial: "
#define SERIALS (1u << 24)

static inline double monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* User and system time of this process so far. */
static inline double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
         + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Ends the program with the system's own word for what went wrong. */
_Noreturn static inline void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

/* An option's value as a number between two bounds, or a message that names the option, and the end. */
static inline double number(const char *option, const char *text, double least, double most)
{
    char *rest;
    double value = strtod(text, &rest);
    if (rest == text || *rest != '\0' || !(value >= least && value <= most)) {
        fprintf(stderr, "--%s %s: give a number from %g to %g\n", option, text, least, most);
        exit(EX_USAGE);
    }
    return value;
}

#endif

/*
 * The two clocks that tell how long a wait was. Plain C.
 */
#ifndef LASERSELL_CLOCKS_H
#define LASERSELL_CLOCKS_H

#include <stdint.h>
#include <time.h>

/* What time.monotonic_ns() says. */
static inline int64_t ls_monotonic_ns(void)
{
#ifdef __APPLE__
    return (int64_t)clock_gettime_nsec_np(CLOCK_UPTIME_RAW);
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#endif
}

/* The clock that runs on while the machine is suspended; where there is none, the monotonic one. */
static inline int64_t ls_boot_ns(void)
{
#ifdef CLOCK_BOOTTIME
    struct timespec now;
    if (clock_gettime(CLOCK_BOOTTIME, &now) == 0) {
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
#endif
    return ls_monotonic_ns();
}

#endif

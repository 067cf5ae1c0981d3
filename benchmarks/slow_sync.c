/* Loaded before the C library: every fsync and fdatasync takes SYNC_DELAY_US microseconds longer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

typedef int (*sync_function)(int);

static int sync_late(const char *name, int descriptor)
{
    const char *text = getenv("SYNC_DELAY_US");
    long delay_us = text ? strtol(text, NULL, 10) : 0;
    struct timespec delay = {delay_us / 1000000, delay_us % 1000000 * 1000};
    nanosleep(&delay, NULL);
    return ((sync_function)dlsym(RTLD_NEXT, name))(descriptor);
}

int fsync(int descriptor) { return sync_late("fsync", descriptor); }
int fdatasync(int descriptor) { return sync_late("fdatasync", descriptor); }

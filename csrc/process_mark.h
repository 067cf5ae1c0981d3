/*
 * Whether this process was forked since the mark was set, whoever forked it: os.fork() runs hooks, a fork() in C (uWSGI,
 * another extension) runs none. Asking costs one read of memory. Pure C; the counterpart in Python is processes.py.
 */
#ifndef LASERSELL_PROCESS_MARK_H
#define LASERSELL_PROCESS_MARK_H

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __linux__
#define LS_MADV_WIPEONFORK 18 /* since Linux 4.14; older headers lack it */
#endif

/* In a private page that the kernel fills with zeros in a child; NULL where there is no such page. */
static volatile unsigned char *ls_mark;
static pid_t ls_marked_pid;

static inline int ls_was_forked(void)
{
    return ls_mark != NULL ? *ls_mark == 0 : getpid() != ls_marked_pid;
}

static inline void ls_mark_process(void)
{
#ifdef LS_MADV_WIPEONFORK
    if (ls_mark == NULL && ls_marked_pid == 0) {
        size_t size = (size_t)sysconf(_SC_PAGESIZE);
        void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page != MAP_FAILED) {
            if (madvise(page, size, LS_MADV_WIPEONFORK) == 0) {
                ls_mark = page;
            } else {
                (void)munmap(page, size);
            }
        }
    }
#endif
    ls_marked_pid = getpid();
    if (ls_mark != NULL) {
        *ls_mark = 1;
    }
}

#endif

/* Makes each flush to disk take 2 ms more, as on slower disks: loaded before a process, it sleeps after fsync and fdatasync.
 *
 *   cc -O2 -shared -fPIC -o /tmp/slow-flush.so loadtest/slow-flush.c -ldl
 *   signalpost-loadtest --env LD_PRELOAD=/tmp/slow-flush.so burst
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static int slowly(const char *name, int file)
{
    int (*flush)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = flush ? flush(file) : -1;
    struct timespec pause = {.tv_sec = 0, .tv_nsec = 2000000};
    nanosleep(&pause, NULL);
    return result;
}

int fsync(int file)
{
    return slowly("fsync", file);
}

int fdatasync(int file)
{
    return slowly("fdatasync", file);
}

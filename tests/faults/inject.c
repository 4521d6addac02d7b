/* A disk that fails, or a process that dies, at the n-th thing done to files below one folder; a clock that is wrong.
 *
 * Preloaded before libc (LD_PRELOAD), so that it sees what Python, C++, Rust and SQLite do alike. It does nothing
 * until `faults_arm` is called. A process killed in a write has written half of it, as it may happen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long at, seen;
static int error, lasting;

/* The n-th act (none for n = 0) fails with `code`, all later ones too if `lasts`; code 0: the process is killed. */
void faults_arm(const char *below, long n, int code, int lasts) {
    snprintf(folder, sizeof folder, "%s", below);
    at = n, error = code, lasting = lasts;
    __atomic_store_n(&seen, 0, __ATOMIC_SEQ_CST);
}

long faults_seen(void) { return __atomic_load_n(&seen, __ATOMIC_SEQ_CST); }

static int below(const char *path) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int named(int where, const char *path) {
    char full[2 * PATH_MAX], base[PATH_MAX], link[64];
    if (!*folder || !path) return 0;
    if (*path == '/') return below(path);
    if (where == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", where);
        ssize_t n = readlink(link, base, sizeof base - 1);
        if (n < 0) return 0;
        base[n] = 0;
    }
    snprintf(full, sizeof full, "%s/%s", base, path);
    return below(full);
}

static int opened(int fd) {
    char link[64], path[PATH_MAX];
    if (!*folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}

/* Count one act below the folder: 0 go on, 1 fail (errno is set), 2 die. */
static int struck(int ours) {
    if (!ours) return 0;
    long now = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    if (!at || (lasting ? now < at : now != at)) return 0;
    if (!error) return 2;
    errno = error;
    return 1;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define GUARD(ours)                    \
    switch (struck(ours)) {            \
    case 1: return -1;                 \
    case 2: die();                     \
    }

#define OPEN(name, parameters, where, path, arguments)                                \
    int name parameters {                                                             \
        mode_t mode = 0;                                                              \
        if (flags & (O_CREAT | O_TMPFILE)) {                                          \
            va_list more;                                                             \
            va_start(more, flags);                                                    \
            mode = va_arg(more, mode_t);                                              \
            va_end(more);                                                             \
        }                                                                             \
        if (flags & (O_CREAT | O_WRONLY | O_RDWR)) GUARD(named(where, path));         \
        return REAL(name) arguments;                                                  \
    }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD, path, (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, path, (path, flags, mode))
OPEN(openat, (int where, const char *path, int flags, ...), where, path, (where, path, flags, mode))
OPEN(openat64, (int where, const char *path, int flags, ...), where, path, (where, path, flags, mode))

ssize_t write(int fd, const void *data, size_t n) {
    switch (struck(opened(fd))) {
    case 1: return -1;
    case 2: REAL(write)(fd, data, n / 2); die();
    }
    return REAL(write)(fd, data, n);
}

#define PWRITE(name, offset_type)                                        \
    ssize_t name(int fd, const void *data, size_t n, offset_type from) { \
        switch (struck(opened(fd))) {                                    \
        case 1: return -1;                                               \
        case 2: REAL(name)(fd, data, n / 2, from); die();                \
        }                                                                \
        return REAL(name)(fd, data, n, from);                            \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int n) {
    GUARD(opened(fd));
    return REAL(writev)(fd, parts, n);
}

#define ON_FD(name, parameters, arguments) \
    int name parameters {                  \
        GUARD(opened(fd));                 \
        return REAL(name) arguments;       \
    }
ON_FD(fsync, (int fd), (fd))
ON_FD(fdatasync, (int fd), (fd))
ON_FD(ftruncate, (int fd, off_t n), (fd, n))
ON_FD(ftruncate64, (int fd, off64_t n), (fd, n))

#define ON_NAME(name, parameters, where, path, arguments) \
    int name parameters {                                 \
        GUARD(named(where, path));                        \
        return REAL(name) arguments;                      \
    }
ON_NAME(rename, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_NAME(renameat, (int a, const char *from, int b, const char *to), b, to, (a, from, b, to))
ON_NAME(link, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_NAME(linkat, (int a, const char *from, int b, const char *to, int flags), b, to, (a, from, b, to, flags))
ON_NAME(symlink, (const char *from, const char *to), AT_FDCWD, to, (from, to))
ON_NAME(unlink, (const char *path), AT_FDCWD, path, (path))
ON_NAME(unlinkat, (int where, const char *path, int flags), where, path, (where, path, flags))
ON_NAME(rmdir, (const char *path), AT_FDCWD, path, (path))
ON_NAME(mkdir, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
ON_NAME(mkdirat, (int where, const char *path, mode_t mode), where, path, (where, path, mode))

static long ahead;

/* From now on the clock of the day is wrong by so many seconds. */
void faults_clock(long seconds) { ahead = seconds; }

int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = REAL(clock_gettime)(which, now);
    if (!failed && which == CLOCK_REALTIME) now->tv_sec += ahead;
    return failed;
}

time_t time(time_t *into) {
    time_t now = REAL(time)(NULL) + ahead;
    if (into) *into = now;
    return now;
}

/* This file knows how to write down what a process does to the files below one folder, in the order it was done.
 *
 * Preloaded (LD_PRELOAD) into the real process. POWERCUT_ROOT is the folder, POWERCUT_LOG the file of records: a
 * struct record, then path, other path and data. A call is made first and written down when it has succeeded, both
 * under one lock, so that the order of the records is the order of the calls over all threads. A call that is not
 * understood here (OTHER) is written down too: the reader refuses such a recording.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, MKDIR, LINK, CLOSE, DUP, MAP, MARK, OTHER };

struct record {
    uint32_t op;
    int32_t fd;
    int64_t offset; /* of a write; the length of a truncate; the new number of a dup */
    uint32_t flags, path, other, data;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static pid_t owner; /* a child between fork and exec shares our files, or even our memory: it is not written down */
static char root[PATH_MAX];
static unsigned char watched[65536];

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WATCHED(fd) ((fd) >= 0 && (fd) < (int)sizeof watched && watched[fd] && getpid() == owner)

__attribute__((constructor)) static void begin(void)
{
    const char *folder = getenv("POWERCUT_ROOT"), *file = getenv("POWERCUT_LOG");
    if (!folder || !file || !realpath(folder, root))
        return;
    owner = getpid();
    int fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 900);
    syscall(SYS_close, fd);
}

static void emit(uint32_t op, int fd, int64_t offset, uint32_t flags, const char *path, const char *other,
                 const void *data, size_t size)
{
    if (log_fd < 0)
        return;
    int before = errno;
    struct record head = {op, fd, offset, flags, strlen(path), strlen(other), size};
    struct iovec parts[] = {
        {&head, sizeof head}, {(void *)path, head.path}, {(void *)other, head.other}, {(void *)data, size}};
    if (syscall(SYS_writev, log_fd, parts, 4) != (long)(sizeof head + head.path + head.other + size))
        abort();
    errno = before;
}

/* The path below the root, without a leading slash ("" is the root itself); NULL when it is elsewhere. */
static const char *below(int at, const char *path, char *whole)
{
    char link[64];
    if (log_fd < 0 || !path || getpid() != owner)
        return NULL;
    if (*path == '/') {
        snprintf(whole, PATH_MAX, "%s", path);
    } else {
        snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, whole, PATH_MAX / 2);
        if (length < 0)
            return NULL;
        snprintf(whole + length, PATH_MAX - length, "/%s", path);
    }
    size_t length = strlen(root);
    if (strncmp(whole, root, length) || (whole[length] && whole[length] != '/'))
        return NULL;
    return whole[length] ? whole + length + 1 : whole + length;
}

static int opened(int at, const char *path, int flags, mode_t mode)
{
    char whole[PATH_MAX];
    const char *inside = below(at, path, whole);
    if (!inside)
        return syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int fd = syscall(SYS_openat, at, path, flags, mode);
    if (fd >= (int)sizeof watched)
        abort();
    if (fd >= 0) {
        watched[fd] = 1;
        emit(flags & O_TMPFILE & ~O_DIRECTORY ? OTHER : OPEN, fd, 0, flags, inside, "", "", 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(last)                                                                                                    \
    mode_t mode = 0;                                                                                                  \
    va_list more;                                                                                                     \
    va_start(more, last);                                                                                             \
    if ((last) & (O_CREAT | O_TMPFILE))                                                                               \
        mode = va_arg(more, int);                                                                                     \
    va_end(more)

int open(const char *path, int flags, ...) { MODE(flags); return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags); return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags); return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags); return opened(at, path, flags, mode); }
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* Make a call; when it concerns us and succeeds, write down what `record` says (its result is `done`). */
#define TOLD(type, ours, call, record)                                                                                \
    if (!(ours))                                                                                                      \
        return call;                                                                                                  \
    pthread_mutex_lock(&lock);                                                                                        \
    type done = call;                                                                                                 \
    if (done != (type)-1) {                                                                                           \
        record;                                                                                                       \
    }                                                                                                                 \
    pthread_mutex_unlock(&lock);                                                                                      \
    return done

static void wrote(int fd, int64_t at, const struct iovec *parts, int count, ssize_t done)
{
    if (at < 0)
        at = lseek(fd, 0, SEEK_CUR) - done;
    for (int i = 0; i < count && done > 0; i++) {
        ssize_t size = done < (ssize_t)parts[i].iov_len ? done : (ssize_t)parts[i].iov_len;
        emit(WRITE, fd, at, 0, "", "", parts[i].iov_base, size);
        at += size;
        done -= size;
    }
}

#define ONE(data, size) (&(struct iovec){(void *)(data), size}), 1

ssize_t write(int fd, const void *data, size_t size)
{ TOLD(ssize_t, WATCHED(fd), syscall(SYS_write, fd, data, size), wrote(fd, -1, ONE(data, size), done)); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{ TOLD(ssize_t, WATCHED(fd), syscall(SYS_pwrite64, fd, data, size, at), wrote(fd, at, ONE(data, size), done)); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{ TOLD(ssize_t, WATCHED(fd), syscall(SYS_pwrite64, fd, data, size, at), wrote(fd, at, ONE(data, size), done)); }
ssize_t writev(int fd, const struct iovec *parts, int count)
{ TOLD(ssize_t, WATCHED(fd), REAL(writev)(fd, parts, count), wrote(fd, -1, parts, count, done)); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{ TOLD(ssize_t, WATCHED(fd), REAL(pwritev)(fd, parts, count, at), wrote(fd, at, parts, count, done)); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at)
{ TOLD(ssize_t, WATCHED(fd), REAL(pwritev)(fd, parts, count, at), wrote(fd, at, parts, count, done)); }

int ftruncate(int fd, off_t size)
{ TOLD(int, WATCHED(fd), syscall(SYS_ftruncate, fd, size), emit(TRUNCATE, fd, size, 0, "", "", "", 0)); }
int ftruncate64(int fd, off64_t size)
{ TOLD(int, WATCHED(fd), syscall(SYS_ftruncate, fd, size), emit(TRUNCATE, fd, size, 0, "", "", "", 0)); }
int fsync(int fd) { TOLD(int, WATCHED(fd), syscall(SYS_fsync, fd), emit(SYNC, fd, 0, 0, "", "", "", 0)); }
int fdatasync(int fd) { TOLD(int, WATCHED(fd), syscall(SYS_fdatasync, fd), emit(SYNC, fd, 0, 0, "", "", "", 0)); }
int close(int fd)
{ TOLD(int, WATCHED(fd), syscall(SYS_close, fd), (watched[fd] = 0, emit(CLOSE, fd, 0, 0, "", "", "", 0))); }

static int copied(int fd, int done)
{
    if (done >= (int)sizeof watched)
        abort();
    watched[done] = 1;
    emit(DUP, fd, done, 0, "", "", "", 0);
    return done;
}
int dup(int fd) { TOLD(int, WATCHED(fd), syscall(SYS_dup, fd), copied(fd, done)); }
int dup2(int fd, int to)
{ TOLD(int, WATCHED(fd) || WATCHED(to), REAL(dup2)(fd, to), emit(OTHER, fd, 0, 0, "dup2", "", "", 0)); }

void *mmap(void *at, size_t size, int rights, int flags, int fd, off_t offset)
{
    if (WATCHED(fd) && (flags & MAP_SHARED) && (rights & PROT_WRITE)) {
        pthread_mutex_lock(&lock);
        emit(MAP, fd, offset, 0, "", "", "", 0);
        pthread_mutex_unlock(&lock);
    }
    return (void *)syscall(SYS_mmap, at, size, rights, flags, fd, offset);
}
void *mmap64(void *at, size_t size, int rights, int flags, int fd, off64_t offset)
{ return mmap(at, size, rights, flags, fd, offset); }

/* Calls with one path or two; the root's parent is nobody's business. */
#define ONE_PATH(op, at, path, flags, call)                                                                           \
    char a[PATH_MAX];                                                                                                 \
    const char *one = below(at, path, a);                                                                             \
    TOLD(int, one, call, emit(op, -1, 0, flags, one, "", "", 0))
#define TWO_PATHS(op, at, path, to_at, to_path, call)                                                                 \
    char a[PATH_MAX], b[PATH_MAX];                                                                                    \
    const char *one = below(at, path, a), *two = below(to_at, to_path, b);                                            \
    TOLD(int, one || two, call, emit(one && two ? op : OTHER, -1, 0, 0, one ? one : "", two ? two : "", "", 0))

int unlink(const char *path) { ONE_PATH(UNLINK, AT_FDCWD, path, 0, syscall(SYS_unlinkat, AT_FDCWD, path, 0)); }
int unlinkat(int at, const char *path, int flags)
{ ONE_PATH(UNLINK, at, path, flags, syscall(SYS_unlinkat, at, path, flags)); }
int remove(const char *path) { ONE_PATH(OTHER, AT_FDCWD, path, 0, REAL(remove)(path)); }
int rmdir(const char *path)
{ ONE_PATH(UNLINK, AT_FDCWD, path, AT_REMOVEDIR, syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR)); }
int mkdir(const char *path, mode_t mode)
{ ONE_PATH(MKDIR, AT_FDCWD, path, 0, syscall(SYS_mkdirat, AT_FDCWD, path, mode)); }
int mkdirat(int at, const char *path, mode_t mode)
{ ONE_PATH(MKDIR, at, path, 0, syscall(SYS_mkdirat, at, path, mode)); }
int truncate(const char *path, off_t size) { ONE_PATH(OTHER, AT_FDCWD, path, 0, REAL(truncate)(path, size)); }
int truncate64(const char *path, off64_t size) { ONE_PATH(OTHER, AT_FDCWD, path, 0, REAL(truncate)(path, size)); }
int symlink(const char *to, const char *path)
{ ONE_PATH(OTHER, AT_FDCWD, path, 0, syscall(SYS_symlinkat, to, AT_FDCWD, path)); }
int rename(const char *path, const char *to)
{ TWO_PATHS(RENAME, AT_FDCWD, path, AT_FDCWD, to, syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, to, 0)); }
int renameat(int at, const char *path, int to_at, const char *to)
{ TWO_PATHS(RENAME, at, path, to_at, to, syscall(SYS_renameat2, at, path, to_at, to, 0)); }
int renameat2(int at, const char *path, int to_at, const char *to, unsigned flags)
{ TWO_PATHS(flags ? OTHER : RENAME, at, path, to_at, to, syscall(SYS_renameat2, at, path, to_at, to, flags)); }
int link(const char *path, const char *to)
{ TWO_PATHS(LINK, AT_FDCWD, path, AT_FDCWD, to, syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, to, 0)); }
int linkat(int at, const char *path, int to_at, const char *to, int flags)
{ TWO_PATHS(LINK, at, path, to_at, to, syscall(SYS_linkat, at, path, to_at, to, flags)); }

/* Room made before it is written, copies within the kernel: nothing here uses them yet. */
#define NOT_UNDERSTOOD(name, call) TOLD(__typeof__(call), WATCHED(fd), call, emit(OTHER, fd, 0, 0, name, "", "", 0))
int fallocate(int fd, int mode, off_t at, off_t size)
{ NOT_UNDERSTOOD("fallocate", REAL(fallocate)(fd, mode, at, size)); }
int fallocate64(int fd, int mode, off64_t at, off64_t size)
{ NOT_UNDERSTOOD("fallocate", REAL(fallocate)(fd, mode, at, size)); }
int posix_fallocate(int fd, off_t at, off_t size)
{ NOT_UNDERSTOOD("posix_fallocate", REAL(posix_fallocate)(fd, at, size)); }
int posix_fallocate64(int fd, off64_t at, off64_t size)
{ NOT_UNDERSTOOD("posix_fallocate", REAL(posix_fallocate)(fd, at, size)); }
ssize_t copy_file_range(int from, off64_t *from_at, int fd, off64_t *at, size_t size, unsigned flags)
{ NOT_UNDERSTOOD("copy_file_range", REAL(copy_file_range)(from, from_at, fd, at, size, flags)); }

/* Called by the process itself: what was promised to others by now. */
void powercut_mark(const char *text)
{
    pthread_mutex_lock(&lock);
    emit(MARK, -1, 0, 0, text, "", "", 0);
    pthread_mutex_unlock(&lock);
}

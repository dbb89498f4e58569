// Records what a process does to the files below one directory, in the order in which it did it: a library that is loaded
// before libc (LD_PRELOAD) and stands in front of its calls.
//
// COFFERDAM_POWER_LOSS_DIRECTORY is the directory, COFFERDAM_POWER_LOSS_LOG the file that records are appended to. Every
// call and its record happen under one lock, so the order of the log is that of the calls. What is written to standard
// output is recorded as well: it tells what had been acknowledged at each moment.
//
// A call of the kernel that does not go through libc, or a write through a mapping, is not seen. The reader of the log finds
// that out by comparing what it knows with what is there in the end.
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
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum operation {
  CREATE = 1, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, MKDIR, RMDIR, LINK, SYNC_DIRECTORY, MARK, UNSUPPORTED,
};

// A record is this, then the first path, the second, and the data. Numbers are as the machine has them.
struct header {
  uint64_t operation, inode, offset, path_length, second_length, data_length;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_file = -1;
static char root[PATH_MAX];

__attribute__((constructor)) static void begin(void) {
  const char *directory = getenv("COFFERDAM_POWER_LOSS_DIRECTORY"), *log = getenv("COFFERDAM_POWER_LOSS_LOG");
  if (!directory || !log || !realpath(directory, root)) return;
  log_file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static void record(enum operation operation, uint64_t inode, uint64_t offset, const char *path, const char *second,
                   const void *data, size_t length) {
  struct header header = {operation, inode, offset, path ? strlen(path) : 0, second ? strlen(second) : 0, length};
  struct iovec parts[] = {{&header, sizeof header}, {(void *)path, header.path_length},
                          {(void *)second, header.second_length}, {(void *)data, length}};
  size_t total = sizeof header + header.path_length + header.second_length + length;
  // A log with a hole is worse than none.
  if (syscall(SYS_writev, log_file, parts, 4) != (long)total) abort();
}

static int inside(const char *path) {
  size_t length = strlen(root);
  return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

// The path of an open file, if it is in the directory.
static int path_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return inside(path);
}

// The absolute path of a name, whose last part need not be there.
static int absolute(int directory, const char *name, char *path) {
  char whole[2 * PATH_MAX], parent[PATH_MAX];
  if (name[0] == '/') snprintf(whole, sizeof whole, "%s", name);
  else {
    char base[PATH_MAX];
    if (directory == AT_FDCWD) {
      if (!getcwd(base, sizeof base)) return 0;
    } else {
      char link[64];
      snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
      ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
      if (length < 0) return 0;
      base[length] = 0;
    }
    snprintf(whole, sizeof whole, "%s/%s", base, name);
  }
  char *slash = strrchr(whole, '/');
  if (!slash) return 0;
  *slash = 0;
  if (!realpath(whole[0] ? whole : "/", parent)) return 0;
  if (strlen(parent) + strlen(slash + 1) + 2 > PATH_MAX) return 0;
  sprintf(path, "%s/%s", parent, slash + 1);
  return inside(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define BEGIN int saved; pthread_mutex_lock(&lock)
#define END saved = errno; pthread_mutex_unlock(&lock); errno = saved

static int open_recorded(int directory, const char *name, int flags, mode_t mode) {
  char path[PATH_MAX];
  struct stat before, after;
  BEGIN;
  int making = (flags & O_CREAT) && syscall(SYS_newfstatat, directory, name, &before, AT_SYMLINK_NOFOLLOW) != 0;
  int fd = (int)syscall(SYS_openat, directory, name, flags, mode);
  if (fd >= 0 && log_file >= 0 && path_of(fd, path) && fstat(fd, &after) == 0 && S_ISREG(after.st_mode)) {
    if (making) record(CREATE, after.st_ino, 0, path, NULL, NULL, 0);
    else if ((flags & O_TMPFILE) == O_TMPFILE) record(CREATE, after.st_ino, 0, NULL, NULL, NULL, 0);
    else if (flags & O_TRUNC) record(TRUNCATE, after.st_ino, 0, NULL, NULL, NULL, 0);
  }
  END;
  return fd;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *name, int flags, ...) { MODE return open_recorded(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE return open_recorded(AT_FDCWD, name, flags | O_LARGEFILE, mode); }
int openat(int at, const char *name, int flags, ...) { MODE return open_recorded(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE return open_recorded(at, name, flags | O_LARGEFILE, mode); }
int creat(const char *name, mode_t mode) { return open_recorded(AT_FDCWD, name, O_WRONLY | O_CREAT | O_TRUNC, mode); }

// Whether writes to an open file are recorded, and where they would go.
static int followed(int fd, struct stat *file, int64_t *offset) {
  char path[PATH_MAX];
  if (log_file < 0 || fstat(fd, file) != 0 || !S_ISREG(file->st_mode) || !path_of(fd, path)) return 0;
  if (offset && *offset < 0) *offset = (fcntl(fd, F_GETFL) & O_APPEND) ? file->st_size : lseek(fd, 0, SEEK_CUR);
  return 1;
}

static void wrote(int fd, int is_followed, const struct stat *file, int64_t offset, const void *data, ssize_t length) {
  if (length <= 0 || log_file < 0) return;
  if (is_followed) record(WRITE, file->st_ino, (uint64_t)offset, NULL, NULL, data, (size_t)length);
  else if (fd == 1) record(MARK, 0, 0, NULL, NULL, data, (size_t)length);
}

static ssize_t write_recorded(int fd, const void *data, size_t length, int64_t at) {
  struct stat file;
  BEGIN;
  int64_t offset = at;
  int is_followed = followed(fd, &file, &offset);
  ssize_t done = at < 0 ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, at);
  wrote(fd, is_followed, &file, offset, data, done);
  END;
  return done;
}

ssize_t write(int fd, const void *data, size_t length) { return write_recorded(fd, data, length, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return write_recorded(fd, data, length, at); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) { return write_recorded(fd, data, length, at); }

// In one piece after the other, each of which may be the last, as the contract of the call allows.
static ssize_t pieces(int fd, const struct iovec *parts, int count, int64_t at) {
  ssize_t total = 0;
  for (int i = 0; i < count; i++) {
    if (parts[i].iov_len == 0) continue;
    ssize_t done = write_recorded(fd, parts[i].iov_base, parts[i].iov_len, at < 0 ? at : at + total);
    if (done < 0) return total ? total : done;
    total += done;
    if ((size_t)done < parts[i].iov_len) break;
  }
  return total;
}
ssize_t writev(int fd, const struct iovec *parts, int count) { return pieces(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pieces(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return pieces(fd, parts, count, at); }

static int truncate_recorded(int fd, int64_t length) {
  struct stat file;
  BEGIN;
  int is_followed = followed(fd, &file, NULL);
  int done = (int)syscall(SYS_ftruncate, fd, length);
  if (done == 0 && is_followed) record(TRUNCATE, file.st_ino, (uint64_t)length, NULL, NULL, NULL, 0);
  END;
  return done;
}
int ftruncate(int fd, off_t length) { return truncate_recorded(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncate_recorded(fd, length); }

// Callers have another way for each of these.
ssize_t copy_file_range(int a, off64_t *b, int c, off64_t *d, size_t e, unsigned f) { (void)a; (void)b; (void)c; (void)d; (void)e; (void)f; errno = ENOSYS; return -1; }
ssize_t sendfile(int a, int b, off_t *c, size_t d) { (void)a; (void)b; (void)c; (void)d; errno = EINVAL; return -1; }
ssize_t sendfile64(int a, int b, off64_t *c, size_t d) { (void)a; (void)b; (void)c; (void)d; errno = EINVAL; return -1; }
ssize_t splice(int a, off64_t *b, int c, off64_t *d, size_t e, unsigned f) { (void)a; (void)b; (void)c; (void)d; (void)e; (void)f; errno = EINVAL; return -1; }
int fallocate(int a, int b, off_t c, off_t d) { (void)a; (void)b; (void)c; (void)d; errno = EOPNOTSUPP; return -1; }
int fallocate64(int a, int b, off64_t c, off64_t d) { (void)a; (void)b; (void)c; (void)d; errno = EOPNOTSUPP; return -1; }
int posix_fallocate(int a, off_t b, off_t c) { (void)a; (void)b; (void)c; return EOPNOTSUPP; }
int posix_fallocate64(int a, off64_t b, off64_t c) { (void)a; (void)b; (void)c; return EOPNOTSUPP; }

static int sync_recorded(int fd, long number) {
  struct stat file;
  char path[PATH_MAX];
  BEGIN;
  int done = (int)syscall(number, fd);
  if (done == 0 && log_file >= 0 && fstat(fd, &file) == 0 && path_of(fd, path)) {
    if (S_ISDIR(file.st_mode)) record(SYNC_DIRECTORY, file.st_ino, 0, path, NULL, NULL, 0);
    else record(SYNC, file.st_ino, 0, NULL, NULL, NULL, 0);
  }
  END;
  return done;
}
int fsync(int fd) { return sync_recorded(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_recorded(fd, SYS_fdatasync); }

static int rename_recorded(int from, const char *old, int to, const char *new, unsigned flags) {
  char path[PATH_MAX], second[PATH_MAX];
  struct stat file;
  BEGIN;
  int leaves = absolute(from, old, path), comes = absolute(to, new, second);
  int done = (int)syscall(SYS_renameat2, from, old, to, new, flags);
  if (done == 0 && log_file >= 0 && (leaves || comes)) {
    int is_file = syscall(SYS_newfstatat, to, new, &file, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(file.st_mode);
    // The rest of what rename can do is not replayed.
    int simple = leaves && comes && is_file && (flags == 0 || flags == 1);
    record(simple ? RENAME : UNSUPPORTED, 0, 0, path, second, NULL, 0);
  }
  END;
  return done;
}
int rename(const char *old, const char *new) { return rename_recorded(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return rename_recorded(from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) { return rename_recorded(from, old, to, new, flags); }

static int unlink_recorded(int at, const char *name, int flags) {
  char path[PATH_MAX];
  BEGIN;
  int is_inside = absolute(at, name, path);
  int done = (int)syscall(SYS_unlinkat, at, name, flags);
  if (done == 0 && log_file >= 0 && is_inside) record(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, path, NULL, NULL, 0);
  END;
  return done;
}
int unlink(const char *name) { return unlink_recorded(AT_FDCWD, name, 0); }
int unlinkat(int at, const char *name, int flags) { return unlink_recorded(at, name, flags); }
int rmdir(const char *name) { return unlink_recorded(AT_FDCWD, name, AT_REMOVEDIR); }

static int mkdir_recorded(int at, const char *name, mode_t mode) {
  char path[PATH_MAX];
  BEGIN;
  int done = (int)syscall(SYS_mkdirat, at, name, mode);
  if (done == 0 && log_file >= 0 && absolute(at, name, path)) record(MKDIR, 0, 0, path, NULL, NULL, 0);
  END;
  return done;
}
int mkdir(const char *name, mode_t mode) { return mkdir_recorded(AT_FDCWD, name, mode); }
int mkdirat(int at, const char *name, mode_t mode) { return mkdir_recorded(at, name, mode); }

static int link_recorded(int from, const char *old, int to, const char *new, int flags) {
  char path[PATH_MAX];
  struct stat file;
  BEGIN;
  int done = (int)syscall(SYS_linkat, from, old, to, new, flags);
  if (done == 0 && log_file >= 0 && absolute(to, new, path) &&
      syscall(SYS_newfstatat, to, new, &file, AT_SYMLINK_NOFOLLOW) == 0)
    record(LINK, file.st_ino, 0, path, NULL, NULL, 0);
  END;
  return done;
}
int link(const char *old, const char *new) { return link_recorded(AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int from, const char *old, int to, const char *new, int flags) { return link_recorded(from, old, to, new, flags); }

/* A disk that fails: preloaded into `millpond serve` by the tests (tests/support/faults.rs), it stands between the process and the
 * files below FAULTS_ROOT. What it is told to do is in the words of FAULTS_CONTROL, a file that both sides map; see `enum word`.
 *
 * A power cut (CUT) kills the process and leaves on disk what a device may hold then:
 *  - of a file: what was there at its last fsync or fdatasync, and of later writes nothing, all, or a part. A part is a prefix that
 *    ends at any byte, with pages in it that never came down (zeros), and of overwritten pages the old ones, the new ones, or both,
 *    by sectors. sync_file_range promises nothing.
 *  - of a directory: the creations, renames, links and removals since its last fsync are undone from the newest back to any of them.
 *    That a file was synced does not keep its name. A directory is known by the path it is opened by, without more in it than names.
 * Not modelled: a new directory is there at once, and what a process left behind that did not die by a CUT counts as written.
 * The process writes with the calls below and no others; CUT compares the lengths of files with what went through here, and ends the
 * process with status 99 instead if somebody found another way (mmap, a copied descriptor, aio).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Words of the control file, u64 each. The test writes all but OPS, HITS and FIRED; AT last, as it arms. */
enum word { OPS, HITS, FIRED, CLASSES, KINDS, AT, COUNT, ACTION, ERRNO, SEED, AFTER, FULL, WORDS };
/* What a call does, and to which file; CLASSES and KINDS are sums of those that count for AT. */
enum class { CREATE = 1, WRITE = 2, SYNC = 4, DIRSYNC = 8, RENAME = 16, UNLINK = 32, ALLOC = 64, TRUNCATE = 128, READ = 256, LINK = 512, POINT = 1024 };
enum kind { WAL = 1, TABLE = 2, MANIFEST = 4, CURRENT = 8, OTHER = 16, FIRST_POINT = 32 };
/* What happens at the AT-th call that counts, and at the COUNT - 1 that follow. */
enum action { NONE, CUT, KILL, FAIL, SHORTEN, FLIP };

#define POINTS "/crash-points/" /* below the root */
enum { PAGE = 4096, SECTOR = 512, FDS = 65536, NAME = 4096 };

struct page { off_t at; ssize_t size; struct page *next; char old[PAGE]; };
struct file {
    dev_t dev;
    ino_t ino;
    int own, kind;
    off_t length, durable; /* now, and at the last sync */
    struct page *saved;    /* pages below `durable` as they were at the last sync, of those that changed since */
    struct file *next;
};
struct change { enum class class; char *directory, *from, *to, *grave; int undone; struct change *next; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile uint64_t *control;
static char root[NAME], graves[NAME];
static size_t root_length;
static struct file *files, *open_files[FDS];
static char *open_directories[FDS];
static struct change *changes; /* newest first */
static unsigned long grave_count;
static uint64_t chance;

static uint64_t draw(uint64_t below) { /* SplitMix64 */
    uint64_t z = (chance += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return below ? (z ^ (z >> 31)) % below : 0;
}

static void give_up(const char *why, const char *what) {
    char text[NAME + 200];
    int size = snprintf(text, sizeof text, "faults: %s: %s\n", why, what);
    syscall(SYS_write, 2, text, size);
    syscall(SYS_exit_group, 99);
}

__attribute__((constructor)) static void begin(void) {
    const char *under = getenv("FAULTS_ROOT"), *file = getenv("FAULTS_CONTROL"), *side = getenv("FAULTS_GRAVES");
    if (!under || !file || !side || strlen(under) >= NAME / 2 || strlen(side) >= NAME / 2) return;
    int fd = syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0);
    void *map = mmap(NULL, WORDS * sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || map == MAP_FAILED) give_up("the control file cannot be mapped", file);
    syscall(SYS_close, fd);
    strcpy(root, under);
    strcpy(graves, side);
    control = map;
    chance = control[SEED];
    root_length = strlen(root);
}

/* Whether a path is the root, or one of the store's or the lake's below. What RocksDB says in LOG and the LOCK are nobody's data. */
static int watched(const char *path) {
    if (!root_length || !path || strncmp(path, root, root_length) || (path[root_length] && path[root_length] != '/')) return 0;
    const char *name = strrchr(path, '/') + 1;
    return strncmp(name, "LOG", 3) && strcmp(name, "LOCK");
}

static int kind_of(const char *path) {
    const char *name = strrchr(path, '/') + 1, *end = strrchr(name, '.');
    if (end && !strcmp(end, ".log")) return WAL;
    if (end && !strcmp(end, ".sst")) return TABLE;
    if (!strncmp(name, "MANIFEST", 8)) return MANIFEST;
    return !strcmp(name, "CURRENT") || (end && !strcmp(end, ".dbtmp")) ? CURRENT : OTHER;
}

/* A look for a file that is never there says that the server has come to a place of this name (broker/src/crash_point.rs). */
static int is_point(const char *path) {
    size_t size = strlen(POINTS);
    return !strncmp(path + root_length, POINTS, size);
}

static int point_of(const char *path) {
    static const char *const names[] = {"opened", "taken",        "written",        "synced",     "published", "retained", "compacted",
                                        "moved",  "bucket-added", "bucket-leaving", "bucket-gone"};
    const char *name = strrchr(path, '/') + 1;
    for (size_t at = 0; at < sizeof names / sizeof *names; at++)
        if (!strcmp(name, names[at])) return FIRST_POINT << at;
    give_up("a crash point that has no number here", path);
    return 0;
}

static struct file *file_of(int fd) { return fd >= 0 && fd < FDS ? open_files[fd] : NULL; }

/* --- what the last sync left ------------------------------------------------------------------------------------------------- */

/* Keeps the pages of [from, to) as they were at the last sync, before they change. */
static void save(struct file *file, off_t from, off_t to) {
    if (to > file->durable) to = file->durable;
    for (off_t at = from / PAGE * PAGE; at < to; at += PAGE) {
        struct page *page = file->saved;
        while (page && page->at != at) page = page->next;
        if (page) continue;
        if (!(page = malloc(sizeof *page))) give_up("no memory", "");
        ssize_t size = file->durable - at < PAGE ? file->durable - at : PAGE;
        page->at = at;
        page->size = syscall(SYS_pread64, file->own, page->old, size, at);
        if (page->size != size) give_up("a page cannot be read before it changes", "");
        page->next = file->saved;
        file->saved = page;
    }
}

static void forget_pages(struct file *file) {
    for (struct page *page = file->saved; page; page = file->saved) {
        file->saved = page->next;
        free(page);
    }
}

static void synced(struct file *file) {
    file->durable = file->length;
    forget_pages(file);
}

/* The file that was opened for writing before, here or elsewhere. */
static struct file *known(int fd, struct stat *stat) {
    if (fstat(fd, stat)) return NULL;
    struct file *file = files;
    while (file && (file->dev != stat->st_dev || file->ino != stat->st_ino)) file = file->next;
    return file;
}

/* The file behind a descriptor that was just opened for writing. */
static struct file *meet(int fd, const char *path, int created) {
    struct stat stat;
    char self[64];
    struct file *file = known(fd, &stat);
    if (file) return file;
    if (!(file = calloc(1, sizeof *file))) give_up("no memory", "");
    file->next = files;
    files = file;
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    file->own = syscall(SYS_openat, AT_FDCWD, self, O_RDWR | O_CLOEXEC, 0);
    if (file->own < 0) give_up("a file cannot be opened a second time", path);
    file->dev = stat.st_dev;
    file->ino = stat.st_ino;
    file->kind = kind_of(path);
    file->length = stat.st_size;
    file->durable = created ? 0 : stat.st_size;
    return file;
}

static void changed(enum class class, const char *from, const char *to, char *grave) {
    struct change *change = calloc(1, sizeof *change);
    if (!change) give_up("no memory", "");
    change->class = class;
    change->from = from ? strdup(from) : NULL;
    change->to = strdup(to);
    change->directory = strdup(to);
    *strrchr(change->directory, '/') = 0;
    change->grave = grave;
    change->next = changes;
    changes = change;
}

/* Keeps what has this name, which it is about to lose; NULL when nothing has it. */
static char *bury(const char *path) {
    char *grave;
    if (asprintf(&grave, "%s/%d-%lu", graves, getpid(), grave_count++) < 0) give_up("no memory", "");
    if (!syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, grave, 0)) return grave;
    free(grave);
    return NULL;
}

/* Forgets a file for good if this is its last name, and the name. */
static void dispose(const char *grave) {
    struct stat stat;
    int last = !lstat(grave, &stat) && stat.st_nlink == 1;
    syscall(SYS_unlinkat, AT_FDCWD, grave, 0);
    for (struct file **at = &files; last && *at; at = &(*at)->next) {
        struct file *file = *at;
        if (file->dev != stat.st_dev || file->ino != stat.st_ino) continue;
        for (int fd = 0; fd < FDS; fd++)
            if (open_files[fd] == file) open_files[fd] = NULL;
        *at = file->next;
        forget_pages(file);
        syscall(SYS_close, file->own);
        free(file);
        return;
    }
}

static void directory_synced(const char *directory) {
    for (struct change **at = &changes; *at;) {
        struct change *change = *at;
        if (strcmp(change->directory, directory)) {
            at = &change->next;
            continue;
        }
        *at = change->next;
        if (change->grave) dispose(change->grave);
        free(change->from), free(change->to), free(change->directory), free(change->grave), free(change);
    }
}

/* --- the power cut ----------------------------------------------------------------------------------------------------------- */

static void put(struct file *file, const char *bytes, ssize_t size, off_t at) {
    if (syscall(SYS_pwrite64, file->own, bytes, size, at) != size) give_up("the cut cannot be made", "");
}

static void cut_file(struct file *file) {
    static const char zeros[PAGE];
    struct stat stat;
    if (fstat(file->own, &stat) || stat.st_size != file->length) give_up("a file was written past this layer", "");
    uint64_t fate = draw(10);
    if (fate < 2) return; /* all of it came down in time */
    off_t end = file->length;
    if (fate >= 5 && end > file->durable) end = file->durable + draw(end - file->durable + 1);
    if (fate < 5) end = file->durable;
    for (off_t at = (file->durable + PAGE - 1) / PAGE * PAGE; fate >= 8 && at < end; at += PAGE)
        if (!draw(4)) put(file, zeros, end - at < PAGE ? end - at : PAGE, at);
    for (struct page *page = file->saved; page; page = page->next)
        for (off_t at = 0; at < page->size; at += SECTOR)
            if (fate < 5 || draw(2)) put(file, page->old + at, page->size - at < SECTOR ? page->size - at : SECTOR, page->at + at);
    if (fstat(file->own, &stat) || (stat.st_size > end && syscall(SYS_ftruncate, file->own, end))) give_up("the cut cannot be made", "");
}

static void undo(struct change *change) {
    if (change->class == RENAME)
        syscall(SYS_renameat2, AT_FDCWD, change->to, AT_FDCWD, change->from, 0);
    else if (change->class != UNLINK)
        syscall(SYS_unlinkat, AT_FDCWD, change->to, 0);
    if (change->grave) syscall(SYS_linkat, AT_FDCWD, change->grave, AT_FDCWD, change->to, 0);
}

static void cut(void) {
    for (struct file *file = files; file; file = file->next)
        if (file->length != file->durable || file->saved) cut_file(file);
    for (struct change *change = changes; change; change = change->next) {
        if (change->undone) continue;
        uint64_t all = 0, lost;
        for (struct change *other = change; other; other = other->next) all += !strcmp(other->directory, change->directory);
        uint64_t fate = draw(4);
        lost = fate == 0 ? 0 : fate == 1 ? all : draw(all + 1);
        for (struct change *other = change; other; other = other->next)
            if (!strcmp(other->directory, change->directory)) other->undone = lost ? lost--, 2 : 1;
    }
    for (struct change *change = changes; change; change = change->next)
        if (change->undone == 2) undo(change);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* --- what the test asks for -------------------------------------------------------------------------------------------------- */

/* Counts a call; the action that the test wants now, if it is one of these. CUT and KILL do not return. */
static enum action due(enum class class, int kind, int after) {
    if (!after) control[OPS]++;
    if (!control[AT] || !(control[CLASSES] & class) || !(control[KINDS] & kind) || control[AFTER] != (uint64_t)after) return NONE;
    uint64_t hit = ++control[HITS];
    if (hit < control[AT] || hit - control[AT] >= control[COUNT]) return NONE;
    control[FIRED]++;
    enum action action = control[ACTION];
    if (action == CUT) cut();
    if (action == CUT || action == KILL) die();
    return action;
}

/* A failing call: -1 and errno. */
static int failed(enum action action) {
    if (action != FAIL) return 0;
    errno = control[ERRNO];
    return 1;
}

static ssize_t write_watched(struct file *file, int fd, const char *bytes, size_t size, off_t given, int placed) {
    off_t at = given;
    if (!placed) at = fcntl(fd, F_GETFL) & O_APPEND ? file->length : lseek(fd, 0, SEEK_CUR);
    enum action action = due(WRITE, file->kind, 0);
    size_t wanted = size;
    char *copy = NULL;
    if (action == SHORTEN && size > 1) wanted = 1 + draw(size - 1);
    if (action == FAIL) wanted = draw(2) ? draw(size) : 0; /* a part may come down all the same */
    if (action == FLIP && size && (copy = malloc(size))) {
        memcpy(copy, bytes, size);
        copy[draw(size)] ^= 1 << draw(8);
        bytes = copy;
    }
    save(file, at, at + wanted);
    ssize_t done = wanted || action != FAIL ? placed ? syscall(SYS_pwrite64, fd, bytes, wanted, at) : syscall(SYS_write, fd, bytes, wanted) : 0;
    int error = errno;
    free(copy);
    if (done > 0 && at + done > file->length) file->length = at + done;
    errno = error;
    if (failed(action)) return -1;
    if (done >= 0) due(WRITE, file->kind, 1);
    return done;
}

static int truncate_watched(struct file *file, int fd, off_t size) {
    if (failed(due(TRUNCATE, file->kind, 0))) return -1;
    if (size < file->length) save(file, size, file->length);
    int done = syscall(SYS_ftruncate, fd, size);
    if (!done) file->length = size;
    return done;
}

static int open_watched(const char *path, int flags, mode_t mode) {
    if (is_point(path)) {
        due(POINT, point_of(path), 0);
        errno = ENOENT;
        return -1;
    }
    struct stat stat;
    int exists = !lstat(path, &stat), creates = flags & O_CREAT && !exists;
    if (creates && failed(due(CREATE, kind_of(path), 0))) return -1;
    int fd = syscall(SYS_openat, AT_FDCWD, path, flags & ~O_TRUNC, mode);
    if (fd < 0 || fd >= FDS) return fd;
    if (exists && S_ISDIR(stat.st_mode)) {
        char end = path[strlen(path) - 1];
        if (end == '/' || end == '.' || strstr(path, "//") || strstr(path, "/./") || strstr(path, "/../"))
            give_up("a directory has more in its path than names", path);
        open_directories[fd] = strdup(path);
        return fd;
    }
    if ((flags & O_ACCMODE) == O_RDONLY) {
        static struct file readers[OTHER + 1]; /* nobody writes through these: they say what is read */
        struct file *reader = &readers[kind_of(path)];
        reader->kind = kind_of(path);
        reader->own = -1;
        open_files[fd] = reader;
        return fd;
    }
    open_files[fd] = meet(fd, path, creates);
    if (creates) {
        changed(CREATE, NULL, path, NULL);
        due(CREATE, kind_of(path), 1);
    } else if (flags & O_TRUNC && open_files[fd]) {
        truncate_watched(open_files[fd], fd, 0);
    }
    return fd;
}

static int sync_watched(int fd) {
    struct file *file = file_of(fd);
    const char *directory = fd >= 0 && fd < FDS ? open_directories[fd] : NULL;
    enum class class = directory ? DIRSYNC : SYNC;
    int kind = directory ? OTHER : file->kind;
    struct stat stat;
    if (failed(due(class, kind, 0))) return -1;
    if (directory) directory_synced(directory);
    else if ((file = file->own < 0 ? known(fd, &stat) : file)) synced(file);
    due(class, kind, 1);
    return 0; /* the device itself is left in peace: what counts is what this layer would drop */
}

static int rename_watched(const char *from, const char *to) {
    if (failed(due(RENAME, kind_of(to), 0))) return -1;
    char *grave = bury(to);
    int done = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (done) return done;
    changed(RENAME, from, to, grave);
    due(RENAME, kind_of(to), 1);
    return 0;
}

static int unlink_watched(const char *path) {
    if (failed(due(UNLINK, kind_of(path), 0))) return -1;
    char *grave = bury(path);
    int done = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (done) return done;
    changed(UNLINK, NULL, path, grave);
    due(UNLINK, kind_of(path), 1);
    return 0;
}

static int link_watched(const char *from, const char *to) {
    if (failed(due(LINK, kind_of(to), 0))) return -1;
    int done = syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (!done) changed(LINK, NULL, to, NULL);
    return done;
}

/* --- the calls --------------------------------------------------------------------------------------------------------------- */

#define LOCKED(type, call)           \
    do {                             \
        pthread_mutex_lock(&lock);   \
        type locked_ = (call);       \
        int error_ = errno;          \
        pthread_mutex_unlock(&lock); \
        errno = error_;              \
        return locked_;              \
    } while (0)

static int open_any(const char *path, int flags, mode_t mode) {
    if (!watched(path)) return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    LOCKED(int, open_watched(path, flags, mode));
}

#define OPEN(name)                                              \
    int name(const char *path, int flags, ...) {                \
        va_list rest;                                           \
        va_start(rest, flags);                                  \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                           \
        return open_any(path, flags, mode);                     \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    if (fd >= 0 && fd < FDS && (open_files[fd] || open_directories[fd])) {
        pthread_mutex_lock(&lock);
        open_files[fd] = NULL;
        free(open_directories[fd]);
        open_directories[fd] = NULL;
        pthread_mutex_unlock(&lock);
    }
    return syscall(SYS_close, fd);
}

ssize_t write(int fd, const void *bytes, size_t size) {
    struct file *file = file_of(fd);
    if (!file || file->own < 0) return syscall(SYS_write, fd, bytes, size);
    LOCKED(ssize_t, write_watched(file, fd, bytes, size, 0, 0));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct file *file = file_of(fd);
    if (!file || file->own < 0) return syscall(SYS_writev, fd, parts, count);
    for (int i = 0; i < count; i++) /* as few bytes as one likes may be taken at a time */
        if (parts[i].iov_len) return write(fd, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
    struct file *file = file_of(fd);
    if (!file || file->own < 0) return syscall(SYS_pwrite64, fd, bytes, size, at);
    LOCKED(ssize_t, write_watched(file, fd, bytes, size, at, 1));
}
ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t at) { return pwrite(fd, bytes, size, at); }

static ssize_t read_watched(struct file *file, int fd, char *bytes, size_t size, off_t at, int placed) {
    enum action action = due(READ, file->kind, 0);
    if (failed(action)) return -1;
    ssize_t done = placed ? syscall(SYS_pread64, fd, bytes, size, at) : syscall(SYS_read, fd, bytes, size);
    if (done > 0 && action == FLIP) bytes[draw(done)] ^= 1 << draw(8);
    return done;
}

ssize_t read(int fd, void *bytes, size_t size) {
    struct file *file = file_of(fd);
    if (!file) return syscall(SYS_read, fd, bytes, size);
    LOCKED(ssize_t, read_watched(file, fd, bytes, size, 0, 0));
}

ssize_t pread(int fd, void *bytes, size_t size, off_t at) {
    struct file *file = file_of(fd);
    if (!file) return syscall(SYS_pread64, fd, bytes, size, at);
    LOCKED(ssize_t, read_watched(file, fd, bytes, size, at, 1));
}
ssize_t pread64(int fd, void *bytes, size_t size, off_t at) { return pread(fd, bytes, size, at); }

static int sync_any(int fd, long number) {
    if (!file_of(fd) && (fd < 0 || fd >= FDS || !open_directories[fd])) return syscall(number, fd);
    LOCKED(int, sync_watched(fd));
}
int fsync(int fd) { return sync_any(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync); }
int sync_file_range(int fd, off64_t from, off64_t size, unsigned flags) {
    return file_of(fd) ? 0 : syscall(SYS_sync_file_range, fd, from, size, flags);
}

int ftruncate(int fd, off_t size) {
    struct file *file = file_of(fd);
    if (!file || file->own < 0) return syscall(SYS_ftruncate, fd, size);
    LOCKED(int, truncate_watched(file, fd, size));
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

/* Space alone, beyond the file's end: nothing that a cut must undo. */
int fallocate(int fd, int mode, off_t from, off_t size) {
    struct file *file = file_of(fd);
    if (!file) return syscall(SYS_fallocate, fd, mode, from, size);
    if (!(mode & FALLOC_FL_KEEP_SIZE)) give_up("fallocate that changes a file's length is not modelled", "");
    pthread_mutex_lock(&lock);
    int fails = failed(due(ALLOC, file->kind, 0)), error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return fails ? -1 : syscall(SYS_fallocate, fd, mode, from, size);
}

int rename(const char *from, const char *to) {
    if (!watched(from) && !watched(to)) return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    LOCKED(int, rename_watched(from, to));
}

int unlink(const char *path) {
    if (!watched(path)) return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    LOCKED(int, unlink_watched(path));
}

int link(const char *from, const char *to) {
    if (!watched(to)) return syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    LOCKED(int, link_watched(from, to));
}
int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    if (!watched(to) || *from != '/') return syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
    LOCKED(int, link_watched(from, to));
}

/* A full disk is seen before it is met. */
int statvfs(const char *path, struct statvfs *found) {
    int (*real)(const char *, struct statvfs *) = (int (*)(const char *, struct statvfs *))dlsym(RTLD_NEXT, "statvfs");
    int done = real(path, found);
    if (!done && control && control[FULL]) found->f_bavail = found->f_bfree = 0;
    return done;
}
int statvfs64(const char *path, struct statvfs64 *found) { return statvfs(path, (struct statvfs *)found); }

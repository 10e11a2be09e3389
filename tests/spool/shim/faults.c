/* Faults of a disk, and a disk that forgets what was not synced. Preloaded into a Python program under test.
 *
 * FAULTS names a directory. While it holds a file "fsync", "write" or "read", calls of that kind fail on the files whose
 * path contains one of the lines of that file, or ends with it if "$" follows. The error is the one whose number is in a
 * file "errno", EIO if there is none.
 * A failed write changes nothing. "pretend" is for a sync that does nothing and says that it has.
 *
 * SHADOW_OF names a directory and SHADOW another: what lies below the first is mirrored in the second as a disk has it
 * that loses everything that was not synced. A file's octets come with its own sync, its name with the sync of its
 * directory: nothing else is promised by POSIX. Syncs are rare, and copying whole files is good enough.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
#define ROOM (2 * PATH_MAX)

static const char *faults, *shadow_of, *shadow;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void)
{
	real_fsync = dlsym(RTLD_NEXT, "fsync");
	real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
	real_write = dlsym(RTLD_NEXT, "write");
	real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
	real_read = dlsym(RTLD_NEXT, "read");
	real_pread = dlsym(RTLD_NEXT, "pread64");
	faults = getenv("FAULTS");
	shadow_of = getenv("SHADOW_OF");
	shadow = getenv("SHADOW");
}

/* The path of an open file; 0 if it has none. A file that was removed bears " (deleted)". */
static int path_of(int fd, char *path, size_t size)
{
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, size - 1);
	if (length <= 0 || path[0] != '/')
		return 0;
	path[length] = 0;
	return 1;
}

static ssize_t slurp(const char *name, char *text, size_t size)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/%s", faults, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t length = real_read(fd, text, size - 1);
	close(fd);
	text[length > 0 ? length : 0] = 0;
	return length;
}

static int matches(const char *path, char *line)
{
	size_t length = strlen(line);
	if (length == 0 || line[length - 1] != '$')
		return strstr(path, line) != NULL;
	line[--length] = 0;
	return strlen(path) >= length && strcmp(path + strlen(path) - length, line) == 0;
}

/* Is this call to fail on this file? Sets errno then. */
static int fails(const char *kind, int fd)
{
	char path[PATH_MAX], names[1024], number[16], *rest, *line;
	int before = errno, failing = 0;
	if (faults == NULL || slurp(kind, names, sizeof names) < 0 || !path_of(fd, path, sizeof path)) {
		errno = before;
		return 0;
	}
	for (line = strtok_r(names, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
		failing |= matches(path, line);
	errno = before;
	if (failing)
		errno = slurp("errno", number, sizeof number) > 0 ? atoi(number) : EIO;
	return failing;
}

static int in_shadow(const char *path, char *target, size_t size)
{
	size_t length;
	if (shadow_of == NULL || shadow == NULL)
		return 0;
	length = strlen(shadow_of);
	if (strncmp(path, shadow_of, length) != 0 || (path[length] != '/' && path[length] != 0))
		return 0;
	return snprintf(target, size, "%s%s", shadow, path + length) < (int)size;
}

/* What a sync of a file keeps: its octets, in a store by inode. Its name is its directory's. */
static void inode_path(const struct stat *status, char *path, size_t size)
{
	snprintf(path, size, "%s.inodes/%llu", shadow, (unsigned long long)status->st_ino);
}

static void copy_octets(int from, const char *to)
{
	char buffer[65536];
	off_t position = 0;
	ssize_t count;
	int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		abort();
	while ((count = real_pread(from, buffer, sizeof buffer, position)) > 0) {
		if (real_write(fd, buffer, (size_t)count) != count)
			abort();
		position += count;
	}
	close(fd);
}

/* A name that is synced leads to the octets that its file had at its own last sync: a hard link to them. */
static void keep_names(const char *path, const char *target)
{
	char from[ROOM], to[ROOM], octets[ROOM];
	struct dirent *entry;
	struct stat status;
	DIR *directory;
	mkdir(target, 0700);
	if ((directory = opendir(target)) != NULL) { /* names that are gone */
		while ((entry = readdir(directory)) != NULL) {
			snprintf(from, sizeof from, "%s/%s", path, entry->d_name);
			snprintf(to, sizeof to, "%s/%s", target, entry->d_name);
			if (entry->d_type == DT_REG && lstat(from, &status) != 0)
				unlink(to);
		}
		closedir(directory);
	}
	if ((directory = opendir(path)) == NULL)
		abort();
	while ((entry = readdir(directory)) != NULL) {
		snprintf(from, sizeof from, "%s/%s", path, entry->d_name);
		snprintf(to, sizeof to, "%s/%s", target, entry->d_name);
		if (lstat(from, &status) != 0 || entry->d_name[0] == '.')
			continue;
		if (S_ISDIR(status.st_mode)) {
			mkdir(to, 0700);
		} else if (S_ISREG(status.st_mode)) {
			inode_path(&status, octets, sizeof octets);
			if (access(octets, F_OK) != 0)
				close(open(octets, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
			unlink(to);
			if (link(octets, to) != 0)
				abort();
		}
	}
	closedir(directory);
}

static void synced(int fd)
{
	char path[PATH_MAX], target[PATH_MAX], readable[64];
	struct stat status;
	int from, before = errno;
	if (shadow == NULL || !path_of(fd, path, sizeof path) || !in_shadow(path, target, sizeof target))
		return;
	if (fstat(fd, &status) != 0)
		abort();
	pthread_mutex_lock(&lock);
	if (S_ISDIR(status.st_mode)) {
		keep_names(path, target);
	} else {
		snprintf(readable, sizeof readable, "/proc/self/fd/%d", fd); /* it may be open for writing only */
		inode_path(&status, target, sizeof target);
		if ((from = open(readable, O_RDONLY | O_CLOEXEC)) < 0)
			abort();
		copy_octets(from, target);
		close(from);
	}
	pthread_mutex_unlock(&lock);
	errno = before;
}

int fsync(int fd)
{
	if (fails("fsync", fd))
		return -1;
	if (fails("pretend", fd))
		return 0;
	int result = real_fsync(fd);
	if (result == 0)
		synced(fd);
	return result;
}

int fdatasync(int fd)
{
	if (fails("fsync", fd))
		return -1;
	if (fails("pretend", fd))
		return 0;
	int result = real_fdatasync(fd);
	if (result == 0)
		synced(fd);
	return result;
}

ssize_t write(int fd, const void *octets, size_t count)
{
	return fails("write", fd) ? -1 : real_write(fd, octets, count);
}

ssize_t pwrite(int fd, const void *octets, size_t count, off_t position)
{
	return fails("write", fd) ? -1 : real_pwrite(fd, octets, count, position);
}

ssize_t pwrite64(int fd, const void *octets, size_t count, off_t position)
{
	return fails("write", fd) ? -1 : real_pwrite(fd, octets, count, position);
}

ssize_t read(int fd, void *octets, size_t count)
{
	return fails("read", fd) ? -1 : real_read(fd, octets, count);
}

ssize_t pread(int fd, void *octets, size_t count, off_t position)
{
	return fails("read", fd) ? -1 : real_pread(fd, octets, count, position);
}

ssize_t pread64(int fd, void *octets, size_t count, off_t position)
{
	return fails("read", fd) ? -1 : real_pread(fd, octets, count, position);
}

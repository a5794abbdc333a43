/* A disk that refuses to read some files: loaded before libc, it fails pread with EIO.

   EIO_FILES is what the paths of these files end with, and EIO_SWITCH names a file: while it exists, the
   disk refuses. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int refused(int file) {
    const char *ending = getenv("EIO_FILES"), *control = getenv("EIO_SWITCH");
    char link[32], path[PATH_MAX];
    if (!ending || !control || access(control, F_OK))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < (ssize_t)strlen(ending))
        return 0;
    path[length] = 0;
    return !strcmp(path + length - strlen(ending), ending);
}

#define READING(name, offset)                                                     \
    ssize_t name(int file, void *buffer, size_t size, offset place) {             \
        static ssize_t (*real)(int, void *, size_t, offset);                      \
        if (!real)                                                                \
            real = dlsym(RTLD_NEXT, #name);                                       \
        if (refused(file)) {                                                      \
            errno = EIO;                                                          \
            return -1;                                                            \
        }                                                                         \
        return real(file, buffer, size, place);                                   \
    }

READING(pread, off_t)
READING(pread64, off64_t)

/* What the C programs of tests/c_veo.rs share. */
#ifndef VEO_CHECK_H
#define VEO_CHECK_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Which column of ve-memory 11 the node answers. */
__attribute__((unused)) static int documented(void)
{
    const char *column = getenv("WINDLASS_VE_ERRNO");
    return column != NULL && strcmp(column, "documented") == 0;
}

/* Ends the program with a line that says what was not so. */
#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* The same for two numbers, which it prints. */
#define EQUAL(left, right)                                                                     \
    do {                                                                                       \
        long long left_ = (long long)(left), right_ = (long long)(right);                      \
        if (left_ != right_) {                                                                 \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld (errno %d)\n", __FILE__, __LINE__,    \
                    #left, left_, right_, errno);                                              \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* A call that fails with a result and an errno. */
#define FAILS(call, result, number)                                                            \
    do {                                                                                       \
        errno = 0;                                                                             \
        EQUAL(call, result);                                                                   \
        EQUAL(errno, number);                                                                  \
    } while (0)

#endif

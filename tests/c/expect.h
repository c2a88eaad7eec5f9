/* What the C tests of all libraries share: expectations. */
#ifndef EXPECT_H
#define EXPECT_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *file, int line, const char *what, uint64_t got, uint64_t wanted)
{
    fprintf(stderr, "%s:%d: %s: got %#llx (%lld), wanted %#llx (%lld), errno %d (%s)\n", file, line, what,
            (unsigned long long)got, (long long)got, (unsigned long long)wanted, (long long)wanted, errno, strerror(errno));
    exit(1);
}

#define SAME(what, wanted)                                                    \
    do {                                                                      \
        uint64_t got_ = (uint64_t)(what), wanted_ = (uint64_t)(wanted);       \
        if (got_ != wanted_)                                                  \
            fail(__FILE__, __LINE__, #what, got_, wanted_);                   \
    } while (0)
#define TRUE(what) SAME(!!(what), 1)
#define FINE(what) SAME((int64_t)(what), 0)

#endif

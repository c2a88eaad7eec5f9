/*
 * What a process has on its VE is there until it is gone: the buffer of its standard output lies in an opened area, a thread
 * computes in a registered one, and main returns without a word.
 */
#include "support.h"

#include <pthread.h>

static volatile uint64_t *counted;

/* At the very end of the process: memory that has turned to zeros is not what was written last. */
static void *count(void *unused)
{
    (void)unused;
    for (uint64_t n = 1;; n++) {
        *counted = n;
        if (*counted != n) {
            static const char lost[] = "leaving: a store is gone\n";
            (void)!write(STDERR_FILENO, lost, sizeof lost - 1);
            _exit(1);
        }
    }
    return NULL;
}

/* Runs when the library's own end is over. */
__attribute__((destructor(101))) static void last(void)
{
    for (int look = 0; look < 2000; look++)
        usleep(10);
}

int main(void)
{
    char *area = pages(1), *own = pages(1);
    pthread_t thread;
    FINE(ve_shared_mem_open(area, M64, 0, VE_REGISTER_NONE));
    TRUE(ve_register_mem_to_dmaatb(own, M64) != ALL_ONES);
    setvbuf(stdout, area, _IOFBF, 1 << 16);
    counted = (volatile uint64_t *)(own + 4096);
    FINE(pthread_create(&thread, NULL, count, NULL));
    printf("leaving: all as specified\n");
    return 0;
}

/*
 * Memory becomes VE memory while other threads write to it, and calls come from all threads at once: no store is lost, and every
 * call has its own answer.
 */
#include "support.h"

#include <pthread.h>

enum { HAMMERS = 2, ROUNDS = 12, CALLERS = 4 };

static char *memory; /* of this round */
static volatile int stop;

/* Not atomic: an update that meets a move between load and store is lost, if anything can be. */
static void *hammer(void *argument)
{
    volatile uint64_t *word = (uint64_t *)(memory + M64 / 2 + 4096 * (uintptr_t)argument);
    volatile uint64_t *other = (uint64_t *)(memory + M64 + 8 * (uintptr_t)argument);
    uint64_t count = 0;
    while (!stop) {
        *word = *word + 1;
        *other = *other + 1;
        count++;
    }
    SAME(*word, count);
    SAME(*other, count);
    return NULL;
}

static void hammered(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t thread[HAMMERS];
        memory = pages(2);
        memset(memory + M64 - 4096, 0, 8192);
        stop = 0;
        for (uintptr_t i = 0; i < HAMMERS; i++)
            FINE(pthread_create(&thread[i], NULL, hammer, (void *)i));
        usleep(1000);
        FINE(ve_shared_mem_open(memory, 2 * M64, 0, VE_REGISTER_PCI));
        usleep(1000);
        stop = 1;
        for (int i = 0; i < HAMMERS; i++)
            FINE(pthread_join(thread[i], NULL));
        FINE(ve_shared_mem_close(memory, 2 * M64, 0, VE_REGISTER_PCI));
        free(memory);
    }
}

static struct peer peer;
static uint64_t theirs;

static void *caller(void *argument)
{
    (void)argument;
    for (int round = 0; round < 20; round++) {
        char *own = pages(1);
        strcpy(own, "own");
        uint64_t local = ve_register_mem_to_dmaatb(own, M64);
        TRUE(local != ALL_ONES);
        REFUSED(ve_shared_mem_open(own, M64 + 1, 0, VE_REGISTER_PCI), EINVAL);
        void *far = ve_shared_mem_attach(peer.pid, (void *)theirs, M64, 0, VE_REGISTER_PCI | VE_REGISTER_VEHVA);
        TRUE(far != VESHM_FAILED);
        FINE(ve_dma_post_wait(local + 64, (uint64_t)far, 64));
        TRUE(strcmp(own + 64, "theirs") == 0 && strcmp(own, "own") == 0);
        REFUSED(ve_shared_mem_close(own, M64, 0, VE_REGISTER_PCI), EINVAL);
        FINE(ve_shared_mem_detach(far, VE_REGISTER_VEHVA));
        FINE(ve_unregister_mem_from_dmaatb(local));
        free(own);
    }
    return NULL;
}

int main(void)
{
    hammered();
    peer = start(1);
    theirs = ASK(peer, PAGES, 1);
    ASK(peer, POKE, theirs, *(uint64_t *)"theirs\0");
    FINE(ASK(peer, OPEN, theirs, M64, 0, VE_REGISTER_PCI));
    FINE(ve_dma_init());
    pthread_t thread[CALLERS];
    for (int i = 0; i < CALLERS; i++)
        FINE(pthread_create(&thread[i], NULL, caller, NULL));
    for (int i = 0; i < CALLERS; i++)
        FINE(pthread_join(thread[i], NULL));
    end(peer);
    printf("threads: all as specified\n");
    return 0;
}

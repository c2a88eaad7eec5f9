/*
 * VE shared memory between processes on two Vector Engines: DMA, and single words by LHM and SHM.
 *
 *   cargo build --release -p windlass-sysve -p windlass-launcher
 *   cc -O2 -o veshm_two_ves examples/c/veshm_two_ves.c -I runtime/capi/include -L target/release -lsysve -Wl,-rpath,$PWD/target/release
 *   ./veshm_two_ves
 *   target/release/windlass run -n 1 --ves 2 --place ve0 ./veshm_two_ves
 *
 * The owner, on one VE, makes an area of its memory; a second process, on another VE, attaches it to its DMA address space,
 * writes a message there piece by piece, several transfers under way at a time, then a flag by a store, and reads all of it back.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ve_inst.h>
#include <vedma.h>
#include <veshm.h>

static const size_t SIZE = 64UL << 20;  /* one page of a Vector Engine */
static const size_t PIECE = 1UL << 20;
static const size_t MESSAGE = 32UL << 20; /* the flag stands behind it */

enum { UNDER_WAY = 8 };

static void must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void moved(int result, const char *what)
{
    if (result != 0) {
        fprintf(stderr, "%s: DMA exception %#x\n", what, result);
        exit(1);
    }
}

static uint64_t mix(uint64_t index)
{
    return (index + 1) * 0x9E3779B97F4A7C15u;
}

static uint64_t *memory_of_a_page(void)
{
    void *memory = NULL;
    must((errno = posix_memalign(&memory, SIZE, SIZE)) == 0, "posix_memalign");
    return memory;
}

/* Several transfers at a time; a handle serves again when its transfer is over. */
static void transfer(uint64_t to, uint64_t from, size_t bytes)
{
    ve_dma_handle_t handles[UNDER_WAY];
    size_t pieces = bytes / PIECE;
    for (size_t i = 0; i < pieces + UNDER_WAY; i++) {
        if (i >= UNDER_WAY)
            moved(ve_dma_wait(&handles[i % UNDER_WAY]), "ve_dma_wait");
        if (i < pieces) {
            int posted;
            while ((posted = ve_dma_post(to + i * PIECE, from + i * PIECE, (int)PIECE, &handles[i % UNDER_WAY])) == -EAGAIN)
                ; /* 128 under way: those of other threads too */
            moved(posted, "ve_dma_post");
        }
    }
}

static int user(pid_t owner, void *vemva, const char *ve)
{
    /* A process is on the VE that this names; here also a forked one that has made no call yet. */
    must(setenv("VE_NODE_NUMBER", ve, 1) == 0, "setenv");
    void *remote = ve_shared_mem_attach(owner, vemva, SIZE, 0, VE_REGISTER_PCI | VE_REGISTER_VEHVA);
    must(remote != VESHM_FAILED, "ve_shared_mem_attach (is that the owner's own VE? give the number of another one)");
    uint64_t *words = memory_of_a_page();
    uint64_t local = ve_register_mem_to_dmaatb(words, SIZE);
    must(local != UINT64_MAX, "ve_register_mem_to_dmaatb");
    must(ve_dma_init() == 0, "ve_dma_init");
    printf("user  %d, VE %s: attached %zu MiB of process %d at VEHVA %p, own memory at %#llx\n", getpid(), ve, SIZE >> 20,
           owner, remote, (unsigned long long)local);

    for (size_t i = 0; i < MESSAGE / 8; i++)
        words[i] = mix(i);
    transfer((uint64_t)remote, local, MESSAGE);
    ve_inst_fenceSF();
    ve_inst_shm((char *)remote + MESSAGE, 1);
    printf("user  %d, VE %s: wrote %zu MiB by DMA, %d pieces at a time, then the flag by SHM\n", getpid(), ve, MESSAGE >> 20,
           UNDER_WAY);

    memset(words, 0, SIZE);
    transfer(local + MESSAGE, (uint64_t)remote, MESSAGE);
    size_t wrong = ve_inst_lhm((char *)remote + MESSAGE) != 1;
    for (size_t i = 0; i < MESSAGE / 8; i++)
        wrong += words[MESSAGE / 8 + i] != mix(i);
    printf("user  %d, VE %s: read it back, %zu words wrong\n", getpid(), ve, wrong);

    must(ve_unregister_mem_from_dmaatb(local) == 0, "ve_unregister_mem_from_dmaatb");
    must(ve_shared_mem_detach(remote, VE_REGISTER_VEHVA) == 0, "ve_shared_mem_detach");
    return wrong != 0;
}

int main(int count, char **arguments)
{
    const char *mine = getenv("VE_NODE_NUMBER");
    const char *other_ve = count > 1 ? arguments[1] : mine && strcmp(mine, "1") == 0 ? "0" : "1";
    setvbuf(stdout, NULL, _IOLBF, 0);
    uint64_t *words = memory_of_a_page();
    memset(words, 0, SIZE);
    must(ve_shared_mem_open(words, SIZE, 0, VE_REGISTER_PCI) == 0, "ve_shared_mem_open");
    printf("owner %d: opened %zu MiB at %p\n", getpid(), SIZE >> 20, (void *)words);

    pid_t owner = getpid(), child = fork();
    must(child >= 0, "fork");
    if (child == 0)
        exit(user(owner, words, other_ve));
    /* The data is there when the flag is. */
    volatile uint64_t *flag = words + MESSAGE / 8;
    int status = 0;
    pid_t ended = 0;
    while (*flag == 0 && ended == 0) {
        ended = waitpid(child, &status, WNOHANG);
        usleep(100);
    }
    ve_inst_fenceLF();
    size_t wrong = *flag != 1;
    if (wrong == 0) {
        for (size_t i = 0; i < MESSAGE / 8; i++)
            wrong += words[i] != mix(i);
        printf("owner %d: saw the flag; of the message %zu words are wrong\n", getpid(), wrong);
    }
    if (ended == 0)
        must(waitpid(child, &status, 0) == child, "waitpid");
    must(ve_shared_mem_close(words, SIZE, 0, VE_REGISTER_PCI) == 0, "ve_shared_mem_close");
    free(words);
    printf("%s\n", status == 0 && wrong == 0 ? "right" : "WRONG");
    return status != 0 || wrong != 0;
}

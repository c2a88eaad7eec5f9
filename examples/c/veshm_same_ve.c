/*
 * VE shared memory between two processes on one Vector Engine: loads and stores.
 *
 *   cargo build --release -p windlass-sysve -p windlass-launcher
 *   cc -O2 -o veshm_same_ve examples/c/veshm_same_ve.c -I runtime/capi/include -L target/release -lsysve -Wl,-rpath,$PWD/target/release
 *   ./veshm_same_ve
 *   target/release/windlass run -n 1 --ves 2 --place ve1 ./veshm_same_ve
 *
 * The owner makes 64 MiB of its memory an area and forks a second process. That one attaches the area, finds what the owner
 * wrote, and answers in place; both see the same bytes without a copy.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <veshm.h>

static const size_t SIZE = 64UL << 20; /* one page of a Vector Engine */

static void must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

/* A number that is another one for each index. */
static uint64_t mix(uint64_t index)
{
    return (index + 1) * 0x9E3779B97F4A7C15u;
}

/* The second process: another VE process, with nothing of its parent's but a copy of its memory. */
static int user(pid_t owner, void *vemva)
{
    uint64_t *shared = ve_shared_mem_attach(owner, vemva, SIZE, 0, VE_REGISTER_PCI | VE_REGISTER_VEMVA);
    must(shared != VESHM_FAILED, "ve_shared_mem_attach");
    printf("user  %d: attached %zu MiB of process %d at %p\n", getpid(), SIZE >> 20, owner, (void *)shared);
    size_t wrong = 0;
    for (size_t i = 0; i < SIZE / 8; i++) {
        wrong += shared[i] != mix(i);
        shared[i] = ~shared[i];
    }
    printf("user  %d: read %zu words, %zu of them wrong; wrote each one's complement\n", getpid(), SIZE / 8, wrong);
    must(ve_shared_mem_detach(shared, VE_REGISTER_VEMVA) == 0, "ve_shared_mem_detach");
    return wrong != 0;
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    void *memory = NULL;
    must((errno = posix_memalign(&memory, SIZE, SIZE)) == 0, "posix_memalign");
    uint64_t *words = memory;
    for (size_t i = 0; i < SIZE / 8; i++)
        words[i] = mix(i);
    must(ve_shared_mem_open(memory, SIZE, 0, VE_REGISTER_PCI) == 0, "ve_shared_mem_open");
    printf("owner %d: opened %zu MiB at %p, page size %d MiB\n", getpid(), SIZE >> 20, memory,
           ve_get_pgmode(VE_ADDR_VEMVA, getpid(), memory) >> 20);

    pid_t owner = getpid(), child = fork();
    must(child >= 0, "fork");
    if (child == 0)
        exit(user(owner, memory));
    int status = 0;
    must(waitpid(child, &status, 0) == child, "waitpid");

    size_t wrong = 0;
    for (size_t i = 0; i < SIZE / 8; i++)
        wrong += words[i] != ~mix(i);
    printf("owner %d: finds the user's answer in its memory, %zu words of it wrong\n", getpid(), wrong);
    must(ve_shared_mem_close(memory, SIZE, 0, VE_REGISTER_PCI) == 0, "ve_shared_mem_close");
    free(memory);
    printf("%s\n", status == 0 && wrong == 0 ? "right" : "WRONG");
    return status != 0 || wrong != 0;
}

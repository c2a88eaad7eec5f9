/*
 * What the C tests share: expectations, and peers. A peer is a forked process on a VE of its own choice that carries out
 * calls that are sent to it and answers result and errno, so that a test of several processes reads from top to bottom.
 */
#ifndef SUPPORT_H
#define SUPPORT_H

#define _GNU_SOURCE
#include "expect.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libsysve.h>
#include <userdma.h>
#include <ve_inst.h>
#include <vedma.h>
#include <veshm.h>
#include <vhshm.h>

#define KIB 1024UL
#define M2 (2UL << 20)
#define M64 (64UL << 20)
#define ALL_ONES UINT64_MAX

/* Which column of section 11 the node answers. */
static int documented;

/* Fails with -1, or an address of all ones, and this errno. */
#define REFUSED(what, error)                                                  \
    do {                                                                      \
        errno = 0;                                                            \
        SAME((int64_t)(what), -1);                                            \
        SAME(errno, error);                                                   \
    } while (0)

/* Memory as programs have it: whole pages of 64 MiB, by posix_memalign. */
__attribute__((unused)) static char *pages(size_t count)
{
    void *memory = NULL;
    FINE(posix_memalign(&memory, M64, count * M64));
    return memory;
}

/* Addresses of our own, nothing mapped: len bytes from a multiple of 64 MiB on. */
__attribute__((unused)) static char *nothing(size_t len)
{
    char *at = mmap(NULL, len + M64, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TRUE(at != MAP_FAILED);
    FINE(munmap(at, len + M64));
    return (char *)(((uintptr_t)at + M64 - 1) & ~(M64 - 1));
}

__attribute__((unused)) static char *map_at(char *at, size_t len)
{
    char *got = mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    SAME(got, at);
    return got;
}

enum what {
    OPEN, CLOSE, ATTACH, DETACH, PGMODE, REGISTER, UNREGISTER, /* the calls of veshm.h */
    INIT, POST_WAIT, SHMGET, SHMAT, SHMDT,                     /* and of others */
    PAGES, UNMAP, MAP, PEEK, POKE, LHM, BECOME, FORK, EXEC, BYE /* what a program does */
};

struct call {
    enum what what;
    uint64_t arg[5];
};

struct answer {
    uint64_t value;
    int error;
};

struct peer {
    pid_t pid;
    int to, from;
};

static uint64_t forked_close(const struct call *call)
{
    pid_t child = fork();
    if (child == 0)
        _exit(ve_shared_mem_close((void *)call->arg[0], call->arg[1], 0, call->arg[2]) == 0 ? 0 : errno);
    int status = 0;
    TRUE(waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static uint64_t act(const struct call *call)
{
    const uint64_t *a = call->arg;
    void *vehva = NULL;
    switch (call->what) {
    case OPEN: return ve_shared_mem_open((void *)a[0], a[1], a[2], a[3]);
    case CLOSE: return ve_shared_mem_close((void *)a[0], a[1], a[2], a[3]);
    case ATTACH: return (uint64_t)ve_shared_mem_attach(a[0], (void *)a[1], a[2], a[3], a[4]);
    case DETACH: return ve_shared_mem_detach((void *)a[0], a[1]);
    case PGMODE: return ve_get_pgmode(a[0], a[1], (void *)a[2]);
    case REGISTER: return ve_register_mem_to_dmaatb((void *)a[0], a[1]);
    case UNREGISTER: return ve_unregister_mem_from_dmaatb(a[0]);
    case INIT: return ve_dma_init();
    case POST_WAIT: return ve_dma_post_wait(a[0], a[1], a[2]);
    case SHMGET: return vh_shmget(a[0], a[1], a[2]);
    case SHMAT: return vh_shmat(a[0], NULL, a[1], &vehva) == (void *)-1 ? ALL_ONES : (uint64_t)vehva;
    case SHMDT: return vh_shmdt((void *)a[0]);
    case PAGES: return (uint64_t)pages(a[0]);
    case UNMAP: return munmap((void *)a[0], a[1]);
    case MAP: return (uint64_t)map_at((char *)a[0], a[1]);
    case PEEK: return *(volatile uint64_t *)a[0];
    case POKE: return *(volatile uint64_t *)a[0] = a[1];
    case LHM: return ve_inst_lhm((void *)a[0]);
    case BECOME: return setuid(a[0]);
    case FORK: return forked_close(call);
    case BYE: exit(0);
    case EXEC: return execl("/bin/sleep", "sleep", "60", (char *)NULL);
    }
    return ALL_ONES;
}

__attribute__((unused)) static void serve(int from, int to)
{
    struct call call;
    while (read(from, &call, sizeof call) == sizeof call) {
        errno = 0;
        struct answer answer = {.value = act(&call)};
        answer.error = errno;
        if (write(to, &answer, sizeof answer) != sizeof answer)
            _exit(2);
    }
    exit(0);
}

/* This process must have joined, by any call, so that the peer comes to the same node. */
__attribute__((unused)) static struct peer start(int ve)
{
    int there[2], back[2];
    FINE(pipe2(there, O_CLOEXEC));
    FINE(pipe2(back, O_CLOEXEC));
    pid_t pid = fork();
    TRUE(pid >= 0);
    if (pid == 0) {
        char number[12];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(there[1]);
        close(back[0]);
        snprintf(number, sizeof number, "%d", ve);
        setenv("VE_NODE_NUMBER", number, 1);
        serve(there[0], back[1]);
    }
    close(there[0]);
    close(back[1]);
    return (struct peer){pid, there[1], back[0]};
}

__attribute__((unused)) static uint64_t send_call(struct peer peer, struct call call)
{
    struct answer answer = {0, 0};
    SAME(write(peer.to, &call, sizeof call), sizeof call);
    if (read(peer.from, &answer, sizeof answer) != sizeof answer) {
        fprintf(stderr, "peer %d has ended in call %d\n", peer.pid, (int)call.what);
        exit(1);
    }
    errno = answer.error;
    return answer.value;
}

/* What the peer's call answers; errno is the peer's. */
#define ASK(peer, what, ...) send_call(peer, (struct call){what, {__VA_ARGS__}})

/* Does not wait for an answer: the peer will not give one. */
__attribute__((unused)) static void tell(struct peer peer, struct call call)
{
    SAME(write(peer.to, &call, sizeof call), sizeof call);
}

/* Waits for the end of the peer: 0, or the signal that ended it, or its exit status and 1,000. */
__attribute__((unused)) static int reap(struct peer peer)
{
    int status = 0;
    SAME(waitpid(peer.pid, &status, 0), peer.pid);
    close(peer.to);
    close(peer.from);
    if (WIFSIGNALED(status))
        return WTERMSIG(status);
    return WEXITSTATUS(status) == 0 ? 0 : 1000 + WEXITSTATUS(status);
}

__attribute__((unused)) static void end(struct peer peer)
{
    tell(peer, (struct call){BYE, {0}});
    FINE(reap(peer));
}

__attribute__((unused)) static void kill_peer(struct peer peer)
{
    FINE(kill(peer.pid, SIGKILL));
    SAME(reap(peer), SIGKILL);
}

/* VEOS hears of a process's end soon, not at once: asks until the answer is the one that is to come. */
#define SOON(what, wanted)                                                    \
    do {                                                                      \
        for (int tries_ = 0; (int64_t)(what) != (int64_t)(wanted); tries_++) { \
            if (tries_ > 100000)                                               \
                fail(__FILE__, __LINE__, #what, 0, (uint64_t)(wanted));       \
            usleep(1000);                                                     \
        }                                                                     \
    } while (0)

/* What follows runs in a child, which ends by this signal. */
#define DIES(signal, ...)                                                    \
    do {                                                                      \
        pid_t child_ = fork();                                                \
        TRUE(child_ >= 0);                                                    \
        if (child_ == 0) {                                                    \
            SAME(dup2(open("/dev/null", O_WRONLY), 2), 2);                    \
            __VA_ARGS__;                                                      \
            _exit(0);                                                         \
        }                                                                     \
        int status_ = 0;                                                      \
        SAME(waitpid(child_, &status_, 0), child_);                           \
        SAME(WIFSIGNALED(status_) ? WTERMSIG(status_) : 0, signal);           \
    } while (0)

__attribute__((constructor)) static void begin(void)
{
    const char *column = getenv("WINDLASS_VE_ERRNO");
    documented = column != NULL && strcmp(column, "documented") == 0;
    alarm(300);
    setvbuf(stdout, NULL, _IOLBF, 0);
}

#endif

/*
 * What the C tests of rsmapi.h share: expectations, and an exporter. That is a forked process which carries out calls that are
 * sent to it and answers their results, so that a test of two processes reads from top to bottom, as an importer.
 */
#ifndef RSM_SUPPORT_H
#define RSM_SUPPORT_H

#define _GNU_SOURCE
#include "expect.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rsmapi.h>

#define PAGE 4096UL


/* Whole pages, zeroed, touched. */
__attribute__((unused)) static char *pages(size_t count)
{
    char *at = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TRUE(at != MAP_FAILED);
    memset(at, 0, count * PAGE);
    return at;
}

enum what {
    NEW,       /* pages, flags: new memory, and a segment of it */
    PUBLISH,   /* id, permission of a list with this node, or ALL; answers code << 32 | id */
    UNPUBLISH, REPUBLISH, DESTROY, REBIND,
    PEEK, POKE, /* at, byte */
    POST, WAIT, /* flags; timeout */
    FILL,       /* stores without end */
    FORK,       /* a child that only waits; answers its pid */
    BYE
};

#define ALL 0xFFFF

struct call {
    enum what what;
    uint64_t arg[2];
};

struct exporter {
    pid_t pid;
    int to, from;
};

static rsmapi_controller_handle_t controller;

/* The exporter's. */
static rsm_memseg_export_handle_t exported;
static volatile char *memory;
static size_t memory_pages;

static uint64_t publish(rsm_memseg_id_t id, uint32_t permission)
{
    rsmapi_access_entry_t list = {0, permission};
    int code = permission == ALL ? rsm_memseg_export_publish(exported, &id, NULL, 0)
                                 : rsm_memseg_export_publish(exported, &id, &list, 1);
    return (uint64_t)code << 32 | id;
}

static pid_t waiting_child(void)
{
    pid_t pid = fork();
    while (pid == 0)
        pause();
    return pid;
}

static uint64_t act(const struct call *call)
{
    const uint64_t *a = call->arg;
    rsmapi_access_entry_t list = {0, a[0]};
    switch (call->what) {
    case NEW:
        memory_pages = a[0];
        memory = pages(a[0]);
        return rsm_memseg_export_create(controller, &exported, (void *)memory, a[0] * PAGE, a[1]);
    case PUBLISH: return publish(a[0], a[1]);
    case UNPUBLISH: return rsm_memseg_export_unpublish(exported);
    case REPUBLISH: return a[0] == ALL ? rsm_memseg_export_republish(exported, NULL, 0) : rsm_memseg_export_republish(exported, &list, 1);
    case DESTROY: return rsm_memseg_export_destroy(exported);
    case REBIND:
        memory = pages(memory_pages);
        return rsm_memseg_export_rebind(exported, (void *)memory, 0, memory_pages * PAGE);
    case PEEK: return (unsigned char)memory[a[0]];
    case POKE: return (unsigned char)(memory[a[0]] = a[1]);
    case POST: return rsm_intr_signal_post(exported, a[0]);
    case WAIT: return rsm_intr_signal_wait(exported, a[0]);
    case FILL:
        for (unsigned char byte = 0;; byte++)
            memset((void *)memory, byte, memory_pages * PAGE);
    case FORK: return (uint64_t)waiting_child();
    case BYE: exit(0);
    }
    return UINT64_MAX;
}

/* A process that exports. uid and gid, if not 0, are what it becomes. */
__attribute__((unused)) static struct exporter start(uid_t uid, gid_t gid)
{
    int down[2], up[2];
    FINE(pipe2(down, O_CLOEXEC));
    FINE(pipe2(up, O_CLOEXEC));
    pid_t parent = getpid(), pid = fork();
    TRUE(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        close(down[1]);
        close(up[0]);
        if (gid != 0)
            TRUE(setgroups(0, NULL) == 0 && setgid(gid) == 0);
        if (uid != 0)
            FINE(setuid(uid));
        umask(0);
        struct call call;
        while (read(down[0], &call, sizeof call) == sizeof call) {
            uint64_t answer = act(&call);
            TRUE(write(up[1], &answer, sizeof answer) == sizeof answer);
        }
        exit(0);
    }
    close(down[0]);
    close(up[1]);
    return (struct exporter){pid, down[1], up[0]};
}

__attribute__((unused)) static void tell(struct exporter *to, enum what what, uint64_t one, uint64_t two)
{
    struct call call = {what, {one, two}};
    TRUE(write(to->to, &call, sizeof call) == sizeof call);
}

__attribute__((unused)) static uint64_t ask2(struct exporter *to, enum what what, uint64_t one, uint64_t two)
{
    uint64_t answer = 0;
    tell(to, what, one, two);
    TRUE(read(to->from, &answer, sizeof answer) == sizeof answer);
    return answer;
}

#define ask(to, what, one) ask2(to, what, one, 0)

__attribute__((unused)) static void stop(struct exporter *one, int signal)
{
    int status = 0;
    if (signal != 0)
        kill(one->pid, signal);
    else
        tell(one, BYE, 0, 0);
    TRUE(waitpid(one->pid, &status, 0) == one->pid);
    if (signal == 0)
        TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(one->to);
    close(one->from);
}

/* An exporter with a published segment; gives its id. */
__attribute__((unused)) static rsm_memseg_id_t exporting(struct exporter *one, size_t count, uint32_t permission)
{
    *one = start(0, 0);
    FINE(ask2(one, NEW, count, RSM_ALLOW_REBIND));
    uint64_t answer = ask2(one, PUBLISH, 0, permission);
    FINE(answer >> 32);
    return (rsm_memseg_id_t)answer;
}

__attribute__((unused)) static rsm_memseg_import_handle_t connected(rsm_memseg_id_t id, rsm_permission_t permission)
{
    rsm_memseg_import_handle_t handle = NULL;
    FINE(rsm_memseg_import_connect(controller, 0, id, permission, &handle));
    return handle;
}

/* Waits until a code is answered, up to 100 s: a kill is seen within 100 ms where the machine is not overloaded. */
#define EVENTUALLY(what, wanted)                                              \
    do {                                                                      \
        int code_ = -1;                                                        \
        for (int i_ = 0; i_ < 1000000 && (code_ = (what)) != (wanted); i_++)    \
            usleep(100);                                                      \
        SAME(code_, wanted);                                                   \
    } while (0)

#endif

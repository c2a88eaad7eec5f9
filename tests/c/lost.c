/*
 * VEOS ends under a program: the rows of ve-memory 5 and 7 of what it cannot keep or take out (ECANCELED). Needs WINDLASS_NODE_NAME.
 * Argument: the command `windlass`.
 */
#include "support.h"

#include <sys/ipc.h>
#include <sys/shm.h>

static const long long PCI = VE_REGISTER_PCI, VEMVA = VE_REGISTER_VEMVA, VEHVA = VE_REGISTER_VEHVA;

/* The service of a named node, as a child that can be killed. */
static pid_t serve_node(const char *windlass, const char *name)
{
    pid_t service = fork();
    if (service == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(windlass, "windlass", "node", "--name", name, "--ves", "2", (char *)NULL);
        _exit(127);
    }
    char command[4096];
    snprintf(command, sizeof command, "%s node --list | grep -q %s", windlass, name);
    SOON(system(command), 0);
    return service;
}

int main(int count, char **arguments)
{
    const char *name = getenv("WINDLASS_NODE_NAME");
    TRUE(count > 1 && name != NULL);
    pid_t service = serve_node(arguments[1], name);
    SAME(ve_get_pgmode(VE_ADDR_PCI, getpid(), NULL), M64);
    struct peer near = start(0), far = start(1);
    uint64_t a = ASK(near, PAGES, 1), b = ASK(far, PAGES, 1);
    FINE(ASK(near, OPEN, a, M64, 0, PCI));
    FINE(ASK(far, OPEN, b, M64, 0, PCI));
    ASK(near, POKE, a, 11);
    ASK(far, POKE, b, 12);
    char *own = pages(1), *at = ve_shared_mem_attach(near.pid, (void *)a, M64, 0, PCI | VEMVA);
    void *vehva = ve_shared_mem_attach(far.pid, (void *)b, M64, 0, PCI | VEHVA), *there = NULL, *host = NULL;
    uint64_t local = ve_register_mem_to_dmaatb(own, M64);
    TRUE(at != VESHM_FAILED && vehva != VESHM_FAILED && local != ALL_ONES);
    FINE(ve_shared_mem_open(own, M64, 0, PCI));
    FINE(ve_dma_init());
    /* Not one of its pages is needed, but the right to make it. */
    int id = shmget(IPC_PRIVATE, M2, IPC_CREAT | SHM_HUGETLB | SHM_NORESERVE | 0600);
    if (id >= 0) {
        host = vh_shmat(id, NULL, 0, &there);
        TRUE(host != (void *)-1);
        FINE(shmctl(id, IPC_RMID, NULL));
    }

    FINE(kill(service, SIGKILL));
    SAME(waitpid(service, NULL, 0), service);

    REFUSED(ve_shared_mem_open(own, M64, 0, VE_REGISTER_NONE), ECANCELED);
    REFUSED(ve_shared_mem_close(own, M64, 0, PCI), ECANCELED);
    REFUSED(ve_shared_mem_attach(far.pid, (void *)b, M64, 0, PCI | VEHVA), ECANCELED);
    REFUSED(ve_register_mem_to_dmaatb(own, M64), ECANCELED);
    REFUSED(ve_shared_mem_detach(at, VEMVA), ECANCELED);
    REFUSED(ve_shared_mem_detach(vehva, VEHVA), ECANCELED);
    REFUSED(ve_get_pgmode(VE_ADDR_PCI, far.pid, NULL), ECANCELED);
    if (id >= 0) {
        /* 7.3, third row; 7.2, the last but one: the attachment that VEOS could not enter is not kept. */
        void *second = NULL;
        struct shmid_ds segment;
        REFUSED(vh_shmdt(host), ECANCELED);
        REFUSED(vh_shmat(id, NULL, 0, &second), ECANCELED);
        SAME(second, NULL);
        FINE(shmctl(id, IPC_STAT, &segment));
        SAME(segment.shm_nattch, 1);
    } else {
        printf("lost: no segment of huge pages may be made (%s): of section 7 nothing\n", strerror(errno));
    }
    /* What is attached needs no VEOS. */
    SAME(*(volatile uint64_t *)at, 11);
    SAME(ve_inst_lhm(vehva), 12);
    FINE(ve_dma_post_wait(local, (uint64_t)vehva, 8));
    SAME(*(volatile uint64_t *)own, 12);
    end(near);
    end(far);
    printf("lost: all as specified\n");
    return 0;
}

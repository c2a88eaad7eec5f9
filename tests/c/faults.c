/*
 * What a program sees when IVED does not answer, an owner is swapped out, a counter is at its end or a table is not as it should be:
 * ve-memory 5.0, 5.1 rows 11 and 12, 5.2 rows 11, 13, 16, 17 and 21, the rows of IVED in 5.3 to 5.5 and 7.2, the second of 7.3; and check 12,
 * a full ring. VE1, 2 VEs or more. Needs WINDLASS_NODE_NAME. Arguments: the command `windlass`, and `pages` where there are huge pages.
 */
#include "support.h"

#include <sys/ipc.h>
#include <sys/shm.h>

static const long long PCI = VE_REGISTER_PCI, VEMVA = VE_REGISTER_VEMVA, VEHVA = VE_REGISTER_VEHVA, LOCAL = VE_MEM_LOCAL;
static const char *windlass, *node;

/* Of the library's, for tests: a held engine leaves what is posted prepared; a step executes one; both as if no core were had. */
extern int windlass_dma_hold(int held);
extern int windlass_dma_step(void);

static int fault(const char *what)
{
    char command[4096];
    snprintf(command, sizeof command, "%s node --fault %s:%s >/dev/null 2>&1", windlass, node, what);
    return system(command);
}

static void damage(const char *what, pid_t pid)
{
    char fault_of[64];
    snprintf(fault_of, sizeof fault_of, "%s=%d", what, pid);
    FINE(fault(fault_of));
}

static int attached(int id)
{
    struct shmid_ds segment;
    FINE(shmctl(id, IPC_STAT, &segment));
    return segment.shm_nattch;
}

/* It goes with this process, however that ends. */
static int segment(size_t size, int flag)
{
    int id = shmget(IPC_PRIVATE, size, IPC_CREAT | flag | 0600);
    TRUE(id >= 0);
    void *at = shmat(id, NULL, 0);
    FINE(shmctl(id, IPC_RMID, NULL));
    TRUE(at != (void *)-1);
    return id;
}

static void *attach_to(struct peer peer, uint64_t at, long long mode)
{
    return ve_shared_mem_attach(peer.pid, (void *)at, M64, 0, mode);
}

/* What can be had before: an area of each peer's, attached; own memory, registered and open; a host segment. */
struct had {
    struct peer near, far;
    uint64_t a, b, vehva, local;
    char *own, *at;
    int plain, huge;
};

/* Section 5.0, first of all: no connection to IVED. What is attached works on. */
static void absent(struct had had)
{
    FINE(fault("ived=absent"));
    REFUSED(ve_shared_mem_open(had.own + M64, M64, 0, PCI), ENOTSUP);
    REFUSED(ve_shared_mem_open(had.own, M64, 0, PCI), ENOTSUP);
    REFUSED(ve_shared_mem_open(had.own, M64, 0, 0x1004), ENOTSUP);
    REFUSED(attach_to(had.near, had.a, PCI | VEMVA), ENOTSUP);
    REFUSED(attach_to(had.far, had.b, PCI | VEHVA), ENOTSUP);
    REFUSED(attach_to(had.far, had.b, PCI | VEMVA | VEHVA), ENOTSUP);
    REFUSED(ve_register_mem_to_dmaatb(had.own, M64), ENOTSUP);
    REFUSED(ve_shared_mem_detach(had.at, VEMVA), ENOTSUP);
    REFUSED(ve_shared_mem_detach((void *)had.vehva, VEHVA), ENOTSUP);
    REFUSED(ve_unregister_mem_from_dmaatb(had.local), ENOTSUP);
    REFUSED(ve_shared_mem_close(had.own, M64, 0, PCI), ENOTSUP);
    REFUSED(ve_get_pgmode(VE_ADDR_VEMVA, had.near.pid, (void *)had.a), ENOTSUP);
    REFUSED(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), (void *)had.local), ENOTSUP);
    REFUSED(ve_get_pgmode(VE_ADDR_PCI, had.far.pid, NULL), ENOTSUP);
    /* Section 7.2: before the kind of the pages matters, and the segment is not left attached. */
    void *vehva = NULL;
    const int before = attached(had.plain);
    REFUSED(vh_shmat(had.plain, NULL, 0, &vehva), ENOTSUP);
    SAME(attached(had.plain), before);
    if (had.huge >= 0)
        REFUSED(vh_shmat(had.huge, NULL, 0, &vehva), ENOTSUP);
    SAME(*(volatile uint64_t *)had.at, 11);
    SAME(ve_inst_lhm((void *)had.vehva), 12);
    FINE(ve_dma_post_wait(had.local, had.vehva, 4096));
    SAME(*(volatile uint64_t *)had.own, 12);

    FINE(fault("ived=connected"));
    REFUSED(vh_shmat(had.plain, NULL, 0, &vehva), EFAULT);
    if (had.huge >= 0) {
        void *at = vh_shmat(had.huge, NULL, 0, &vehva);
        TRUE(at != (void *)-1);
        FINE(vh_shmdt(at));
        REFUSED(vh_shmdt(at), EINVAL);
    }
    SAME(ve_get_pgmode(VE_ADDR_PCI, had.far.pid, NULL), M64);
    FINE(ve_shared_mem_open(had.own + M64, M64, 0, PCI));
    FINE(ve_shared_mem_close(had.own + M64, M64, 0, PCI));
}

/* IVED's answers are lost; who does not need one is served. */
static void unreachable(struct had had)
{
    FINE(fault("ived=unreachable"));
    /* 5.1, row 12, and what comes before it. */
    REFUSED(ve_shared_mem_open(had.own + M64, M64, 0, PCI), ECANCELED);
    REFUSED(ve_shared_mem_open(had.own, M64, 0, PCI), ECANCELED);
    REFUSED(ve_shared_mem_open(had.own + M64, M64, 0, VE_REGISTER_NONE), ECANCELED);
    REFUSED(ve_shared_mem_open(had.own + 4096, M64, 0, PCI), EINVAL);
    REFUSED(ve_shared_mem_open(had.own, M64, 0, 0), EINVAL);
    /* 5.2, row 11: after row 10, before row 12. */
    REFUSED(attach_to(had.near, had.a, PCI | VEMVA), ECANCELED);
    REFUSED(attach_to(had.far, had.b, PCI | VEHVA), ECANCELED);
    REFUSED(ve_shared_mem_attach(1, (void *)had.b, M64, 0, PCI | VEHVA), ECANCELED);
    REFUSED(attach_to(had.near, had.a, PCI | VEHVA), EINVAL);
    SAME(ve_shared_mem_attach(getpid(), had.own, M64, 0, LOCAL), had.local);
    /* 5.3: 0 all the same. */
    FINE(ve_shared_mem_detach((void *)had.local, LOCAL));
    FINE(ve_shared_mem_detach(had.at, VEMVA));
    /* 5.4, and 5.5: of PCI only. */
    REFUSED(ve_shared_mem_close(had.own, M64, 0, PCI), ECANCELED);
    REFUSED(ve_get_pgmode(VE_ADDR_PCI, had.far.pid, NULL), ECANCELED);
    SAME(ve_get_pgmode(VE_ADDR_VEMVA, getpid(), had.own), M64);
    SAME(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), (void *)had.local), M64);

    FINE(fault("ived=connected"));
    /* What was refused has changed nothing. */
    REFUSED(ve_shared_mem_close(had.own + M64, M64, 0, PCI), EINVAL);
    FINE(ve_shared_mem_close(had.own, M64, 0, PCI));
    REFUSED(ve_shared_mem_close(had.own, M64, 0, PCI), EINVAL);
    FINE(ve_shared_mem_open(had.own, M64, 0, PCI));
    DIES(SIGSEGV, *(volatile char *)had.at = 1);
}

/* 5.2, row 17: of the same VE only; exported memory stays where it is (section 6). */
static void swapped(struct had had)
{
    TRUE(fault("swapped=1") != 0);
    damage("swapped", had.near.pid);
    damage("swapped", had.far.pid);
    REFUSED(attach_to(had.near, had.a, PCI | VEMVA), EAGAIN);
    SAME(attach_to(had.far, had.b, PCI | VEHVA), had.vehva);
    FINE(ve_shared_mem_detach((void *)had.vehva, VEHVA));
    SAME(ve_inst_lhm((void *)had.vehva), 12);
    damage("resident", had.near.pid);
    damage("resident", had.far.pid);
    char *at = attach_to(had.near, had.a, PCI | VEMVA);
    TRUE(at != VESHM_FAILED);
    SAME(*(volatile uint64_t *)at, 11);
    FINE(ve_shared_mem_detach(at, VEMVA));
}

/* 5.2, row 13: VEOS of the owner's VE goes down, and its processes are there still. After row 12, before row 14; nobody else is
   concerned. */
static void halted(struct had had)
{
    const long long mode = PCI | VEHVA;
    struct peer other = start(0);
    damage("halted", had.far.pid);
    REFUSED(attach_to(had.far, had.b, mode), EINVAL);
    REFUSED(ASK(other, ATTACH, had.far.pid, had.b, M64, 0, mode), EINVAL);
    REFUSED(attach_to(had.far, had.b + M64, mode), EINVAL);
    REFUSED(ve_shared_mem_attach(1, (void *)had.b, M64, 0, mode), ESRCH);
    REFUSED(ve_get_pgmode(VE_ADDR_PCI, had.far.pid, NULL), ESRCH);
    TRUE(ASK(had.far, ATTACH, getpid(), (uint64_t)had.own, M64, 0, mode) != ALL_ONES);
    char *at = attach_to(had.near, had.a, PCI | VEMVA);
    TRUE(at != VESHM_FAILED);
    FINE(ve_shared_mem_detach(at, VEMVA));
    damage("running", had.far.pid);
    SAME(attach_to(had.far, had.b, mode), had.vehva);
    FINE(ve_shared_mem_detach((void *)had.vehva, VEHVA));
    SAME(ve_get_pgmode(VE_ADDR_PCI, had.far.pid, NULL), M64);
    end(other);
}

/* 5.2, row 16: IVED has two records under a key, and who is attached is in the older one. */
static void contradictory(void)
{
    struct peer owner = start(1), other = start(0);
    const long long mode = PCI | VEHVA;
    uint64_t at = ASK(owner, PAGES, 1);
    FINE(ASK(owner, OPEN, at, M64, 0, PCI));
    void *vehva = attach_to(owner, at, mode);
    TRUE(vehva != VESHM_FAILED);
    SAME(attach_to(owner, at, mode), vehva);
    damage("doubled", owner.pid);
    REFUSED(attach_to(owner, at, mode), EINVAL);
    uint64_t others = ASK(other, ATTACH, owner.pid, at, M64, 0, mode);
    TRUE(others != ALL_ONES);
    FINE(ASK(other, DETACH, others, VEHVA));
    FINE(ve_shared_mem_detach(vehva, VEHVA));
    FINE(ve_shared_mem_detach(vehva, VEHVA));
    end(other);
    end(owner);
}

/* 5.1, row 11, and 5.2, row 21: the counters are C ints. */
static void counted(struct had had)
{
    struct peer peer = start(0);
    const long long mode = PCI | VEHVA;
    uint64_t at = ASK(peer, PAGES, 1);
    FINE(ASK(peer, OPEN, at, M64, 0, PCI));
    uint64_t local = ASK(peer, REGISTER, at, M64), vehva = ASK(peer, ATTACH, had.far.pid, had.b, M64, 0, mode);
    TRUE(local != ALL_ONES && vehva != ALL_ONES);
    damage("counted", peer.pid);
    FINE(ASK(peer, OPEN, at, M64, 0, PCI));
    REFUSED(ASK(peer, OPEN, at, M64, 0, PCI), ENOMEM);
    SAME(ASK(peer, REGISTER, at, M64), local);
    REFUSED(ASK(peer, REGISTER, at, M64), ENOMEM);
    SAME(ASK(peer, ATTACH, had.far.pid, had.b, M64, 0, mode), vehva);
    REFUSED(ASK(peer, ATTACH, had.far.pid, had.b, M64, 0, mode), ENOMEM);
    /* One less, one more. */
    FINE(ASK(peer, CLOSE, at, M64, 0, PCI));
    FINE(ASK(peer, OPEN, at, M64, 0, PCI));
    FINE(ASK(peer, DETACH, vehva, VEHVA));
    SAME(ASK(peer, ATTACH, had.far.pid, had.b, M64, 0, mode), vehva);
    end(peer);
}

/* 7.3, second row: VEOS does not know the VEHVA of a segment that this process has attached. */
static void forgotten(void)
{
    /* Not one of its pages is needed, but the right to make it. */
    int id = shmget(IPC_PRIVATE, M2, IPC_CREAT | SHM_HUGETLB | SHM_NORESERVE | 0600);
    if (id < 0) {
        printf("faults: no segment of huge pages may be made (%s): of 7.3 not what VEOS does not know\n", strerror(errno));
        return;
    }
    void *vehva = NULL, *at = vh_shmat(id, NULL, 0, &vehva);
    FINE(shmctl(id, IPC_RMID, NULL));
    TRUE(at != (void *)-1);
    SAME(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), vehva), M2);
    damage("forgotten", getpid());
    REFUSED(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), vehva), documented ? EFAULT : EINVAL);
    REFUSED(vh_shmdt(at), EINVAL);
    /* Nothing has been done, and the segment goes with this process. */
    SAME(attached(id), 1);
    REFUSED(vh_shmdt(at), EINVAL);
    printf("faults: a segment that VEOS does not know\n");
}

/* Section 13, check 12; section 9.3. */
static void full_ring(uint64_t local)
{
    static ve_dma_handle_t handles[129];
    FINE(windlass_dma_hold(1));
    for (int i = 0; i < 128; i++)
        FINE(ve_dma_post(local + 4096 + 8 * i, local, 8, &handles[i]));
    SAME(handles[127].status, -1);
    SAME(handles[127].index, (handles[0].index + 127) % 128);
    ve_dma_handle_t *last = &handles[128];
    SAME(ve_dma_post(local + 8192, local, 8, last), -EAGAIN);
    SAME(ve_dma_poll(&handles[0]), -EAGAIN);
    SAME(ve_dma_post(local + 8192, local, 8, last), -EAGAIN);
    SAME(windlass_dma_step(), 1);
    SAME(handles[0].status, -1);
    FINE(ve_dma_post(local + 8192, local, 8, last));
    FINE(handles[0].status); /* the later post has stored it */
    SAME(last->index, handles[0].index);
    SAME(ve_dma_poll(&handles[1]), -EAGAIN);
    ve_dma_handle_t more;
    SAME(ve_dma_post(local + 8192, local, 8, &more), -EAGAIN);
    FINE(windlass_dma_hold(0));
    for (int i = 0; i < 129; i++)
        FINE(ve_dma_wait(&handles[i]));
    SAME(windlass_dma_step(), 0);
}

int main(int count, char **arguments)
{
    node = getenv("WINDLASS_NODE_NAME");
    TRUE(count > 1 && node != NULL);
    windlass = arguments[1];
    SAME(ve_get_pgmode(VE_ADDR_PCI, getpid(), NULL), M64);
    struct had had = {.near = start(0), .far = start(1), .huge = -1};
    had.a = ASK(had.near, PAGES, 1);
    had.b = ASK(had.far, PAGES, 1);
    FINE(ASK(had.near, OPEN, had.a, M64, 0, PCI));
    FINE(ASK(had.far, OPEN, had.b, M64, 0, PCI));
    ASK(had.near, POKE, had.a, 11);
    ASK(had.far, POKE, had.b, 12);
    TRUE((had.at = attach_to(had.near, had.a, PCI | VEMVA)) != VESHM_FAILED);
    TRUE((had.vehva = (uint64_t)attach_to(had.far, had.b, PCI | VEHVA)) != ALL_ONES);
    had.own = pages(2);
    FINE(ve_shared_mem_open(had.own, M64, 0, PCI));
    TRUE((had.local = ve_register_mem_to_dmaatb(had.own, M64)) != ALL_ONES);
    FINE(ve_dma_init());
    had.plain = segment(4096, 0);
    if (count > 2)
        had.huge = segment(M2, SHM_HUGETLB);

    absent(had);
    unreachable(had);
    swapped(had);
    halted(had);
    contradictory();
    counted(had);
    forgotten();
    full_ring(had.local);

    if (had.huge < 0)
        printf("faults: no huge pages (sysctl vm.nr_hugepages=8): of section 7 with a plain segment only\n");
    FINE(ve_shared_mem_detach((void *)had.vehva, VEHVA));
    FINE(ve_unregister_mem_from_dmaatb(had.local));
    FINE(ve_shared_mem_close(had.own, M64, 0, PCI));
    free(had.own);
    end(had.near);
    end(had.far);
    printf("faults: all as specified\n");
    return 0;
}

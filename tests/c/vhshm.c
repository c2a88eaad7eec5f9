/*
 * Section 7 of ve-memory: host segments in a VE process. VE1, 8 cores. Needs the right to make segments of huge pages; argument
 * "pages": there are some to be had, so data can be moved. Prints what it could not do.
 */
#include "support.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#ifndef SHM_HUGETLB
#define SHM_HUGETLB 04000
#endif

static int segments[64];
static int count;

static void remove_all(void)
{
    while (count > 0)
        shmctl(segments[--count], IPC_RMID, NULL);
}

static int segment(key_t key, size_t size, int flags)
{
    int id = shmget(key, size, IPC_CREAT | IPC_EXCL | flags);
    if (id >= 0)
        segments[count++] = id;
    return id;
}

/* A key that nobody uses, below this process's own number. */
static key_t fresh(void)
{
    static int number;
    key_t key;
    do
        key = 0x57000000 + (getpid() & 0xffff) * 64 + number++;
    while (shmget(key, 0, 0) >= 0);
    return key;
}

/* Section 7.1 and check 15. */
static void finds(struct peer peer, int plain, key_t key)
{
    REFUSED(vh_shmget(IPC_PRIVATE, 4096, SHM_HUGETLB), EINVAL);
    REFUSED(vh_shmget(key, 4096, 0), EINVAL);
    REFUSED(vh_shmget(key, 4096, 0600), EINVAL);
    REFUSED(vh_shmget(key, 4096, SHM_HUGETLB | IPC_CREAT), EINVAL);
    REFUSED(vh_shmget(key, 4096, SHM_HUGETLB | IPC_EXCL), EINVAL);
    REFUSED(vh_shmget(key, 4096, SHM_HUGETLB | SHM_NORESERVE), EINVAL);
    REFUSED(vh_shmget(fresh(), 4096, SHM_HUGETLB), ENOENT);
    REFUSED(vh_shmget(key, 2 * 4096 + 1, SHM_HUGETLB), EINVAL);
    /* Of small pages it is found all the same, and a smaller size is accepted. */
    SAME(vh_shmget(key, 2 * 4096, SHM_HUGETLB), plain);
    SAME(vh_shmget(key, 1, SHM_HUGETLB | 0600), plain);
    /* Permission bits count for those who are not privileged; none, no check. */
    if (geteuid() == 0) {
        FINE(ASK(peer, BECOME, 65534));
        SAME(ASK(peer, SHMGET, key, 1, SHM_HUGETLB), plain);
        REFUSED(ASK(peer, SHMGET, key, 1, SHM_HUGETLB | 0006), EACCES);
        REFUSED(ASK(peer, SHMAT, plain, 0), EACCES);
        REFUSED(ASK(peer, SHMAT, plain, SHM_RDONLY), EACCES);
    }
}

/* Section 7.2: what is refused before huge pages matter; check 14. */
static void refusals(int plain)
{
    void *vehva = NULL, *at = pages(1);
    char *readable = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REFUSED(vh_shmat(plain, at, 0, &vehva), EINVAL);
    REFUSED(vh_shmat(plain, at, 0, NULL), EINVAL);
    REFUSED(vh_shmat(plain, NULL, SHM_EXEC, &vehva), EINVAL);
    REFUSED(vh_shmat(plain, NULL, SHM_REMAP, &vehva), EINVAL);
    REFUSED(vh_shmat(plain, NULL, SHM_RND, &vehva), EINVAL);
    REFUSED(vh_shmat(plain, NULL, SHM_RND, NULL), EINVAL);
    REFUSED(vh_shmat(plain, NULL, 0, NULL), EFAULT);
    REFUSED(vh_shmat(-1, NULL, 0, NULL), EFAULT);
    REFUSED(vh_shmat(-1, NULL, 0, &vehva), EINVAL);
    REFUSED(vh_shmat(0x7fffffff, NULL, 0, &vehva), EINVAL);
    REFUSED(vh_shmat(plain, NULL, 0, &vehva), EFAULT);
    REFUSED(vh_shmat(plain, NULL, SHM_RDONLY, &vehva), EFAULT);
    SAME(vehva, NULL);
    REFUSED(vh_shmdt(NULL), EINVAL);
    REFUSED(vh_shmdt(at), EINVAL);
    REFUSED(vh_shmdt((void *)-1), EINVAL);
    /* Removed, and its place in the kernel's table taken by another. */
    int found = 0;
    for (int tries = 0; tries < 64 && found != EIDRM; tries++) {
        int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
        FINE(shmctl(id, IPC_RMID, NULL));
        int other = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
        errno = 0;
        SAME((int64_t)vh_shmat(id, NULL, 0, &vehva), -1);
        found = errno;
        TRUE(found == EIDRM || found == EINVAL);
        FINE(shmctl(other, IPC_RMID, NULL));
    }
    munmap(readable, 4096);
    free(at);
}

static uint64_t attachments(int id)
{
    struct shmid_ds status;
    FINE(shmctl(id, IPC_STAT, &status));
    return status.shm_nattch;
}

/* Of this process alone, and for ever. */
static void forbid_ipc_stat(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_shmctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPC_STAT, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    FINE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    FINE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

/* Section 7.2: IPC_STAT fails, of a segment that can be attached; the attachment is not kept. */
static void not_looked_at(int plain)
{
    const uint64_t before = attachments(plain);
    int status = 0, back[2], there[2];
    FINE(pipe(there));
    FINE(pipe(back));
    pid_t child = fork();
    if (child == 0) {
        char word = 0;
        void *vehva = NULL;
        REFUSED(vh_shmat(plain, NULL, 0, &vehva), EFAULT);
        forbid_ipc_stat();
        REFUSED(vh_shmat(plain, NULL, 0, &vehva), ECANCELED);
        REFUSED(vh_shmat(plain, NULL, SHM_RDONLY, &vehva), ECANCELED);
        REFUSED(vh_shmat(-1, NULL, 0, &vehva), EINVAL);
        SAME(vehva, NULL);
        SAME(write(there[1], &word, 1), 1);
        SAME(read(back[0], &word, 1), 1);
        exit(0);
    }
    char word = 0;
    close(there[1]);
    SAME(read(there[0], &word, 1), 1);
    SAME(attachments(plain), before);
    SAME(write(back[1], &word, 1), 1);
    SAME(waitpid(child, &status, 0), child);
    SAME(status, 0);
    close(there[0]);
    close(back[0]);
    close(back[1]);
}

/* Section 7.2 and 7.3 with huge pages, of which none is touched; check 11. */
static void tables(void)
{
    const size_t size = 512UL << 20;
    void *vehva, *at[57];
    key_t key = fresh();
    int id = segment(key, size, SHM_HUGETLB | SHM_NORESERVE | 0600);
    if (id < 0) {
        printf("vhshm: no segment of huge pages may be made (%s): tables not filled\n", strerror(errno));
        return;
    }
    SAME(vh_shmget(key, 4096, SHM_HUGETLB), id);
    for (uint64_t i = 0; i < 56; i++) {
        at[i] = vh_shmat(id, NULL, i % 2 ? SHM_RDONLY : 0, &vehva);
        TRUE(at[i] != (void *)-1);
        SAME(vehva, 0x008800000000 + i * size);
    }
    SAME(attachments(id), 56);
    vehva = NULL;
    REFUSED(vh_shmat(id, NULL, 0, &vehva), ENOMEM);
    SAME(vehva, NULL);
    SAME(attachments(id), 56);
    SAME(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), (void *)(0x008800000000 + 56 * size - 1)), M2);
    REFUSED(vh_shmdt((char *)at[0] + 4096), EINVAL);
    FINE(vh_shmdt(at[0]));
    REFUSED(vh_shmdt(at[0]), EINVAL);
    SAME(attachments(id), 55);
    /* *vehva cannot be stored: nothing is left. */
    REFUSED(vh_shmat(id, NULL, 0, (void **)nothing(4096)), EFAULT);
    char *readable = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REFUSED(vh_shmat(id, NULL, 0, (void **)readable), EFAULT);
    munmap(readable, 4096);
    SAME(attachments(id), 55);
    at[0] = vh_shmat(id, NULL, 0, &vehva);
    SAME(vehva, 0x008800000000); /* first fit */
    /* A forked child has none of them. */
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        REFUSED(vh_shmdt(at[0]), EINVAL);
        exit(0);
    }
    SAME(waitpid(child, &status, 0), child);
    SAME(status, 0);
    SAME(attachments(id), 56);
    DIES(SIGSEGV, *(volatile char *)at[0]);
    /* Marked for removal, but attached: it can be attached by id. */
    FINE(shmctl(id, IPC_RMID, NULL));
    count--;
    FINE(vh_shmdt(at[0]));
    at[0] = vh_shmat(id, NULL, 0, &vehva);
    TRUE(at[0] != (void *)-1);
    for (int i = 0; i < 56; i++)
        FINE(vh_shmdt(at[i]));
    REFUSED(vh_shmat(id, NULL, 0, &vehva), EINVAL);
    /* The program has detached the segment itself: of the VE it still has to be, and shmdt(2) fails. */
    id = segment(fresh(), M2, SHM_HUGETLB | SHM_NORESERVE | 0600);
    at[0] = vh_shmat(id, NULL, 0, &vehva);
    TRUE(at[0] != (void *)-1);
    FINE(shmdt(at[0]));
    FINE(vh_shmdt(at[0]));
    REFUSED(vh_shmdt(at[0]), EINVAL);
    REFUSED(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), vehva), documented ? EFAULT : EINVAL);
    /* No room in the address space. */
    id = segment(fresh(), size, SHM_HUGETLB | SHM_NORESERVE | 0600);
    struct rlimit old, limit;
    FINE(getrlimit(RLIMIT_AS, &old));
    limit = (struct rlimit){size, old.rlim_max};
    FINE(setrlimit(RLIMIT_AS, &limit));
    REFUSED(vh_shmat(id, NULL, 0, &vehva), ENOMEM);
    FINE(setrlimit(RLIMIT_AS, &old));
    SAME(attachments(id), 0);
    printf("vhshm: 56 directories filled and emptied\n");
}

/* Data in both directions, by DMA and by words. */
static void data(void)
{
    int id = segment(fresh(), 2 * M2, SHM_HUGETLB | 0600);
    if (id < 0) {
        fail(__FILE__, __LINE__, "a segment of huge pages: are there any (sysctl vm.nr_hugepages)?", id, 0);
    }
    char *host = shmat(id, NULL, 0);
    TRUE(host != (char *)-1);
    strcpy(host + M2 - 4, "from the host");
    void *vehva, *again, *read_only;
    void *at = vh_shmat(id, NULL, 0, &vehva), *second = vh_shmat(id, NULL, 0, &again);
    void *third = vh_shmat(id, NULL, SHM_RDONLY, &read_only);
    TRUE(at != (void *)-1 && second != (void *)-1 && third != (void *)-1);
    TRUE(at != second && vehva != again); /* no counting */
    FINE(ve_dma_init());
    char *own = pages(1);
    uint64_t local = ve_register_mem_to_dmaatb(own, M64);
    FINE(ve_dma_post_wait(local, (uint64_t)vehva + M2 - 4, 16)); /* crosses a page */
    FINE(strcmp(own, "from the host"));
    strcpy(own, "from the VE");
    FINE(ve_dma_post_wait((uint64_t)again + 64, local, 12));
    FINE(strcmp(host + 64, "from the VE"));
    SAME(ve_dma_post_wait((uint64_t)read_only, local, 4), VE_DMA_MEMORY_PROTECTION);
    FINE(ve_dma_post_wait(local, (uint64_t)read_only + 64, 4));
    ve_inst_shm((char *)vehva + 8, 0x123456789abcdef0);
    SAME(*(volatile uint64_t *)(host + 8), 0x123456789abcdef0);
    *(volatile uint32_t *)(host + 16) = 77;
    SAME(ve_inst_lhm32((char *)again + 16), 77);
    DIES(SIGSEGV, ve_inst_shm(read_only, 1));
    SAME(ve_dma_post_wait((uint64_t)vehva + 2 * M2, local, 4), 0); /* the next attachment's pages */
    FINE(vh_shmdt(at));
    SAME(ve_dma_post_wait((uint64_t)vehva, local, 4), VE_DMA_MISSING_PAGE);
    FINE(ve_dma_post_wait((uint64_t)again, local, 4));
    FINE(vh_shmdt(second));
    FINE(vh_shmdt(third));
    SAME(attachments(id), 1);
    FINE(shmdt(host));
    printf("vhshm: data moved\n");
}

int main(int argc, char **arguments)
{
    atexit(remove_all);
    SAME(ve_get_pgmode(VE_ADDR_PCI, getpid(), NULL), M64);
    struct peer peer = start(1);
    SAME(ASK(peer, PGMODE, VE_ADDR_PCI, peer.pid, 0), M64);
    key_t key = fresh();
    int plain = segment(key, 2 * 4096, 0600);
    TRUE(plain >= 0);
    finds(peer, plain, key);
    refusals(plain);
    not_looked_at(plain);
    tables();
    if (argc > 1 && strcmp(arguments[1], "pages") == 0)
        data();
    end(peer);
    printf("vhshm: all as specified\n");
    return 0;
}

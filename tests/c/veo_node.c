/* VEO over the emulated node: veo_node TEST. Three VE processes, two of them on VE 0. */
#include <signal.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>

#include "veo_check.h"
#include "veo_vedma.h"
#include "veo_veshm.h"
#include "veo_vhveshm.h"

#define PAGE (64UL << 20)
#define HUGE (2UL << 20)
#define FAILED ((void *)-1)

static struct veo_proc_handle *owner, *near, *far;
static void *area, *mine, *blocks[2];
static pid_t pid;

/* A page of VE memory, in a block of two. */
static void *page_of(struct veo_proc_handle *proc, void **block)
{
    EQUAL(veo_alloc_hmem(proc, block, 2 * PAGE), 0);
    return (void *)(((uint64_t)*block + PAGE - 1) / PAGE * PAGE);
}

static void prepare(void)
{
    CHECK((owner = veo_proc_create(0)) != NULL);
    CHECK((near = veo_proc_create(0)) != NULL);
    CHECK((far = veo_proc_create(1)) != NULL);
    area = page_of(owner, &blocks[0]);
    mine = page_of(far, &blocks[1]);
    CHECK(veo_get_proc_handle_from_hmem(area) == owner && veo_get_proc_handle_from_hmem(mine) == far);
    pid = veo_get_pid_from_hmem(area);
    EQUAL(veo_hmemcpy(area, "owner's words", 14), 0);
}

static void finish(void)
{
    EQUAL(veo_proc_destroy(owner), 0);
    EQUAL(veo_proc_destroy(near), 0);
    EQUAL(veo_proc_destroy(far), 0);
}

/* With the area open. */
static void refusals(void)
{
    const int unknown = documented() ? ECANCELED : EINVAL;
    /* A block is malloc's of the VE: not at a page, as VEOS wants it. */
    FAILS(veo_shared_mem_open(blocks[0], PAGE, 0, VE_REGISTER_PCI), -1, EINVAL);
    FAILS((int64_t)veo_register_mem_to_dmaatb(blocks[0], PAGE), -1, EINVAL);

    /* What VEOS says is passed on. */
    FAILS(veo_shared_mem_open(area, PAGE + 1, 0, VE_REGISTER_PCI), -1, EINVAL);
    FAILS(veo_shared_mem_open(area, 2 * PAGE, 0, VE_REGISTER_NONE | VE_PCISYNC), -1, EINVAL);
    FAILS((int64_t)veo_shared_mem_attach(far, pid, area, PAGE, 0, VE_REGISTER_PCI | VE_REGISTER_VEMVA), -1, EINVAL);
    FAILS((int64_t)veo_shared_mem_attach(far, 1, area, PAGE, 0, VE_REGISTER_PCI | VE_REGISTER_VEHVA), -1, ESRCH);
    FAILS(veo_unregister_mem_from_dmaatb(far, 0x70000000001), -1, unknown);
    const int none = documented() ? ENOENT : EINVAL;
    FAILS((int64_t)veo_shared_mem_attach(far, pid, area, 2 * PAGE, 0, VE_REGISTER_PCI | VE_REGISTER_VEHVA), -1, none);
}

/* VESHM: by load and store on one VE, by DMA from the other. */
static void veshm(void)
{
    char text[16] = "";
    prepare();
    EQUAL(veo_shared_mem_open(area, PAGE, 0, VE_REGISTER_PCI), 0);
    /* On the same VE: a pointer, and the frames are the owner's. */
    void *at = veo_shared_mem_attach(near, pid, area, PAGE, 0, VE_REGISTER_PCI | VE_REGISTER_VEMVA);
    CHECK(at != FAILED && veo_is_ve_addr(at) && veo_get_proc_handle_from_hmem(at) == near);
    EQUAL(veo_hmemcpy(text, at, 14), 0);
    EQUAL(strcmp(text, "owner's words"), 0);
    EQUAL(veo_hmemcpy((char *)at + 100, "near's words", 13), 0);
    EQUAL(veo_hmemcpy(text, (char *)area + 100, 13), 0);
    EQUAL(strcmp(text, "near's words"), 0);
    /* Between attached and allocated memory of one process, on the VE. */
    void *block;
    EQUAL(veo_alloc_hmem(near, &block, 100), 0);
    EQUAL(veo_hmemcpy(block, at, 14), 0);
    EQUAL(veo_hmemcpy((char *)at + 200, block, 14), 0);
    EQUAL(veo_hmemcpy(text, (char *)area + 200, 14), 0);
    EQUAL(strcmp(text, "owner's words"), 0);
    EQUAL(veo_shared_mem_detach(near, at, VE_REGISTER_VEMVA), 0);
    const int unknown = documented() ? ECANCELED : EINVAL;
    FAILS(veo_shared_mem_detach(near, at, VE_REGISTER_VEMVA), -1, unknown);

    /* From another VE: DMA both ways, waited for and polled. */
    void *remote = veo_shared_mem_attach(far, pid, area, PAGE, 0, VE_REGISTER_PCI | VE_REGISTER_VEHVA);
    CHECK(remote != FAILED && !veo_is_ve_addr(remote));
    uint64_t there = (uint64_t)remote, here = veo_register_mem_to_dmaatb(mine, PAGE);
    CHECK(here != ~0UL);
    EQUAL(veo_dma_post_wait(far, here, there, 16), 0);
    EQUAL(veo_hmemcpy(text, mine, 14), 0);
    EQUAL(strcmp(text, "owner's words"), 0);
    EQUAL(veo_hmemcpy(mine, "far's words", 12), 0);
    ve_dma_handle_t handle;
    EQUAL(veo_dma_post(far, there + 4096, here, 12, &handle), 0);
    int result;
    while ((result = veo_dma_poll(far, &handle)) == -EAGAIN)
        ;
    EQUAL(result, 0);
    veo_access_pcircvsyc_register(owner);
    EQUAL(veo_hmemcpy(text, (char *)area + 4096, 12), 0);
    EQUAL(strcmp(text, "far's words"), 0);
    EQUAL(veo_dma_post_wait(far, there + 5 * PAGE, here, 4), 0x4000);
    EQUAL(veo_dma_post_wait(far, 0x7ff00000000, here, 4), 0x2000);
    EQUAL(veo_dma_post_wait(far, there + 2, here, 4), 0x1000);

    refusals();

    /* The owner closes, then dies: the attacher keeps the frames. */
    EQUAL(veo_shared_mem_close(area, PAGE, 0, VE_REGISTER_PCI), 0);
    FAILS(veo_shared_mem_close(area, PAGE, 0, VE_REGISTER_PCI), -1, EINVAL);
    kill(pid, SIGKILL);
    while (veo_get_context_state(veo_get_context(owner, 0)) != VEO_STATE_EXIT)
        usleep(1000);
    EQUAL(veo_dma_post_wait(far, here, there + 4096, 12), 0);
    EQUAL(veo_hmemcpy(text, mine, 12), 0);
    EQUAL(strcmp(text, "far's words"), 0);
    EQUAL(veo_shared_mem_detach(far, remote, VE_REGISTER_VEHVA), 0);
    EQUAL(veo_unregister_mem_from_dmaatb(far, here), 0);
    finish();
}

static void refused(void)
{
    prepare();
    EQUAL(veo_shared_mem_open(area, PAGE, 0, VE_REGISTER_PCI), 0);
    refusals();
    finish();
}

/* VH-VE SHM: the errors of sections 7.1 to 7.3, then, with huge pages, data. */
static void vhshm(void)
{
    void *vehva = NULL;
    prepare();
    FAILS(veo_shmget(far, IPC_PRIVATE, HUGE, SHM_HUGETLB), -1, EINVAL);
    FAILS(veo_shmget(far, 4711, HUGE, 0), -1, EINVAL);
    FAILS(veo_shmget(far, 4711, HUGE, SHM_HUGETLB | IPC_CREAT), -1, EINVAL);
    FAILS(veo_shmget(far, 4711, HUGE, SHM_HUGETLB | IPC_EXCL), -1, EINVAL);
    FAILS(veo_shmget(far, 4711, HUGE, SHM_HUGETLB | SHM_NORESERVE), -1, EINVAL);
    key_t key = 0x76656f00 + getpid() % 251;
    FAILS(veo_shmget(far, key, HUGE, SHM_HUGETLB), -1, ENOENT);
    /* Not of huge pages: found, and refused at the attach. */
    int plain = shmget(key, HUGE, IPC_CREAT | IPC_EXCL | 0600);
    CHECK(plain >= 0);
    EQUAL(veo_shmget(far, key, HUGE, SHM_HUGETLB), plain);
    FAILS(veo_shmget(far, key, HUGE + 1, SHM_HUGETLB), -1, EINVAL);
    FAILS((int64_t)veo_shmat(far, plain, NULL, 0, &vehva), -1, EFAULT);
    FAILS((int64_t)veo_shmat(far, plain, (void *)4096, 0, &vehva), -1, EINVAL);
    FAILS((int64_t)veo_shmat(far, plain, NULL, SHM_REMAP, &vehva), -1, EINVAL);
    EQUAL(shmctl(plain, IPC_RMID, NULL), 0);
    CHECK((int64_t)veo_shmat(far, plain, NULL, 0, &vehva) == -1 && (errno == EIDRM || errno == EINVAL));
    FAILS(veo_shmdt(far, NULL), -1, EINVAL);
    FAILS(veo_shmdt(far, (void *)4096), -1, EINVAL);

    int id = shmget(IPC_PRIVATE, 2 * HUGE, SHM_HUGETLB | IPC_CREAT | 0600);
    if (id < 0) {
        CHECK(errno == ENOMEM || errno == EPERM); /* none, or none for this user */
        printf("no huge pages\n");
        finish();
        return;
    }
    char *host = shmat(id, NULL, 0);
    CHECK(host != FAILED);
    EQUAL(shmctl(id, IPC_RMID, NULL), 0);
    void *token = veo_shmat(far, id, NULL, 0, &vehva), *second;
    CHECK(token != FAILED && vehva != NULL);
    CHECK(veo_shmat(far, id, NULL, SHM_RDONLY, &second) != FAILED && second != vehva);
    uint64_t here = veo_register_mem_to_dmaatb(mine, PAGE);
    CHECK(here != ~0UL);
    strcpy(host + HUGE, "from the host");
    EQUAL(veo_dma_post_wait(far, here, (uint64_t)vehva + HUGE, 16), 0);
    char text[16] = "";
    EQUAL(veo_hmemcpy(text, mine, 14), 0);
    EQUAL(strcmp(text, "from the host"), 0);
    EQUAL(veo_hmemcpy(mine, "from the VE", 12), 0);
    EQUAL(veo_dma_post_wait(far, (uint64_t)vehva, here, 12), 0);
    EQUAL(strcmp(host, "from the VE"), 0);
    EQUAL(veo_dma_post_wait(far, (uint64_t)second, here, 12), 0x8000);
    EQUAL(veo_shmdt(far, token), 0);
    FAILS(veo_shmdt(far, token), -1, EINVAL);
    EQUAL(shmdt(host), 0);
    printf("huge pages\n");
    finish();
}

/* Ends without a word to anybody, everything attached. */
static void vanish(void)
{
    prepare();
    EQUAL(veo_shared_mem_open(area, PAGE, 0, VE_REGISTER_PCI), 0);
    CHECK(veo_shared_mem_attach(far, pid, area, PAGE, 0, VE_REGISTER_PCI | VE_REGISTER_VEHVA) != FAILED);
    CHECK(veo_shared_mem_attach(near, pid, area, PAGE, 0, VE_REGISTER_PCI | VE_REGISTER_VEMVA) != FAILED);
    kill(getpid(), SIGKILL);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    if (strcmp(argv[1], "veshm") == 0)
        veshm();
    else if (strcmp(argv[1], "refused") == 0)
        refused();
    else if (strcmp(argv[1], "vhshm") == 0)
        vhshm();
    else if (strcmp(argv[1], "vanish") == 0)
        vanish();
    else
        return 2;
    return 0;
}

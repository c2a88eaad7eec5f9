/* veo_vhveshm.h, veo_veshm.h and veo_vedma.h, over libsysve's stand-in or none: veo_sysve TEST. */
#include <signal.h>
#include <unistd.h>

#include "veo_check.h"
#include "veo_vedma.h"
#include "veo_veshm.h"
#include "veo_vhveshm.h"

#define FAILED ((void *)-1)

static struct veo_proc_handle *proc, *other;
static void *hmem;
static uint64_t address;

static void prepare(void)
{
    CHECK((proc = veo_proc_create(0)) != NULL);
    CHECK((other = veo_proc_create(1)) != NULL);
    EQUAL(veo_alloc_hmem(proc, &hmem, 64UL << 20), 0);
    address = (uint64_t)veo_get_hmem_addr(hmem);
}

/* What the stand-in is to answer. */
static void answers(struct veo_proc_handle *of, int64_t answer, int number)
{
    /* Loaded when it is first needed. */
    veo_access_pcircvsyc_register(of);
    uint64_t at = veo_get_sym(of, 0, "answer"), none = 0;
    CHECK(at != 0);
    EQUAL(veo_write_mem(of, at, &answer, sizeof answer), 0);
    EQUAL(veo_write_mem(of, veo_get_sym(of, 0, "number"), &number, sizeof number), 0);
    EQUAL(veo_write_mem(of, veo_get_sym(of, 0, "seen") + 6 * 8, &none, sizeof none), 0);
}

static void saw(struct veo_proc_handle *in, int function, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
    uint64_t seen[6], wanted[] = {(uint64_t)function, a, b, c, d, e};
    EQUAL(veo_read_mem(in, seen, veo_get_sym(in, 0, "seen"), sizeof seen), 0);
    for (int i = 0; i < 6; i++)
        EQUAL(seen[i], wanted[i]);
}

/* Every function, failing in the same way. */
static void fail(int number)
{
    void *vehva = NULL;
    FAILS(veo_shmget(proc, 1, 2, SHM_HUGETLB), -1, number);
    FAILS((int64_t)veo_shmat(proc, 1, NULL, 0, &vehva), -1, number);
    CHECK(number == 0 || vehva == NULL);
    FAILS(veo_shmdt(proc, (void *)4096), -1, number);
    FAILS(veo_shared_mem_open(hmem, 64UL << 20, 0, VE_REGISTER_PCI), -1, number);
    FAILS(veo_shared_mem_close(hmem, 64UL << 20, 0, VE_REGISTER_PCI), -1, number);
    FAILS((int64_t)veo_shared_mem_attach(proc, 1, hmem, 1, 0, VE_REGISTER_VEMVA), -1, number);
    FAILS((int64_t)veo_shared_mem_attach(proc, 1, hmem, 1, 0, VE_REGISTER_VEHVA), -1, number);
    FAILS(veo_shared_mem_detach(proc, (void *)4096, VE_REGISTER_VEHVA), -1, number);
    FAILS(veo_register_mem_to_dmaatb(hmem, 64UL << 20), -1, number);
    FAILS(veo_unregister_mem_from_dmaatb(proc, 4096), -1, number);
}

static void dma_fails(int code)
{
    ve_dma_handle_t handle = {-5, -5};
    EQUAL(veo_dma_post(proc, 8, 16, 4, &handle), code);
    EQUAL(handle.status, -5);
    EQUAL(veo_dma_poll(proc, &handle), code);
    EQUAL(veo_dma_post_wait(proc, 8, 16, 4), code);
}

/* Of this layer alone, whatever lies below. */
static void own_errors(void)
{
    void *vehva;
    ve_dma_handle_t handle;
    FAILS((int64_t)veo_shmat(proc, 1, NULL, 0, NULL), -1, EFAULT);
    EQUAL(veo_dma_post(proc, 8, 16, 4, NULL), -EFAULT);
    EQUAL(veo_dma_poll(proc, NULL), -EFAULT);
    /* Not pointers to VE memory. */
    FAILS(veo_shared_mem_open(&handle, 1, 0, VE_REGISTER_PCI), -1, EINVAL);
    FAILS(veo_shared_mem_close(NULL, 1, 0, VE_REGISTER_PCI), -1, EINVAL);
    FAILS(veo_register_mem_to_dmaatb(&handle, 1), -1, EINVAL);
    FAILS(veo_shared_mem_open(veo_set_proc_identifier((void *)64, 9), 1, 0, VE_REGISTER_PCI), -1, EINVAL);
    FAILS(veo_shmget(NULL, 1, 1, 0), -1, EINVAL);
    FAILS((int64_t)veo_shmat(NULL, 1, NULL, 0, &vehva), -1, EINVAL);
    EQUAL(veo_dma_post(NULL, 8, 16, 4, &handle), -EINVAL);
    veo_access_pcircvsyc_register(NULL);
}

/* No libsysve on the VE. */
static void absent(void)
{
    prepare();
    own_errors();
    fail(ENOTSUP);
    dma_fails(-ENOTSUP);
    veo_access_pcircvsyc_register(proc);
    EQUAL(veo_proc_destroy(proc), 0);
    EQUAL(veo_proc_destroy(other), 0);
}

/* The VE process dies, or its handle is closed. */
static void dead(void)
{
    prepare();
    pid_t pid = veo_get_pid_from_hmem(hmem);
    CHECK(pid > 0);
    struct veo_thr_ctxt *ctx = veo_context_open(proc);
    EQUAL(kill(pid, SIGKILL), 0);
    while (veo_get_context_state(ctx) != VEO_STATE_EXIT)
        usleep(1000);
    FAILS(veo_get_pid_from_hmem(hmem), -1, EBUSY); /* it may be another process's by now */
    fail(EBUSY);
    dma_fails(-EBUSY);
    veo_access_pcircvsyc_register(proc);
    EQUAL(veo_proc_destroy(proc), 0);
    FAILS(veo_shmget(proc, 1, 2, SHM_HUGETLB), -1, EBUSY);
    FAILS(veo_shared_mem_detach(proc, (void *)4096, VE_REGISTER_VEHVA), -1, EBUSY);
    dma_fails(-EBUSY);
    FAILS(veo_shared_mem_open(hmem, 1, 0, VE_REGISTER_PCI), -1, EINVAL);
    EQUAL(veo_proc_destroy(other), 0);
}

static void passed_on(void)
{
    prepare();
    own_errors();
    answers(proc, 77, 0);
    void *vehva = NULL;
    EQUAL(veo_shmget(proc, -5, 1UL << 40, SHM_HUGETLB | 0600), 77);
    saw(proc, 1, (uint64_t)-5, 1UL << 40, SHM_HUGETLB | 0600, 0, 0);
    CHECK(veo_shmat(proc, 3, (void *)4096, SHM_RDONLY, &vehva) == (void *)77);
    CHECK(vehva == (void *)0x8800000000);
    saw(proc, 2, 3, 4096, SHM_RDONLY, 0, 0);
    EQUAL(veo_shmdt(proc, (void *)8192), 77);
    saw(proc, 3, 8192, 0, 0, 0, 0);
    answers(proc, 0, 0);
    EQUAL(veo_shared_mem_open(hmem, 64UL << 20, 3, 1LL << 40 | VE_REGISTER_PCI), 0);
    saw(proc, 4, address, 64UL << 20, 3, 1UL << 40 | 4, 0);
    EQUAL(veo_shared_mem_close(hmem, 64UL << 20, -1, VE_REGISTER_NONE), 0);
    saw(proc, 5, address, 64UL << 20, (uint64_t)-1, 0x1000, 0);

    /* Attach: an HMEM pointer of the attacher for VEMVA, a VEHVA otherwise. */
    answers(other, 0x700000000000, 0);
    void *at = veo_shared_mem_attach(other, 1234, hmem, 64UL << 20, 0, VE_REGISTER_VEMVA | VE_REGISTER_NONE);
    saw(other, 6, 1234, address, 64UL << 20, 0, 0x3000);
    EQUAL(veo_is_ve_addr(at), 1);
    CHECK(veo_get_hmem_addr(at) == (void *)0x700000000000);
    CHECK(veo_get_proc_handle_from_hmem(at) == other);
    answers(other, 0, 0);
    EQUAL(veo_shared_mem_detach(other, at, VE_REGISTER_VEMVA), 0);
    saw(other, 7, 0x700000000000, 0x2000, 0, 0, 0);
    answers(other, 0x70000000000, 0);
    at = veo_shared_mem_attach(other, 1234, hmem, 64UL << 20, 0, VE_REGISTER_VEHVA | VE_REGISTER_PCI);
    CHECK(at == (void *)0x70000000000);
    EQUAL(veo_shared_mem_detach(other, FAILED, VE_REGISTER_VEHVA), 0);
    saw(other, 7, ~0UL, 0x4000, 0, 0, 0);

    /* Own memory: by the process of the pointer, with its pid. */
    answers(proc, 0x70000000000, 0);
    EQUAL(veo_register_mem_to_dmaatb(hmem, 64UL << 20), 0x70000000000);
    saw(proc, 6, (uint64_t)veo_get_pid_from_hmem(hmem), address, 64UL << 20, 0, VE_MEM_LOCAL);
    answers(proc, 0, 0);
    EQUAL(veo_unregister_mem_from_dmaatb(proc, 0x70000000000), 0);
    saw(proc, 7, 0x70000000000, VE_MEM_LOCAL, 0, 0, 0);

    /* An errno is passed on; EPERM is lost, as it looks like -1 itself. */
    answers(proc, -1, EIDRM);
    fail(EIDRM);
    answers(proc, -1, EPERM);
    fail(0);

    /* DMA: initialised once, codes as they are, handles by value. */
    ve_dma_handle_t handle, first;
    answers(proc, 0, 0);
    EQUAL(veo_dma_post(proc, 1UL << 43, 1UL << 44, -4, &first), 0);
    saw(proc, 8, 1UL << 43, 1UL << 44, (uint64_t)-4, 1, 0);
    EQUAL(first.status, -1);
    EQUAL(first.index, 0);
    for (int i = 1; i < 300; i++) {
        EQUAL(veo_dma_post(proc, 4, 8, 12, &handle), 0);
        EQUAL(handle.index, i % 128);
    }
    EQUAL(first.status, -1);
    for (int code = -EAGAIN; code <= 0x8000; code += 0x2000 + EAGAIN) {
        answers(proc, code, 0);
        EQUAL(veo_dma_poll(proc, &handle), code);
        saw(proc, 9, (uint64_t)-1, 299 % 128, 1, 0, 0);
        EQUAL(veo_dma_post_wait(proc, 4, 8, 12), code);
        saw(proc, 10, 4, 8, 12, 1, 0);
        if (code)
            EQUAL(veo_dma_post(proc, 4, 8, 12, &handle), code);
    }

    /* Every context reads PCIRCVSYC. */
    CHECK(veo_context_open(proc) != NULL && veo_context_open(proc) != NULL);
    veo_access_pcircvsyc_register(proc);
    uint64_t seen[8];
    EQUAL(veo_read_mem(proc, seen, veo_get_sym(proc, 0, "seen"), sizeof seen), 0);
    EQUAL(seen[6], 3);
    EQUAL(seen[7], 0x1400);
    EQUAL(veo_proc_destroy(proc), 0);
    EQUAL(veo_proc_destroy(other), 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    if (strcmp(argv[1], "absent") == 0)
        absent();
    else if (strcmp(argv[1], "dead") == 0)
        dead();
    else if (strcmp(argv[1], "passed_on") == 0)
        passed_on();
    else
        return 2;
    return 0;
}

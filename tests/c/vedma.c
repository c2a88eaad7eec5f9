/*
 * Sections 8, 9 and 10 of ve-memory: DMA, registers, LHM and SHM. 2 VEs or more.
 * Argument: "defined" (what every program may do), "checked" (what WINDLASS_VE_CHECK=1 traps), "unchecked" (what then happens).
 */
#include "support.h"

#include <pthread.h>
#include <setjmp.h>

static const uint64_t NOWHERE = 0x07F000000000, BEHIND = 0x070000000000 + 200 * M64;

static char *own;
static uint64_t local; /* own, in VEHVA: two pages */
static uint64_t far, far_ro; /* a page of a process on another VE */
static struct peer peer;
static uint64_t there;

/* Section 9.3, ve_dma_init; userdma.h. All in children: it is for good. */
static void inits(void)
{
    uint64_t descriptors = 0, control = 0;
    char *readable = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ve_dma_handle_t handle = {-1, 0};
    DIES(SIGABRT, ve_dma_post(0, 0, 0, &handle));
    DIES(SIGABRT, ve_dma_post_wait(0, 0, 0));
    pid_t child = fork();
    if (child == 0) {
        REFUSED(ve_map_dmades(NULL, &control), EFAULT);
        REFUSED(ve_map_dmades(&descriptors, (uint64_t *)readable), EFAULT);
        REFUSED(ve_map_dmades((uint64_t *)nothing(4096), &control), EFAULT);
        FINE(ve_map_dmades(&descriptors, &control));
        SAME(descriptors, 0x5000);
        SAME(control, 0x3000);
        REFUSED(ve_map_dmades(&descriptors, &control), EBUSY);
        SAME(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), (void *)descriptors), 4096);
        REFUSED(ve_dma_init(), EBUSY);
        SAME(ve_dma_init(), -1);
        REFUSED(ve_unmap_dmades(0x4000), EINVAL);
        FINE(ve_unmap_dmades(descriptors));
        REFUSED(ve_unmap_dmades(descriptors), EINVAL);
        SAME(ve_dma_init(), -1); /* failed once, for good */
        exit(0);
    }
    int status = 0;
    SAME(waitpid(child, &status, 0), child);
    SAME(status, 0);
    errno = 77;
    FINE(ve_dma_init());
    FINE(ve_dma_init());
    SAME(errno, 77);
    REFUSED(ve_map_dmades(&descriptors, &control), EBUSY);
    DIES(SIGABRT, ve_dma_post(0, 0, 0, &handle)); /* not inherited */
    child = fork();
    if (child == 0) {
        FINE(ve_dma_init());
        FINE(ve_dma_post_wait(0, 0, 0));
        exit(0);
    }
    SAME(waitpid(child, &status, 0), child);
    SAME(status, 0);
    munmap(readable, 4096);
}

/* Of the library's, for tests: what is documented, and nothing else. */
extern int windlass_dma_strict(int strict);

static void begin_transfers(void)
{
    peer = start(1);
    there = ASK(peer, PAGES, 1);
    FINE(ASK(peer, OPEN, there, M64, 0, VE_REGISTER_PCI));
    FINE(ASK(peer, OPEN, there, M64, 0, VE_REGISTER_PCI | VE_SHM_RO));
    own = pages(2);
    for (size_t i = 0; i < 2 * M64 / 8; i++)
        ((uint64_t *)own)[i] = i;
    local = ve_register_mem_to_dmaatb(own, 2 * M64);
    far = (uint64_t)ve_shared_mem_attach(peer.pid, (void *)there, M64, 0, VE_REGISTER_PCI | VE_REGISTER_VEHVA);
    far_ro = (uint64_t)ve_shared_mem_attach(peer.pid, (void *)there, M64, 0,
                                            VE_REGISTER_PCI | VE_SHM_RO | VE_REGISTER_VEHVA);
    TRUE(local != ALL_ONES && far != ALL_ONES && far_ro != ALL_ONES);
}

/* Sections 9.2 and 9.3; check 13. */
static void transfers(void)
{
    for (size_t size = 4; size <= M64; size *= 4) {
        FINE(ve_dma_post_wait(far, local + M64 - size / 8 * 4, size)); /* crosses a page */
        SAME(ASK(peer, PEEK, there + (size < 8 ? 0 : size - 8)),
             size < 8 ? (uint32_t)*(uint64_t *)(own + M64) : *(uint64_t *)(own + M64 - size / 8 * 4 + size - 8));
    }
    FINE(ve_dma_post_wait(local + 8, far, 8));
    FINE(ve_dma_post_wait(local + M64, local, 4096)); /* within one VE */
    FINE(memcmp(own + M64, own, 4096));
    FINE(ve_dma_post_wait(NOWHERE, 0x1234, 0));  /* no length, no transfer */
    SAME(ve_dma_post_wait(far_ro, local, 4), VE_DMA_MEMORY_PROTECTION);
    SAME(ve_dma_post_wait(far, BEHIND, 4), VE_DMA_MISSING_PAGE);
    SAME(ve_dma_post_wait(BEHIND, local, 4), VE_DMA_MISSING_PAGE);
    SAME(ve_dma_post_wait(far, NOWHERE, 4), VE_DMA_MISSING_SPACE);
    SAME(ve_dma_post_wait(NOWHERE, local, 4), VE_DMA_MISSING_SPACE);
    SAME(ve_dma_post_wait(far, (uint64_t)own, 4), VE_DMA_MISSING_SPACE); /* a VEMVA */
    SAME(ve_dma_post_wait(far, 1UL << 48, 4), VE_DMA_MEMORY_ACCESS);
    SAME(ve_dma_post_wait(far + M64 - 8, local, 16), far + M64 == far_ro ? VE_DMA_MEMORY_PROTECTION : VE_DMA_MISSING_PAGE);
    char unchanged[8];
    memcpy(unchanged, own, 8);
    SAME(ve_dma_post_wait(local, local + 2 * M64 - 4, 8), local + 2 * M64 == far ? 0 : VE_DMA_MISSING_PAGE);
    if (local + 2 * M64 != far)
        FINE(memcmp(unchanged, own, 8));
    /* Both ends on other VEs: undocumented. */
    FINE(ve_dma_post_wait(far + 4096, far, 8));
    FINE(windlass_dma_strict(1));
    SAME(ve_dma_post_wait(far + 4096, far, 8), VE_DMA_IO_ACCESS);
    FINE(ve_dma_post_wait(local + 8, far, 8));
    FINE(windlass_dma_strict(0));
    uint64_t registers[2] = {9, 999};
    ve_dma_read_ctrl_reg(registers);
    SAME(registers[0], 1);
    TRUE(registers[1] < 128);
    uint64_t before = registers[1];
    FINE(ve_dma_post_wait(local, far, 4));
    ve_dma_read_ctrl_reg(registers);
    SAME(registers[1], (before + 1) % 128);
}

/*
 * Check 12: the 129th post is refused while none of the 128 before it is completed, and accepted after one is. Each descriptor
 * executes inside its post unless WINDLASS_VE_REORDER lets the engine stand still: every few rounds. (faults.c holds the engine.)
 */
static void full_ring(void)
{
    static ve_dma_handle_t handles[129];
    ve_dma_handle_t *last = &handles[128];
    int refused = 0;
    const int reordered = getenv("WINDLASS_VE_REORDER") != NULL;
    for (int round = 0; round < (reordered ? 10000 : 10) && refused < 3; round++) {
        for (int i = 0; i < 128; i++)
            FINE(ve_dma_post(far + 8 * i, local + 8 * i, 8, &handles[i]));
        int posted = ve_dma_post(far, local, 8, last);
        if (posted == -EAGAIN) {
            refused++;
            SAME(handles[0].status, -1);
            FINE(ve_dma_wait(&handles[0]));
            FINE(ve_dma_post(far, local, 8, last));
            SAME(last->index, handles[0].index);
        } else {
            FINE(posted);
            FINE(handles[0].status); /* the later post has stored it */
        }
        for (int i = 1; i < 129; i++)
            FINE(ve_dma_wait(&handles[i]));
    }
    SAME(refused, reordered ? 3 : 0);
}

/* Section 9.3, ve_dma_post: what a later post stores in an older handle; the ring is in order. */
static void ring(void)
{
    static ve_dma_handle_t handles[1000];
    for (int i = 0; i < 1000; i++) {
        int posted;
        /* Every eighth reads where nothing is. */
        uint64_t src = i % 8 == 7 ? NOWHERE : local + 8 * i;
        while ((posted = ve_dma_post(far + 8 * i, src, 8, &handles[i])) == -EAGAIN)
            ;
        FINE(posted);
        SAME(handles[i].status, -1);
        SAME(handles[i].index, (handles[0].index + i) % 128);
        if (i >= 128)
            SAME(handles[i - 128].status, (i - 128) % 8 == 7 ? VE_DMA_MISSING_SPACE : 0);
    }
    for (int i = 999; i >= 0; i--)
        SAME(ve_dma_wait(&handles[i]), i % 8 == 7 ? VE_DMA_MISSING_SPACE : 0);
    for (int i = 0; i < 1000; i++)
        if (i % 8 != 7)
            SAME(ASK(peer, PEEK, there + 8 * i), *(uint64_t *)(own + 8 * i));
    /* A waiting post takes descriptors of others too. */
    ve_dma_handle_t first;
    FINE(ve_dma_post(far, NOWHERE, 8, &first));
    for (int i = 0; i < 128; i++)
        FINE(ve_dma_post_wait(far, local, 8));
    SAME(first.status, VE_DMA_MISSING_SPACE);
    SAME(ve_dma_poll(&first), VE_DMA_MISSING_SPACE);
    /* A handle serves again once its result is known. */
    for (int i = 0; i < 300; i++) {
        FINE(ve_dma_post(far + 16, local + 8 * i, 8, &first));
        SAME(ve_dma_wait(&first), 0);
    }
    SAME(ASK(peer, PEEK, there + 16), *(uint64_t *)(own + 8 * 299));
}

static void *poster(void *argument)
{
    uint64_t offset = 64 * KIB * (uint64_t)argument;
    ve_dma_handle_t handles[8];
    for (int round = 0; round < 500; round++) {
        for (int i = 0; i < 8; i++)
            while (ve_dma_post(far + offset + 8 * i, local + offset + 8 * (round + i), 8, &handles[i]) == -EAGAIN)
                ;
        for (int i = 0; i < 8; i++)
            SAME(ve_dma_wait(&handles[i]), 0);
        SAME(ve_dma_post_wait(local + M64 + offset, far + offset, 64), 0);
        FINE(memcmp(own + M64 + offset, own + offset + 8 * round, 64));
    }
    return NULL;
}

static void threads(void)
{
    pthread_t thread[4];
    for (uint64_t i = 0; i < 4; i++)
        FINE(pthread_create(&thread[i], NULL, poster, (void *)i));
    for (int i = 0; i < 4; i++)
        FINE(pthread_join(thread[i], NULL));
}

/* Sections 2.2 and 8. */
static void registers(void)
{
    uint64_t a = 1, b = 2;
    char *readable = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int pair = 0; pair < 4; pair++) {
        a = b = 7;
        FINE(ve_get_pci_sync(pair, &a, &b));
        SAME(a | b, 0);
    }
    REFUSED(ve_get_pci_sync(4, &a, &b), EINVAL);
    REFUSED(ve_get_pci_sync(255, NULL, NULL), EINVAL);
    REFUSED(ve_get_pci_sync(0, NULL, &b), EFAULT);
    REFUSED(ve_get_pci_sync(0, &a, (uint64_t *)readable), EFAULT);
    REFUSED(ve_get_pci_sync(0, &a, (uint64_t *)nothing(4096)), EFAULT);
    const uint64_t regions[][2] = {{VE_FIXED_COMMON_REGISTERS_0, 0x1000}, {VE_FIXED_COMMON_REGISTERS_1, 0x2000},
                                   {VE_FIXED_DMA_CONTROL_E, 0x3010}, {VE_FIXED_DMA_DESCRIPTORS_E, 0x4000}};
    for (size_t i = 0; i < 4; i++) {
        FINE(ve_get_fixed_vehva(regions[i][0], &a));
        SAME(a, regions[i][1]);
    }
    REFUSED(ve_get_fixed_vehva(2, &a), EINVAL);
    REFUSED(ve_get_fixed_vehva(0, NULL), EFAULT);
    REFUSED(ve_get_fixed_vehva(0, (uint64_t *)readable), EFAULT);
    ve_inst_lhm((void *)VE_PCIRCVSYC);
    munmap(readable, 4096);
}

static sigjmp_buf back;
static volatile siginfo_t raised;
static volatile int raises;

static void handler(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    raised.si_signo = info->si_signo;
    raised.si_code = info->si_code;
    raised.si_addr = info->si_addr;
    /* Returning comes back: the access is tried again. */
    if (++raises % 3 == 0)
        siglongjmp(back, 1);
}

#define FAULTS(access, code, address)                                         \
    do {                                                                      \
        if (sigsetjmp(back, 1) == 0) {                                        \
            access;                                                           \
            fail(__FILE__, __LINE__, #access " went through", 0, 0);          \
        }                                                                     \
        SAME(raised.si_signo, SIGSEGV);                                       \
        SAME(raised.si_code, code);                                           \
        SAME(raised.si_addr, address);                                        \
        SAME(raises % 3, 0);                                                  \
    } while (0)

/* Section 10. */
static void instructions(void)
{
    void *at = (void *)far, *read_only = (void *)far_ro;
    ve_inst_shm(at, 0x1122334455667788);
    SAME(ve_inst_lhm(at), 0x1122334455667788);
    SAME(ve_inst_lhm32(at), 0x55667788);
    ve_inst_shm32((char *)at + 4, 0x99aabbcc);
    SAME(ve_inst_lhm(at), 0x99aabbcc55667788);
    ve_inst_fenceSF();
    ve_inst_fenceLF();
    ve_inst_fenceLSF();
    ve_inst_fenceC1();
    ve_inst_fenceC2();
    ve_inst_fenceC4();
    ve_inst_fenceC7();
    SAME(ASK(peer, PEEK, there), 0x99aabbcc55667788);
    SAME(ve_inst_lhm(read_only), 0x99aabbcc55667788);
    /* Each width takes and gives its own bytes, and no others. */
    for (int i = 0; i < 8; i++)
        SAME(ve_inst_lhm8((char *)at + i), 0x99aabbcc55667788 >> 8 * i & 0xff);
    for (int i = 0; i < 8; i += 2)
        SAME(ve_inst_lhm16((char *)at + i), 0x99aabbcc55667788 >> 8 * i & 0xffff);
    ve_inst_shm16((char *)at + 2, 0x1234);
    ve_inst_shm8((char *)at + 7, 0x56);
    ve_inst_shm8((char *)at + 1, 0xff);
    SAME(ve_inst_lhm(at), 0x56aabbcc1234ff88);
    ve_inst_fenceSF();
    SAME(ASK(peer, PEEK, there), 0x56aabbcc1234ff88);
    SAME(ve_inst_lhm8((void *)VE_PCIRCVSYC), 0);
    ve_inst_shm(at, 0x99aabbcc55667788);
    SAME(ve_inst_lhm((void *)(local + 8 * 5)), *(uint64_t *)(own + 40));
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    FINE(sigaction(SIGSEGV, &action, NULL));
    FAULTS(ve_inst_lhm((void *)NOWHERE), SEGV_MAPERR, NOWHERE);
    FAULTS(ve_inst_shm((void *)NOWHERE, 1), SEGV_MAPERR, NOWHERE);
    FAULTS(ve_inst_lhm32((void *)BEHIND), SEGV_MAPERR, BEHIND);
    FAULTS(ve_inst_lhm((void *)own), SEGV_MAPERR, own);
    FAULTS(ve_inst_lhm((void *)(far + 4)), SEGV_MAPERR, far + 4);
    FAULTS(ve_inst_shm32((void *)(far + 2), 1), SEGV_MAPERR, far + 2);
    FAULTS(ve_inst_lhm16((void *)(far + 1)), SEGV_MAPERR, far + 1);
    FAULTS(ve_inst_shm16((void *)(far + 3), 1), SEGV_MAPERR, far + 3);
    FAULTS(ve_inst_lhm8((void *)(NOWHERE + 1)), SEGV_MAPERR, NOWHERE + 1);
    FAULTS(ve_inst_shm8((char *)read_only + 1, 1), SEGV_ACCERR, (char *)read_only + 1);
    FAULTS(ve_inst_shm16(read_only, 1), SEGV_ACCERR, read_only);
    FAULTS(ve_inst_shm(read_only, 1), SEGV_ACCERR, read_only);
    FAULTS(ve_inst_shm32(read_only, 1), SEGV_ACCERR, read_only);
    FAULTS(ve_inst_shm((void *)VE_PCIRCVSYC, 1), SEGV_ACCERR, VE_PCIRCVSYC);
    SAME(ve_inst_lhm(at), 0x99aabbcc55667788);
    /* Nobody escapes by blocking or ignoring it. */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    FINE(sigprocmask(SIG_BLOCK, &set, NULL));
    DIES(SIGSEGV, ve_inst_lhm((void *)NOWHERE));
    FINE(sigprocmask(SIG_UNBLOCK, &set, NULL));
    signal(SIGSEGV, SIG_IGN);
    DIES(SIGSEGV, ve_inst_lhm((void *)NOWHERE));
    signal(SIGSEGV, SIG_DFL);
    DIES(SIGSEGV, ve_inst_lhm((void *)NOWHERE));
}

/* What is registered stays when the program frees it (section 2.6). */
static void lifetimes(void)
{
    char *block = pages(1);
    strcpy(block, "registered");
    uint64_t vehva = ve_register_mem_to_dmaatb(block, M64);
    TRUE(vehva != ALL_ONES);
    free(block);
    FINE(ve_dma_post_wait(far, vehva, 16));
    SAME(ASK(peer, PEEK, there), *(uint64_t *)"registered");
    char *again = pages(1); /* perhaps at the same place */
    memset(again, 1, M64);
    FINE(ve_dma_post_wait(far, vehva, 16));
    SAME(ASK(peer, PEEK, there), *(uint64_t *)"registered");
    FINE(ve_unregister_mem_from_dmaatb(vehva));
    SAME(ve_dma_post_wait(far, vehva, 16), VE_DMA_MISSING_PAGE);
    free(again);
}

/* In flight, and used up: what the real library leaves undefined (section 9.3). */
static void checked(void)
{
    ve_dma_handle_t handle, copy;
    FINE(ve_dma_init());
    begin_transfers();
#define TRAPPED(...) DIES(SIGABRT, FINE(ve_dma_init()); begin_transfers(); __VA_ARGS__)
    TRAPPED(ve_dma_post_wait(far + 1, local, 4));
    TRAPPED(ve_dma_post_wait(far, local + 2, 4));
    TRAPPED(ve_dma_post_wait(far, local, 6));
    TRAPPED(ve_dma_post_wait(far, local, 128 << 20));
    TRAPPED(ve_dma_post_wait(far, local, -4));
    TRAPPED(ve_dma_post_wait(local + 4, local, 8));
    TRAPPED(ve_dma_post(far, local, 4, &handle); ve_dma_wait(&handle); ve_dma_poll(&handle));
    TRAPPED(ve_dma_post(far, local, 4, &handle); ve_dma_wait(&handle);
            for (int i = 0; i < 128; i++) ve_dma_post(far, local, 4, &copy), ve_dma_wait(&copy);
            ve_dma_poll(&handle));
    TRAPPED(ve_dma_post(far, local, 4, &handle); memset(&handle, 0, sizeof handle);
            for (int i = 0; i < 128; i++) ve_dma_post(far, local, 4, &copy), ve_dma_wait(&copy));
    TRAPPED(handle = (ve_dma_handle_t){-1, 5}; ve_dma_poll(&handle));
    TRAPPED(memset(&handle, 0, sizeof handle); ve_dma_poll(&handle));
    TRAPPED(memset(&handle, 0x5a, sizeof handle); ve_dma_poll(&handle));
    TRAPPED(ve_dma_post(far, local, 4, &handle);
            for (int i = 0; i < 128; i++) ve_dma_post(far, local, 4, &copy), ve_dma_wait(&copy);
            ve_dma_poll(&handle); ve_dma_poll(&handle));
    /* Section 2.2: there is memory at VEHVA 0, and it is not the program's. */
    TRAPPED(ve_inst_shm(NULL, 1));
    TRAPPED(ve_inst_shm32((void *)4092, 1));
    TRAPPED(ve_dma_post_wait(0, local, 8));
    TRAPPED(ve_dma_post(far, local, 4, &handle); ve_dma_post(far, local, 4, &handle));
    /* And nothing that is defined. */
    FINE(ve_dma_post(far, local, 4, &handle));
    FINE(ve_dma_wait(&handle));
    FINE(ve_dma_post_wait(0, 0, 0));
    FINE(ve_dma_post_wait(far, 0, 8));
    ve_inst_lhm(NULL);
    /* What is no address is told. */
    SAME(ve_dma_post_wait(far, (uint64_t)own, 4), VE_DMA_MISSING_SPACE);
    SAME(ve_dma_post_wait(BEHIND, local, 4), VE_DMA_MISSING_PAGE);
    SAME(ve_dma_post_wait(far_ro, local, 4), VE_DMA_MEMORY_PROTECTION);
    FINE(ve_dma_post(far, 1UL << 63 | (uint64_t)own, 4, &handle)); /* an HMEM pointer */
    SAME(ve_dma_wait(&handle), VE_DMA_MEMORY_ACCESS);
    ring();
    end(peer);
}

/* Refusals that name what was called, and a process that has nobody to find. */
static void alone(void)
{
    own = pages(1);
    SAME(ve_register_mem_to_dmaatb(own + 8, M64), ALL_ONES);
    SAME(ve_unregister_mem_from_dmaatb(NOWHERE + 8), -1);
    REFUSED(ve_get_pgmode(VE_ADDR_VEMVA, getppid(), own), ESRCH);
}

static void unchecked(void)
{
    ve_dma_handle_t handle, copy, other;
    FINE(ve_dma_init());
    begin_transfers();
    ve_inst_shm(NULL, 77);
    SAME(ve_inst_lhm(NULL), 77);
    SAME(ve_dma_post_wait(far + 1, local, 4), VE_DMA_MEMORY_ACCESS);
    SAME(ve_dma_post_wait(far, local + 2, 4), VE_DMA_MEMORY_ACCESS);
    SAME(ve_dma_post_wait(far, local, 6), VE_DMA_MEMORY_ACCESS);
    SAME(ve_dma_post_wait(far, local, 128 << 20), VE_DMA_MEMORY_ACCESS);
    SAME(ve_dma_post_wait(far, local, -4), VE_DMA_MEMORY_ACCESS); /* unsigned: 4 GiB less 4 */
    /* A copy of a handle will do. */
    FINE(ve_dma_post(far, NOWHERE, 4, &handle));
    copy = handle;
    SAME(ve_dma_poll(&copy), VE_DMA_MISSING_SPACE);
    /* Polled once more, it answers the same while the descriptor is as it was, */
    SAME(ve_dma_poll(&handle), VE_DMA_MISSING_SPACE);
    SAME(handle.status, -1);
    /* and another transfer's result later. */
    for (int i = 0; i < 128; i++) {
        FINE(ve_dma_post(far, local, 4, &other));
        FINE(ve_dma_wait(&other));
    }
    SAME(ve_dma_poll(&handle), 0);
    end(peer);
}

int main(int count, char **arguments)
{
    const char *what = count > 1 ? arguments[1] : "defined";
    /* Joins: peers come to the same node. */
    SAME(ve_get_pgmode(VE_ADDR_PCI, getpid(), NULL), M64);
    if (strcmp(what, "checked") == 0) {
        checked();
    } else if (strcmp(what, "alone") == 0) {
        alone();
    } else if (strcmp(what, "unchecked") == 0) {
        unchecked();
    } else {
        inits();
        registers();
        begin_transfers();
        transfers();
        full_ring();
        ring();
        threads();
        instructions();
        lifetimes();
        end(peer);
    }
    printf("vedma: %s, all as specified\n", what);
    return 0;
}

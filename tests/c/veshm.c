/* Sections 5.1 to 5.5 of ve-memory and what section 6 says of lives: every row that a C program can reach. VE1, 2 VEs or more. */
#include "support.h"

#include <setjmp.h>

#include <sys/resource.h>

static const long long PCI = VE_REGISTER_PCI, NONE = VE_REGISTER_NONE, RO = VE_SHM_RO;
static const long long VEMVA = VE_REGISTER_VEMVA, VEHVA = VE_REGISTER_VEHVA, LOCAL = VE_MEM_LOCAL;

static int open_pci(void *at, size_t size) { return ve_shared_mem_open(at, size, 0, PCI); }
static int close_pci(void *at, size_t size) { return ve_shared_mem_close(at, size, 0, PCI); }

/* Section 13, checks 1, 2 and 10; section 5.1, rows 1 to 9. */
static void opens(void)
{
    char *at = pages(2);
    for (size_t i = 0; i < 2 * M64; i += 4096)
        at[i] = (char)(i >> 12);
    const long long illegal[] = {0x1004, 0x0, 0x1002, 0x8, 0xC, 1LL << 40, 0x4 | 1LL << 40, 0x4 | 1LL << 63, 0x44, 0x14,
                                 0x1010, 0x1020, 0x2, 0x20, 0x2004, 0x4004, 0x8004};
    for (size_t i = 0; i < sizeof illegal / sizeof *illegal; i++)
        REFUSED(ve_shared_mem_open(at, M64, 0, illegal[i]), EINVAL);
    REFUSED(ve_shared_mem_open(at, M64, 4, PCI | VE_PCISYNC), EINVAL);
    REFUSED(ve_shared_mem_open(at, M64, -1, PCI | VE_PCISYNC), EINVAL);
    REFUSED(open_pci(NULL, M64), EINVAL);
    REFUSED(open_pci(at, 0), EINVAL);
    REFUSED(open_pci(nothing(M64), M64), EINVAL);
    REFUSED(open_pci(at + 4096, M64), EINVAL);
    REFUSED(open_pci(at + M2, M64), EINVAL);
    REFUSED(open_pci(at, M64 - 4096), EINVAL);
    REFUSED(open_pci(at, M2), EINVAL);
    REFUSED(ve_shared_mem_open(at, M2, 0, NONE), EINVAL);
    FINE(open_pci(at, M64));
    FINE(open_pci(at, M64));
    FINE(close_pci(at, M64));
    FINE(close_pci(at, M64));
    REFUSED(close_pci(at, M64), EINVAL);
    /* syncnum without the flag is ignored. */
    FINE(ve_shared_mem_open(at, M64, 77, PCI));
    FINE(ve_shared_mem_close(at, M64, -5, PCI));
    /* The memory is where it was, as it was. */
    for (size_t i = 0; i < 2 * M64; i += 4096)
        SAME((unsigned char)at[i], (i >> 12) & 0xff);
    /* Different flags: areas of their own. */
    FINE(ve_shared_mem_open(at, M64, 0, NONE));
    FINE(ve_shared_mem_open(at, M64, 0, PCI | RO));
    FINE(ve_shared_mem_open(at, M64, 3, PCI | VE_PCISYNC));
    REFUSED(ve_shared_mem_close(at, M64, 2, PCI | VE_PCISYNC), EINVAL);
    FINE(ve_shared_mem_close(at, M64, 3, PCI | VE_PCISYNC));
    FINE(ve_shared_mem_close(at, M64, 0, PCI | RO));
    FINE(ve_shared_mem_close(at, M64, 0, NONE));
    /* Row 8: not mapped throughout. */
    char *three = nothing(3 * M64);
    map_at(three, M64);
    map_at(three + 2 * M64, M64);
    REFUSED(open_pci(three, 3 * M64), documented ? EINVAL : ENOMEM);
    REFUSED(open_pci(three, -M64), documented ? EINVAL : ENOMEM);
    /* Row 9: not writable. */
    FINE(mprotect(three, 4096, PROT_READ));
    REFUSED(open_pci(three, M64), EACCES);
    if (documented) {
        FINE(ve_shared_mem_open(three, M64, 0, PCI | RO));
        FINE(ve_shared_mem_close(three, M64, 0, PCI | RO));
    } else {
        REFUSED(ve_shared_mem_open(three, M64, 0, PCI | RO), EACCES);
    }
    FINE(mprotect(three, 4096, PROT_READ | PROT_WRITE));
    FINE(open_pci(three, M64));
    FINE(mprotect(three + 4096, 4096, PROT_READ));
    REFUSED(ve_shared_mem_open(three, M64, 0, NONE), EACCES);
    FINE(close_pci(three, M64));
    FINE(munmap(three, 3 * M64));
    volatile uintptr_t gone = (uintptr_t)at;
    free(at);
    REFUSED(open_pci((void *)gone, M64), EINVAL);
}

/* Rows 5, 6 and 8 for pages of 2 MiB, and section 5.5. */
static void small_pages(void)
{
    char *at = nothing(2 * M64);
    map_at(at, 2 * M64);
    FINE(madvise(at, M64, MADV_NOHUGEPAGE));
    SAME(ve_get_pgmode(VE_ADDR_VEMVA, getpid(), at), M2);
    SAME(ve_get_pgmode(VE_ADDR_VEMVA, getpid(), at + M64), M64);
    REFUSED(open_pci(at, M64), EINVAL);
    FINE(ve_shared_mem_open(at + M2, M2, 0, NONE));
    FINE(ve_shared_mem_close(at + M2, M2, 0, NONE));
    REFUSED(ve_shared_mem_open(at + 4096, M2, 0, NONE), EINVAL);
    REFUSED(ve_shared_mem_open(at, M2 + 4096, 0, NONE), EINVAL);
    REFUSED(ve_shared_mem_open(at, 2 * M64, 0, NONE), documented ? EINVAL : ENOMEM); /* mixed sizes */
    REFUSED(ve_register_mem_to_dmaatb(at, 2 * M64), ENOMEM); /* section 5.2, row 19 */
    SAME(ve_get_pgmode(VE_ADDR_VEMVA, getpid(), at), M2);
    uint64_t small = ve_register_mem_to_dmaatb(at, M2), large = ve_register_mem_to_dmaatb(at + M64, M64);
    SAME(small, 0x008800000000); /* first fit, region of each page size */
    SAME(large, 0x070000000000);
    SAME(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), (void *)small), M2);
    SAME(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), (void *)(large + M64 - 1)), M64);
    SAME(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), (void *)0x1400), 4 * KIB);
    REFUSED(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), (void *)(large + M64)), documented ? EFAULT : EINVAL);
    FINE(ve_unregister_mem_from_dmaatb(small));
    FINE(ve_unregister_mem_from_dmaatb(large));
    FINE(munmap(at, 2 * M64));
}

/* Section 5.5, and check 18. */
static void page_modes(struct peer near, struct peer far)
{
    char *at = pages(1);
    const long long illegal[] = {0, 3, 5, 6, 7, 8, -1, 1LL << 40};
    for (size_t i = 0; i < sizeof illegal / sizeof *illegal; i++)
        REFUSED(ve_get_pgmode(illegal[i], getpid(), at), EINVAL);
    SAME(ve_get_pgmode(VE_ADDR_VEMVA, getpid(), at), M64);
    SAME(ve_get_pgmode(VE_ADDR_VEMVA, getpid(), &documented), M64);
    REFUSED(ve_get_pgmode(VE_ADDR_VEMVA, getpid(), nothing(M64)), documented ? EFAULT : EINVAL);
    REFUSED(ve_get_pgmode(VE_ADDR_VEMVA, near.pid, nothing(M64)), documented ? EFAULT : EINVAL);
    SAME(ve_get_pgmode(VE_ADDR_VEHVA, near.pid, (void *)0x3000), 4 * KIB);
    REFUSED(ve_get_pgmode(VE_ADDR_VEMVA, far.pid, at), ESRCH);
    REFUSED(ve_get_pgmode(VE_ADDR_VEHVA, far.pid, (void *)0x3000), ESRCH);
    REFUSED(ve_get_pgmode(VE_ADDR_VEMVA, 1, at), ESRCH);
    SAME(ve_get_pgmode(VE_ADDR_PCI, far.pid, NULL), M64);
    SAME(ve_get_pgmode(VE_ADDR_PCI, near.pid, NULL), M64);
    REFUSED(ve_get_pgmode(VE_ADDR_PCI, 1, NULL), ESRCH);
    free(at);
}

/* Section 5.2 and checks 3 to 5, 10, 11: who attaches is this process; owners are peers. */
static void attaches(struct peer near, struct peer far)
{
    const int none = documented ? ENOENT : EINVAL;
    uint64_t a = ASK(near, PAGES, 2), b = ASK(far, PAGES, 2);
    FINE(ASK(near, OPEN, a, M64, 0, PCI));
    FINE(ASK(near, OPEN, a + M64, M64, 0, NONE));
    FINE(ASK(far, OPEN, b, M64, 0, PCI));
    FINE(ASK(far, OPEN, b, M64, 0, PCI | RO));
    FINE(ASK(far, OPEN, b + M64, M64, 0, NONE));
#define NEAR(vemva, size, mode) ve_shared_mem_attach(near.pid, (void *)(vemva), size, 0, mode)
#define FAR(vemva, size, mode) ve_shared_mem_attach(far.pid, (void *)(vemva), size, 0, mode)
    /* Row 2: no page there on this VE. */
    REFUSED(ve_shared_mem_attach(1, (void *)a, M64, 0, PCI | VEMVA), documented ? ESRCH : EINVAL);
    REFUSED(FAR(b, M64, PCI | VEMVA), EINVAL);
    REFUSED(NEAR(a + 2 * M64, M64, PCI | VEMVA), documented ? ENOENT : EINVAL);
    /* Row 3. */
    REFUSED(NEAR(a + 4096, M64, PCI | VEMVA), EINVAL);
    REFUSED(NEAR(a, M64 + 4096, PCI | VEMVA), EINVAL);
    /* Row 5. */
    const long long illegal[] = {PCI, PCI | VEMVA | VEHVA, PCI | VEHVA | LOCAL, VEMVA, VEHVA, PCI | NONE | VEMVA,
                                 NONE | VEMVA | VE_PCISYNC, PCI | LOCAL, NONE | LOCAL, LOCAL | VE_PCISYNC,
                                 PCI | VEHVA | VE_MAP_256MB, PCI | VEHVA | 0x8, PCI | VEHVA | 0x40, PCI | VEHVA | 1LL << 40};
    for (size_t i = 0; i < sizeof illegal / sizeof *illegal; i++) {
        REFUSED(NEAR(a, M64, illegal[i]), EINVAL);
        REFUSED(FAR(b, M64, illegal[i]), EINVAL);
    }
    /* Row 6. */
    char *own = pages(2);
    REFUSED(NEAR(a, M64, LOCAL), EINVAL);
    REFUSED(ve_shared_mem_attach(getpid(), nothing(M64), M64, 0, LOCAL), EINVAL);
    REFUSED(ve_shared_mem_attach(getpid(), own + 4096, M64, 0, LOCAL), EINVAL);
    REFUSED(ve_shared_mem_attach(getpid(), own, M64 + 4096, 0, LOCAL), EINVAL);
    /* Row 7. */
    FINE(open_pci(own, M64));
    REFUSED(ve_shared_mem_attach(getpid(), own, M64, 0, PCI | VEMVA), EINVAL);
    REFUSED(ve_shared_mem_attach(getpid(), own, M64, 0, PCI | VEHVA), EINVAL);
    FINE(close_pci(own, M64));
    /* Rows 8 and 10. */
    REFUSED(FAR(b + M64, M64, NONE | VEHVA), EINVAL);
    REFUSED(NEAR(a, M64, PCI | VEHVA), EINVAL);
    /* Row 12. */
    REFUSED(ve_shared_mem_attach(1, (void *)b, M64, 0, PCI | VEHVA), ESRCH);
    /* Row 14: the key is exact (of check 3 too: what is open read-only only). */
    REFUSED(FAR(b, 2 * M64, PCI | VEHVA), none);
    REFUSED(FAR(b + M64, M64, PCI | VEHVA), none);
    REFUSED(FAR(b, M64, PCI | VEHVA | VE_PCISYNC), none);
    REFUSED(NEAR(a, 2 * M64, PCI | VEMVA), none);
    REFUSED(NEAR(a, M64, NONE | VEMVA), none);
    REFUSED(NEAR(a, M64, PCI | RO | VEMVA), none);
    REFUSED(NEAR(a + M64, M64, PCI | VEMVA), none);
    FINE(ASK(near, OPEN, a + M64, M64, 0, PCI | RO));
    REFUSED(NEAR(a + M64, M64, PCI | VEMVA), none);
    FINE(ASK(near, CLOSE, a + M64, M64, 0, PCI | RO));
    /* Attached, again and again: the same address, counted. */
    char *near_at = NEAR(a, M64, PCI | VEMVA);
    TRUE(near_at != VESHM_FAILED);
    SAME((uintptr_t)near_at % M64, 0);
    SAME(NEAR(a, M64, PCI | VEMVA), near_at);
    ASK(near, POKE, a + 800, 42);
    SAME(*(uint64_t *)(near_at + 800), 42);
    *(uint64_t *)(near_at + M64 - 8) = 43;
    SAME(ASK(near, PEEK, a + M64 - 8), 43);
    SAME(ve_get_pgmode(VE_ADDR_VEMVA, getpid(), near_at), M64);
    uint64_t far_at = (uint64_t)FAR(b, M64, PCI | VEHVA);
    SAME(far_at, 0x070000000000);
    SAME(FAR(b, M64, PCI | VEHVA), far_at);
    uint64_t far_ro = (uint64_t)FAR(b, M64, PCI | RO | VEHVA);
    SAME(far_ro, far_at + M64);
    char *none_at = NEAR(a + M64, M64, NONE | VEMVA);
    TRUE(none_at != VESHM_FAILED);
    /* MEM_LOCAL; rows 19 to 21. */
    uint64_t local = (uint64_t)ve_shared_mem_attach(getpid(), own, M64, 0, LOCAL);
    SAME(local, far_at + 2 * M64);
    SAME(ve_register_mem_to_dmaatb(own, M64), local);
    char *half = nothing(2 * M64);
    map_at(half, M64);
    REFUSED(ve_register_mem_to_dmaatb(half, 2 * M64), ENOMEM);
    REFUSED(ve_register_mem_to_dmaatb(half, 0), ENOMEM);
    FINE(mprotect(half, M64, PROT_READ));
    REFUSED(ve_register_mem_to_dmaatb(half, M64), EACCES);
    REFUSED(ve_shared_mem_attach(getpid(), half, M64, 0, LOCAL | RO), EACCES);
    FINE(munmap(half, M64));
    /* Transfers; check 3. */
    FINE(ve_dma_init());
    memset(own, 7, M64);
    FINE(ve_dma_post_wait(far_at, local, 4096));
    SAME(ASK(far, PEEK, b + 4088), 0x0707070707070707);
    SAME(ve_dma_post_wait(far_ro, local, 4096), 0x8000);
    FINE(ve_dma_post_wait(local + 8, far_ro, 8));

    /* Section 5.3. */
    const int unknown = documented ? ECANCELED : EINVAL;
    const long long wrong[] = {0, PCI, VEMVA | VEHVA, VEMVA | PCI, VEHVA | LOCAL, VEHVA | RO, VEMVA | 1LL << 40};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        REFUSED(ve_shared_mem_detach(near_at, wrong[i]), EINVAL);
    REFUSED(ve_shared_mem_detach(VESHM_FAILED, VEMVA | PCI), EINVAL);
    FINE(ve_shared_mem_detach(VESHM_FAILED, VEMVA));
    REFUSED(ve_shared_mem_detach(near_at, VEHVA), unknown);
    REFUSED(ve_shared_mem_detach((void *)far_at, VEMVA), unknown);
    REFUSED(ve_shared_mem_detach(near_at + 4096, VEMVA), unknown);
    REFUSED(ve_shared_mem_detach((void *)(far_at + 8), VEHVA), unknown);
    FINE(ve_shared_mem_detach(near_at, VEMVA));
    SAME(*(uint64_t *)(near_at + 800), 42);
    FINE(ve_shared_mem_detach(near_at, VEMVA));
    REFUSED(ve_shared_mem_detach(near_at, VEMVA), unknown);
    DIES(SIGSEGV, *(volatile char *)near_at = 1);
    FINE(ve_shared_mem_detach((void *)far_at, VEHVA));
    FINE(ve_dma_post_wait(far_at, local, 8));
    FINE(ve_shared_mem_detach((void *)far_at, VEHVA));
    SAME(ve_dma_post_wait(far_at, local, 8), 0x4000);
    REFUSED(ve_shared_mem_detach((void *)far_at, VEHVA), unknown);
    FINE(ve_shared_mem_detach((void *)far_ro, VEHVA));
    /* Row 21: no room in the address space. */
    struct rlimit old, limit;
    FINE(getrlimit(RLIMIT_AS, &old));
    limit = (struct rlimit){M64, old.rlim_max};
    FINE(setrlimit(RLIMIT_AS, &limit));
    REFUSED(NEAR(a, M64, PCI | VEMVA), ENOMEM);
    FINE(setrlimit(RLIMIT_AS, &old));
    TRUE((near_at = NEAR(a, M64, PCI | VEMVA)) != VESHM_FAILED);
    FINE(ve_shared_mem_detach(near_at, VEMVA));
    /* Of another process's area MEM_LOCAL finds the record too (and IVED does not hear of it). */
    SAME(FAR(b, M64, PCI | VEHVA), far_at);
    FINE(ve_shared_mem_detach((void *)far_at, LOCAL));
    REFUSED(ve_shared_mem_detach((void *)far_at, LOCAL), unknown);
    REFUSED(ve_shared_mem_detach((void *)far_at, VEHVA), unknown);
    /* The one list has both. */
    FINE(ve_shared_mem_detach((void *)local, VEHVA));
    FINE(ve_unregister_mem_from_dmaatb(local));
    REFUSED(ve_unregister_mem_from_dmaatb(local), unknown);
    FINE(ve_shared_mem_detach(none_at, VEMVA));

    FINE(ASK(near, CLOSE, a, M64, 0, PCI));
    FINE(ASK(near, CLOSE, a + M64, M64, 0, NONE));
    FINE(ASK(far, CLOSE, b, M64, 0, PCI));
    FINE(ASK(far, CLOSE, b, M64, 0, PCI | RO));
    FINE(ASK(far, CLOSE, b + M64, M64, 0, NONE));
    free(own);
}

/* Section 5.4. */
static void closes(void)
{
    char *at = pages(2);
    FINE(open_pci(at, M64));
    REFUSED(ve_shared_mem_close(at, M64, 0, PCI | 1LL << 40), EINVAL);
    REFUSED(ve_shared_mem_close(at, M64, 0, PCI | 0x40), EINVAL);
    REFUSED(ve_shared_mem_close(at, M64, 0, NONE | VE_SWAPPABLE), EINVAL);
    REFUSED(ve_shared_mem_close(at, M64, 0, PCI | VE_MAP_256MB), EINVAL);
    REFUSED(close_pci(NULL, M64), EINVAL);
    REFUSED(close_pci(at, 2 * M64), EINVAL);
    REFUSED(close_pci(at + M64, M64), EINVAL);
    REFUSED(ve_shared_mem_close(at, M64, 0, NONE), EINVAL);
    REFUSED(ve_shared_mem_close(at, M64, 0, PCI | RO), EINVAL);
    REFUSED(ve_shared_mem_close(at, M64, 0, PCI | VE_SWAPPABLE), EINVAL);
    FINE(close_pci(at, M64));
    FINE(ve_shared_mem_open(at, M64, 0, PCI | VE_SWAPPABLE));
    FINE(ve_shared_mem_close(at, M64, 0, NONE)); /* two opens in one */
    FINE(ve_shared_mem_open(at, M64, 0, NONE));
    FINE(ve_shared_mem_close(at, M64, 0, PCI | VE_SWAPPABLE));
    REFUSED(ve_shared_mem_close(at, M64, 0, NONE), EINVAL);
    /* It can be closed when the memory is gone. */
    FINE(open_pci(at, M64));
    volatile uintptr_t gone = (uintptr_t)at;
    free(at);
    FINE(close_pci((void *)gone, M64));
}

static sigjmp_buf refused;

static void come_back(int signal)
{
    (void)signal;
    siglongjmp(refused, 1);
}

/* Attached read-only, memory is read-only: for the processor too. */
static void read_only(struct peer near)
{
    uint64_t a = ASK(near, PAGES, 1);
    FINE(ASK(near, OPEN, a, M64, 0, NONE | RO));
    volatile char *at = ve_shared_mem_attach(near.pid, (void *)a, M64, 0, NONE | RO | VEMVA);
    TRUE(at != VESHM_FAILED);
    ASK(near, POKE, a, 9);
    SAME(at[0], 9);
    void *page = (void *)at;
    struct sigaction action = {.sa_handler = come_back}, before;
    sigaction(SIGSEGV, &action, &before);
    if (sigsetjmp(refused, 1) == 0) {
        at[0] = 8;
        fail(__FILE__, __LINE__, "a store to a read-only attachment went through", 0, 0);
    }
    sigaction(SIGSEGV, &before, NULL);
    SAME(at[0], 9);
    FINE(ve_shared_mem_detach(page, VEMVA));
    FINE(ASK(near, CLOSE, a, M64, 0, NONE | RO));
}

/* The owner's memory changes under its area (section 5.1, re-open; section 5.2, rows 18 and staleness; section 6). */
static void changes(struct peer near, struct peer far)
{
    uint64_t a = ASK(near, PAGES, 1), b = ASK(far, PAGES, 1);
    FINE(ASK(near, OPEN, a, M64, 0, PCI));
    FINE(ASK(far, OPEN, b, M64, 0, PCI));
    char *old = ve_shared_mem_attach(near.pid, (void *)a, M64, 0, PCI | VEMVA);
    TRUE(old != VESHM_FAILED);
    ASK(near, POKE, a, 1);
    /* VEOS hears of it at the owner's next call. */
    ASK(near, UNMAP, a, M64);
    REFUSED(ASK(near, PGMODE, VE_ADDR_VEMVA, near.pid, a), documented ? EFAULT : EINVAL);
    SAME(*(volatile uint64_t *)old, 1);
    FINE(ve_shared_mem_detach(old, VEMVA));
    REFUSED(ve_shared_mem_attach(near.pid, (void *)a, M64, 0, PCI | VEMVA), documented ? ENOENT : EINVAL);
    ASK(near, MAP, a, M64);
    SAME(ASK(near, REGISTER, a, M64), 0x070000000000);
    REFUSED(ve_shared_mem_attach(near.pid, (void *)a, M64, 0, PCI | VEMVA), ECANCELED);
    FINE(ASK(near, OPEN, a, M64, 0, PCI));
    char *renewed = ve_shared_mem_attach(near.pid, (void *)a, M64, 0, PCI | VEMVA);
    TRUE(renewed != VESHM_FAILED);
    ASK(near, POKE, a, 2);
    SAME(*(volatile uint64_t *)renewed, 2);
    FINE(ASK(near, UNREGISTER, 0x070000000000));
    FINE(ASK(near, CLOSE, a, M64, 0, PCI));
    REFUSED(ASK(near, CLOSE, a, M64, 0, PCI), EINVAL);
    FINE(ve_shared_mem_detach(renewed, VEMVA));
    /* From another VE it is the old memory. */
    ASK(far, POKE, b, 5);
    ASK(far, UNMAP, b, M64);
    ASK(far, MAP, b, M64);
    ASK(far, POKE, b, 6);
    SAME(ASK(far, PGMODE, VE_ADDR_VEMVA, far.pid, b), M64);
    void *stale = ve_shared_mem_attach(far.pid, (void *)b, M64, 0, PCI | VEHVA);
    TRUE(stale != VESHM_FAILED);
    SAME(ve_inst_lhm(stale), 5);
    FINE(ve_shared_mem_detach(stale, VEHVA));
    FINE(ASK(far, CLOSE, b, M64, 0, PCI));
}

/* Why an area cannot be attached; 0: it can, and is not any more. */
static int error_of_attach(pid_t pid, uint64_t vemva, long long space)
{
    errno = 0;
    void *at = ve_shared_mem_attach(pid, (void *)vemva, M64, 0, PCI | space);
    int error = errno;
    if (at != VESHM_FAILED)
        FINE(ve_shared_mem_detach(at, space));
    return error;
}

/* Section 6 and checks 6, 7: areas whose owner has closed, or ended. */
static void ends(void)
{
    const int none = documented ? ENOENT : EINVAL;
    for (int way = 0; way < 4; way++) {
        struct peer near = start(0), far = start(1);
        uint64_t a = ASK(near, PAGES, 1), b = ASK(far, PAGES, 1);
        FINE(ASK(near, OPEN, a, M64, 0, PCI));
        FINE(ASK(far, OPEN, b, M64, 0, PCI));
        ASK(near, POKE, a, 11);
        ASK(far, POKE, b, 12);
        char *at = ve_shared_mem_attach(near.pid, (void *)a, M64, 0, PCI | VEMVA);
        void *vehva = ve_shared_mem_attach(far.pid, (void *)b, M64, 0, PCI | VEHVA);
        TRUE(at != VESHM_FAILED && vehva != VESHM_FAILED);
        switch (way) {
        case 0:
            FINE(ASK(near, CLOSE, a, M64, 0, PCI));
            FINE(ASK(far, CLOSE, b, M64, 0, PCI));
            REFUSED(ve_shared_mem_attach(near.pid, (void *)a, M64, 0, PCI | VEMVA), none);
            REFUSED(ve_shared_mem_attach(far.pid, (void *)b, M64, 0, PCI | VEHVA), none);
            break;
        case 1:
            kill_peer(near);
            kill_peer(far);
            break;
        case 2:
            end(near);
            end(far);
            break;
        case 3:
            tell(near, (struct call){EXEC, {0}});
            tell(far, (struct call){EXEC, {0}});
            break;
        }
        if (way > 0) {
            SOON(error_of_attach(far.pid, b, VEHVA), ESRCH);
            SOON(error_of_attach(near.pid, a, VEMVA), documented ? ESRCH : EINVAL);
        }
        SAME(*(volatile uint64_t *)at, 11);
        SAME(ve_inst_lhm(vehva), 12);
        *(volatile uint64_t *)at = 13;
        ve_inst_shm(vehva, 14);
        SAME(ve_inst_lhm(vehva), 14);
        FINE(ve_shared_mem_detach(at, VEMVA));
        FINE(ve_shared_mem_detach(vehva, VEHVA));
        REFUSED(ve_shared_mem_detach(at, VEMVA), documented ? ECANCELED : EINVAL);
        if (way == 0) {
            end(near);
            end(far);
        } else if (way == 3) {
            kill_peer(near);
            kill_peer(far);
        }
    }
}

/* A forked child owns nothing and has nothing attached; its memory is its own (section 6, check 17). */
static void forks(struct peer near)
{
    char *own = pages(1);
    strcpy(own, "parent");
    FINE(open_pci(own, M64));
    uint64_t a = ASK(near, PAGES, 1);
    FINE(ASK(near, OPEN, a, M64, 0, PCI));
    char *at = ve_shared_mem_attach(near.pid, (void *)a, M64, 0, PCI | VEMVA);
    TRUE(at != VESHM_FAILED);
    uint64_t local = ve_register_mem_to_dmaatb(own, M64);
    int back[2];
    FINE(pipe(back));
    pid_t child = fork();
    if (child == 0) {
        char go;
        close(back[1]);
        SAME(read(back[0], &go, 1), 0); /* the parent has written */
        TRUE(strcmp(own, "parent") == 0);
        strcpy(own, "child");
        REFUSED(close_pci(own, M64), EINVAL);
        REFUSED(ve_shared_mem_detach(at, VEMVA), documented ? ECANCELED : EINVAL);
        REFUSED(ve_unregister_mem_from_dmaatb(local), documented ? ECANCELED : EINVAL);
        REFUSED(ve_shared_mem_attach(getppid(), own, M64, 0, PCI | LOCAL), EINVAL);
        char *parents = ve_shared_mem_attach(getppid(), own, M64, 0, PCI | VEMVA);
        TRUE(parents != VESHM_FAILED);
        TRUE(strcmp(parents, "changed") == 0);
        FINE(open_pci(own, M64));
        FINE(close_pci(own, M64));
        TRUE(strcmp(own, "child") == 0);
        exit(0);
    }
    strcpy(own, "changed");
    close(back[0]);
    close(back[1]);
    int status = 0;
    SAME(waitpid(child, &status, 0), child);
    SAME(status, 0);
    TRUE(strcmp(own, "changed") == 0);
    DIES(SIGSEGV, *(volatile char *)at = 1);
    FINE(ve_unregister_mem_from_dmaatb(local));
    FINE(close_pci(own, M64));
    SAME(ASK(near, FORK, a, M64, PCI), EINVAL);
    FINE(ve_shared_mem_detach(at, VEMVA));
    FINE(ASK(near, CLOSE, a, M64, 0, PCI));
    free(own);
}

/* Another user's process is refused, whoever root is (check 9; row 15). */
static void users(struct peer near, struct peer far)
{
    if (geteuid() != 0) {
        printf("users: skipped, needs root\n");
        return;
    }
    char *own = pages(1);
    FINE(open_pci(own, M64));
    struct peer other = start(1);
    FINE(ASK(other, BECOME, 65534));
    uint64_t theirs = ASK(other, PAGES, 1);
    errno = 0;
    uint64_t opened = ASK(other, OPEN, theirs, M64, 0, PCI);
    if (opened != 0) {
        /* A private node admits its own user only; users share one by name. */
        SAME(errno, ECANCELED);
        TRUE(getenv("WINDLASS_NODE_NAME") == NULL);
        printf("users: not on a private node\n");
    } else {
        REFUSED(ve_shared_mem_attach(other.pid, (void *)theirs, M64, 0, PCI | VEHVA), EACCES);
        REFUSED(ASK(other, ATTACH, getpid(), (uint64_t)own, M64, 0, PCI | VEHVA), EACCES);
        FINE(ASK(other, CLOSE, theirs, M64, 0, PCI));
        printf("users: refused to each other\n");
    }
    end(other);
    FINE(close_pci(own, M64));
    free(own);
    (void)near;
    (void)far;
}

int main(void)
{
    small_pages();
    opens();
    closes();
    struct peer near = start(0), far = start(1);
    /* They join at their first call; until then nobody knows them. */
    SAME(ASK(near, PGMODE, VE_ADDR_PCI, near.pid, 0), M64);
    SAME(ASK(far, PGMODE, VE_ADDR_PCI, far.pid, 0), M64);
    page_modes(near, far);
    attaches(near, far);
    read_only(near);
    changes(near, far);
    forks(near);
    users(near, far);
    end(near);
    end(far);
    ends();
    printf("veshm: all as specified\n");
    return 0;
}

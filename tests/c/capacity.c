/* The tables, filled to the documented capacity, with the next request refused, earlier ones intact, and all of it back. VE1, 8 cores. */
#include "support.h"

static const size_t G16 = 16UL << 30;

/* Section 2.5: 1,024 slots of 64 MiB, one of them the system's; section 5.1, row 10; check 8. */
static void slots(void)
{
    const long long modes[] = {VE_REGISTER_PCI, VE_REGISTER_PCI | VE_SHM_RO, VE_REGISTER_PCI | VE_PCISYNC,
                               VE_REGISTER_PCI | VE_PCISYNC | VE_SHM_RO};
    struct peer owner = start(1), other = start(1);
    uint64_t at = ASK(owner, MAP, (uint64_t)nothing(G16), G16);
    for (int i = 0; i < 3; i++)
        FINE(ASK(owner, OPEN, at, G16, 0, modes[i]));
    REFUSED(ASK(owner, OPEN, at, G16, 0, modes[3]), ENOMEM);
    FINE(ASK(owner, OPEN, at, G16 - M64, 0, modes[3]));
    uint64_t little = ASK(other, PAGES, 1);
    REFUSED(ASK(other, OPEN, little, M64, 0, modes[0]), ENOMEM);
    FINE(ASK(other, OPEN, little, M64, 0, VE_REGISTER_NONE));
    /* Closed, but attached: the slots stay, and with them the memory. */
    void *vehva = ve_shared_mem_attach(owner.pid, (void *)at, G16, 0, modes[0] | VE_REGISTER_VEHVA);
    SAME(vehva, 0x070000000000);
    ASK(owner, POKE, at + G16 - 8, 4711);
    FINE(ASK(owner, CLOSE, at, G16, 0, modes[0]));
    REFUSED(ASK(other, OPEN, little, M64, 0, modes[0]), ENOMEM);
    SAME(ve_inst_lhm((char *)vehva + G16 - 8), 4711);
    FINE(ve_shared_mem_detach(vehva, VE_REGISTER_VEHVA));
    FINE(ASK(other, OPEN, little, M64, 0, modes[0]));
    FINE(ASK(other, CLOSE, little, M64, 0, modes[0]));
    FINE(ASK(owner, OPEN, at, G16, 0, modes[0]));
    REFUSED(ASK(other, OPEN, little, M64, 0, modes[0]), ENOMEM);
    /* The owner is killed while attached, and then the attacher is done. */
    vehva = ve_shared_mem_attach(owner.pid, (void *)at, G16, 0, modes[0] | VE_REGISTER_VEHVA);
    SAME(vehva, 0x070000000000);
    kill_peer(owner);
    SOON(ASK(other, OPEN, little, M64, 0, modes[0]), 0);
    SAME(ve_inst_lhm((char *)vehva + G16 - 8), 4711);
    FINE(ve_shared_mem_detach(vehva, VE_REGISTER_VEHVA));
    end(other);
}

/* Section 2.3: 56 directories of 16 GiB for all processes of the VE. */
static void directories(void)
{
    struct peer peer = start(0);
    char *at = map_at(nothing(G16), G16);
    uint64_t first = ve_register_mem_to_dmaatb(at, G16);
    SAME(first, 0x070000000000);
    /* A run of the other half of the flags is another registration: each takes a directory. */
    uint64_t second = (uint64_t)ve_shared_mem_attach(getpid(), at, G16, 0, VE_MEM_LOCAL | VE_SHM_RO);
    SAME(second, first + G16);
    /* Runs of 255 and 2 pages: the third of them straddles. */
    uint64_t third = ve_register_mem_to_dmaatb(at, G16 - M64);
    SAME(third, first + 2 * G16);
    uint64_t straddling = ve_register_mem_to_dmaatb(at, 2 * M64);
    SAME(straddling, first + 3 * G16 - M64);
    FINE(ve_unregister_mem_from_dmaatb(second));
    SAME(ve_register_mem_to_dmaatb(at + M64, M64), second); /* first fit */
    FINE(ve_unregister_mem_from_dmaatb(second));
    FINE(ve_unregister_mem_from_dmaatb(first));
    FINE(ve_unregister_mem_from_dmaatb(third));
    FINE(ve_unregister_mem_from_dmaatb(straddling));
    FINE(munmap(at, G16));
    end(peer);
}

/* Section 2.4: 32 directories of a process's ATB, each for 16 GiB of addresses; section 5.1, row 11, and section 5.2, row 4. */
static void address_space(void)
{
    char *at = nothing(34 * G16);
    at = (char *)(((uintptr_t)at + G16 - 1) / G16 * G16);
    for (int i = 0; i < 33; i++)
        map_at(at + i * G16, M64);
    for (int i = 0; i < 32; i++)
        FINE(ve_shared_mem_open(at + i * G16, M64, 0, VE_REGISTER_NONE));
    REFUSED(ve_shared_mem_open(at + 32 * G16, M64, 0, VE_REGISTER_NONE), ENOMEM);
    /* Nowhere else is an attached area's page in one of them: what is between the pages is taken. */
    struct peer near = start(0);
    uint64_t area = ASK(near, PAGES, 1);
    FINE(ASK(near, OPEN, area, M64, 0, VE_REGISTER_NONE));
    for (int i = 0; i < 33; i++) {
        char *rest = at + i * G16 + M64;
        SAME(mmap(rest, G16 - M64, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0), rest);
    }
    const long long mode = VE_REGISTER_NONE | VE_REGISTER_VEMVA;
    REFUSED(ve_shared_mem_attach(near.pid, (void *)area, M64, 0, mode), ENOMEM);
    /* It is still the program's memory. */
    strcpy(at + 32 * G16, "memory");
    FINE(strcmp(at + 32 * G16, "memory"));
    FINE(ve_shared_mem_close(at, M64, 0, VE_REGISTER_NONE));
    FINE(munmap(at, M64));
    void *attached = ve_shared_mem_attach(near.pid, (void *)area, M64, 0, mode);
    TRUE(attached != VESHM_FAILED);
    FINE(ve_shared_mem_detach(attached, VE_REGISTER_VEMVA));
    end(near);
    FINE(ve_shared_mem_open(at + 32 * G16, M64, 0, VE_REGISTER_NONE));
    FINE(strcmp(at + 32 * G16, "memory"));
    for (int i = 1; i < 33; i++) {
        FINE(ve_shared_mem_close(at + i * G16, M64, 0, VE_REGISTER_NONE));
        FINE(munmap(at + i * G16, M64));
    }
    FINE(munmap(at, 33 * G16));
}

/* 48 GiB of memory. */
static void frames(void)
{
    const size_t size = 48UL << 30;
    char *at = map_at(nothing(size + M64), size + M64);
    REFUSED(ve_shared_mem_open(at, size + M64, 0, VE_REGISTER_NONE), ENOMEM);
    FINE(ve_shared_mem_open(at, size, 0, VE_REGISTER_NONE));
    REFUSED(ve_shared_mem_open(at + size, M64, 0, VE_REGISTER_NONE), ENOMEM);
    FINE(ve_shared_mem_close(at, size, 0, VE_REGISTER_NONE));
    FINE(munmap(at, M64));
    FINE(ve_shared_mem_open(at + size, M64, 0, VE_REGISTER_NONE));
    FINE(munmap(at + M64, size));
    FINE(ve_shared_mem_close(at + size, M64, 0, VE_REGISTER_NONE));
}

int main(void)
{
    SAME(ve_get_pgmode(VE_ADDR_PCI, getpid(), NULL), M64);
    address_space();
    slots();
    directories();
    frames();
    printf("capacity: all as specified\n");
    return 0;
}

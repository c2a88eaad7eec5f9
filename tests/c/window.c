/*
 * What is different where the PCIATB has pages of 2 MiB: sections 1, 2.5, 5.1 row 5, 5.2 row 9 and 5.5. WINDLASS_VE_PROFILE=ve1/128M.
 */
#include "support.h"

int main(void)
{
    const long long pci = VE_REGISTER_PCI, vemva = VE_REGISTER_VEMVA, vehva = VE_REGISTER_VEHVA;
    SAME(ve_get_pgmode(VE_ADDR_PCI, getpid(), NULL), M2);
    struct peer near = start(0), far = start(1);
    uint64_t at = ASK(near, PAGES, 1), there = ASK(far, PAGES, 2);
    FINE(ASK(near, OPEN, at, M64, 0, pci));
    FINE(ASK(near, OPEN, at, M64, 0, VE_REGISTER_NONE));
    /* Row 9: memory on pages of 64 MiB, and only as PCI, and not from another VE. */
    REFUSED(ve_shared_mem_attach(near.pid, (void *)at, M64, 0, pci | vemva), EINVAL);
    void *own = ve_shared_mem_attach(near.pid, (void *)at, M64, 0, VE_REGISTER_NONE | vemva);
    TRUE(own != VESHM_FAILED);
    FINE(ve_shared_mem_detach(own, vemva));
    /* A part of a page, in pages of the window. */
    FINE(ASK(far, OPEN, there + M2, 2 * M2, 0, pci));
    REFUSED(ASK(far, OPEN, there + M2, 2 * M2, 0, VE_REGISTER_NONE), EINVAL);
    REFUSED(ASK(far, OPEN, there + 4096, M2, 0, pci), EINVAL);
    ASK(far, POKE, there + 3 * M2 - 8, 4711);
    void *part = ve_shared_mem_attach(far.pid, (void *)(there + M2), 2 * M2, 0, pci | vehva);
    SAME(part, 0x008800000000);
    SAME(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), part), M2);
    SAME(ve_inst_lhm((char *)part + 2 * M2 - 8), 4711);
    /* The pages change. A re-open of which one half is refused (NONE goes by the memory's pages) leaves the area as it was. */
    FINE(ASK(far, UNMAP, there, M64));
    ASK(far, MAP, there, M64);
    REFUSED(ASK(far, OPEN, there + M2, 2 * M2, 0, pci | VE_SWAPPABLE), EINVAL);
    SAME(ve_shared_mem_attach(far.pid, (void *)(there + M2), 2 * M2, 0, pci | vehva), part);
    SAME(ve_inst_lhm((char *)part + 2 * M2 - 8), 4711);
    FINE(ve_shared_mem_detach(part, vehva));
    FINE(ve_shared_mem_detach(part, vehva));
    /* 64 slots, one of them the system's. */
    FINE(ASK(far, OPEN, there, M64, 0, pci));
    REFUSED(ASK(far, OPEN, there + M64, M64, 0, pci), ENOMEM);
    FINE(ASK(far, OPEN, there + M64, M64 - 3 * M2, 0, pci));
    REFUSED(ASK(far, OPEN, there, M2, 0, pci), ENOMEM);
    FINE(ASK(far, CLOSE, there + M64, M64 - 3 * M2, 0, pci));
    FINE(ASK(far, OPEN, there, M2, 0, pci));
    end(near);
    end(far);
    printf("window: all as specified\n");
    return 0;
}

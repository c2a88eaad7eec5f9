/* What is different on VE3 (sections 1, 2.2, 3.1). WINDLASS_VE_PROFILE=ve3. */
#include "support.h"

int main(void)
{
    const size_t m256 = 256UL << 20;
    const long long large = VE_REGISTER_PCI | VE_MAP_256MB;
    char *at = nothing(2 * m256);
    at = (char *)(((uintptr_t)at + m256 - 1) / m256 * m256);
    map_at(at, m256);
    SAME(ve_register_mem_to_dmaatb(at, M64), 0x040000000000);
    REFUSED(ve_shared_mem_open(at, m256, 0, VE_REGISTER_NONE | VE_MAP_256MB), EINVAL);
    struct peer owner = start(1);
    uint64_t theirs = ASK(owner, MAP, (uint64_t)at, m256);
    FINE(ASK(owner, OPEN, theirs, m256, 0, large));
    FINE(ASK(owner, OPEN, theirs, m256, 0, VE_REGISTER_PCI));
    ASK(owner, POKE, theirs + m256 - 8, 4711);
    void *vehva = ve_shared_mem_attach(owner.pid, (void *)theirs, m256, 0, large | VE_REGISTER_VEHVA);
    SAME(vehva, 0x100000000000);
    SAME(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), vehva), m256);
    SAME(ve_inst_lhm((char *)vehva + m256 - 8), 4711);
    void *pieces = ve_shared_mem_attach(owner.pid, (void *)theirs, m256, 0, VE_REGISTER_PCI | VE_REGISTER_VEHVA);
    SAME(pieces, 0x040000000000 + M64);
    SAME(ve_get_pgmode(VE_ADDR_VEHVA, getpid(), pieces), M64);
    FINE(ve_shared_mem_detach(pieces, VE_REGISTER_VEHVA));
    FINE(ve_shared_mem_detach(vehva, VE_REGISTER_VEHVA));
    REFUSED(ASK(owner, CLOSE, theirs, m256, 0, large | VE_PCISYNC), EINVAL);
    FINE(ASK(owner, CLOSE, theirs, m256, 0, large));
    FINE(ASK(owner, CLOSE, theirs, m256, 0, VE_REGISTER_PCI));
    end(owner);
    printf("generation3: all as specified\n");
    return 0;
}

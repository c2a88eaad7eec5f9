/*
 * Processes that one program forks before any of them has called the library meet on one node, in a job too: there one that says
 * where it is does not take its program's place. 2 VEs or more.
 */
#include "support.h"

int main(void)
{
    const long long pci = VE_REGISTER_PCI;
    struct peer near = start(0), far = start(1);
    uint64_t at = ASK(near, PAGES, 1);
    FINE(ASK(near, OPEN, at, M64, 0, pci));
    ASK(near, POKE, at, 11);
    uint64_t vehva = ASK(far, ATTACH, near.pid, at, M64, 0, pci | VE_REGISTER_VEHVA);
    TRUE(vehva != ALL_ONES);
    SAME(ASK(far, LHM, vehva), 11);
    FINE(ASK(far, DETACH, vehva, VE_REGISTER_VEHVA));
    end(far);
    end(near);
    printf("siblings: all as specified\n");
    return 0;
}

/* Section 5.0: an executable linked with pages of 2 MiB. Argument: "small" with WINDLASS_VE_PAGE=2M, "nowhere" without a VE to be on. */
#include "support.h"

int main(int count, char **arguments)
{
    const char *what = count > 1 ? arguments[1] : "";
    const long long pci = VE_REGISTER_PCI;
    char *at = pages(1);
    void *vehva;
    const int all = strcmp(what, "nowhere") == 0 ? ECANCELED : ENOTSUP;
    REFUSED(ve_shared_mem_open(at, M64, 0, pci), all);
    REFUSED(ve_shared_mem_open(NULL, 0, 0, 0), all);
    REFUSED(ve_shared_mem_attach(1, at, M64, 0, pci | VE_REGISTER_VEHVA), all);
    REFUSED(ve_shared_mem_detach(at, VE_REGISTER_VEHVA), all);
    REFUSED(ve_shared_mem_close(at, M64, 0, pci), all);
    REFUSED(ve_register_mem_to_dmaatb(at, M64), all);
    REFUSED(ve_unregister_mem_from_dmaatb(0x070000000000), all);
    if (all == ENOTSUP) {
        SAME(ve_get_pgmode(VE_ADDR_VEMVA, getpid(), at), M2);
        SAME(ve_get_pgmode(VE_ADDR_PCI, getpid(), NULL), M64);
        FINE(ve_dma_init());
        FINE(ve_dma_post_wait(0, 0, 0));
    } else {
        REFUSED(ve_get_pgmode(VE_ADDR_PCI, getpid(), NULL), all);
        REFUSED(vh_shmget(1, 1, SHM_HUGETLB), all);
        REFUSED(vh_shmdt(at), all);
        REFUSED(vh_shmat(1, NULL, 0, &vehva), all);
        REFUSED(ve_dma_init(), all);
        DIES(SIGSEGV, ve_inst_lhm((void *)0x070000000000));
    }
    printf("linked: %s, all as specified\n", what);
    return 0;
}

/*
 * veo_veshm.h - VE memory that other VE processes reach (VESHM), by pointers to VE memory (veo_hmem.h).
 *
 * -1 (or the all-ones pointer) and errno on failure: those of veshm.h, ENOTSUP without libsysve.so.1 on the VE,
 * EBUSY when the VE process is gone. The pointers of open and close are of veo_hmem.h, and others are EINVAL;
 * veo_shared_mem_attach takes the address inside such a pointer (veo_get_hmem_addr), as the owner's own programs see it.
 */
#ifndef WINDLASS_VEO_VESHM_H
#define WINDLASS_VEO_VESHM_H

#include "ve_offload.h"

/* The same numbers as in veshm.h. */
#ifndef VE_REGISTER_PCI
#define VE_SHM_RO 0x1LL
#define VE_PCISYNC 0x2LL
#define VE_REGISTER_PCI 0x4LL
#define VE_MAP_256MB 0x10LL
#define VE_SWAPPABLE 0x20LL
#define VE_REGISTER_NONE 0x1000LL
#define VE_REGISTER_VEMVA 0x2000LL
#define VE_REGISTER_VEHVA 0x4000LL
#define VE_MEM_LOCAL 0x8000LL
#endif

#ifdef __cplusplus
extern "C" {
#endif

int veo_shared_mem_open(void *hmem, size_t size, int syncnum, long long mode_flag);
int veo_shared_mem_close(void *hmem, size_t size, int syncnum, long long mode_flag);
/* With VE_REGISTER_VEMVA a pointer to VE memory, otherwise a VEHVA. `pid` is veo_get_pid_from_hmem's. */
void *veo_shared_mem_attach(struct veo_proc_handle *proc, pid_t pid, void *hmem, size_t size, int syncnum,
                            long long mode_flag);
int veo_shared_mem_detach(struct veo_proc_handle *proc, void *address, long long mode_flag);

#ifdef __cplusplus
}
#endif
#endif

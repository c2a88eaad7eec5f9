/*
 * veo_vedma.h - the DMA engine of the VE that a VE process runs on.
 *
 * Addresses are VEHVAs, multiples of 4, and so is the size, below 128 MiB. Answers: 0; 1 to 65535, the bits of an
 * exception (0x8000 protection, 0x4000 missing page, 0x2000 missing space, 0x1000 memory access, 0x0800 I/O); -EAGAIN; of this
 * layer -ENOTSUP without libsysve.so.1 on the VE, -EBUSY when the VE process is gone, -EFAULT for a null handle.
 */
#ifndef WINDLASS_VEO_VEDMA_H
#define WINDLASS_VEO_VEDMA_H

#include "ve_offload.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef WINDLASS_VEDMA_H /* vedma.h has it too */
typedef struct ve_dma_handle {
    int status;
    int index;
} ve_dma_handle_t;
#endif

int veo_dma_post(struct veo_proc_handle *proc, uint64_t dst, uint64_t src, int size, ve_dma_handle_t *handle);
int veo_dma_poll(struct veo_proc_handle *proc, ve_dma_handle_t *handle);
int veo_dma_post_wait(struct veo_proc_handle *proc, uint64_t dst, uint64_t src, int size);
/* A VEHVA of own memory; all ones and errno on failure. */
uint64_t veo_register_mem_to_dmaatb(void *hmem, size_t size);
int veo_unregister_mem_from_dmaatb(struct veo_proc_handle *proc, uint64_t vehva);
/* Every context reads PCIRCVSYC: requests that arrived at the VE are performed before anything later. */
void veo_access_pcircvsyc_register(struct veo_proc_handle *proc);

#ifdef __cplusplus
}
#endif
#endif

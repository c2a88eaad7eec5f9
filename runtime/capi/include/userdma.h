/*
 * userdma.h - the DMA descriptor table H in the caller's own hands, instead of ve_dma_init. Link with -lsysve.
 */
#ifndef WINDLASS_USERDMA_H
#define WINDLASS_USERDMA_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Maps the table: stores the VEHVAs of its descriptors and of its control words. 0, or -1 and errno (EBUSY: in use). */
int ve_map_dmades(uint64_t *vehva_desc, uint64_t *vehva_ctl);

/* Undoes it, by the first of the two: 0, or -1 and errno. */
int ve_unmap_dmades(uint64_t vehva_desc);

#ifdef __cplusplus
}
#endif

#endif

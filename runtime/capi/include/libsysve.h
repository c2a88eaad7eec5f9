/*
 * libsysve.h - registers that a VE process may ask for. Link with -lsysve.
 *
 * On failure functions return -1 and set errno.
 */
#ifndef WINDLASS_LIBSYSVE_H
#define WINDLASS_LIBSYSVE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Regions of ve_get_fixed_vehva. */
#define VE_FIXED_COMMON_REGISTERS_0 0 /* system common registers, page 0 */
#define VE_FIXED_COMMON_REGISTERS_1 1 /* and page 1 */
#define VE_FIXED_DMA_CONTROL_E 4      /* DMA control words */
#define VE_FIXED_DMA_DESCRIPTORS_E 5  /* DMA descriptor table E */

/* VEHVA of PCIRCVSYC: loading it waits for what this VE has received already. */
#define VE_PCIRCVSYC 0x1400

/* Address and mask of a PCI sync register pair. EINVAL: above 3; EFAULT: a pointer cannot be stored to. */
int ve_get_pci_sync(uint8_t number, uint64_t *pcisyar, uint64_t *pcisymr);

/* Where a fixed region is. EINVAL: no such region; EFAULT: the pointer cannot be stored to. */
int ve_get_fixed_vehva(uint64_t region, uint64_t *vehva);

#ifdef __cplusplus
}
#endif

#endif

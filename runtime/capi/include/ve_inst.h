/*
 * ve_inst.h - loads and stores by VEHVA, and fences: instructions of the VE, here functions. Link with -lsysve.
 *
 * Addresses are multiples of the width. An access that cannot be done raises a signal, with the VEHVA in si_addr:
 * SIGSEGV with SEGV_MAPERR (nothing mapped, misaligned) or SEGV_ACCERR (read-only), SIGBUS with BUS_ADRERR (I/O).
 */
#ifndef WINDLASS_VE_INST_H
#define WINDLASS_VE_INST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

uint64_t ve_inst_lhm(void *vehva);                   /* lhm.l: 8 bytes */
uint32_t ve_inst_lhm32(void *vehva);                 /* lhm.w: 4 bytes */
uint16_t ve_inst_lhm16(void *vehva);                 /* lhm.h: 2 bytes */
uint8_t ve_inst_lhm8(void *vehva);                   /* lhm.b: 1 byte */
void ve_inst_shm(void *vehva, uint64_t value);       /* shm.l */
void ve_inst_shm32(void *vehva, uint32_t value);     /* shm.w */
void ve_inst_shm16(void *vehva, uint16_t value);     /* shm.h */
void ve_inst_shm8(void *vehva, uint8_t value);       /* shm.b */

void ve_inst_fenceSF(void);  /* fencem 1: stores */
void ve_inst_fenceLF(void);  /* fencem 2: loads */
void ve_inst_fenceLSF(void); /* fencem 3: both */

/* Of caches; all memory of an emulated VE is coherent. */
void ve_inst_fenceC1(void); /* fencec 1 */
void ve_inst_fenceC2(void); /* fencec 2 */
void ve_inst_fenceC4(void); /* fencec 4 */
void ve_inst_fenceC7(void); /* fencec 7 */

#ifdef __cplusplus
}
#endif

#endif

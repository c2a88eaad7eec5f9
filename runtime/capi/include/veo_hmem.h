/*
 * veo_hmem.h - pointers that say whose memory they mean.
 *
 * A pointer to VE memory has bit 63 set and the identifier of its VE process (0 to 15) in bits 62-59; the
 * other bits are the address on the VE. Every other pointer means memory of the VH.
 */
#ifndef WINDLASS_VEO_HMEM_H
#define WINDLASS_VEO_HMEM_H

#ifdef __cplusplus
extern "C" {
#endif

/* 1 for a pointer to VE memory, otherwise 0. */
int veo_is_ve_addr(const void *pointer);
/* The pointer without its tag: what a VE function can use. */
void *veo_get_hmem_addr(void *pointer);

#ifdef __cplusplus
}
#endif
#endif

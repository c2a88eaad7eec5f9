/*
 * veo_vhveshm.h - memory of the VH that a VE process reaches by DMA: System V segments of huge pages.
 *
 * What vh_shmget, vh_shmat and vh_shmdt do in a VE process, done by the process of a handle. The address that
 * veo_shmat answers is valid there only: a token for veo_shmdt. -1 and errno on failure, among them ENOTSUP without
 * libsysve.so.1 on the VE, EBUSY when the VE process is gone.
 */
#ifndef WINDLASS_VEO_VHVESHM_H
#define WINDLASS_VEO_VHVESHM_H

#include <sys/ipc.h>
#include <sys/shm.h>

#include "ve_offload.h"

#ifdef __cplusplus
extern "C" {
#endif

int veo_shmget(struct veo_proc_handle *proc, key_t key, size_t size, int shmflag);
void *veo_shmat(struct veo_proc_handle *proc, int shmid, const void *shmaddr, int shmflag, void **vehva);
int veo_shmdt(struct veo_proc_handle *proc, const void *shmaddr);

#ifdef __cplusplus
}
#endif
#endif

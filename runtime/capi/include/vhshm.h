/*
 * vhshm.h - System V segments of the host's huge pages, from a VE process. Link with -lsysve.
 *
 * On failure functions return -1 (vh_shmat: (void *)-1) and set errno.
 */
#ifndef WINDLASS_VHSHM_H
#define WINDLASS_VHSHM_H

#include <stddef.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/types.h>

#ifndef SHM_HUGETLB
#define SHM_HUGETLB 04000
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Finds a segment; never makes one. shmflag has SHM_HUGETLB and may have permission bits. EINVAL: IPC_PRIVATE, no
 * SHM_HUGETLB, a flag that creates, larger than the segment; ENOENT: no such key; EACCES: the bits are not granted.
 */
int vh_shmget(key_t key, size_t size, int shmflag);

/*
 * Attaches the whole segment and stores where DMA, LHM and SHM reach it. shmaddr is NULL, shmflag 0 or SHM_RDONLY.
 * Every attach gives a new address and a new VEHVA. EINVAL: arguments; EIDRM: removed; EACCES: not permitted; EFAULT: vehva
 * cannot be stored, or the segment is not on huge pages; ENOMEM: no memory or no directory left; ENOTSUP: no IVED.
 */
void *vh_shmat(int shmid, const void *shmaddr, int shmflag, void **vehva);

/* Undoes one attach, by its address. EINVAL: not one. */
int vh_shmdt(const void *shmaddr);

#ifdef __cplusplus
}
#endif

#endif

/*
 * veshm.h - VE shared memory: memory of one VE process, reached by others of the same host.
 *
 * Link with -lsysve. On failure functions return -1 (ve_shared_mem_attach: VESHM_FAILED) and set errno; with
 * WINDLASS_VE_CHECK=1 the rule that was broken is on standard error.
 */
#ifndef WINDLASS_VESHM_H
#define WINDLASS_VESHM_H

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of an area: VE_REGISTER_PCI or VE_REGISTER_NONE, and any of the others where they are legal. */
#define VE_SHM_RO 0x1LL           /* read-only */
#define VE_PCISYNC 0x2LL          /* sync bit in the PCIATB, for the register pair syncnum */
#define VE_REGISTER_PCI 0x4LL     /* in the PCIATB: other VEs can attach it */
#define VE_MAP_256MB 0x10LL       /* VE3: pages of 256 MiB */
#define VE_SWAPPABLE 0x20LL       /* partial process swapping */
#define VE_REGISTER_NONE 0x1000LL /* not in the PCIATB: processes of the same VE only */

/* Where an attachment is: exactly one. */
#define VE_REGISTER_VEMVA 0x2000LL /* for loads and stores: owner on the same VE */
#define VE_REGISTER_VEHVA 0x4000LL /* for DMA, LHM, SHM: owner on another VE */
#define VE_MEM_LOCAL 0x8000LL      /* own memory, for DMA, LHM, SHM */

/* For ve_get_pgmode: exactly one. */
#define VE_ADDR_VEMVA 1LL
#define VE_ADDR_VEHVA 2LL
#define VE_ADDR_PCI 4LL

#define VESHM_FAILED ((void *)-1)

/*
 * Makes [vemva, vemva + size) an area that others can attach. Both are multiples of the page size: 64 MiB, or 2 MiB
 * for memory that was advised MADV_NOHUGEPAGE before. EINVAL: flags, alignment, memory that is not mapped or cannot
 * become VE memory; ENOMEM: not mapped throughout, pages of mixed size, PCIATB full; EACCES: a page is not writable
 * (also with VE_SHM_RO); ECANCELED, ENOTSUP: IVED cannot be reached, is absent. syncnum, 0 to 3, counts only with
 * VE_PCISYNC; without it no call looks at it.
 */
int ve_shared_mem_open(void *vemva, size_t size, int syncnum, long long mode_flag);

/*
 * Attaches an area under exactly the arguments of its open and one of the three spaces. A repeated attach gives the same
 * address and counts. EINVAL: flags, no such area, the wrong space for where the owner is; ESRCH: no such process;
 * EACCES: another user's; ENOMEM: tables or address space full; ECANCELED: the owner's pages changed since the open.
 */
void *ve_shared_mem_attach(pid_t pid, void *veshm_vemva, size_t size, int syncnum, long long mode_flag);

/* Undoes one attach. EINVAL: not an address of an attach in that space. */
int ve_shared_mem_detach(void *veshm_addr, long long mode_flag);

/* Undoes one open, with its arguments. EINVAL: nothing is open under them. */
int ve_shared_mem_close(void *vemva, size_t size, int syncnum, long long mode_flag);

/* A page size in bytes. ESRCH: no such process on the VE asked; EINVAL: flags, nothing mapped at the address. */
int ve_get_pgmode(long long mode_flag, int pid, void *address);

#ifdef __cplusplus
}
#endif

#endif

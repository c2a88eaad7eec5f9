/*
 * vedma.h - user-mode DMA of a VE process: a ring of 128 descriptors, executed in order.
 *
 * Link with -lveio or -lsysve. Addresses are VEHVAs (own memory: ve_register_mem_to_dmaatb; other VEs:
 * ve_shared_mem_attach with VE_REGISTER_VEHVA; host segments: vh_shmat), multiples of 4 as the length is, which is below
 * 128 MiB. The ve_dma_ functions return codes and leave errno alone; the two others return -1 and set it.
 */
#ifndef WINDLASS_VEDMA_H
#define WINDLASS_VEDMA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Stays where it is until the transfer's final result was polled: a later post may store the result here. */
#ifndef WINDLASS_VEO_VEDMA_H /* veo_vedma.h has it too */
typedef struct ve_dma_handle {
    int status;
    int index;
} ve_dma_handle_t;
#endif

/* Results above 0 are a sum of these. */
#define VE_DMA_MEMORY_PROTECTION 0x8000 /* destination is read-only */
#define VE_DMA_MISSING_PAGE 0x4000      /* nothing is mapped at an address */
#define VE_DMA_MISSING_SPACE 0x2000     /* nor anywhere near it: no directory */
#define VE_DMA_MEMORY_ACCESS 0x1000     /* alignment, length, or no address at all */
#define VE_DMA_IO_ACCESS 0x0800         /* the PCIe answered with an error */

/* Before the first transfer, and again in a forked child. 0, or -1: the table is in use or the node cannot be reached. */
int ve_dma_init(void);

/*
 * Begins a transfer of size bytes. 0, or -EAGAIN: 128 are under way; poll, then post again. (Here a transfer is over when its post
 * returns, unless WINDLASS_VE_REORDER is set: set it to see -EAGAIN.)
 */
int ve_dma_post(uint64_t dst, uint64_t src, int size, ve_dma_handle_t *handle);

/* -EAGAIN: not completed. Anything else is final, 0 or exception bits: do not ask again. */
int ve_dma_poll(ve_dma_handle_t *handle);

/* Polls until the result is final. */
int ve_dma_wait(ve_dma_handle_t *handle);

/* Posts, waiting for a free descriptor if need be, and waits for the completion. */
int ve_dma_post_wait(uint64_t dst, uint64_t src, int size);

/* Stores two words: running or halted, read pointer. */
void ve_dma_read_ctrl_reg(uint64_t *regs);

/* Own memory, whole pages, as VEHVA; UINT64_MAX and errno on failure (as ve_shared_mem_attach with VE_MEM_LOCAL). */
uint64_t ve_register_mem_to_dmaatb(void *vemva, size_t size);

/* Undoes it: 0, or -1 and errno. */
int ve_unregister_mem_from_dmaatb(uint64_t vehva);

#ifdef __cplusplus
}
#endif

#endif

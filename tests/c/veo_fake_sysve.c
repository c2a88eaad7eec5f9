/*
 * In libsysve's place in tests of what lies above it: every function keeps its arguments in `seen`, and answers
 * `answer`, with errno `number`.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vedma.h"

uint64_t seen[8];
int64_t answer;
int number;
ve_dma_handle_t *kept[128];

static int64_t keep(int function, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
    uint64_t all[] = {(uint64_t)function, a, b, c, d, e};
    for (int i = 0; i < 6; i++)
        seen[i] = all[i];
    errno = number;
    return answer;
}

int vh_shmget(key_t key, size_t size, int flag)
{
    return (int)keep(1, (uint64_t)key, size, (uint64_t)flag, 0, 0);
}
void *vh_shmat(int shmid, const void *shmaddr, int shmflag, void **vehva)
{
    *vehva = (void *)0x8800000000;
    return (void *)keep(2, (uint64_t)shmid, (uint64_t)shmaddr, (uint64_t)shmflag, 0, 0);
}
int vh_shmdt(const void *shmaddr) { return (int)keep(3, (uint64_t)shmaddr, 0, 0, 0, 0); }
int ve_shared_mem_open(void *vemva, size_t size, int syncnum, long long mode)
{
    return (int)keep(4, (uint64_t)vemva, size, (uint64_t)syncnum, (uint64_t)mode, 0);
}
int ve_shared_mem_close(void *vemva, size_t size, int syncnum, long long mode)
{
    return (int)keep(5, (uint64_t)vemva, size, (uint64_t)syncnum, (uint64_t)mode, 0);
}
void *ve_shared_mem_attach(pid_t pid, void *vemva, size_t size, int syncnum, long long mode)
{
    return (void *)keep(6, (uint64_t)pid, (uint64_t)vemva, size, (uint64_t)syncnum, (uint64_t)mode);
}
int ve_shared_mem_detach(void *address, long long mode)
{
    return (int)keep(7, (uint64_t)address, (uint64_t)mode, 0, 0, 0);
}

static int ready;

int ve_dma_init(void)
{
    ready++;
    return 0;
}
int ve_dma_post(uint64_t dst, uint64_t src, int size, ve_dma_handle_t *handle)
{
    static int next;
    int result = (int)keep(8, dst, src, (uint64_t)size, (uint64_t)ready, 0);
    if (result == 0) {
        /* As the ring does: the handle of the slot's last transfer learns its result. */
        if (kept[next])
            kept[next]->status = 0x4000;
        kept[next] = handle;
        handle->status = -1;
        handle->index = next;
        next = (next + 1) % 128;
    }
    return result;
}
int ve_dma_poll(ve_dma_handle_t *handle)
{
    return (int)keep(9, (uint64_t)handle->status, (uint64_t)handle->index, (uint64_t)ready, 0, 0);
}
int ve_dma_post_wait(uint64_t dst, uint64_t src, int size)
{
    return (int)keep(10, dst, src, (uint64_t)size, (uint64_t)ready, 0);
}
uint64_t ve_inst_lhm(void *vehva)
{
    seen[6]++;
    seen[7] = (uint64_t)vehva;
    return 0;
}

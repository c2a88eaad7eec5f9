/*
 * Two programs that know of each other only by a node and by two FIFOs: owner and user of an area. Arguments: folder of the
 * FIFOs, and "owner" or "user", or nothing in a job: rank 0 is the owner.
 */
#include "support.h"

struct area {
    pid_t pid;
    uint64_t vemva;
};

static int fifo(const char *folder, const char *name, int flags)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    TRUE(mkfifo(path, 0600) == 0 || errno == EEXIST);
    int fd = open(path, flags);
    TRUE(fd >= 0);
    return fd;
}

int main(int count, char **arguments)
{
    TRUE(count > 1);
    const char *rank = getenv("WINDLASS_RANK");
    int owner = count > 2 ? strcmp(arguments[2], "owner") == 0 : rank != NULL && strcmp(rank, "0") == 0;
    struct area area;
    char done = 0;
    if (owner) {
        char *own = pages(1);
        strcpy(own, "from the owner");
        FINE(ve_shared_mem_open(own, M64, 0, VE_REGISTER_PCI));
        int there = fifo(arguments[1], "there", O_WRONLY), back = fifo(arguments[1], "back", O_RDONLY);
        area = (struct area){getpid(), (uint64_t)own};
        SAME(write(there, &area, sizeof area), sizeof area);
        SAME(read(back, &done, 1), 1);
        FINE(strcmp(own, "from the user!"));
        FINE(ve_shared_mem_close(own, M64, 0, VE_REGISTER_PCI));
    } else {
        int there = fifo(arguments[1], "there", O_RDONLY), back = fifo(arguments[1], "back", O_WRONLY);
        SAME(read(there, &area, sizeof area), sizeof area);
        FINE(ve_dma_init());
        char *own = pages(1);
        uint64_t local = ve_register_mem_to_dmaatb(own, M64);
        void *far = ve_shared_mem_attach(area.pid, (void *)area.vemva, M64, 0, VE_REGISTER_PCI | VE_REGISTER_VEHVA);
        TRUE(local != ALL_ONES && far != VESHM_FAILED);
        FINE(ve_dma_post_wait(local, (uint64_t)far, 16));
        FINE(strcmp(own, "from the owner"));
        strcpy(own, "from the user!");
        FINE(ve_dma_post_wait((uint64_t)far, local, 16));
        FINE(ve_shared_mem_detach(far, VE_REGISTER_VEHVA));
        SAME(write(back, &done, 1), 1);
    }
    printf("pair: %s, all as specified\n", owner ? "owner" : "user");
    return 0;
}

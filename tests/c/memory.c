/* Which memory of a program becomes VE memory, and that it stays the program's: it is freed, moved, protected and forked as ever. */
#include "support.h"

#include <malloc.h>
#include <pthread.h>

static char zeroed[M64] __attribute__((aligned(64 << 20)));
static char initialised[M2] __attribute__((aligned(2 << 20))) = {1, 2, 3};
static char neighbour[64] = "next to it";

static int can_open(void *at, size_t size)
{
    int opened = ve_shared_mem_open(at, size, 0, VE_REGISTER_NONE);
    if (opened == 0)
        FINE(ve_shared_mem_close(at, size, 0, VE_REGISTER_NONE));
    return opened;
}

static void statics(void)
{
    strcpy(zeroed + M64 - 16, "the last bytes");
    FINE(can_open(zeroed, M64));
    FINE(strcmp(zeroed + M64 - 16, "the last bytes"));
    SAME(zeroed[0], 0);
    FINE(madvise(initialised, M2, MADV_NOHUGEPAGE));
    FINE(can_open(initialised, M2));
    SAME(initialised[1], 2);
    strcat(neighbour, "!");
    FINE(strcmp(neighbour, "next to it!"));
    int status;
    pid_t child = fork();
    if (child == 0) {
        usleep(20000);
        TRUE(zeroed[0] == 0 && initialised[0] == 1);
        zeroed[0] = initialised[0] = 9;
        FINE(can_open(zeroed, M64));
        exit(0);
    }
    zeroed[0] = 5;
    initialised[0] = 6;
    SAME(waitpid(child, &status, 0), child);
    SAME(status, 0);
    TRUE(zeroed[0] == 5 && initialised[0] == 6);
}

/* What cannot be moved is refused as what is not mapped, and stays as it is. */
static void others(void)
{
    char *at = nothing(M64);
    SAME(mmap(at, M64, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0), at);
    at[5] = 5;
    REFUSED(can_open(at, M64), EINVAL);
    SAME(at[5], 5);
    FINE(munmap(at, M64));
    int file = memfd_create("test", MFD_CLOEXEC);
    FINE(ftruncate(file, M64));
    SAME(mmap(at, M64, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 0), at);
    REFUSED(can_open(at, M64), EINVAL);
    FINE(munmap(at, M64));
    SAME(mmap(at, M64, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), at);
    REFUSED(can_open(at, M64), EINVAL);
    FINE(munmap(at, M64));
    SAME(mmap(at, M64, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), at);
    REFUSED(can_open(at, M64), EINVAL);
    FINE(munmap(at, M64));
    /* A part of a page of 64 MiB does not make one. */
    map_at(at, M64 - 4096);
    REFUSED(can_open(at, M64), EINVAL);
    FINE(munmap(at, M64));
    close(file);
}

static void *on_it(void *at)
{
    char local = 1;
    TRUE(&local > (char *)at && &local < (char *)at + M64);
    REFUSED(can_open(at, M64), EINVAL); /* its own stack */
    return NULL;
}

static void stacks(void)
{
    char *at = map_at(nothing(M64), M64);
    pthread_attr_t attributes;
    pthread_t thread;
    FINE(pthread_attr_init(&attributes));
    FINE(pthread_attr_setstack(&attributes, at, M64));
    FINE(pthread_create(&thread, &attributes, on_it, at));
    FINE(pthread_join(thread, NULL));
    FINE(pthread_attr_destroy(&attributes));
    FINE(can_open(at, M64)); /* nobody's any more */
    FINE(munmap(at, M64));
}

/* The allocator gets its memory back and gives it out again. */
static void allocator(void)
{
    for (int round = 0; round < 3; round++) {
        char *block = pages(2);
        strcpy(block, "grows");
        FINE(can_open(block, 2 * M64));
        block = realloc(block, 4 * M64);
        FINE(strcmp(block, "grows"));
        memset(block + 3 * M64, 1, M64);
        free(block);
        block = calloc(2, M64);
        for (size_t i = 0; i < 2 * M64; i += 4096)
            SAME(block[i], 0);
        free(block);
    }
    /* From the heap, where blocks of others are before and behind. */
    FINE(mallopt(M_MMAP_THRESHOLD, 32 << 20) != 1);
    for (int round = 0; round < 20; round++) {
        void *got;
        char *before = malloc(1000);
        FINE(posix_memalign(&got, M2, M2));
        char *block = got, *behind = malloc(1000);
        strcpy(before, "before");
        strcpy(behind, "behind");
        strcpy(block, "block");
        FINE(madvise(block, M2, MADV_NOHUGEPAGE));
        FINE(can_open(block, M2));
        TRUE(strcmp(before, "before") == 0 && strcmp(behind, "behind") == 0 && strcmp(block, "block") == 0);
        free(block);
        char *small[64];
        for (int i = 0; i < 64; i++) {
            small[i] = calloc(1, 40000);
            for (int j = 0; j < 40000; j++)
                SAME(small[i][j], 0);
            memset(small[i], 0xff, 40000);
        }
        for (int i = 0; i < 64; i++)
            free(small[i]);
        free(before);
        free(behind);
        malloc_trim(0);
        FINE(can_open(zeroed, M64));
    }
}

/* Mapped anew, wholly and in part. */
static void mappings(void)
{
    char *at = map_at(nothing(2 * M64), 2 * M64);
    at[0] = 1;
    at[M64] = 2;
    FINE(ve_shared_mem_open(at, 2 * M64, 0, VE_REGISTER_PCI));
    uint64_t vehva = ve_register_mem_to_dmaatb(at, 2 * M64);
    /* A part of a page: the rest of the page is what it was, and the part is the page's again at the next call. */
    map_at(at + M64 / 2, 4096);
    at[M64 / 2] = 3;
    SAME(ve_register_mem_to_dmaatb(at, 2 * M64), vehva);
    SAME(ve_inst_lhm((void *)(vehva + M64 / 2)), 3);
    TRUE(at[0] == 1 && at[M64] == 2);
    /* A page: other frames. The area is the old one until it is opened again. */
    map_at(at + M64, M64);
    SAME(at[M64], 0);
    at[M64] = 4;
    SAME(ve_inst_lhm((void *)(vehva + M64)), 2);
    FINE(ve_shared_mem_open(at, 2 * M64, 0, VE_REGISTER_PCI));
    FINE(ve_shared_mem_close(at, 2 * M64, 0, VE_REGISTER_PCI));
    REFUSED(ve_shared_mem_close(at, 2 * M64, 0, VE_REGISTER_PCI), EINVAL);
    FINE(ve_unregister_mem_from_dmaatb(vehva));
    FINE(ve_unregister_mem_from_dmaatb(vehva));
    SAME(ve_register_mem_to_dmaatb(at, 2 * M64), vehva);
    SAME(ve_inst_lhm((void *)(vehva + M64)), 4);
    FINE(ve_unregister_mem_from_dmaatb(vehva));
    FINE(munmap(at, 2 * M64));
    /* Locks and advice stay. */
    map_at(at, M64);
    FINE(madvise(at, M64, MADV_DONTDUMP));
    if (mlock(at, 4096) == 0) {
        FINE(can_open(at, M64));
        char line[256];
        long locked = 0;
        FILE *status = fopen("/proc/self/status", "r");
        while (fgets(line, sizeof line, status) != NULL)
            sscanf(line, "VmLck: %ld kB", &locked);
        fclose(status);
        SAME(locked, 4);
    }
    FINE(munmap(at, M64));
}

int main(void)
{
    SAME(ve_get_pgmode(VE_ADDR_PCI, getpid(), NULL), M64);
    statics();
    others();
    stacks();
    mappings();
    allocator();
    printf("memory: all as specified\n");
    return 0;
}

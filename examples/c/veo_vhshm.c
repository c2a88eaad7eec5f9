/*
 * VH-VE shared memory with VEO. From the root of this repository, after `cargo build --release -p windlass-veo -p windlass-sysve -p
 * windlass-launcher`:
 *
 *   cc -shared -fPIC -DVE examples/c/veo_vhshm.c -o target/veo_vhshm_ve.so
 *   cc -Iruntime/capi/include examples/c/veo_vhshm.c -o target/veo_vhshm -Ltarget/release -lveo -Wl,-rpath,$PWD/target/release
 *
 *   target/veo_vhshm target/veo_vhshm_ve.so        (or: cargo windlass run -n 2 --ves 1 target/veo_vhshm target/veo_vhshm_ve.so)
 *
 * The program of the vector host (VH) puts numbers into a System V segment of huge pages. The DMA engine of the Vector Engine
 * (VE) fetches them, a VE function doubles them, the engine brings them back into the segment. Without huge pages the same
 * goes by VEO's own transfers, and the program says which setting is missing.
 *
 * This file is both sides: -DVE makes the library that runs on the VE.
 */
#include <stdint.h>

#ifdef VE

/* On the VE: an ordinary function. */
uint64_t twice(double *numbers, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        numbers[i] *= 2;
    return count;
}

#else

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>

#include <veo_vedma.h>
#include <veo_vhveshm.h>

#define PAGE (64UL << 20) /* of the VE */
#define HUGE (2UL << 20)  /* of the VH */
#define COUNT (HUGE / sizeof(double))

static void stop(const char *what)
{
    fprintf(stderr, "veo_vhshm: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void check(const double *numbers, double factor)
{
    for (uint64_t i = 0; i < COUNT; i++)
        if (numbers[i] != factor * (double)i) {
            fprintf(stderr, "veo_vhshm: number %lu is %g, not %g\n", (unsigned long)i, numbers[i], factor * (double)i);
            exit(1);
        }
}

/* Doubles the numbers at an address of the VE. */
static void call(struct veo_proc_handle *proc, uint64_t twice, uint64_t address)
{
    struct veo_args *args = veo_args_alloc();
    uint64_t count = 0;
    veo_args_set_u64(args, 0, address);
    veo_args_set_u64(args, 1, COUNT);
    if (veo_call_sync(proc, twice, args, &count) != 0 || count != COUNT)
        stop("twice");
    veo_args_free(args);
}

/* By a segment that both sides reach. */
static void by_segment(struct veo_proc_handle *proc, uint64_t twice, int segment)
{
    double *numbers = shmat(segment, NULL, 0);
    if (numbers == (void *)-1)
        stop("shmat");
    shmctl(segment, IPC_RMID, NULL); /* goes with its last user */
    for (uint64_t i = 0; i < COUNT; i++)
        numbers[i] = (double)i;

    void *block, *buffer, *vehva, *token = veo_shmat(proc, segment, NULL, 0, &vehva);
    if (token == (void *)-1)
        stop("veo_shmat");
    /* A whole page of the VE, made known to its DMA engine: in a block of two, which begins anywhere. */
    if (veo_alloc_hmem(proc, &block, 2 * PAGE) != 0)
        stop("veo_alloc_hmem");
    buffer = (void *)(((uintptr_t)block + PAGE - 1) / PAGE * PAGE);
    uint64_t own = veo_register_mem_to_dmaatb(buffer, PAGE);
    if (own == ~0UL)
        stop("veo_register_mem_to_dmaatb");

    int result = veo_dma_post_wait(proc, own, (uint64_t)vehva, HUGE);
    if (result == 0) {
        call(proc, twice, (uint64_t)veo_get_hmem_addr(buffer));
        result = veo_dma_post_wait(proc, (uint64_t)vehva, own, HUGE);
    }
    if (result != 0) {
        fprintf(stderr, "veo_vhshm: DMA answers %d\n", result);
        exit(1);
    }
    check(numbers, 2);
    printf("VE %d: fetched %lu numbers from a huge-page segment by DMA, doubled them, brought them back: all right\n",
           veo_get_venum_from_hmem(buffer), (unsigned long)COUNT);

    veo_unregister_mem_from_dmaatb(proc, own);
    veo_free_hmem(block);
    veo_shmdt(proc, token);
    shmdt(numbers);
}

/* By VEO's transfers, between any memory of the two sides. */
static void by_transfers(struct veo_proc_handle *proc, uint64_t twice)
{
    double *numbers = malloc(HUGE);
    void *buffer;
    if (numbers == NULL || veo_alloc_hmem(proc, &buffer, HUGE) != 0)
        stop("veo_alloc_hmem");
    for (uint64_t i = 0; i < COUNT; i++)
        numbers[i] = (double)i;
    if (veo_hmemcpy(buffer, numbers, HUGE) != 0)
        stop("veo_hmemcpy");
    call(proc, twice, (uint64_t)veo_get_hmem_addr(buffer));
    if (veo_hmemcpy(numbers, buffer, HUGE) != 0)
        stop("veo_hmemcpy");
    check(numbers, 2);
    printf("VE %d: got %lu numbers by a VEO transfer, doubled them, gave them back: all right\n",
           veo_get_venum_from_hmem(buffer), (unsigned long)COUNT);
    veo_free_hmem(buffer);
    free(numbers);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s VE-LIBRARY\n", argv[0]);
        return 2;
    }
    struct veo_proc_handle *proc = veo_proc_create(-1);
    if (proc == NULL)
        stop("veo_proc_create");
    uint64_t library = veo_load_library(proc, argv[1]);
    uint64_t twice = library ? veo_get_sym(proc, library, "twice") : 0;
    if (twice == 0)
        stop(argv[1]);

    int segment = shmget(IPC_PRIVATE, HUGE, SHM_HUGETLB | IPC_CREAT | 0600);
    if (segment >= 0) {
        by_segment(proc, twice, segment);
    } else if (errno == ENOMEM) {
        printf("no huge page is free: as root, `sysctl vm.nr_hugepages=8` makes some\n");
        by_transfers(proc, twice);
    } else if (errno == EPERM || errno == EACCES) {
        printf("this user may not use huge pages: as root, `sysctl vm.hugetlb_shm_group=GROUP` lets one of its groups\n");
        by_transfers(proc, twice);
    } else {
        stop("shmget");
    }
    if (veo_proc_destroy(proc) != 0)
        stop("veo_proc_destroy");
    return 0;
}

#endif

/*
 * Speed of imported segments, through the C library, on one node and between two:
 *
 *   cargo build --release -p windlass-librsm -p windlass-launcher
 *   cc -O2 -o target/rsm_speed benches/rsm.c -I runtime/capi/include -L target/release -lrsm -Wl,-rpath,$PWD/target/release
 *   target/rsm_speed
 *   target/release/windlass run -n 2 --nodes 2 target/rsm_speed
 *
 * Each figure is the median of rounds that alternate with what it is compared with, so that a noisy machine disturbs both alike:
 * plain memory that two processes share, a map and unmap of a memory file. Exits with 1 where something is not met. Between nodes
 * nothing is wanted, and said what there is.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rsmapi.h>

enum { SIZE = 1 << 20, WORDS = 16 * 1024 / 8, ROUNDS = 41, ID = 0x600400 };

#define MUST(call)                                                            \
    do {                                                                      \
        int code_ = (call);                                                   \
        if (code_ != RSM_SUCCESS) {                                           \
            fprintf(stderr, "%s: result %d\n", #call, code_);                 \
            exit(2);                                                          \
        }                                                                     \
    } while (0)

static rsmapi_controller_handle_t controller;
static rsm_memseg_import_handle_t segment;
static volatile uint64_t *mapped, *plain;
static char *source;
static int file;
static size_t map_len;

static double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *samples)
{
    qsort(samples, ROUNDS, sizeof *samples, by_value);
    return samples[ROUNDS / 2];
}

static void store_words(volatile uint64_t *at)
{
    for (int i = 0; i < WORDS; i++)
        at[i] = (uint64_t)i;
}

static void load_words(volatile uint64_t *at)
{
    for (int i = 0; i < WORDS; i++)
        (void)at[i];
}

static void stores(void) { store_words(mapped); }
static void plain_stores(void) { store_words(plain); }
static void loads(void) { load_words(mapped); }
static void plain_loads(void) { load_words(plain); }
static void copies(void) { memcpy((void *)mapped, source, SIZE); }
static void plain_copies(void) { memcpy((void *)plain, source, SIZE); }

static void map_and_unmap(void)
{
    void *at = NULL;
    MUST(rsm_memseg_import_map(segment, &at, RSM_MAP_NONE, RSM_PERM_RDWR, 0, map_len));
    MUST(rsm_memseg_import_unmap(segment));
}

static void plain_map(void)
{
    void *at = mmap(NULL, map_len, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED || munmap(at, map_len) != 0)
        exit(2);
}

static void put8(void)
{
    uint64_t word = 1;
    MUST(rsm_memseg_import_put64(segment, 8, &word, 1));
}

static void get8(void)
{
    uint64_t word;
    MUST(rsm_memseg_import_get64(segment, 8, &word, 1));
}

static void put_bytes(void)
{
    MUST(rsm_memseg_import_put(segment, 8, source, 8));
}

/* What a store that is known to have been made costs. */
static void plain_put(void)
{
    plain[1] = 1;
    __sync_synchronize();
}

/* Medians of one call in ns, of two that take turns. */
static void compare(int times, void (*ours)(void), void (*theirs)(void), double *of_ours, double *of_theirs)
{
    double a[ROUNDS], b[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        double begun = now_ns();
        for (int i = 0; i < times; i++)
            ours();
        double turn = now_ns();
        for (int i = 0; i < times; i++)
            theirs();
        a[round] = (turn - begun) / times;
        b[round] = (now_ns() - turn) / times;
    }
    *of_ours = median(a);
    *of_theirs = median(b);
}

static int failed;

/* `most`: of the ratio, or in ns where `in_ns`. */
static void report(const char *what, int times, void (*ours)(void), void (*theirs)(void), double per, double most, int in_ns)
{
    double a, b;
    compare(times, ours, theirs, &a, &b);
    double figure = in_ns ? a : a / b;
    int met = figure <= most;
    printf("%-44s %10.1f ns %10.1f ns  ratio %6.2f  wanted %g%s: %s\n", what, a / per, b / per, a / b, most, in_ns ? " ns" : "",
           met ? "met" : "NOT MET");
    failed |= !met;
}

static rsm_memseg_export_handle_t export(void)
{
    rsm_memseg_export_handle_t exported;
    rsm_memseg_id_t id = ID;
    void *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 1, SIZE);
    MUST(rsm_memseg_export_create(controller, &exported, memory, SIZE, 0));
    MUST(rsm_memseg_export_publish(exported, &id, NULL, 0));
    return exported;
}

/* A process whose segment it is. */
static pid_t exporter(int *pipes)
{
    pid_t parent = getpid(), pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    (void)export();
    if (write(pipes[1], "", 1) != 1)
        _exit(1);
    pause();
    _exit(0);
}

static void put_all(void) { MUST(rsm_memseg_import_put(segment, 0, source, SIZE)); }
static void get_all(void) { MUST(rsm_memseg_import_get(segment, 0, source, SIZE)); }
static void nothing(void) {}

/* Rank 0 imports what rank 1 exports on another node. */
static int between_nodes(int rank)
{
    rsmapi_barrier_t barrier;
    const struct { const char *what; int times; void (*call)(void); } calls[] = {
        {"put of 8 bytes", 50, put8}, {"get of 8 bytes", 50, get8}, {"put of 1 MiB", 2, put_all}, {"get of 1 MiB", 2, get_all},
    };
    MUST(rsm_get_controller("tcp0", &controller));
    if (rank != 0) {
        MUST(rsm_intr_signal_wait(export(), -1));
        return 0;
    }
    while (rsm_memseg_import_connect(controller, 1, ID, RSM_PERM_RDWR, &segment) != RSM_SUCCESS)
        usleep(1000);
    MUST(rsm_memseg_import_init_barrier(segment, RSM_BARRIER_NODE, &barrier));
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        double ours, unused;
        compare(calls[i].times, calls[i].call, nothing, &ours, &unused);
        printf("%s to another node: %.1f us\n", calls[i].what, ours / 1e3);
    }
    MUST(rsm_intr_signal_post(segment, 0));
    MUST(rsm_memseg_import_destroy_barrier(&barrier));
    MUST(rsm_memseg_import_disconnect(segment));
    return 0;
}

int main(void)
{
    int pipes[2];
    char byte;
    void *at = NULL;
    rsmapi_barrier_t barrier;
    rsm_topology_t *topology;
    plain = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    source = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset((void *)plain, 1, SIZE);
    memset(source, 2, SIZE);
    const char *rank = getenv("WINDLASS_RANK");
    if (rank != NULL)
        return between_nodes(atoi(rank));
    file = memfd_create("plain", MFD_CLOEXEC);
    MUST(rsm_get_controller(NULL, &controller));
    if (file < 0 || ftruncate(file, SIZE) != 0 || pipe(pipes) != 0)
        return 2;
    pid_t pid = exporter(pipes);
    close(pipes[1]);
    if (read(pipes[0], &byte, 1) != 1)
        return 2;
    MUST(rsm_get_interconnect_topology(&topology));
    MUST(rsm_memseg_import_connect(controller, topology->topology_hdr.local_nodeid, ID, RSM_PERM_RDWR, &segment));
    rsm_free_interconnect_topology(topology);
    MUST(rsm_memseg_import_init_barrier(segment, RSM_BARRIER_SEGMENT, &barrier));

    printf("%-44s %13s %13s\n", "", "ours", "machine");
    report("put of 8 bytes, unmapped / a store and a fence", 2000, put8, plain_put, 1, 300, 1);
    report("the same as bytes", 2000, put_bytes, plain_put, 1, 300, 1);
    report("get of 8 bytes, unmapped / the same", 2000, get8, plain_put, 1, 300, 1);
    MUST(rsm_memseg_import_unmap(segment)); /* what the transfers have mapped */
    map_len = 4096;
    report("map and unmap of a page / of a memory file", 50, map_and_unmap, plain_map, 1, 50000, 1);
    map_len = SIZE;
    report("map and unmap of 1 MiB / of a memory file", 50, map_and_unmap, plain_map, 1, 50000, 1);
    MUST(rsm_memseg_import_map(segment, &at, RSM_MAP_NONE, RSM_PERM_RDWR, 0, SIZE));
    mapped = at;
    memset(at, 1, SIZE);
    report("a mapped store of 8 bytes / a plain one", 200, stores, plain_stores, WORDS, 1.05, 0);
    report("a mapped load of 8 bytes / a plain one", 200, loads, plain_loads, WORDS, 1.05, 0);
    report("memcpy of 1 MiB into it / into plain memory", 5, copies, plain_copies, 1, 1.05, 0);
    MUST(rsm_memseg_import_unmap(segment));
    MUST(rsm_memseg_import_destroy_barrier(&barrier));
    MUST(rsm_memseg_import_disconnect(segment));
    MUST(rsm_release_controller(controller));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return failed;
}

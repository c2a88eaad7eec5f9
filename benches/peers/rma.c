/*
 * The lines of `windlass bench --peers`, measured with MPI-3 one-sided calls between ranks 0 (origin) and 1 (target).
 * `ranks.rs` does the same with windows of Windlass: same loops, counts, buffers and completion.
 *
 *   rma SECONDS PAGE CPU0 CPU1 LINE...
 *
 * SECONDS: the most that this may take. PAGE: a file of one page that both ranks map. CPU0, CPU1: where they run.
 * LINE: NUMBER:LOOP:WINDOW:SYNC:WAY:SIZE:ITERATIONS:BLOCKS, as `loops.rs` writes it. What rank 0 prints, a line each:
 *
 *   started NANOSECONDS         since 1970, when the first barrier was passed
 *   cpus CPU CPU                where the ranks are
 *   version TEXT                whose library it is
 *   block NUMBER SECONDS ITERATIONS HOP HOP
 *                               one operation of a block of so many iterations, and a cache line's way between
 *                               the ranks just before and after it, both in seconds
 *   early NUMBER COUNT OF       so many flushes returned before the data were at the target (LOOP is arrival)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <mpi.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { ROUND_TRIPS = 5000, BURST = 64, STREAM_BYTES = 16 << 20, WORDS_APART = 16, PAGE_BYTES = 4096 };
/* A block that would take longer has fewer iterations; a target that computes calls in after this time at the latest. */
static const double LONGEST_BLOCK = 0.03, LONGEST_WORK = 0.05;

enum loop { PUT, GET, BANDWIDTH, FETCH, SWAP, NOTHING, CREATE, ARRIVAL };
static const char *const LOOPS[] = {"put-latency", "get-latency", "put-bw", "fop-latency", "cas-latency", "sync-latency", "window-create", "arrival"};
enum sync { FLUSH, LOCK, FENCE, PSCW };
static const char *const SYNCS[] = {"flush", "lock", "fence", "pscw"};
enum way { PLAIN, CONTENDED, COMPUTES };
static const char *const WAYS[] = {"plain", "contended", "computes"};

struct line {
    int number, created, blocks;
    enum loop loop;
    enum sync sync;
    enum way way;
    size_t size;
    long iterations;
};

static int rank;
static _Atomic uint64_t *page;
static uint64_t works;
static MPI_Win window;
static MPI_Group other;
static unsigned char *buffer, *lent;
static uint64_t old, compare, next;

static void refuse(const char *what, const char *why)
{
    fprintf(stderr, "rma: %s: %s\n", what, why);
    MPI_Abort(MPI_COMM_WORLD, 2);
}

static int find(const char *const *names, int count, const char *name)
{
    for (int at = 0; at < count; at++)
        if (!strcmp(names[at], name))
            return at;
    refuse(name, "not a word of a line");
    return 0;
}
#define FIND(names, name) find(names, (int)(sizeof names / sizeof *names), name)

static struct line parse(const char *text)
{
    struct line line;
    char loop[24], memory[24], sync[24], way[24];
    if (sscanf(text, "%d:%23[^:]:%23[^:]:%23[^:]:%23[^:]:%zu:%ld:%d", &line.number, loop, memory, sync, way, &line.size, &line.iterations,
               &line.blocks) != 8)
        refuse(text, "not NUMBER:LOOP:WINDOW:SYNC:WAY:SIZE:ITERATIONS:BLOCKS");
    line.loop = FIND(LOOPS, loop);
    line.created = !strcmp(memory, "create");
    line.sync = FIND(SYNCS, sync);
    line.way = FIND(WAYS, way);
    return line;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void barrier(void)
{
    MPI_Barrier(MPI_COMM_WORLD);
}

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Where in the page: a cache line's way there and back, whose work is over, and what arrival tells and answers. */
static _Atomic uint64_t *word(int number)
{
    return page + number * WORDS_APART;
}
enum { THERE, BACK, WORKED, TOLD, SEEN };

/* A cache line from one rank to the other. */
static double one_hop(void)
{
    _Atomic uint64_t *there = word(THERE), *back = word(BACK);
    uint64_t start = atomic_load(there);
    barrier();
    double began = now();
    for (uint64_t round = start + 1; round <= start + ROUND_TRIPS; round++) {
        if (rank == 0)
            atomic_store_explicit(there, round, memory_order_release);
        while (atomic_load_explicit(rank == 0 ? back : there, memory_order_acquire) != round)
            pause_cpu();
        if (rank == 1)
            atomic_store_explicit(back, round, memory_order_release);
    }
    double each = (now() - began) / (2.0 * ROUND_TRIPS);
    barrier();
    return each;
}

/* The faster of two, since a stray process is no distance. */
static double hop(void)
{
    double one = one_hop(), other = one_hop();
    return one < other ? one : other;
}

/* The target's work, without a call of MPI, until the origin is done or the time is over. */
static void work(uint64_t number)
{
    double began = now();
    volatile uint64_t value = 1;
    while (atomic_load(word(WORKED)) != number && now() - began < LONGEST_WORK)
        for (int step = 0; step < 20000; step++)
            value = value * 6364136223846793005u + 1;
}

static size_t slots(const struct line *line)
{
    size_t fit = STREAM_BYTES / (line->size ? line->size : 1);
    return line->loop != BANDWIDTH || fit < 1 ? 1 : fit > BURST ? BURST : fit;
}

#define ALWAYS static inline __attribute__((always_inline))

ALWAYS void operate(enum loop loop, size_t size, size_t places)
{
    static const uint64_t one = 1;
    int bytes = (int)size;
    switch (loop) {
    case PUT:
        MPI_Put(buffer, bytes, MPI_BYTE, 1, 0, bytes, MPI_BYTE, window);
        break;
    case GET:
        MPI_Get(buffer, bytes, MPI_BYTE, 1, 0, bytes, MPI_BYTE, window);
        break;
    case BANDWIDTH:
        for (size_t put = 0; put < BURST; put++) {
            size_t at = put % places * size;
            MPI_Put(buffer + at, bytes, MPI_BYTE, 1, (MPI_Aint)at, bytes, MPI_BYTE, window);
        }
        break;
    case FETCH:
        MPI_Fetch_and_op(&one, &old, MPI_UINT64_T, 1, 0, MPI_SUM, window);
        break;
    case SWAP:
        next = compare + 1;
        MPI_Compare_and_swap(&next, &compare, &old, MPI_UINT64_T, 1, 0, window);
        break;
    default:
        break;
    }
}

/* What was swapped is known when the operation is complete. */
ALWAYS void completed(enum loop loop)
{
    if (loop == SWAP)
        compare = old == compare ? next : old;
}

ALWAYS double flushes(enum loop loop, enum way way, size_t size, size_t places, long iterations)
{
    MPI_Win_lock(MPI_LOCK_SHARED, 1, 0, window);
    if (way == COMPUTES) {
        /* Some libraries ask for the lock only now. The target is in a call until it is had. */
        operate(loop, size, places);
        MPI_Win_flush(1, window);
        barrier();
    }
    double began = now();
    for (long round = 0; round < iterations; round++) {
        operate(loop, size, places);
        MPI_Win_flush(1, window);
        completed(loop);
    }
    double elapsed = now() - began;
    if (way == COMPUTES)
        atomic_store(word(WORKED), works);
    MPI_Win_unlock(1, window);
    return elapsed;
}

ALWAYS double locks(enum loop loop, size_t size, size_t places, long iterations)
{
    double began = now();
    for (long round = 0; round < iterations; round++) {
        MPI_Win_lock(MPI_LOCK_SHARED, 1, 0, window);
        operate(loop, size, places);
        MPI_Win_unlock(1, window);
        completed(loop);
    }
    return now() - began;
}

ALWAYS double fences(enum loop loop, size_t size, size_t places, long iterations)
{
    MPI_Win_fence(0, window);
    double began = now();
    for (long round = 0; round < iterations; round++) {
        if (rank == 0)
            operate(loop, size, places);
        MPI_Win_fence(0, window);
    }
    double elapsed = now() - began;
    MPI_Win_fence(0, window);
    return elapsed;
}

ALWAYS double rounds(enum loop loop, size_t size, size_t places, long iterations)
{
    double began = now();
    for (long round = 0; round < iterations; round++) {
        if (rank == 0) {
            MPI_Win_start(other, 0, window);
            operate(loop, size, places);
            MPI_Win_complete(window);
        } else {
            MPI_Win_post(other, 0, window);
            MPI_Win_wait(window);
        }
    }
    return now() - began;
}

static double windows(const struct line *line, long iterations)
{
    double began = now();
    for (long round = 0; round < iterations; round++) {
        void *memory;
        if (line->created)
            MPI_Win_create(lent, (MPI_Aint)line->size, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &window);
        else
            MPI_Win_allocate((MPI_Aint)line->size, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &memory, &window);
        MPI_Win_free(&window);
    }
    return now() - began;
}

/* With `loop` known at compile time, as in a program that has only one. */
ALWAYS double loops(enum loop loop, const struct line *line, long iterations)
{
    switch (line->sync) {
    case FENCE:
        return fences(loop, line->size, slots(line), iterations);
    case PSCW:
        return rounds(loop, line->size, slots(line), iterations);
    default:
        if (rank == 1 && line->way != CONTENDED)
            return 0;
        return line->sync == LOCK ? locks(loop, line->size, slots(line), iterations) : flushes(loop, line->way, line->size, slots(line), iterations);
    }
}

static double timed(const struct line *line, long iterations)
{
    switch (line->loop) {
    case PUT:
        return loops(PUT, line, iterations);
    case GET:
        return loops(GET, line, iterations);
    case BANDWIDTH:
        return loops(BANDWIDTH, line, iterations);
    case FETCH:
        return loops(FETCH, line, iterations);
    case SWAP:
        return loops(SWAP, line, iterations);
    case NOTHING:
        return loops(NOTHING, line, iterations);
    case CREATE:
        return windows(line, iterations);
    case ARRIVAL:
        break;
    }
    return 0;
}

/* Seconds of one iteration, at the origin. */
static double block(const struct line *line, long iterations)
{
    works++;
    barrier();
    if (line->way == COMPUTES && rank == 1) {
        barrier();
        work(works);
    }
    double elapsed = timed(line, iterations);
    double began = now();
    barrier();
    /* Contended is the time until both are done. */
    if (line->way == CONTENDED)
        elapsed += now() - began;
    return elapsed / (double)iterations;
}

/* Waits, and calls the library now and then: seldom, since what is in its way the library may take in at each call. */
static void hear(_Atomic uint64_t *from, uint64_t number)
{
    for (int turn = 1; atomic_load(from) != number; turn++) {
        int some;
        pause_cpu();
        if (turn % 1000 == 0)
            MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &some, MPI_STATUS_IGNORE);
    }
}

/*
 * Does a flush wait until the data are at the target? The origin puts a number and flushes; then it says so in the page, which takes
 * far less than a message would. The target calls the library until it hears that, and looks at its memory in the same moment. It is
 * a witness against a library, never a proof for one: data may have been faster by chance.
 */
static void arrival(const struct line *line, unsigned char *memory)
{
    uint64_t start = atomic_load(word(TOLD));
    long early = 0, all = 0;
    barrier();
    if (rank == 0)
        MPI_Win_lock(MPI_LOCK_SHARED, 1, 0, window);
    for (uint64_t round = start + 1; round <= start + (uint64_t)line->iterations; round++) {
        /* The last byte alone: what came before it is there sooner, if anything is. */
        unsigned char mark = (unsigned char)(round % 255 + 1);
        if (rank == 0) {
            buffer[line->size - 1] = mark;
            MPI_Put(buffer, (int)line->size, MPI_BYTE, 1, 0, (int)line->size, MPI_BYTE, window);
            MPI_Win_flush(1, window);
            atomic_store(word(TOLD), round);
        }
        hear(word(rank == 0 ? SEEN : TOLD), round);
        if (rank == 1) {
            early += *(volatile unsigned char *)(memory + line->size - 1) != mark;
            atomic_store(word(SEEN), round);
        }
    }
    if (rank == 0)
        MPI_Win_unlock(1, window);
    MPI_Reduce(&early, &all, 1, MPI_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
    if (rank == 0)
        printf("early %d %ld %ld\n", line->number, all, line->iterations);
}

static void blocks(const struct line *line)
{
    long iterations = line->iterations;
    long few = (iterations + 9) / 10;
    double each = block(line, few);
    int is_short = each * (double)few < LONGEST_BLOCK / 3;
    MPI_Bcast(&is_short, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (is_short) {
        /* A stray process is not what makes a block long. */
        double again = block(line, few);
        each = again < each ? again : each;
    }
    if (each * (double)iterations > LONGEST_BLOCK)
        iterations = (long)(LONGEST_BLOCK / each) + 1;
    MPI_Bcast(&iterations, 1, MPI_LONG, 0, MPI_COMM_WORLD);
    double before = hop();
    for (int round = 0; round < line->blocks; round++) {
        each = block(line, iterations);
        double after = hop();
        if (rank == 0)
            printf("block %d %.6e %ld %.4e %.4e\n", line->number, each, iterations, before, after);
        before = after;
    }
}

static void measure(const struct line *line)
{
    /* The origin's buffer begins at a page, as that of windlass-osu does. All memory is written before it is used: of a page that never
     * was, a copy reads the kernel's page of zeros, out of the nearest cache. */
    size_t bytes = slots(line) * (line->size < 8 ? 8 : line->size);
    size_t pages = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    void *memory = lent = malloc(bytes);
    buffer = aligned_alloc(PAGE_BYTES, pages);
    if (!lent || !buffer)
        refuse("memory", "there is not enough");
    memset(lent, 1, bytes);
    memset(buffer, 2, pages);
    if (line->loop != CREATE) {
        if (line->created)
            MPI_Win_create(lent, (MPI_Aint)bytes, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &window);
        else
            MPI_Win_allocate((MPI_Aint)bytes, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &memory, &window);
        MPI_Win_lock(MPI_LOCK_EXCLUSIVE, rank, 0, window);
        memset(memory, 0, bytes);
        MPI_Win_unlock(rank, window);
    }
    compare = 0;
    if (line->loop == ARRIVAL)
        arrival(line, memory);
    else
        blocks(line);
    fflush(stdout);
    if (line->loop != CREATE)
        MPI_Win_free(&window);
    free(buffer);
    free(lent);
}

/* On the cpu that the other libraries' ranks have too. */
static void settle(const char *cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(atoi(cpu), &set);
    if (sched_setaffinity(0, sizeof set, &set))
        refuse(cpu, "not a cpu that this may run on");
}

static void introduce(void)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length, cpu = sched_getcpu(), cpus[2];
    MPI_Gather(&cpu, 1, MPI_INT, cpus, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (rank != 0)
        return;
    MPI_Get_library_version(version, &length);
    version[strcspn(version, "\n")] = 0;
    printf("cpus %d %d\nversion %s\n", cpus[0], cpus[1], version);
}

int main(int count, char **arguments)
{
    int size;
    /* Whatever becomes of the launcher, this ends. */
    alarm(count > 1 ? (unsigned)atoi(arguments[1]) : 1);
    MPI_Init(&count, &arguments);
    barrier();
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size != 2 || count < 5)
        refuse("usage", "two ranks: SECONDS PAGE CPU0 CPU1 LINE...");
    if (rank == 0)
        printf("started %lld\n", time.tv_sec * 1000000000ll + time.tv_nsec);
    int file = open(arguments[2], O_RDWR);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page == MAP_FAILED)
        refuse(arguments[2], "cannot be mapped");
    works = atomic_load(word(WORKED));
    settle(arguments[3 + rank]);
    introduce();
    MPI_Group all;
    int peer = 1 - rank;
    MPI_Comm_group(MPI_COMM_WORLD, &all);
    MPI_Group_incl(all, 1, &peer, &other);
    for (int at = 5; at < count; at++) {
        struct line line = parse(arguments[at]);
        measure(&line);
    }
    MPI_Group_free(&other);
    MPI_Group_free(&all);
    MPI_Finalize();
    return 0;
}

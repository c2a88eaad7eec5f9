/*
 * The exporter is killed, in each of its phases, while threads of the importer load and store in the mapping and read and write
 * by calls (rsm 8; check 2 of section 9). Words: rounds of each phase.
 */
#include "rsm_support.h"

#include <dirent.h>
#include <pthread.h>

enum { PAGES = 64, ROUNDS_AT_MOST = 1000 };

static void *handle;
static volatile char *window;
static int over;

static void *loads_and_stores(void *unused)
{
    (void)unused;
    for (unsigned char byte = 0; !__atomic_load_n(&over, __ATOMIC_RELAXED); byte++)
        for (size_t at = 0; at < PAGES * PAGE; at += 64)
            window[at] = window[at + 1] + byte;
    return NULL;
}

/* Answers nothing but success until the end of the connection, and nothing but that afterwards. */
static void *transfers(void *unused)
{
    (void)unused;
    uint64_t word = 0;
    int before = 0;
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
        int code = word & 1 ? rsm_memseg_import_put64(handle, 8, &word, 1) : rsm_memseg_import_get(handle, 100, &word, 7);
        if (code != before)
            SAME(code, RSMERR_CONN_ABORTED);
        before = code;
        word++;
    }
    return NULL;
}

static int count(const char *folder)
{
    int entries = 0;
    DIR *dir = opendir(folder);
    TRUE(dir != NULL);
    while (readdir(dir) != NULL)
        entries++;
    closedir(dir);
    return entries;
}

static int mappings(void)
{
    char line[512];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    TRUE(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        found += strstr(line, "memfd:windlass-rsm ") != NULL;
    fclose(maps);
    return found;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

/* What the exporter is told before it is killed, without waiting for its answer. */
static const struct { const char *name; int what; uint64_t one, two; } phases[] = {
    {"idle", -1, 0, 0},        {"storing", FILL, 0, 0},       {"rebinding", REBIND, 0, 0}, {"republishing", REPUBLISH, 0644, 0},
    {"signalling", POST, 0, 0}, {"unpublishing", UNPUBLISH, 0, 0}, {"destroying", DESTROY, 0, 0},
};
enum { PHASES = sizeof phases / sizeof phases[0] };

static double one_round(int phase, unsigned delay_us)
{
    struct exporter exporter;
    rsmapi_barrier_t implicit, barrier;
    pthread_t threads[2];
    void *at = NULL;
    rsm_memseg_id_t id = exporting(&exporter, PAGES, ALL);
    handle = connected(id, RSM_PERM_RDWR);
    FINE(rsm_memseg_import_init_barrier(handle, RSM_BARRIER_SEGMENT, &barrier));
    FINE(rsm_memseg_import_init_barrier(handle, RSM_BARRIER_SEGMENT, &implicit));
    FINE(rsm_memseg_import_map(handle, &at, RSM_MAP_NONE, RSM_PERM_RDWR, 0, PAGES * PAGE));
    window = at;
    FINE(rsm_memseg_import_open_barrier(&barrier));
    FINE(rsm_memseg_import_close_barrier(&barrier));
    over = 0;
    FINE(pthread_create(&threads[0], NULL, loads_and_stores, NULL));
    FINE(pthread_create(&threads[1], NULL, transfers, NULL));
    if (phases[phase].what >= 0)
        tell(&exporter, phases[phase].what, phases[phase].one, phases[phase].two);
    usleep(delay_us);
    double killed = now();
    stop(&exporter, SIGKILL);
    /* Opened or not before: the close says it. */
    int code = 0;
    for (int i = 0; i < 1000000 && code != RSMERR_CONN_ABORTED; i++) {
        FINE(rsm_memseg_import_open_barrier(&barrier));
        code = rsm_memseg_import_close_barrier(&barrier);
        TRUE(code == 0 || code == RSMERR_CONN_ABORTED);
        usleep(10);
    }
    double seen = now() - killed;
    SAME(code, RSMERR_CONN_ABORTED);
    for (int times = 0; times < 10; times++)
        for (size_t page = 0; page < PAGES; page++)
            window[page * PAGE + times] = window[page * PAGE] + 1;
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    FINE(pthread_join(threads[0], NULL));
    FINE(pthread_join(threads[1], NULL));
    FINE(rsm_memseg_import_open_barrier(&barrier));
    SAME(rsm_memseg_import_close_barrier(&barrier), RSMERR_CONN_ABORTED);
    SAME(rsm_memseg_import_get(handle, 0, &code, 1), RSMERR_CONN_ABORTED);
    FINE(rsm_memseg_import_destroy_barrier(&barrier));
    FINE(rsm_memseg_import_destroy_barrier(&implicit));
    FINE(rsm_memseg_import_unmap(handle));
    FINE(rsm_memseg_import_disconnect(handle));
    void *again = NULL;
    SAME(rsm_memseg_import_connect(controller, 0, id, RSM_PERM_READ, &again), RSMERR_SEG_NOT_PUBLISHED);
    return seen;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    double times[PHASES][ROUNDS_AT_MOST];
    TRUE(rounds > 0 && rounds <= ROUNDS_AT_MOST);
    FINE(rsm_get_controller(NULL, &controller));
    one_round(0, 0);
    int descriptors = count("/proc/self/fd");
    for (int phase = 0; phase < PHASES; phase++) {
        double worst = 0;
        for (int round = 0; round < rounds; round++) {
            times[phase][round] = one_round(phase, round * 37 % 1500);
            if (times[phase][round] > worst)
                worst = times[phase][round];
        }
        printf("%s: %d rounds, worst %.1f ms\n", phases[phase].name, rounds, worst);
    }
    SAME(count("/proc/self/fd"), descriptors);
    SAME(mappings(), 0);
    FINE(rsm_release_controller(controller));
    puts("all as specified");
    return 0;
}

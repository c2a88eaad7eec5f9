/*
 * Two ranks on two nodes: the exporter of node 1 is killed, in each of its phases, while threads of the importer on node 0 put and get
 * (rsm 8). Nothing but success before, nothing but the end afterwards. Words: rounds of each phase.
 */
#include "rsm_support.h"

#include <dirent.h>
#include <pthread.h>

enum { MINE = 0x600310, FIRST = 0x600400, PAGES = 64, LONG = 60 * PAGE };

/* What the exporter is told before it is killed, without waiting for its answer. The last: a child of its has all its descriptors. */
static const struct { const char *name; int what; uint64_t one, two; } phases[] = {
    {"idle", -1, 0, 0},         {"storing", FILL, 0, 0},       {"rebinding", REBIND, 0, 0}, {"republishing", REPUBLISH, ALL, 0},
    {"unpublishing", UNPUBLISH, 0, 0}, {"destroying", DESTROY, 0, 0}, {"with a child", FORK, 0, 0},
};
enum { PHASES = sizeof phases / sizeof phases[0] };

static void *handle;

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

struct transfers {
    pthread_t thread;
    size_t len;
    uint64_t done, ended;
};

/* Until the end, which is final. */
static void *transfer(void *at)
{
    struct transfers *own = at;
    char *local = pages(PAGES);
    int code = 0;
    while (code == 0) {
        uint64_t done = own->done;
        code = done % 2 ? rsm_memseg_import_get(handle, 0, local, own->len) : rsm_memseg_import_put(handle, 0, local, own->len);
        __atomic_store_n(&own->done, done + 1, __ATOMIC_RELEASE);
    }
    own->ended = now_ns();
    SAME(code, RSMERR_CONN_ABORTED);
    for (int times = 0; times < 10; times++)
        SAME(rsm_memseg_import_put(handle, 0, local, own->len), RSMERR_CONN_ABORTED);
    FINE(munmap(local, PAGES * PAGE));
    return NULL;
}

/* How many ms later the end was seen. */
static double imports(void *mine, int round)
{
    struct transfers both[2] = {{.len = 8}, {.len = LONG}};
    rsmapi_barrier_t barrier;
    uint64_t killed = 0, ended = 0;
    FINE(rsm_intr_signal_wait(mine, 60000));
    FINE(rsm_memseg_import_connect(controller, 1, FIRST + round, RSM_PERM_RDWR, &handle));
    FINE(rsm_memseg_import_init_barrier(handle, RSM_BARRIER_NODE, &barrier));
    for (int i = 0; i < 2; i++)
        FINE(pthread_create(&both[i].thread, NULL, transfer, &both[i]));
    for (int i = 0; i < 2; i++)
        while (__atomic_load_n(&both[i].done, __ATOMIC_ACQUIRE) < 3)
            usleep(50);
    FINE(rsm_intr_signal_post(mine, 0));
    for (int i = 0; i < 2; i++) {
        FINE(pthread_join(both[i].thread, NULL));
        ended = both[i].ended > ended ? both[i].ended : ended;
    }
    SAME(rsm_memseg_import_open_barrier(&barrier), 0);
    SAME(rsm_memseg_import_close_barrier(&barrier), RSMERR_CONN_ABORTED);
    SAME(rsm_intr_signal_wait(handle, 60000), RSMERR_CONN_ABORTED);
    FINE(rsm_memseg_import_destroy_barrier(&barrier));
    FINE(rsm_memseg_import_disconnect(handle));
    /* Written before the kill. */
    EVENTUALLY((rsm_memseg_import_get64(mine, 8UL * round, &killed, 1), killed != 0), 1);
    FINE(rsm_intr_signal_post(mine, 0));
    return ended > killed ? (double)(ended - killed) / 1e6 : 0;
}

static void exports(void *mine, volatile uint64_t *killed, int round, int phase)
{
    struct exporter exporter = start(0, 0);
    pid_t child = 0;
    FINE(ask2(&exporter, NEW, PAGES, RSM_ALLOW_REBIND));
    FINE(ask2(&exporter, PUBLISH, FIRST + round, ALL) >> 32);
    FINE(rsm_intr_signal_post(mine, 0));
    FINE(rsm_intr_signal_wait(mine, 60000));
    if (phases[phase].what == FORK)
        child = ask(&exporter, FORK, 0);
    else if (phases[phase].what >= 0)
        tell(&exporter, phases[phase].what, phases[phase].one, phases[phase].two);
    usleep(round * 37 % 1500);
    killed[round] = now_ns();
    stop(&exporter, SIGKILL);
    FINE(rsm_intr_signal_wait(mine, 60000));
    if (child > 0)
        FINE(kill(child, SIGKILL));
}

static int descriptors(void)
{
    int entries = 0;
    DIR *dir = opendir("/proc/self/fd");
    TRUE(dir != NULL);
    while (readdir(dir) != NULL)
        entries++;
    closedir(dir);
    return entries;
}

int main(int argc, char **argv)
{
    const char *number = getenv("WINDLASS_RANK");
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    TRUE(number != NULL && rounds > 0 && rounds * PHASES < 512);
    int node = atoi(number), before = 0;
    void *mine = NULL;
    volatile uint64_t *killed = (void *)pages(1);
    rsmapi_barrier_t barrier;
    rsm_memseg_id_t id = MINE;
    umask(0);
    FINE(rsm_get_controller("tcp0", &controller));
    if (node == 1) {
        FINE(rsm_memseg_export_create(controller, &mine, (void *)killed, PAGE, 0));
        FINE(rsm_memseg_export_publish(mine, &id, NULL, 0));
        FINE(rsm_intr_signal_wait(mine, 60000)); /* for the importer */
    } else {
        EVENTUALLY(rsm_memseg_import_connect(controller, 1, MINE, RSM_PERM_RDWR, &mine), 0);
        FINE(rsm_memseg_import_init_barrier(mine, RSM_BARRIER_NODE, &barrier));
        FINE(rsm_intr_signal_post(mine, 0));
    }
    for (int phase = 0, round = 0; phase < PHASES; phase++) {
        double worst = 0;
        for (int i = 0; i < rounds; i++, round++) {
            if (node == 1) {
                exports(mine, killed, round, phase);
                continue;
            }
            double seen = imports(mine, round);
            worst = seen > worst ? seen : worst;
            before = round == 0 ? descriptors() : before;
        }
        if (node == 0)
            printf("%s: seen after %.1f ms at most\n", phases[phase].name, worst);
    }
    if (node == 0) {
        /* Sockets of what has ended are closed when the next transfer finds them. */
        uint64_t word;
        EVENTUALLY((rsm_memseg_import_get64(mine, 0, &word, 1), descriptors() <= before), 1);
        FINE(rsm_intr_signal_post(mine, 0));
    } else {
        FINE(rsm_intr_signal_wait(mine, 60000));
    }
    FINE(rsm_release_controller(controller));
    puts("all as specified");
    return 0;
}

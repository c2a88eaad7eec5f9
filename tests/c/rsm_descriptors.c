/*
 * Two ranks on two nodes, and their descriptors. First the exporter of node 1 may have fewer than connections come to it, then the
 * importer of node 0 has none left when it transfers. At last a child of the exporter has all of its, when connections end.
 */
#include "rsm_support.h"

#include <pthread.h>
#include <sys/resource.h>

enum { MINE = 0x600320, PAGES = 4096, FILES = 64, HANDLES = 3 * FILES };

static void *handles[HANDLES];

static void may_have(rlim_t files)
{
    struct rlimit limit;
    FINE(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = files;
    FINE(setrlimit(RLIMIT_NOFILE, &limit));
}

/* Whether this process has computed for a quarter of a fifth of a second. */
static int is_busy(void)
{
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    usleep(200000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    return (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec > 50000000;
}

/* Half of them are the program's own. */
static void exports(void)
{
    void *mine;
    rsm_memseg_id_t id = MINE;
    char *at = pages(PAGES);
    struct rlimit before;
    FINE(getrlimit(RLIMIT_NOFILE, &before));
    may_have(FILES);
    FINE(rsm_memseg_export_create(controller, &mine, at, PAGES * PAGE, 0));
    FINE(rsm_memseg_export_publish(mine, &id, NULL, 0));
    FINE(rsm_intr_signal_wait(mine, 60000));
    for (int i = 0; i < HANDLES; i++)
        SAME(at[i], (char)(i + 1));
    int own[8];
    for (int i = 0; i < 8; i++)
        TRUE((own[i] = dup(0)) >= 0);
    for (int i = 0; i < 8; i++)
        FINE(close(own[i]));
    may_have(before.rlim_cur);
    FINE(rsm_intr_signal_wait(mine, 60000));
    pid_t child = waiting_child();
    TRUE(child > 0);
    FINE(rsm_intr_signal_post(mine, 0));
    FINE(rsm_intr_signal_wait(mine, 60000));
    int looks = 0;
    while (is_busy())
        TRUE(++looks < 20);
    FINE(kill(child, SIGKILL));
    TRUE(waitpid(child, NULL, 0) == child);
    FINE(rsm_memseg_export_destroy(mine));
}

static void *put(void *at)
{
    long number = (long)at;
    unsigned char byte = (unsigned char)(number + 1);
    FINE(rsm_memseg_import_put(handles[number], number, &byte, 1));
    return NULL;
}

static void imports(void)
{
    static rsmapi_barrier_t barriers[HANDLES];
    pthread_t threads[HANDLES];
    struct rlimit before;
    char *local = pages(PAGES), byte;
    EVENTUALLY(rsm_memseg_import_connect(controller, 1, MINE, RSM_PERM_RDWR, &handles[0]), 0);
    for (int i = 0; i < HANDLES; i++) {
        if (i > 0)
            FINE(rsm_memseg_import_connect(controller, 1, MINE, RSM_PERM_RDWR, &handles[i]));
        FINE(rsm_memseg_import_init_barrier(handles[i], RSM_BARRIER_NODE, &barriers[i]));
    }
    /* All at once, and one after the other. */
    for (long i = 0; i < HANDLES; i++)
        FINE(pthread_create(&threads[i], NULL, put, (void *)i));
    for (int i = 0; i < HANDLES; i++)
        FINE(pthread_join(threads[i], NULL));
    for (int i = 0; i < HANDLES; i++) {
        FINE(rsm_memseg_import_get(handles[i], i, &byte, 1));
        SAME(byte, (char)(i + 1));
    }
    FINE(rsm_intr_signal_post(handles[0], 0));
    /* A connection that is there is enough. */
    void *last = handles[HANDLES - 1];
    FINE(getrlimit(RLIMIT_NOFILE, &before));
    may_have(3);
    for (int i = 0; i < 10; i++)
        FINE(rsm_memseg_import_get(last, 0, local, PAGES * PAGE));
    may_have(before.rlim_cur);
    for (int i = 0; i < HANDLES; i++)
        SAME(local[i], (char)(i + 1));
    FINE(rsm_intr_signal_post(last, 0));
    FINE(rsm_intr_signal_wait(last, 60000));
    for (int i = 1; i < HANDLES; i++)
        FINE(rsm_memseg_import_disconnect(handles[i]));
    FINE(rsm_intr_signal_post(handles[0], 0));
}

int main(void)
{
    const char *number = getenv("WINDLASS_RANK");
    TRUE(number != NULL);
    umask(0);
    FINE(rsm_get_controller("tcp0", &controller));
    if (atoi(number) == 0)
        imports();
    else
        exports();
    FINE(rsm_release_controller(controller));
    puts("all as specified");
    return 0;
}

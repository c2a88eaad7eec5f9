/*
 * The service of the node is killed: whoever waits is answered, and so is every call after that, without a fault. Needs
 * WINDLASS_NODE_NAME. Word: the command `windlass`.
 */
#include "rsm_support.h"

#include <poll.h>
#include <pthread.h>

enum { PAGES = 8 };

static void *handle;

/* Without limit. */
static void *waits(void *unused)
{
    (void)unused;
    SAME(rsm_intr_signal_wait(handle, -1), RSMERR_CONN_ABORTED);
    return NULL;
}

static pid_t service(const char *launcher)
{
    char command[4096], wanted[100], line[1000];
    int pid = 0, named = 0;
    snprintf(command, sizeof command, "'%s' node --list --json", launcher);
    snprintf(wanted, sizeof wanted, "\"named\": \"%s\"", getenv("WINDLASS_NODE_NAME"));
    FILE *list = popen(command, "r");
    TRUE(list != NULL);
    while (fgets(line, sizeof line, list) != NULL) {
        named |= strstr(line, wanted) != NULL;
        if (named && pid == 0)
            (void)sscanf(line, " \"pid\": %d", &pid);
    }
    FINE(pclose(list));
    TRUE(pid > 1);
    return pid;
}

int main(int argc, char **argv)
{
    SAME(argc, 2);
    struct exporter exporter, idle;
    rsmapi_barrier_t barrier, implicit;
    rsmapi_controller_attr_t attr;
    struct pollfd fds[1];
    pthread_t waiter;
    void *at = NULL, *again = NULL;
    int ready = 0;
    uint64_t word = 7;
    FINE(rsm_get_controller(NULL, &controller));
    rsm_memseg_id_t id = exporting(&exporter, PAGES, ALL);
    (void)exporting(&idle, 1, ALL);
    handle = connected(id, RSM_PERM_RDWR);
    FINE(rsm_memseg_import_init_barrier(handle, RSM_BARRIER_SEGMENT, &barrier));
    FINE(rsm_memseg_import_init_barrier(handle, RSM_BARRIER_SEGMENT, &implicit));
    FINE(rsm_memseg_import_map(handle, &at, 0, RSM_PERM_RDWR, 0, PAGES * PAGE));
    FINE(rsm_memseg_get_pollfd(handle, &fds[0]));
    FINE(rsm_memseg_import_put64(handle, 8, &word, 1));
    FINE(rsm_memseg_import_open_barrier(&barrier));
    FINE(pthread_create(&waiter, NULL, waits, NULL));
    tell(&exporter, WAIT, UINT64_MAX, 0);
    FINE(kill(service(argv[1]), SIGKILL));

    FINE(pthread_join(waiter, NULL));
    uint64_t answer = 0;
    TRUE(read(exporter.from, &answer, sizeof answer) == sizeof answer);
    SAME(answer, RSMERR_CONN_ABORTED);
    FINE(rsm_intr_signal_wait_pollfd(fds, 1, -1, &ready));
    SAME(fds[0].revents, POLLHUP);
    FINE(rsm_memseg_release_pollfd(handle));
    /* Who asks nobody sees it too. */
    EVENTUALLY(rsm_memseg_import_put64(handle, 8, &word, 1), RSMERR_CONN_ABORTED);
    SAME(rsm_memseg_import_get64(handle, 8, &word, 1), RSMERR_CONN_ABORTED);
    SAME(rsm_memseg_import_close_barrier(&barrier), RSMERR_CONN_ABORTED);
    SAME(rsm_intr_signal_post(handle, 0), RSMERR_CONN_ABORTED);
    for (int page = 0; page < PAGES; page++)
        ((volatile char *)at)[page * PAGE] += 1;
    SAME(rsm_get_controller_attr(controller, &attr), RSMERR_CTLR_NOT_PRESENT);
    SAME(rsm_memseg_import_connect(controller, 0, id, 0, &again), RSMERR_CTLR_NOT_PRESENT);
    FINE(rsm_memseg_import_unmap(handle));
    FINE(rsm_memseg_import_destroy_barrier(&barrier));
    FINE(rsm_memseg_import_destroy_barrier(&implicit));
    FINE(rsm_memseg_import_disconnect(handle));

    /* The exporters' memory is theirs again, with what was put there. */
    SAME(ask(&exporter, POST, 0), RSMERR_REMOTE_NODE_UNREACHABLE);
    SAME(ask(&exporter, WAIT, UINT64_MAX), RSMERR_CONN_ABORTED);
    FINE(ask(&exporter, UNPUBLISH, 0));
    SAME(ask2(&exporter, PUBLISH, 0, ALL) >> 32, RSMERR_CTLR_NOT_PRESENT);
    SAME(ask(&exporter, PEEK, 8), 7);
    FINE(ask(&exporter, DESTROY, 0));
    FINE(ask(&idle, DESTROY, 0));
    stop(&exporter, 0);
    stop(&idle, 0);

    /* The next service is another node's. */
    FINE(rsm_release_controller(controller));
    FINE(rsm_get_controller(NULL, &controller));
    SAME(rsm_memseg_import_connect(controller, 0, id, 0, &again), RSMERR_SEG_NOT_PUBLISHED);
    FINE(rsm_release_controller(controller));
    puts("all as specified");
    return 0;
}

/*
 * Imported segments: one process exports memory, another maps it, stores there, and finds out that the exporter has died.
 *
 *   cargo build --release -p windlass-librsm -p windlass-launcher
 *   cc -O2 -o rsm examples/c/rsm.c -I runtime/capi/include -L target/release -lrsm -Wl,-rpath,$PWD/target/release
 *   ./rsm
 *   target/release/windlass run -n 1 ./rsm
 *
 * The importer loads what the exporter has stored, answers by stores in its mapping and by a put, and tells it by a signal. The
 * exporter checks the answers and is then killed. The importer's mapping stays memory, and a barrier says what has happened.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rsmapi.h>

enum { SEGMENT = 0x600100, WINDOW = 4096, SIZE = 2 * 4096, PUT_AT = 4096 + 512 };

static const char QUESTION[] = "who is there?", STORED[] = "the importer, by a store", PUT[] = "and by a put";

static void must(int code, const char *what)
{
    if (code != RSM_SUCCESS) {
        fprintf(stderr, "%s: result %d\n", what, code);
        exit(1);
    }
}
#define MUST(call) must(call, #call)

static rsmapi_controller_handle_t controller;

/* Ends by a kill. */
static void export(int to_importer)
{
    rsm_memseg_export_handle_t segment;
    rsm_memseg_id_t id = SEGMENT;
    char *memory = aligned_alloc(4096, SIZE);
    memset(memory, 0, SIZE);
    strcpy(memory + WINDOW, QUESTION);
    MUST(rsm_memseg_export_create(controller, &segment, memory, SIZE, 0));
    MUST(rsm_memseg_export_publish(segment, &id, NULL, 0)); /* to everybody, by the umask */
    if (write(to_importer, "published", 1) != 1)
        exit(1);
    MUST(rsm_intr_signal_wait(segment, 10000));
    if (strcmp(memory + WINDOW, STORED) != 0 || strcmp(memory + PUT_AT, PUT) != 0) {
        fprintf(stderr, "the exporter found \"%s\" and \"%s\"\n", memory + WINDOW, memory + PUT_AT);
        exit(1);
    }
    raise(SIGKILL);
}

int main(void)
{
    int pipes[2], status;
    char byte;
    rsm_topology_t *topology;
    /* Before the fork, so that both processes are on one node. */
    MUST(rsm_get_controller(NULL, &controller));
    must(pipe(pipes), "pipe");
    pid_t exporter = fork();
    if (exporter == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        export(pipes[1]);
    }
    close(pipes[1]);
    if (read(pipes[0], &byte, 1) != 1) {
        fprintf(stderr, "the exporter has failed\n");
        return 1;
    }
    MUST(rsm_get_interconnect_topology(&topology));
    rsm_node_id_t node = topology->topology_hdr.local_nodeid;
    rsm_free_interconnect_topology(topology);

    rsm_memseg_import_handle_t segment;
    rsmapi_barrier_t barrier;
    void *window = NULL;
    MUST(rsm_memseg_import_connect(controller, node, SEGMENT, RSM_PERM_RDWR, &segment));
    MUST(rsm_memseg_import_init_barrier(segment, RSM_BARRIER_SEGMENT, &barrier));
    MUST(rsm_memseg_import_map(segment, &window, RSM_MAP_NONE, RSM_PERM_RDWR, WINDOW, SIZE - WINDOW));
    int right = strcmp(window, QUESTION) == 0;

    MUST(rsm_memseg_import_open_barrier(&barrier));
    strcpy(window, STORED);
    MUST(rsm_memseg_import_close_barrier(&barrier)); /* it has arrived */
    MUST(rsm_memseg_import_put(segment, PUT_AT, (void *)PUT, sizeof PUT));
    MUST(rsm_intr_signal_post(segment, 0));

    /* The exporter is content, and dies: whoever waits is told. */
    right &= rsm_intr_signal_wait(segment, 10000) == RSMERR_CONN_ABORTED;
    right &= waitpid(exporter, &status, 0) == exporter && WIFSIGNALED(status);
    MUST(rsm_memseg_import_open_barrier(&barrier));
    strcpy(window, "nobody reads this"); /* still memory, of nobody else */
    right &= rsm_memseg_import_close_barrier(&barrier) == RSMERR_CONN_ABORTED;
    MUST(rsm_memseg_import_unmap(segment));
    MUST(rsm_memseg_import_destroy_barrier(&barrier));
    MUST(rsm_memseg_import_disconnect(segment));
    MUST(rsm_release_controller(controller));
    printf("a store, a put and the exporter's death were seen: %s\n", right ? "right" : "WRONG");
    return right ? 0 : 1;
}

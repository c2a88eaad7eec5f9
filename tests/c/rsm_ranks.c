/*
 * Ranks of a job, two on each node: the even one exports under the same id on every node, the odd one imports; then the even one
 * ends in good order, which ends its segment. As root it tries to come there as another user, too. Alone it is not tried.
 */
#include "rsm_support.h"

enum { ID = 0x600200 };

/* A job's node is its user's: the list, which admits others, is not even looked at. */
static void strangers(rsm_node_id_t node)
{
    if (geteuid() != 0)
        return;
    int status = 1;
    pid_t child = fork();
    if (child == 0) {
        void *handle = NULL;
        TRUE(setgroups(0, NULL) == 0 && setgid(61003) == 0 && setuid(61003) == 0);
        SAME(rsm_memseg_import_connect(controller, node, ID, RSM_PERM_READ, &handle), RSMERR_CTLR_NOT_PRESENT);
        _exit(0);
    }
    TRUE(waitpid(child, &status, 0) == child);
    FINE(status);
}

int main(void)
{
    const char *number = getenv("WINDLASS_RANK");
    TRUE(number != NULL);
    int rank = atoi(number);
    rsm_topology_t *topology = NULL;
    FINE(rsm_get_controller(NULL, &controller));
    FINE(rsm_get_interconnect_topology(&topology));
    rsm_node_id_t node = topology->topology_hdr.local_nodeid;
    rsm_free_interconnect_topology(topology);
    SAME(node, rank / 2);
    if (rank % 2 == 0) {
        rsm_memseg_id_t id = ID;
        rsmapi_access_entry_t list = {node, 0606};
        memory = pages(1);
        memory[0] = (char)(rank + 1);
        FINE(rsm_memseg_export_create(controller, &exported, (void *)memory, PAGE, 0));
        FINE(rsm_memseg_export_publish(exported, &id, &list, 1));
        strangers(node);
        FINE(rsm_intr_signal_wait(exported, 60000));
        SAME(memory[1], rank + 2);
    } else {
        void *handle = NULL, *window = NULL;
        SAME(rsm_memseg_import_connect(controller, node + 1, ID, RSM_PERM_RDWR, &handle), RSMERR_CTLR_NOT_PRESENT);
        EVENTUALLY(rsm_memseg_import_connect(controller, node, ID, RSM_PERM_RDWR, &handle), 0);
        FINE(rsm_memseg_import_map(handle, &window, 0, RSM_PERM_RDWR, 0, 2));
        SAME(((volatile char *)window)[0], rank); /* of this node's exporter */
        ((volatile char *)window)[1] = (char)(rank + 1);
        FINE(rsm_intr_signal_post(handle, 0));
        SAME(rsm_intr_signal_wait(handle, 60000), RSMERR_CONN_ABORTED);
        FINE(rsm_memseg_import_unmap(handle));
        FINE(rsm_memseg_import_disconnect(handle));
    }
    FINE(rsm_release_controller(controller));
    puts("all as specified");
    return 0;
}

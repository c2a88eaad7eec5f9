/*
 * Two ranks on two nodes: what differs where the segment is another node's. The one of node 1 exports, and so does a process that
 * it forks, which is killed at the end; the one of node 0 imports.
 */
#include "rsm_support.h"

#include <poll.h>

enum { MINE = 0x600300, CHILDS = 0x600301, OTHERS = 0x600302, PAGES = 40, LONG = 100000 };

static const char *const NAME = "TCP0";

/* Both controllers, and what each leads to. */
static void topology(rsm_node_id_t own)
{
    rsm_topology_t *found = NULL;
    FINE(rsm_get_interconnect_topology(&found));
    SAME(found->topology_hdr.local_nodeid, own);
    SAME(found->topology_hdr.local_cntlr_count, 2);
    for (unsigned i = 0; i < 2; i++) {
        rsm_connections_t *at = found->local_cntlr[i];
        FINE(strcmp(at->hdr.cntlr_name, i == 0 ? "loopback" : "tcp0"));
        SAME(at->hdr.remote_cntlr_count, i + 1);
        for (unsigned j = 0; j <= i; j++) {
            SAME(at->remote_cntlr[j].remote_nodeid, i == 0 ? own : j);
            SAME(at->remote_cntlr[j].connection_state, RSM_CONNECTION_ACTIVE);
        }
    }
    rsm_free_interconnect_topology(found);
}

/* Controllers are counted each by itself, and segments are those of one. */
static void controllers(void)
{
    rsmapi_controller_handle_t loopback = NULL, again = NULL;
    rsm_localmemory_handle_t local = NULL, kept = NULL;
    FINE(rsm_get_controller(NULL, &loopback));
    FINE(rsm_get_controller("tcp0", &again));
    TRUE(again == controller && loopback != controller);
    FINE(rsm_create_localmemory_handle(loopback, &local, pages(1), PAGE));
    FINE(rsm_create_localmemory_handle(again, &kept, pages(1), PAGE));
    FINE(rsm_release_controller(loopback));
    SAME(rsm_release_controller(loopback), RSMERR_BAD_CTLR_HNDL);
    SAME(rsm_free_localmemory_handle(controller, local), RSMERR_BAD_LOCALMEM_HNDL);
    FINE(rsm_release_controller(again));
    FINE(rsm_free_localmemory_handle(controller, kept));
}

static void segment(rsm_memseg_export_handle_t *handle, char *at, rsm_memseg_id_t id, rsmapi_access_entry_t *list, uint32_t count)
{
    FINE(rsm_memseg_export_create(controller, handle, at, PAGE, 0));
    FINE(rsm_memseg_export_publish(*handle, &id, list, count));
}

/* Rows of 5.5 that need several nodes. */
static void lists(void)
{
    rsm_memseg_export_handle_t handle;
    rsm_memseg_id_t id = 0;
    rsmapi_access_entry_t twice[] = {{0, 0600}, {0, 0600}}, more[] = {{0, 0600}, {1, 0600}, {0, 0}}, none[] = {{2, 0600}};
    FINE(rsm_memseg_export_create(controller, &handle, pages(1), PAGE, 0));
    SAME(rsm_memseg_export_publish(handle, &id, twice, 2), RSMERR_BAD_ACL);
    SAME(rsm_memseg_export_publish(handle, &id, more, 3), RSMERR_BAD_ACL);
    SAME(rsm_memseg_export_publish(handle, &id, none, 1), RSMERR_BAD_ACL);
    FINE(rsm_memseg_export_publish(handle, &id, more, 2));
    FINE(rsm_memseg_export_destroy(handle));
}

static void exports(void)
{
    rsm_memseg_export_handle_t mine, others;
    rsmapi_access_entry_t own = {1, 0600};
    struct exporter child = start(0, 0);
    char *at = pages(1);
    lists();
    segment(&others, pages(1), OTHERS, &own, 1);
    FINE(ask2(&child, NEW, PAGES, 0));
    FINE(ask2(&child, PUBLISH, CHILDS, ALL) >> 32);
    segment(&mine, at, MINE, NULL, 0);
    /* What the other has put there before it signals. */
    FINE(rsm_intr_signal_wait(mine, 60000));
    FINE(strcmp(at + 100, "from another node"));
    SAME(ask(&child, PEEK, LONG - 1), (unsigned char)(LONG - 1));
    FINE(ask(&child, POST, 0));
    FINE(ask(&child, WAIT, 60000)); /* with a list of puts */
    SAME(ask(&child, PEEK, 3 * PAGE), 'v');
    FINE(rsm_intr_signal_wait(mine, 60000));
    stop(&child, SIGKILL);
    FINE(rsm_intr_signal_wait(mine, 60000));
    FINE(rsm_memseg_export_destroy(mine));
    FINE(rsm_memseg_export_destroy(others));
}

/* Table 5.7. */
static void connects(void)
{
    rsmapi_controller_handle_t loopback = NULL;
    void *handle = NULL;
    FINE(rsm_get_controller(NULL, &loopback));
    SAME(rsm_memseg_import_connect(loopback, 1, MINE, 0, &handle), RSMERR_CTLR_NOT_PRESENT);
    SAME(rsm_memseg_import_connect(controller, 2, MINE, 01000, &handle), RSMERR_PERM_DENIED);
    SAME(rsm_memseg_import_connect(controller, 2, MINE, 0, &handle), RSMERR_REMOTE_NODE_UNREACHABLE);
    SAME(rsm_memseg_import_connect(controller, 0, MINE, 0, &handle), RSMERR_SEG_NOT_PUBLISHED);
    SAME(rsm_memseg_import_connect(controller, 1, MINE - 1, 0, &handle), RSMERR_SEG_NOT_PUBLISHED);
    SAME(rsm_memseg_import_connect(controller, 1, OTHERS, RSM_PERM_RDWR, &handle), RSMERR_SEG_NOT_PUBLISHED_TO_NODE);
    FINE(rsm_release_controller(loopback));
}

static void maps(void *handle)
{
    void *at = NULL;
    SAME(rsm_memseg_import_map(handle, &at, 0, RSM_PERM_READ, 1, 1), RSMERR_BAD_MEM_ALIGNMENT);
    SAME(rsm_memseg_import_map(handle, &at, 0, RSM_PERM_READ, 0, PAGE), RSMERR_MAP_FAILED);
    TRUE(at == NULL);
    SAME(rsm_memseg_import_unmap(handle), RSMERR_SEG_NOT_MAPPED);
}

static void transfers(void *handle)
{
    static unsigned char sent[LONG], got[LONG];
    uint64_t word = 0x0102030405060708, back = 0;
    uint16_t shorts[3] = {1, 2, 3}, seen[3] = {0};
    uint32_t middle = 77, same = 0;
    uint8_t byte = 9, eight = 0;
    SAME(rsm_memseg_import_put(handle, 0, sent, 1), RSMERR_BARRIER_UNINITIALIZED);
    FINE(rsm_memseg_import_set_mode(handle, RSM_BARRIER_MODE_EXPLICIT));
    FINE(rsm_memseg_import_put64(handle, 8, &word, 1));
    FINE(rsm_memseg_import_get64(handle, 8, &back, 1));
    SAME(back, word);
    FINE(rsm_memseg_import_put32(handle, 16, &middle, 1));
    FINE(rsm_memseg_import_get32(handle, 16, &same, 1));
    SAME(same, 77);
    FINE(rsm_memseg_import_put16(handle, 20, shorts, 3));
    FINE(rsm_memseg_import_get16(handle, 20, seen, 3));
    FINE(memcmp(shorts, seen, sizeof seen));
    FINE(rsm_memseg_import_put8(handle, 31, &byte, 1));
    FINE(rsm_memseg_import_get8(handle, 31, &eight, 1));
    SAME(eight, 9);
    SAME(rsm_memseg_import_get64(handle, 4, &back, 1), RSMERR_BAD_MEM_ALIGNMENT);
    SAME(rsm_memseg_import_get(handle, PAGES * PAGE - 1, got, 2), RSMERR_BAD_LENGTH);
    SAME(rsm_memseg_import_get(handle, -1, got, 1), RSMERR_BAD_OFFSET);
    for (int i = 0; i < LONG; i++)
        sent[i] = (unsigned char)i;
    FINE(rsm_memseg_import_set_mode(handle, RSM_BARRIER_MODE_IMPLICIT));
    rsmapi_barrier_t barrier;
    FINE(rsm_memseg_import_init_barrier(handle, RSM_BARRIER_NODE, &barrier));
    FINE(rsm_memseg_import_put(handle, 0, sent, LONG));
    FINE(rsm_memseg_import_get(handle, 0, got, LONG));
    FINE(memcmp(sent, got, LONG));
    FINE(rsm_memseg_import_destroy_barrier(&barrier));
}

/* A list of puts with a signal, and one of gets whose second entry fails. */
static void lists_of_transfers(void *handle)
{
    char *local = pages(2);
    rsm_localmemory_handle_t memory = NULL;
    FINE(rsm_create_localmemory_handle(controller, &memory, local, 2 * PAGE));
    memset(local, 'v', PAGE);
    rsm_iovec_t entries[2] = {
        {.io_type = RSM_HANDLE_TYPE, .local.handle = memory, .remote_offset = 3 * PAGE, .transfer_length = PAGE},
        {.io_type = RSM_VA_TYPE, .local.vaddr = local, .local_offset = 7, .remote_offset = 5 * PAGE, .transfer_length = 1},
    };
    rsm_scat_gath_t list = {.local_nodeid = 0, .io_request_count = 2, .flags = RSM_IMPLICIT_SIGPOST, .remote_handle = handle, .iovec = entries};
    FINE(rsm_memseg_import_putv(&list));
    SAME(list.io_residual_count, 0);
    list.flags = 0;
    entries[0].local_offset = PAGE;
    entries[1].remote_offset = PAGES * PAGE;
    SAME(rsm_memseg_import_getv(&list), RSMERR_BAD_LENGTH);
    SAME(list.io_residual_count, 1);
    FINE(memcmp(local, local + PAGE, PAGE));
    FINE(rsm_free_localmemory_handle(controller, memory));
}

static void imports(void)
{
    void *mine = NULL, *handle = NULL;
    rsmapi_barrier_t barrier, explicit;
    struct pollfd poll[1];
    int ready = 0;
    EVENTUALLY(rsm_memseg_import_connect(controller, 1, MINE, RSM_PERM_RDWR, &mine), 0);
    connects();
    FINE(rsm_memseg_import_connect(controller, 1, CHILDS, RSM_PERM_RDWR, &handle));
    maps(handle);
    transfers(handle);
    FINE(rsm_memseg_import_init_barrier(mine, RSM_BARRIER_SEGMENT, &barrier));
    FINE(rsm_memseg_import_put(mine, 100, "from another node", 18));
    FINE(rsm_intr_signal_post(mine, 0));
    FINE(rsm_memseg_get_pollfd(handle, &poll[0]));
    FINE(rsm_intr_signal_wait_pollfd(poll, 1, 60000, &ready));
    SAME(poll[0].revents, POLLRDNORM);
    FINE(rsm_memseg_import_init_barrier(handle, RSM_BARRIER_SEGMENT, &explicit));
    lists_of_transfers(handle);
    FINE(rsm_memseg_import_open_barrier(&explicit));
    FINE(rsm_memseg_import_order_barrier(&explicit));
    FINE(rsm_memseg_import_close_barrier(&explicit));
    /* Its exporter is killed, and whoever waits is woken. */
    FINE(rsm_memseg_import_open_barrier(&explicit));
    FINE(rsm_intr_signal_post(mine, 0));
    SAME(rsm_intr_signal_wait(handle, 60000), RSMERR_CONN_ABORTED);
    FINE(rsm_intr_signal_wait_pollfd(poll, 1, 60000, &ready));
    SAME(poll[0].revents, POLLHUP);
    SAME(rsm_memseg_import_close_barrier(&explicit), RSMERR_CONN_ABORTED);
    SAME(rsm_memseg_import_get8(handle, 0, &(uint8_t){0}, 1), RSMERR_CONN_ABORTED);
    SAME(rsm_memseg_import_map(handle, &(void *){NULL}, 0, RSM_PERM_READ, 0, 1), RSMERR_CONN_ABORTED);
    SAME(rsm_intr_signal_post(handle, 0), RSMERR_CONN_ABORTED);
    SAME(rsm_memseg_import_disconnect(handle), RSMERR_POLLFD_IN_USE);
    FINE(rsm_memseg_release_pollfd(handle));
    FINE(rsm_memseg_import_destroy_barrier(&explicit));
    FINE(rsm_memseg_import_disconnect(handle));
    SAME(rsm_memseg_import_connect(controller, 1, CHILDS, 0, &handle), RSMERR_SEG_NOT_PUBLISHED);
    FINE(rsm_intr_signal_post(mine, 0));
    SAME(rsm_intr_signal_wait(mine, 60000), RSMERR_CONN_ABORTED);
    FINE(rsm_memseg_import_destroy_barrier(&barrier));
    FINE(rsm_memseg_import_disconnect(mine));
}

int main(void)
{
    const char *number = getenv("WINDLASS_RANK");
    TRUE(number != NULL);
    int node = atoi(number);
    umask(0);
    FINE(rsm_get_controller((char *)NAME, &controller));
    topology(node);
    controllers();
    if (node == 0)
        imports();
    else
        exports();
    FINE(rsm_release_controller(controller));
    puts("all as specified");
    return 0;
}

/*
 * rsmapi.h - imported remote segments: memory that one process exports and others map, or read and write by calls.
 *
 * Link with -lrsm. Every function answers RSM_SUCCESS or a result code and may be called from any thread; errno means nothing.
 * The process enters its node when it first gets a controller: the job's under `windlass run`, the one that WINDLASS_NODE_NAME
 * names, or one private to it and to what it forks and executes after that. A segment ends with the process that created it;
 * a forked child can do nothing with its parent's segments and finds none of their mappings.
 */
#ifndef WINDLASS_RSMAPI_H
#define WINDLASS_RSMAPI_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RSM_VERSION 5

/* Result codes. */
#define RSM_SUCCESS 0
#define RSMERR_BAD_LIBRARY_VERSION 1
#define RSMERR_BAD_TOPOLOGY_PTR 2
#define RSMERR_BAD_CTLR_HNDL 3
#define RSMERR_CTLR_NOT_PRESENT 4
#define RSMERR_BAD_SEG_HNDL 5
#define RSMERR_SEG_ALREADY_PUBLISHED 6
#define RSMERR_SEG_NOT_PUBLISHED 7
#define RSMERR_SEG_NOT_PUBLISHED_TO_NODE 8
#define RSMERR_SEG_ALREADY_MAPPED 9
#define RSMERR_SEG_STILL_MAPPED 10
#define RSMERR_SEG_NOT_MAPPED 11
#define RSMERR_NOT_CREATOR 12
#define RSMERR_BAD_BARRIER_PTR 13
#define RSMERR_BAD_SGIO 14
#define RSMERR_BAD_LOCALMEM_HNDL 15
#define RSMERR_BAD_ADDR 16
#define RSMERR_BAD_MEM_ALIGNMENT 17
#define RSMERR_BAD_OFFSET 18
#define RSMERR_MISALIGNED_OFFSET 19
#define RSMERR_BAD_LENGTH 20
#define RSMERR_BAD_ACL 21
#define RSMERR_BAD_SEGID 22
#define RSMERR_RESERVED_SEGID 23
#define RSMERR_SEGID_IN_USE 24
#define RSMERR_BAD_MODE 25
#define RSMERR_BAD_PERMS 26
#define RSMERR_PERM_DENIED 27
#define RSMERR_LOCKS_NOT_SUPPORTED 28
#define RSMERR_LOCKS_NOT_ENABLED 29
#define RSMERR_REBIND_NOT_ALLOWED 30
#define RSMERR_INSUFFICIENT_RESOURCES 31
#define RSMERR_INSUFFICIENT_MEM 32
#define RSMERR_MAP_FAILED 33
#define RSMERR_POLLFD_IN_USE 34
#define RSMERR_BARRIER_UNINITIALIZED 35
#define RSMERR_BARRIER_OPEN_FAILED 36
#define RSMERR_BARRIER_NOT_OPENED 37
#define RSMERR_BARRIER_FAILURE 38
#define RSMERR_REMOTE_NODE_UNREACHABLE 39
#define RSMERR_CONN_ABORTED 40
#define RSMERR_INTERRUPTED 41
#define RSMERR_TIMEOUT 42
#define RSMERR_BAD_APPID 43
#define RSMERR_BAD_CONF 44
#define RSMERR_SEG_NOT_CONNECTED 45
#define RSMERR_INTERNAL_ERROR 100
/* Of drivers: 117 alone is ever answered. */
#define RSMERR_BAD_DRIVER_VERSION 101
#define RSMERR_UNSUPPORTED_VERSION 102
#define RSMERR_DRIVER_NAME_IN_USE 103
#define RSMERR_DRIVER_NOT_REGISTERED 104
#define RSMERR_DRIVER_THREAD_RUNNING 105
#define RSMERR_NEED_THREAD_INIT 106
#define RSMERR_THREAD_NOT_INITED 107
#define RSMERR_CTLRS_REGISTERED 108
#define RSMERR_CTLR_NOT_REGISTERED 109
#define RSMERR_CTLR_ALREADY_REGISTERED 110
#define RSMERR_CTLR_IN_USE 111
#define RSMERR_NAME_TOO_LONG 112
#define RSMERR_SEG_PUBLISHED 113
#define RSMERR_SEG_NOT_PUBLISHED_TO_RSM_ADDR 114
#define RSMERR_SEG_IN_USE 115
#define RSMERR_BAD_SENDQ_HNDL 116
#define RSMERR_BAD_ARGS_ERRORS 117
#define RSMERR_BAD_MSTYPE 118
#define RSMERR_NO_BACKING_MEM 119
#define RSMERR_NOT_MEM 120
#define RSMERR_MEM_ALREADY_BOUND 121
#define RSMERR_MEM_NOT_BOUND 122
#define RSMERR_HANDLER_NOT_REGISTERED 123
#define RSMERR_NO_HANDLER 124
#define RSMERR_UNBIND_REBIND_NOT_ALLOWED 125
#define RSMERR_CALLBACKS_NOT_SUPPORTED 126
#define RSMERR_UNSUPPORTED_OPERATION 127
#define RSMERR_RSM_ADDR_UNREACHABLE 128
#define RSMERR_UNKNOWN_RSM_ADDR 129
#define RSMERR_BAD_BARRIER_HNDL 130
#define RSMERR_COMM_ERR_MAYBE_DELIVERED 131
#define RSMERR_COMM_ERR_NOT_DELIVERED 132
#define RSMERR_QUEUE_FENCE_UP 133
#define RSMERR_QUEUE_FULL 134

/* Rights that a connection asks for; in access lists an octal digit each for owner, group and others, at most 0666. */
#define RSM_PERM_NONE 0
#define RSM_PERM_READ 0400
#define RSM_PERM_WRITE 0200
#define RSM_PERM_RDWR (RSM_PERM_READ | RSM_PERM_WRITE)

/* Of a map. */
#define RSM_MAP_NONE 0
#define RSM_MAP_FIXED 1
#define RSM_MAP_RESERVED 2 /* without meaning */

/* Of an export segment. */
#define RSM_ALLOW_REBIND 0x01
#define RSM_CREATE_SEG_DONTWAIT 0x02

/* Of lists of transfers. */
#define RSM_HANDLE_TYPE 1
#define RSM_VA_TYPE 2
#define RSM_MAX_SGIOREQS 16
#define RSM_IMPLICIT_SIGPOST 0x01
#define RSM_SIGPOST_NO_ACCUMULATE 0x02 /* of rsm_intr_signal_post too */

/* Sizes of single accesses. */
#define RSM_DAS8 1
#define RSM_DAS16 2
#define RSM_DAS32 4
#define RSM_DAS64 8

/* Of barriers. */
#define RSM_BARRIER_SEGMENT 0x01
#define RSM_BARRIER_NODE 0x02
#define RSM_BARRIER_SEGMENT_THREAD 0x11
#define RSM_BARRIER_NODE_THREAD 0x12
#define RSM_BARRIER_MODE_EXPLICIT 0
#define RSM_BARRIER_MODE_IMPLICIT 1

#define RSM_CONNECTION_ACTIVE 3 /* the one state in which a connection may be used */

/* Ids of segments that a program may choose: 0, for one that is free, and these. */
#define RSM_USER_APP_ID_BASE 0x400000
#define RSM_USER_APP_ID_END 0x7FFFFFFF

#define RSM_MAXNAMELEN 256 /* bytes of a controller's name, with the zero behind it */

#ifndef WINDLASS_NO_SYSTEM_V_TYPES /* for programs that have these themselves */
typedef unsigned int uint_t;
typedef unsigned long ulong_t;
typedef long long offset_t;
#endif

typedef uint64_t rsm_addr_t;
typedef uint32_t rsm_node_id_t;
typedef uint32_t rsm_memseg_id_t;
typedef uint32_t rsm_permission_t;
typedef unsigned int rsm_attribute_t;
typedef unsigned int rsm_barrier_type_t;
typedef unsigned int rsm_barrier_mode_t;

/* Handles: tokens that the library checks. */
typedef void *rsmapi_controller_handle_t;
typedef void *rsm_memseg_export_handle_t;
typedef void *rsm_memseg_import_handle_t;
typedef void *rsm_localmemory_handle_t;

typedef struct {
    rsm_node_id_t ae_node;
    rsm_permission_t ae_permission;
} rsmapi_access_entry_t;

/* The library's; it stays where it is until it is destroyed. */
typedef struct {
    rsm_memseg_import_handle_t seg;
    uint16_t gnum;
    void *privdata;
} rsmapi_barrier_t;

typedef struct {
    unsigned int attr_direct_access_sizes;
    unsigned int attr_atomic_sizes;
    size_t attr_page_size;
    size_t attr_max_export_segment_size; /* 0: no fixed limit */
    size_t attr_tot_export_segment_size;
    unsigned long attr_max_export_segments;
    size_t attr_max_import_map_size;
    size_t attr_tot_import_map_size;
    unsigned long attr_max_import_segments;
} rsmapi_controller_attr_t;

typedef struct {
    int io_type; /* RSM_HANDLE_TYPE or RSM_VA_TYPE */
    union {
        rsm_localmemory_handle_t handle;
        char *vaddr;
    } local;
    size_t local_offset;
    size_t remote_offset;
    size_t transfer_length;
} rsm_iovec_t;

typedef struct {
    rsm_node_id_t local_nodeid;
    unsigned long io_request_count;
    unsigned long io_residual_count; /* entries not completed, the one that failed included */
    unsigned int flags;
    rsm_memseg_import_handle_t remote_handle;
    rsm_iovec_t *iovec;
} rsm_scat_gath_t;

typedef struct {
    rsm_node_id_t local_nodeid;
    uint32_t local_cntlr_count;
} rsm_topology_hdr_t;

typedef struct {
    char cntlr_name[RSM_MAXNAMELEN];
    rsm_addr_t local_hwaddr;
    int remote_cntlr_count;
} rsm_connections_hdr_t;

typedef struct {
    rsm_node_id_t remote_nodeid;
    char remote_cntlrname[RSM_MAXNAMELEN];
    rsm_addr_t remote_hwaddr;
    uint32_t connection_state;
} rsm_remote_cntlr_t;

typedef struct {
    rsm_connections_hdr_t hdr;
    rsm_remote_cntlr_t remote_cntlr[1]; /* remote_cntlr_count of them */
} rsm_connections_t;

typedef struct {
    rsm_topology_hdr_t topology_hdr;
    rsm_connections_t *local_cntlr[1]; /* local_cntlr_count of them */
} rsm_topology_t;

/* Controllers: NULL or "loopback" is the one that leads to segments of this node; "tcp0", in a job of several nodes, leads to those of
   all, and what it publishes they all find. Each get needs a release; the last one ends everything that was built on the handle. */
int rsm_get_controller(char *name, rsmapi_controller_handle_t *controller);
int rsm_get_controller_attr(rsmapi_controller_handle_t chdl, rsmapi_controller_attr_t *attr);
int rsm_release_controller(rsmapi_controller_handle_t controller);

/* Whole pages of private memory that may be read and written. RSMERR_INSUFFICIENT_RESOURCES also for memory that cannot be
   shared: stacks, shared memory, mapped files, huge pages. */
int rsm_memseg_export_create(rsmapi_controller_handle_t controller, rsm_memseg_export_handle_t *memseg, void *vaddr, size_t size, uint_t flags);
int rsm_memseg_export_destroy(rsm_memseg_export_handle_t memseg);
/* Other memory of the same size, made with RSM_ALLOW_REBIND; importers stay connected and mapped, and see it with their next
   call for the segment. off is not used. */
int rsm_memseg_export_rebind(rsm_memseg_export_handle_t memseg, void *vaddr, offset_t off, size_t size);
/* *segment_id 0: one is given. Without a list everybody is admitted, with 0666 less the umask at the create. */
int rsm_memseg_export_publish(rsm_memseg_export_handle_t memseg, rsm_memseg_id_t *segment_id, rsmapi_access_entry_t access_list[], uint_t access_list_length);
/* When it returns no importer reaches the memory; their mappings stay, and lead nowhere. */
int rsm_memseg_export_unpublish(rsm_memseg_export_handle_t memseg);
int rsm_memseg_export_republish(rsm_memseg_export_handle_t memseg, rsmapi_access_entry_t access_list[], uint_t access_list_length);

/* Rights beyond those that the list gives: RSMERR_PERM_DENIED. */
int rsm_memseg_import_connect(rsmapi_controller_handle_t controller, rsm_node_id_t node_id, rsm_memseg_id_t segment_id, rsm_permission_t perm, rsm_memseg_import_handle_t *im_memseg);
int rsm_memseg_import_disconnect(rsm_memseg_import_handle_t im_memseg);

/* Transfers: within what is mapped, or on a segment that is not mapped within all of it, which they then map themselves. They
   need a barrier that was initialised, unless the mode is explicit. RSMERR_CONN_ABORTED: the exporter has ended the segment. */
int rsm_memseg_import_get8(rsm_memseg_import_handle_t im_memseg, off_t offset, uint8_t *datap, ulong_t rep_cnt);
int rsm_memseg_import_get16(rsm_memseg_import_handle_t im_memseg, off_t offset, uint16_t *datap, ulong_t rep_cnt);
int rsm_memseg_import_get32(rsm_memseg_import_handle_t im_memseg, off_t offset, uint32_t *datap, ulong_t rep_cnt);
int rsm_memseg_import_get64(rsm_memseg_import_handle_t im_memseg, off_t offset, uint64_t *datap, ulong_t rep_cnt);
int rsm_memseg_import_get(rsm_memseg_import_handle_t im_memseg, off_t offset, void *dst_addr, size_t length);
int rsm_memseg_import_getv(rsm_scat_gath_t *sg_io);
int rsm_memseg_import_put8(rsm_memseg_import_handle_t im_memseg, off_t offset, uint8_t *datap, ulong_t rep_cnt);
int rsm_memseg_import_put16(rsm_memseg_import_handle_t im_memseg, off_t offset, uint16_t *datap, ulong_t rep_cnt);
int rsm_memseg_import_put32(rsm_memseg_import_handle_t im_memseg, off_t offset, uint32_t *datap, ulong_t rep_cnt);
int rsm_memseg_import_put64(rsm_memseg_import_handle_t im_memseg, off_t offset, uint64_t *datap, ulong_t rep_cnt);
int rsm_memseg_import_put(rsm_memseg_import_handle_t im_memseg, off_t offset, void *src_addr, size_t length);
int rsm_memseg_import_putv(rsm_scat_gath_t *sg_io);

/* A window of a segment, one for each handle: offset is a multiple of the page, length need not be. RSM_MAP_FIXED: at *address,
   in place of what is there. Valid memory until the unmap, whatever becomes of the exporter. RSMERR_MAP_FAILED: a segment of
   another node, which is transferred alone. */
int rsm_memseg_import_map(rsm_memseg_import_handle_t im_memseg, void **address, rsm_attribute_t attr, rsm_permission_t perm, off_t offset, size_t length);
int rsm_memseg_import_unmap(rsm_memseg_import_handle_t im_memseg);

/* Barriers: when a close succeeds, all accesses since the open have reached the exporter. */
int rsm_memseg_import_init_barrier(rsm_memseg_import_handle_t im_memseg, rsm_barrier_type_t type, rsmapi_barrier_t *barrier);
int rsm_memseg_import_open_barrier(rsmapi_barrier_t *barrier);
int rsm_memseg_import_order_barrier(rsmapi_barrier_t *barrier);
int rsm_memseg_import_close_barrier(rsmapi_barrier_t *barrier);
int rsm_memseg_import_destroy_barrier(rsmapi_barrier_t *barrier);
int rsm_memseg_import_get_mode(rsm_memseg_import_handle_t im_memseg, rsm_barrier_mode_t *mode);
int rsm_memseg_import_set_mode(rsm_memseg_import_handle_t im_memseg, rsm_barrier_mode_t mode);

/* Signals: from an import handle to the exporter, from an export handle to all importers. Timeouts in ms, -1 for none. The poll
   descriptor gets POLLHUP when the exporter ends the segment; a wait answers RSMERR_CONN_ABORTED then. */
int rsm_intr_signal_post(void *memseg, uint_t flags);
int rsm_intr_signal_wait(void *memseg, int timeout);
int rsm_intr_signal_wait_pollfd(struct pollfd fds[], nfds_t nfds, int timeout, int *numfdsp);
int rsm_memseg_get_pollfd(void *memseg, struct pollfd *fd);
int rsm_memseg_release_pollfd(void *memseg);

int rsm_get_interconnect_topology(rsm_topology_t **topology_data);
void rsm_free_interconnect_topology(rsm_topology_t *topology_data);
/* char *: caddr_t, which is not known to ISO C. */
int rsm_create_localmemory_handle(rsmapi_controller_handle_t handle, rsm_localmemory_handle_t *l_handle, char *local_vaddr, size_t length);
int rsm_free_localmemory_handle(rsmapi_controller_handle_t handle, rsm_localmemory_handle_t l_handle);
/* By /etc/rsm/rsm.segmentid, or the file that WINDLASS_RSM_SEGMENTID names. */
int rsm_get_segmentid_range(const char *appid, rsm_memseg_id_t *baseid, uint32_t *length);

#ifdef __cplusplus
}
#endif

#endif

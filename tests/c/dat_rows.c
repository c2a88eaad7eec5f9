/* Programs of tests/dat_rows.rs: dat_rows SECTION. One check for each row of udapl.md's tables that libdat2's exported
 * calls reach, and for the slots of the table that it does not export, through a handle's first word. Both ends of
 * every connection are here. Sections and rows are udapl.md's. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dat2/udat.h>
#include <dat2/dat_registry.h>
#include <dat2/dat_ib_extensions.h>

/* Exported by libdat2 for providers: a handle as they have it for one of ours, and back (3.2). */
extern DAT_RETURN dats_get_ia_handle(DAT_IA_HANDLE, DAT_IA_HANDLE *);

#define SECONDS 1000000u
#define LONG (120 * SECONDS)
#define SERVICE 20001 /* below the ports that the kernel gives to connections */

static const char *what(DAT_RETURN value)
{
    static char text[2][200];
    static int turn;
    const char *major = "?", *minor = "?";
    dat_strerror(value, &major, &minor);
    turn ^= 1;
    snprintf(text[turn], sizeof text[turn], "%08x %s %s", value, major, minor);
    return text[turn];
}

/* The answer must be this type with this subtype; the class bit is not looked at (2.1). */
#define WANT(call, type, subtype) want(__LINE__, #call, (call), (DAT_RETURN)(type) | (DAT_RETURN)(subtype))
#define OK(call) WANT(call, DAT_SUCCESS, 0)
#define CHECK(truth) check(__LINE__, #truth, (truth) ? 1 : 0)

static void want(int line, const char *text, DAT_RETURN got, DAT_RETURN wanted)
{
    if ((got & ~DAT_CLASS_ERROR) == (wanted & ~DAT_CLASS_ERROR))
        return;
    fprintf(stderr, "line %d: %s answers %s, not %s\n", line, text, what(got), what(wanted));
    exit(1);
}

static void check(int line, const char *text, int truth)
{
    if (truth)
        return;
    fprintf(stderr, "line %d: not true: %s\n", line, text);
    exit(1);
}

static DAT_IA_HANDLE ia;
static DAT_EVD_HANDLE async;
static DAT_PZ_HANDLE pz, other_pz;
/* Not a handle, but memory that libdat2 may follow: its first word is the table's (3.2). */
static struct { void *provider; char rest[248]; } stranger;
#define NOTHING ((DAT_HANDLE)&stranger)

static void open_ia(void)
{
    async = DAT_HANDLE_NULL;
    OK(dat_ia_open((char *)"windlass", 8, &async, &ia));
    OK(dat_pz_create(ia, &pz));
    OK(dat_pz_create(ia, &other_pz));
    stranger.provider = *(void **)pz;
}

static DAT_EVD_HANDLE evd_of(DAT_EVD_FLAGS flags)
{
    DAT_EVD_HANDLE evd;
    OK(dat_evd_create(ia, 64, DAT_HANDLE_NULL, flags, &evd));
    return evd;
}

struct region {
    char *bytes;
    DAT_LMR_HANDLE lmr;
    DAT_LMR_TRIPLET local;
    DAT_RMR_TRIPLET remote;
};

static DAT_RETURN lmr_of(DAT_MEM_TYPE type, void *start, DAT_VLEN len, DAT_PZ_HANDLE zone, int priv, DAT_VA_TYPE va,
                         struct region *region)
{
    DAT_REGION_DESCRIPTION from = {.for_va = start};
    DAT_VLEN size = 0;
    DAT_VADDR address = 0;
    DAT_RETURN answer = dat_lmr_create(ia, type, from, len, zone, (DAT_MEM_PRIV_FLAGS)priv, va, &region->lmr,
                                       &region->local.lmr_context, &region->remote.rmr_context, &size, &address);
    region->local.virtual_address = region->remote.virtual_address = address;
    region->local.segment_length = region->remote.segment_length = (DAT_SEG_LENGTH)size;
    return answer;
}

static struct region region(DAT_PZ_HANDLE zone, size_t len, int priv)
{
    struct region made = {.bytes = calloc(1, len)};
    OK(lmr_of(DAT_MEM_TYPE_VIRTUAL, made.bytes, len, zone, priv, DAT_VA_TYPE_VA, &made));
    return made;
}

struct side {
    DAT_EVD_HANDLE dto, conn;
    DAT_EP_HANDLE ep;
};

static DAT_EP_ATTR attributes(void)
{
    DAT_EP_ATTR attr;
    memset(&attr, 0, sizeof attr);
    attr.max_message_size = attr.max_rdma_size = 1 << 20;
    attr.max_recv_dtos = attr.max_request_dtos = 8;
    attr.max_recv_iov = attr.max_request_iov = 4;
    attr.max_rdma_read_in = attr.max_rdma_read_out = 4;
    attr.max_rdma_read_iov = attr.max_rdma_write_iov = 4;
    return attr;
}

static struct side side_in(DAT_PZ_HANDLE zone)
{
    struct side side = {evd_of(DAT_EVD_DTO_FLAG | DAT_EVD_RMR_BIND_FLAG), evd_of(DAT_EVD_CONNECTION_FLAG), 0};
    DAT_EP_ATTR attr = attributes();
    OK(dat_ep_create(ia, zone, side.dto, side.dto, side.conn, &attr, &side.ep));
    return side;
}

static DAT_EVENT next(DAT_EVD_HANDLE evd)
{
    DAT_EVENT event;
    DAT_COUNT more;
    OK(dat_evd_wait(evd, LONG, 1, &event, &more));
    CHECK(event.evd_handle == evd);
    return event;
}

#define CONNECTION(evd, number) CHECK(next(evd).event_number == (number))

/* The next event is a completion with this cookie and status. */
static DAT_DTO_COMPLETION_EVENT_DATA done(DAT_EVD_HANDLE evd, DAT_UINT64 cookie, int status)
{
    DAT_EVENT event = next(evd);
    CHECK(event.event_number == DAT_DTO_COMPLETION_EVENT);
    DAT_DTO_COMPLETION_EVENT_DATA data = event.event_data.dto_completion_event_data;
    if (data.user_cookie.as_64 != cookie || (int)data.status != status)
        fprintf(stderr, "cookie %llu status %d, not %llu %d\n", (unsigned long long)data.user_cookie.as_64, data.status,
                (unsigned long long)cookie, status);
    CHECK(data.user_cookie.as_64 == cookie && (int)data.status == status);
    return data;
}

static struct sockaddr_in here(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static DAT_EVD_HANDLE requests;
static DAT_PSP_HANDLE service;

static void serve(void)
{
    if (!requests)
        requests = evd_of(DAT_EVD_CR_FLAG);
    OK(dat_psp_create(ia, SERVICE, requests, DAT_PSP_CONSUMER_FLAG, &service));
}

static DAT_RETURN connect_to(DAT_EP_HANDLE ep, DAT_CONN_QUAL qualifier, const char *data)
{
    struct sockaddr_in address = here();
    return dat_ep_connect(ep, (DAT_IA_ADDRESS_PTR)&address, qualifier, LONG, (DAT_COUNT)strlen(data), (DAT_PVOID)data,
                          DAT_QOS_BEST_EFFORT, DAT_CONNECT_DEFAULT_FLAG);
}

static DAT_CR_HANDLE request(void)
{
    DAT_EVENT event = next(requests);
    CHECK(event.event_number == DAT_CONNECTION_REQUEST_EVENT);
    return event.event_data.cr_arrival_event_data.cr_handle;
}

static void join(struct side *a, struct side *b)
{
    OK(connect_to(a->ep, SERVICE, "hello"));
    OK(dat_cr_accept(request(), b->ep, 7, (DAT_PVOID) "welcome"));
    DAT_EVENT event = next(a->conn);
    CHECK(event.event_number == DAT_CONNECTION_EVENT_ESTABLISHED);
    DAT_CONNECTION_EVENT_DATA data = event.event_data.connect_event_data;
    CHECK(data.ep_handle == a->ep && data.private_data_size == 7 && !memcmp(data.private_data, "welcome", 7));
    CONNECTION(b->conn, DAT_CONNECTION_EVENT_ESTABLISHED);
}

static DAT_EP_STATE state(DAT_EP_HANDLE ep)
{
    DAT_EP_STATE state;
    DAT_BOOLEAN no_recv, no_request;
    OK(dat_ep_get_status(ep, &state, &no_recv, &no_request));
    OK(dat_ep_get_status(ep, NULL, NULL, NULL));
    return state;
}

#define COOKIE(n) ((DAT_DTO_COOKIE){.as_64 = (n)})
#define PLAIN DAT_COMPLETION_DEFAULT_FLAG

/* 4.1 and 3.4: opening, queries, closing; protection zones. */
static void ia_and_pz(void)
{
    DAT_EVD_HANDLE evd = DAT_HANDLE_NULL, mine = DAT_HANDLE_NULL;
    DAT_IA_HANDLE second;
    char long_name[300];
    memset(long_name, 'n', sizeof long_name);
    long_name[299] = 0;
    WANT(dat_ia_open(NULL, 8, &evd, &second), DAT_INVALID_PARAMETER, DAT_INVALID_ARG1);
    WANT(dat_ia_open(long_name, 8, &evd, &second), DAT_INVALID_PARAMETER, DAT_INVALID_ARG1);
    WANT(dat_ia_open((char *)"windlass", 8, &evd, NULL), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_IA);
    WANT(dat_ia_open((char *)"nobody", 8, &evd, &second), DAT_PROVIDER_NOT_FOUND, DAT_NAME_NOT_REGISTERED);
    open_ia();
    /* A second opening of the same adapter, whose consumer has an asynchronous EVD already. */
    evd = DAT_EVD_ASYNC_EXISTS;
    OK(dat_ia_open((char *)"windlass", 8, &evd, &second));
    OK(dat_ia_query(second, &mine, 0, NULL, 0, NULL));
    CHECK(mine == DAT_EVD_OUT_OF_SCOPE);
    OK(dat_ia_close(second, DAT_CLOSE_GRACEFUL_FLAG));
    WANT(dat_ia_close(second, DAT_CLOSE_GRACEFUL_FLAG), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_IA);
    OK(dat_ia_query(ia, &mine, 0, NULL, 0, NULL));
    CHECK(mine == async);

    DAT_IA_ATTR attr;
    DAT_PROVIDER_ATTR provider;
    OK(dat_ia_query(ia, NULL, DAT_IA_FIELD_ALL, &attr, DAT_PROVIDER_FIELD_ALL, &provider));
    WANT(dat_ia_query(ia, NULL, DAT_IA_FIELD_ALL, NULL, 0, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    WANT(dat_ia_query(ia, NULL, 0, NULL, DAT_PROVIDER_FIELD_ALL, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    CHECK(attr.extension_supported == DAT_EXTENSION_IB && attr.max_eps > 0 && attr.max_dto_per_ep > 0 && attr.max_lmrs > 0);
    CHECK(attr.max_rdma_size >= 65536 && attr.max_iov_segments_per_dto >= 4 && attr.max_rdma_read_in >= 4);
    CHECK(((struct sockaddr_in *)attr.ia_address_ptr)->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    CHECK(provider.dapl_version_major == 2 && provider.dapl_version_minor == 0 && !provider.is_thread_safe);
    CHECK(provider.max_private_data_size >= 64 && provider.iov_ownership_on_return == DAT_IOV_CONSUMER);
    CHECK(provider.num_provider_specific_attr == 3 &&
          !strcmp(provider.provider_specific_attr[0].name, "DAT_IB_RDMA_READ") &&
          !strcmp(provider.provider_specific_attr[0].value, "TRUE"));

    DAT_PZ_HANDLE zone;
    DAT_PZ_PARAM param;
    WANT(dat_pz_create(ia, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    OK(dat_pz_create(ia, &zone));
    OK(dat_pz_query(zone, DAT_PZ_FIELD_ALL, &param));
    CHECK(param.ia_handle == ia);
    DAT_HANDLE_TYPE type;
    OK(dat_get_handle_type(zone, &type));
    CHECK(type == DAT_HANDLE_TYPE_PZ);
    DAT_CONTEXT context = {.as_64 = 77};
    OK(dat_set_consumer_context(zone, context));
    context.as_64 = 0;
    OK(dat_get_consumer_context(zone, &context));
    CHECK(context.as_64 == 77);
    OK(dat_set_consumer_context(ia, context));
    /* In use by a region, a window, an endpoint. */
    struct region memory = region(zone, 64, DAT_MEM_PRIV_ALL_FLAG);
    WANT(dat_pz_free(zone), DAT_INVALID_STATE, DAT_INVALID_STATE_PZ_IN_USE);
    OK(dat_lmr_free(memory.lmr));
    DAT_RMR_HANDLE rmr;
    OK(dat_rmr_create(zone, &rmr));
    WANT(dat_pz_free(zone), DAT_INVALID_STATE, DAT_INVALID_STATE_PZ_IN_USE);
    OK(dat_rmr_free(rmr));
    struct side side = side_in(zone);
    WANT(dat_pz_free(zone), DAT_INVALID_STATE, DAT_INVALID_STATE_PZ_IN_USE);
    OK(dat_ep_free(side.ep));
    OK(dat_pz_free(zone));
    WANT(dat_pz_free(zone), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_PZ);
    WANT(dat_pz_free(NOTHING), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_PZ);

    WANT(dat_ia_close(ia, DAT_CLOSE_GRACEFUL_FLAG), DAT_INVALID_STATE, DAT_INVALID_STATE_IA_IN_USE);
    WANT(dat_ia_close(ia, 7), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    side = side_in(pz);
    OK(dat_ia_close(ia, DAT_CLOSE_ABRUPT_FLAG));
    WANT(dat_ia_close(ia, DAT_CLOSE_ABRUPT_FLAG), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_IA);
    /* The objects went with it, and libdat2 may still follow their handles. */
    open_ia();
    WANT(dat_ep_free(side.ep), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP);
}

/* 4.2: the table of dat_lmr_create, in its order. */
static void lmr(void)
{
    open_ia();
    struct region r;
    static char bytes[4096];
    const int all = DAT_MEM_PRIV_ALL_FLAG;
    DAT_REGION_DESCRIPTION from = {.for_va = bytes};
    DAT_IA_HANDLE second;
    DAT_EVD_HANDLE evd = DAT_EVD_ASYNC_EXISTS;
    DAT_PZ_HANDLE foreign;
    OK(dat_ia_open((char *)"windlass", 8, &evd, &second));
    OK(dat_pz_create(second, &foreign));

    WANT(dat_lmr_create((DAT_IA_HANDLE)63, 0, from, 64, pz, all, 0, &r.lmr, 0, 0, 0, 0), DAT_INVALID_HANDLE,
         DAT_INVALID_HANDLE_IA);
    WANT(lmr_of(0, bytes, 64, DAT_HANDLE_NULL, all, 0, &r), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_PZ);
    WANT(lmr_of(0, bytes, 64, NOTHING, all, 0, &r), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_PZ);
    WANT(lmr_of(0, bytes, 64, foreign, all, 0, &r), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_PZ);
    WANT(dat_lmr_create(ia, 0, from, 64, pz, all, 0, NULL, 0, 0, 0, 0), DAT_INVALID_PARAMETER, DAT_INVALID_ARG7);
    WANT(lmr_of(3, bytes, 64, pz, all, 0, &r), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    WANT(lmr_of(0, bytes, 64, pz, all, 2, &r), DAT_MODEL_NOT_SUPPORTED, 0);
    WANT(lmr_of(0, bytes, 64, pz, 0x100, 0, &r), DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    WANT(lmr_of(0, bytes, 64, pz, DAT_MEM_PRIV_REMOTE_WRITE_FLAG, 0, &r), DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    WANT(lmr_of(0, NULL, 64, pz, all, 0, &r), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(lmr_of(0, bytes, 0, pz, all, 0, &r), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    WANT(lmr_of(0, bytes, UINT64_MAX - 5, pz, all, 0, &r), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    char *page = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    WANT(lmr_of(0, page, 4096, pz, all, 0, &r), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    OK(lmr_of(0, page, 4096, pz, DAT_MEM_PRIV_REMOTE_READ_FLAG, 0, &r));
    OK(dat_lmr_free(r.lmr));
    munmap(page + 4096, 4096);
    WANT(lmr_of(0, page, 8192, pz, DAT_MEM_PRIV_LOCAL_READ_FLAG, 0, &r), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(lmr_of(1, NOTHING, 0, pz, all, 0, &r), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_LMR);

    /* Unaligned; contexts: remote only with a remote right; each different. */
    struct region a, b, local, zero;
    OK(lmr_of(0, bytes + 1, 77, pz, all, 0, &a));
    CHECK(a.local.segment_length == 77 && a.local.virtual_address == (uintptr_t)(bytes + 1));
    CHECK(a.local.lmr_context != 0 && a.remote.rmr_context != 0);
    OK(lmr_of(0, bytes, 64, pz, DAT_MEM_PRIV_LOCAL_READ_FLAG, 0, &local));
    CHECK(local.local.lmr_context != 0 && local.remote.rmr_context == 0);
    OK(lmr_of(0, bytes, 64, pz, all, DAT_VA_TYPE_ZB, &zero));
    CHECK(zero.local.virtual_address == 0);
    /* Over a region: the same memory, another zone, other rights. */
    OK(lmr_of(DAT_MEM_TYPE_LMR, a.lmr, 0, other_pz, DAT_MEM_PRIV_LOCAL_READ_FLAG, 0, &b));
    CHECK(b.local.virtual_address == a.local.virtual_address && b.local.segment_length == 77);
    CHECK(b.local.lmr_context != a.local.lmr_context);
    DAT_LMR_PARAM param;
    OK(dat_lmr_query(b.lmr, DAT_LMR_FIELD_ALL, &param));
    CHECK(param.ia_handle == ia && param.pz_handle == other_pz && param.mem_type == DAT_MEM_TYPE_LMR);
    CHECK(param.mem_priv == DAT_MEM_PRIV_LOCAL_READ_FLAG && param.lmr_context == b.local.lmr_context);
    CHECK(param.registered_size == 77 && param.region_desc.for_lmr_handle == a.lmr);

    /* 4.3: queries, synchronisation, a second free; a context does not come back soon. */
    WANT(dat_lmr_query(b.lmr, DAT_LMR_FIELD_ALL, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(dat_lmr_query(NOTHING, DAT_LMR_FIELD_ALL, &param), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_LMR);
    OK(dat_lmr_sync_rdma_read(ia, &a.local, 1));
    OK(dat_lmr_sync_rdma_write(ia, &a.local, 1));
    DAT_LMR_TRIPLET outside = a.local;
    outside.segment_length++;
    WANT(dat_lmr_sync_rdma_read(ia, &outside, 1), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    outside = a.local;
    outside.lmr_context ^= 0x5500;
    WANT(dat_lmr_sync_rdma_write(ia, &outside, 1), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    WANT(dat_lmr_sync_rdma_write((DAT_IA_HANDLE)63, &a.local, 1), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_IA);
    OK(dat_lmr_free(a.lmr));
    WANT(dat_lmr_free(a.lmr), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_LMR);
    WANT(dat_lmr_free(NOTHING), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_LMR);
    for (int i = 0; i < 200; i++) {
        OK(lmr_of(0, bytes, 64, pz, all, 0, &r));
        CHECK(r.local.lmr_context != a.local.lmr_context);
        OK(dat_lmr_free(r.lmr));
    }
    WANT(dat_lmr_free(a.lmr), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_LMR);
    OK(dat_ia_close(second, DAT_CLOSE_ABRUPT_FLAG));
}

static DAT_RETURN shared(void *start, DAT_VLEN len, char (*id)[40], struct region *region)
{
    DAT_REGION_DESCRIPTION from;
    from.for_shared_memory.virtual_address = start;
    from.for_shared_memory.shared_memory_id = id;
    DAT_VLEN size;
    DAT_VADDR address;
    DAT_RETURN answer = dat_lmr_create(ia, DAT_MEM_TYPE_SHARED_VIRTUAL, from, len, pz, DAT_MEM_PRIV_ALL_FLAG, 0,
                                       &region->lmr, &region->local.lmr_context, &region->remote.rmr_context, &size,
                                       &address);
    region->local.virtual_address = region->remote.virtual_address = address;
    region->local.segment_length = region->remote.segment_length = (DAT_SEG_LENGTH)size;
    return answer;
}

/* 4.2, shared virtual: two processes, one id; what is refused; the entry dies with its last process. */
static void shared_virtual(void)
{
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *others = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char id[40];
    /* With a NUL inside, and told apart behind it. */
    memset(id, 0, sizeof id);
    snprintf(id, sizeof id, "job");
    memcpy(id + 32, &(int){getpid()}, sizeof(int));
    char second_id[40];
    memcpy(second_id, id, sizeof id);
    second_id[39] ^= 1;
    int ready[2], go[2];
    CHECK(!pipe(ready) && !pipe(go));
    pid_t child = fork();
    if (child == 0) {
        struct region r;
        char word;
        open_ia();
        OK(shared(pages, 4096, &id, &r));
        CHECK(write(ready[1], "x", 1) == 1 && read(go[0], &word, 1) == 1);
        _exit(0); /* without a free: the entry goes with the process */
    }
    char word;
    CHECK(read(ready[0], &word, 1) == 1);
    open_ia();
    struct region r, again, other;
    static char private[4096];
    WANT(shared(private, 4096, &second_id, &r), DAT_INVALID_STATE, 0);
    WANT(shared(pages, 4096, NULL, &r), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(shared(pages, 8192, &id, &r), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    WANT(shared(others, 4096, &id, &r), DAT_INVALID_STATE, 0);
    WANT(shared(pages + 4096, 4096, &id, &r), DAT_INVALID_STATE, 0);
    OK(shared(pages, 4096, &id, &r));
    OK(shared(pages, 4096, &id, &again));
    OK(shared(others, 4096, &second_id, &other));
    CHECK(r.local.lmr_context != again.local.lmr_context && r.remote.rmr_context != again.remote.rmr_context);
    OK(dat_lmr_free(r.lmr));
    WANT(shared(others, 4096, &id, &r), DAT_INVALID_STATE, 0);
    OK(dat_lmr_free(again.lmr));
    WANT(shared(others, 4096, &id, &r), DAT_INVALID_STATE, 0); /* the child's */
    int status;
    CHECK(write(go[1], "x", 1) == 1 && waitpid(child, &status, 0) == child && status == 0);
    OK(shared(others, 4096, &id, &r));
}

/* 4.5: event dispatchers. */
static void *set_unwaitable_later(void *evd)
{
    usleep(100000);
    OK(dat_evd_set_unwaitable(evd));
    return NULL;
}

static pid_t waits;

static void *wait_long(void *evd)
{
    DAT_EVENT event;
    DAT_COUNT more;
    DAT_RETURN *answer = malloc(sizeof *answer);
    __atomic_store_n(&waits, gettid(), __ATOMIC_SEQ_CST);
    *answer = dat_evd_wait(evd, LONG, 1, &event, &more);
    return answer;
}

/* Starts a thread that waits, and waits itself until that one sleeps in the wait. */
static pthread_t waiter_of(DAT_EVD_HANDLE evd)
{
    pthread_t waiter;
    waits = 0;
    CHECK(!pthread_create(&waiter, NULL, wait_long, evd));
    for (int asleep = 0; asleep < 10; usleep(10000)) {
        char path[64], state = 0;
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", __atomic_load_n(&waits, __ATOMIC_SEQ_CST));
        FILE *stat = fopen(path, "r");
        if (stat != NULL) {
            CHECK(fscanf(stat, "%*d (%*[^)]) %c", &state) == 1);
            fclose(stat);
        }
        asleep = state == 'S' ? asleep + 1 : 0;
    }
    return waiter;
}

static void evd(void)
{
    open_ia();
    DAT_EVD_HANDLE e, soft;
    DAT_EVENT event, post;
    DAT_COUNT more;
    DAT_CNO_HANDLE none = DAT_HANDLE_NULL;
    memset(&post, 0, sizeof post);
    post.event_number = DAT_SOFTWARE_EVENT;
    post.event_data.software_event_data.pointer = &post;
    WANT(dat_evd_create(ia, 0, none, DAT_EVD_DTO_FLAG, &e), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    WANT(dat_evd_create(ia, -1, none, DAT_EVD_DTO_FLAG, &e), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    WANT(dat_evd_create(ia, 0x7fffffff, none, DAT_EVD_DTO_FLAG, &e), DAT_INSUFFICIENT_RESOURCES, DAT_RESOURCE_TEVD);
    WANT(dat_evd_create(ia, 8, NOTHING, DAT_EVD_DTO_FLAG, &e), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_CNO);
    WANT(dat_evd_create(ia, 8, none, 0x2000, &e), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    WANT(dat_evd_create(ia, 8, none, 0, &e), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    for (int a = 0; a < 6; a++) /* the merging matrix: every pair */
        for (int b = 0; b < 6; b++) {
            static const int flag[6] = {1, 0x10, 0x20, 0x40, 0x80, 0x100};
            OK(dat_evd_create(ia, 8, none, (DAT_EVD_FLAGS)(flag[a] | flag[b]), &e));
            OK(dat_evd_free(e));
        }
    OK(dat_evd_create(ia, 3, none, DAT_EVD_SOFTWARE_FLAG, &soft));
    WANT(dat_evd_wait(NOTHING, 0, 1, &event, &more), DAT_INVALID_HANDLE, 0);
    WANT(dat_evd_wait(soft, 0, 1, NULL, &more), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    WANT(dat_evd_wait(soft, 0, 1, &event, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG5);
    WANT(dat_evd_wait(soft, 0, 0, &event, &more), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(dat_evd_wait(soft, 0, 4, &event, &more), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(dat_evd_wait(soft, 0, 2, &event, &more), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(dat_evd_wait(soft, 0, 1, &event, &more), DAT_TIMEOUT_EXPIRED, 0);
    WANT(dat_evd_wait(soft, 1000, 1, &event, &more), DAT_TIMEOUT_EXPIRED, 0);
    WANT(dat_evd_dequeue(soft, &event), DAT_QUEUE_EMPTY, 0);
    CHECK(dat_evd_dequeue(soft, &event) == DAT_QUEUE_EMPTY); /* as programs compare */
    WANT(dat_evd_dequeue(soft, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    OK(dat_evd_post_se(soft, &post));
    OK(dat_evd_post_se(soft, &post));
    OK(dat_evd_post_se(soft, &post));
    WANT(dat_evd_post_se(soft, &post), DAT_QUEUE_FULL, 0);
    WANT(dat_evd_resize(soft, 2), DAT_INVALID_STATE, 0);
    WANT(dat_evd_resize(soft, 0), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    OK(dat_evd_resize(soft, 4));
    OK(dat_evd_wait(soft, 0, 1, &event, &more));
    CHECK(more == 2 && event.event_number == DAT_SOFTWARE_EVENT);
    CHECK(event.event_data.software_event_data.pointer == &post);
    DAT_EVD_PARAM param;
    OK(dat_evd_query(soft, DAT_EVD_FIELD_ALL, &param));
    CHECK(param.ia_handle == ia && param.evd_qlen == 4 && param.evd_flags == DAT_EVD_SOFTWARE_FLAG);
    CHECK(param.evd_state == (DAT_EVD_STATE_ENABLED | DAT_EVD_STATE_WAITABLE | DAT_EVD_STATE_CONFIG_NOTIFY));
    CHECK(param.cno_handle == DAT_HANDLE_NULL);
    OK(dat_evd_disable(soft));
    OK(dat_evd_set_unwaitable(soft));
    OK(dat_evd_query(soft, DAT_EVD_FIELD_ALL, &param));
    CHECK((param.evd_state & 0xf) == (DAT_EVD_STATE_DISABLED | DAT_EVD_STATE_UNWAITABLE));
    WANT(dat_evd_wait(soft, 0, 1, &event, &more), DAT_INVALID_STATE, DAT_INVALID_STATE_EVD_UNWAITABLE);
    OK(dat_evd_clear_unwaitable(soft));
    OK(dat_evd_enable(soft));
    OK(dat_evd_dequeue(soft, &event));
    OK(dat_evd_dequeue(soft, &event));

    /* One waiter: another is refused, so is a dequeue; set_unwaitable wakes it. */
    pthread_t waiter = waiter_of(soft), waker;
    DAT_RETURN *answer;
    WANT(dat_evd_wait(soft, 0, 1, &event, &more), DAT_INVALID_STATE, DAT_INVALID_STATE_EVD_WAITER);
    WANT(dat_evd_dequeue(soft, &event), DAT_INVALID_STATE, DAT_INVALID_STATE_EVD_WAITER);
    CHECK(!pthread_create(&waker, NULL, set_unwaitable_later, soft));
    CHECK(!pthread_join(waiter, (void **)&answer) && !pthread_join(waker, NULL));
    WANT(*answer, DAT_INVALID_STATE, DAT_INVALID_STATE_EVD_UNWAITABLE);

    /* In use by what feeds it. */
    struct side side = side_in(pz);
    WANT(dat_evd_free(side.dto), DAT_INVALID_STATE, DAT_INVALID_STATE_EVD_IN_USE);
    WANT(dat_evd_free(side.conn), DAT_INVALID_STATE, DAT_INVALID_STATE_EVD_IN_USE);
    WANT(dat_evd_free(async), DAT_INVALID_STATE, DAT_INVALID_STATE_EVD_IN_USE);
    serve();
    WANT(dat_evd_free(requests), DAT_INVALID_STATE, DAT_INVALID_STATE_EVD_IN_USE);
    OK(dat_psp_free(service));
    OK(dat_evd_free(requests));
    requests = DAT_HANDLE_NULL;
    DAT_EP_ATTR attr = attributes();
    DAT_EVD_HANDLE many = evd_of(DAT_EVD_DTO_FLAG);
    attr.recv_completion_flags = DAT_COMPLETION_EVD_THRESHOLD_FLAG;
    DAT_EP_HANDLE ep;
    OK(dat_ep_create(ia, pz, many, many, side.conn, &attr, &ep));
    WANT(dat_evd_wait(many, 0, 2, &event, &more), DAT_TIMEOUT_EXPIRED, 0);
    OK(dat_ep_free(ep));
    OK(dat_evd_free(many));
    OK(dat_evd_free(soft));
    WANT(dat_evd_free(soft), DAT_INVALID_HANDLE, 0);
    WANT(dat_evd_post_se(side.dto, &post), DAT_INVALID_HANDLE, 0);

    /* An overflow by events of the provider is told on the asynchronous EVD; the EVD may not be waited for. */
    serve();
    struct side a = side_in(pz), b = side_in(pz);
    DAT_EVD_HANDLE tiny;
    OK(dat_evd_create(ia, 1, none, DAT_EVD_DTO_FLAG, &tiny));
    OK(dat_ep_free(a.ep));
    attr = attributes();
    OK(dat_ep_create(ia, pz, tiny, tiny, a.conn, &attr, &a.ep));
    join(&a, &b);
    DAT_RMR_TRIPLET nowhere = {0, 0, 0};
    for (int i = 0; i < 3; i++)
        OK(dat_ep_post_rdma_write(a.ep, 0, NULL, COOKIE(i), &nowhere, PLAIN));
    event = next(async);
    CHECK(event.event_number == DAT_ASYNC_ERROR_EVD_OVERFLOW);
    CHECK(event.event_data.asynch_error_event_data.dat_handle == tiny);
    WANT(dat_evd_wait(tiny, 0, 1, &event, &more), DAT_INVALID_STATE, DAT_INVALID_STATE_EVD_OPEN);
}

/* 4.5: CNOs; 3.3: the slots of CNOs that libdat2 does not export. */
static int agent_calls;
static DAT_EVD_HANDLE agent_evd;
static void agent(DAT_PVOID instance, DAT_EVD_HANDLE evd)
{
    agent_evd = evd;
    __atomic_add_fetch((int *)instance, 1, __ATOMIC_SEQ_CST);
}

static void cno(void)
{
    open_ia();
    DAT_CNO_HANDLE c, foreign = NOTHING;
    DAT_EVD_HANDLE e, from;
    DAT_EVENT event, post;
    memset(&post, 0, sizeof post);
    post.event_number = DAT_SOFTWARE_EVENT;
    WANT(dat_cno_create(ia, DAT_OS_WAIT_PROXY_AGENT_NULL, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    OK(dat_cno_create(ia, DAT_OS_WAIT_PROXY_AGENT_NULL, &c));
    OK(dat_evd_create(ia, 8, c, DAT_EVD_SOFTWARE_FLAG, &e));
    WANT(dat_cno_wait(c, 1000, &from), DAT_QUEUE_EMPTY, 0);
    WANT(dat_cno_wait(foreign, 1000, &from), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_CNO);
    WANT(dat_cno_wait(c, 1000, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(dat_cno_free(c), DAT_INVALID_STATE, DAT_INVALID_STATE_CNO_IN_USE);
    /* Triggered is sticky, and taken by one wait; the EVD may be drained meanwhile. */
    OK(dat_evd_post_se(e, &post));
    OK(dat_evd_dequeue(e, &event));
    OK(dat_cno_wait(c, LONG, &from));
    CHECK(from == e);
    WANT(dat_cno_wait(c, 1000, &from), DAT_QUEUE_EMPTY, 0);
    WANT(dat_evd_dequeue(e, &event), DAT_QUEUE_EMPTY, 0);
    /* A disabled EVD triggers nothing; enabling one with events does. */
    OK(dat_evd_disable(e));
    OK(dat_evd_post_se(e, &post));
    WANT(dat_cno_wait(c, 1000, &from), DAT_QUEUE_EMPTY, 0);
    OK(dat_evd_enable(e));
    OK(dat_cno_wait(c, LONG, &from));
    OK(dat_evd_dequeue(e, &event));
    /* A waiter inside the EVD takes the event instead. */
    pthread_t waiter = waiter_of(e);
    DAT_RETURN *answer;
    OK(dat_evd_post_se(e, &post));
    CHECK(!pthread_join(waiter, (void **)&answer));
    OK(*answer);
    WANT(dat_cno_wait(c, 1000, &from), DAT_QUEUE_EMPTY, 0);
    DAT_CNO_PARAM param;
    OK(dat_cno_query(c, DAT_CNO_FIELD_ALL, &param));
    CHECK(param.ia_handle == ia && param.proxy_type == DAT_PROXY_TYPE_NONE);
    DAT_EVD_PARAM about;
    OK(dat_evd_query(e, DAT_EVD_FIELD_ALL, &about));
    CHECK(about.cno_handle == c);
    WANT(dat_evd_modify_cno(e, NOTHING), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_CNO);
    OK(dat_evd_modify_cno(e, DAT_HANDLE_NULL));
    OK(dat_cno_free(c));
    WANT(dat_cno_free(c), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_CNO);

    /* An agent is called; it may be changed. */
    DAT_OS_WAIT_PROXY_AGENT call = {&agent_calls, agent};
    OK(dat_cno_create(ia, call, &c));
    OK(dat_evd_modify_cno(e, c));
    OK(dat_evd_post_se(e, &post));
    for (int i = 0; i < 2000 && !__atomic_load_n(&agent_calls, __ATOMIC_SEQ_CST); i++)
        usleep(10000);
    CHECK(agent_calls == 1 && agent_evd == e);
    OK(dat_cno_query(c, DAT_CNO_FIELD_ALL, &param));
    CHECK(param.proxy_type == DAT_PROXY_TYPE_AGENT && param.proxy.agent.proxy_agent_func == agent);
    OK(dat_cno_modify_agent(c, DAT_OS_WAIT_PROXY_AGENT_NULL));
    OK(dat_evd_dequeue(e, &event));
    WANT(dat_cno_free(c), DAT_INVALID_STATE, DAT_INVALID_STATE_CNO_IN_USE);
    OK(dat_evd_modify_cno(e, DAT_HANDLE_NULL));
    OK(dat_cno_free(c));

    /* A descriptor that is readable while triggered. */
    DAT_FD fd;
    DAT_IA_HANDLE inner;
    OK(dats_get_ia_handle(ia, &inner));
    OK(DAT_CNO_FD_CREATE(inner, &fd, &c));
    OK(dat_evd_modify_cno(e, c));
    OK(dat_cno_query(c, DAT_CNO_FIELD_ALL, &param));
    CHECK(param.proxy_type == DAT_PROXY_TYPE_FD && param.proxy.fd == fd);
    fd_set set;
    struct timeval now = {0, 0}, later = {20, 0};
    FD_ZERO(&set);
    FD_SET(fd, &set);
    CHECK(select(fd + 1, &set, NULL, NULL, &now) == 0);
    WANT(DAT_CNO_TRIGGER(c, &from), DAT_QUEUE_EMPTY, 0);
    OK(dat_evd_post_se(e, &post));
    FD_SET(fd, &set);
    CHECK(select(fd + 1, &set, NULL, NULL, &later) == 1);
    OK(DAT_CNO_TRIGGER(c, &from));
    CHECK(from == e);
    now.tv_usec = 0;
    FD_SET(fd, &set);
    CHECK(select(fd + 1, &set, NULL, NULL, &now) == 0);
}

/* 4.6: dat_ep_create, dat_ep_modify, dat_ep_query. */
static void ep(void)
{
    open_ia();
    DAT_EVD_HANDLE dto = evd_of(DAT_EVD_DTO_FLAG), conn = evd_of(DAT_EVD_CONNECTION_FLAG);
    DAT_EP_ATTR attr = attributes();
    DAT_EP_HANDLE e;
    WANT(dat_ep_create(ia, NOTHING, dto, dto, conn, &attr, &e), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_PZ);
    WANT(dat_ep_create(ia, pz, conn, dto, conn, &attr, &e), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EVD_RECV);
    WANT(dat_ep_create(ia, pz, dto, conn, conn, &attr, &e), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EVD_REQUEST);
    WANT(dat_ep_create(ia, pz, dto, dto, dto, &attr, &e), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EVD_CONN);
    WANT(dat_ep_create(ia, pz, dto, dto, pz, &attr, &e), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EVD_CONN);
    WANT(dat_ep_create(ia, pz, dto, dto, conn, &attr, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG7);
    WANT(dat_ep_create(ia, pz, DAT_HANDLE_NULL, dto, conn, &attr, &e), DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    WANT(dat_ep_create(ia, pz, dto, DAT_HANDLE_NULL, conn, &attr, &e), DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
#define ATTR(field, value, type, subtype)                                                                              \
    do {                                                                                                               \
        attr = attributes();                                                                                           \
        attr.field = (value);                                                                                          \
        WANT(dat_ep_create(ia, pz, dto, dto, conn, &attr, &e), type, subtype);                                         \
    } while (0)
    ATTR(max_recv_dtos, 0, DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    ATTR(max_request_dtos, 0, DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    ATTR(max_request_dtos, -1, DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    ATTR(max_request_dtos, 1 << 30, DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    ATTR(max_recv_iov, 1 << 20, DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    ATTR(max_rdma_read_out, 1 << 20, DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    ATTR(recv_completion_flags, DAT_COMPLETION_SUPPRESS_FLAG, DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    ATTR(service_type, 5, DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    ATTR(qos, DAT_QOS_PREMIUM, DAT_MODEL_NOT_SUPPORTED, 0);
    OK(dat_ep_create(ia, pz, dto, dto, conn, NULL, &e));
    OK(dat_ep_free(e));
    WANT(dat_ep_free(e), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP);
    WANT(dat_ep_free(NOTHING), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP);

    /* Without a zone or a connection dispatcher it is not ready; modify adds them. */
    attr = attributes();
    OK(dat_ep_create(ia, DAT_HANDLE_NULL, dto, dto, DAT_HANDLE_NULL, &attr, &e));
    WANT(connect_to(e, SERVICE, ""), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_NOTREADY);
    DAT_EP_PARAM param;
    memset(&param, 0, sizeof param);
    param.pz_handle = pz;
    param.connect_evd_handle = dto;
    WANT(dat_ep_modify(e, DAT_EP_FIELD_CONNECT_EVD_HANDLE, &param), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EVD_CONN);
    WANT(dat_ep_modify(e, DAT_EP_FIELD_EP_STATE, &param), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    WANT(dat_ep_modify(e, DAT_EP_FIELD_PZ_HANDLE, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    param.connect_evd_handle = conn;
    param.ep_attr.max_request_dtos = 3;
    OK(dat_ep_modify(e, DAT_EP_FIELD_CONNECT_EVD_HANDLE | DAT_EP_FIELD_PZ_HANDLE |
                            DAT_EP_FIELD_EP_ATTR_MAX_REQUEST_DTOS, &param));
    DAT_EP_PARAM now;
    WANT(dat_ep_query(e, DAT_EP_FIELD_ALL, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    OK(dat_ep_query(e, DAT_EP_FIELD_ALL, &now));
    CHECK(now.ia_handle == ia && now.pz_handle == pz && now.connect_evd_handle == conn && now.recv_evd_handle == dto);
    CHECK(now.ep_state == DAT_EP_STATE_UNCONNECTED && now.ep_attr.max_request_dtos == 3);
    CHECK(now.ep_attr.max_recv_dtos == 8 && now.srq_handle == DAT_HANDLE_NULL);

    /* dat_ep_connect's own arguments. */
    struct sockaddr_in address = here();
    DAT_IA_ADDRESS_PTR to = (DAT_IA_ADDRESS_PTR)&address;
    static char data[1000];
    WANT(dat_ep_connect(e, NULL, SERVICE, LONG, 0, NULL, 0, 0), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    WANT(dat_ep_connect(e, to, SERVICE, 0, 0, NULL, 0, 0), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    WANT(dat_ep_connect(e, to, SERVICE, LONG, 1000, data, 0, 0), DAT_INVALID_PARAMETER, DAT_INVALID_ARG5);
    WANT(dat_ep_connect(e, to, SERVICE, LONG, 5, NULL, 0, 0), DAT_INVALID_PARAMETER, DAT_INVALID_ARG6);
    WANT(dat_ep_connect(e, to, SERVICE, LONG, 0, NULL, DAT_QOS_LOW_LATENCY, 0), DAT_MODEL_NOT_SUPPORTED, 0);
    WANT(dat_ep_connect(e, to, SERVICE, LONG, 0, NULL, 0, DAT_CONNECT_MULTIPATH_REQUIRED_FLAG), DAT_MODEL_NOT_SUPPORTED,
         0);
    address.sin_family = AF_UNIX;
    WANT(dat_ep_connect(e, to, SERVICE, LONG, 0, NULL, 0, 0), DAT_INVALID_ADDRESS, DAT_INVALID_ADDRESS_UNSUPPORTED);
    WANT(dat_ep_disconnect(e, 9), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    WANT(dat_ep_disconnect(e, DAT_CLOSE_ABRUPT_FLAG), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_UNCONNECTED);
    OK(dat_ep_reset(e));
    CHECK(state(e) == DAT_EP_STATE_UNCONNECTED);
    WANT(dat_ep_reset(NOTHING), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP);
}

/* 4.6: the life cycle, service points, connection requests. */
static void life(void)
{
    open_ia();
    DAT_PSP_HANDLE psp;
    DAT_RSP_HANDLE rsp;
    DAT_CONN_QUAL any;
    struct side a = side_in(pz), b = side_in(pz);
    requests = evd_of(DAT_EVD_CR_FLAG);
    WANT(dat_psp_create(ia, SERVICE, a.dto, 0, &psp), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EVD_CR);
    WANT(dat_psp_create(ia, SERVICE, requests, 4, &psp), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    WANT(dat_psp_create(ia, SERVICE, requests, 0, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG5);
    WANT(dat_psp_create_any(ia, NULL, requests, 0, &psp), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    serve();
    WANT(dat_psp_create(ia, SERVICE, requests, 0, &psp), DAT_CONN_QUAL_IN_USE, 0);
    OK(dat_psp_create_any(ia, &any, requests, DAT_PSP_CONSUMER_FLAG, &psp));
    DAT_PSP_PARAM about;
    OK(dat_psp_query(psp, DAT_PSP_FIELD_ALL, &about));
    CHECK(about.ia_handle == ia && about.conn_qual == any && about.evd_handle == requests && about.psp_flags == 0);
    OK(dat_psp_free(psp));
    WANT(dat_psp_free(psp), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_PSP);

    /* UNCONNECTED, ACTIVE: rejected, with data, by the peer; by nobody; unreachable. */
    OK(connect_to(a.ep, SERVICE, "please"));
    CHECK(state(a.ep) == DAT_EP_STATE_ACTIVE_CONNECTION_PENDING);
    WANT(connect_to(a.ep, SERVICE, ""), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_ACTCONNPENDING);
    WANT(dat_ep_reset(a.ep), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_ACTCONNPENDING);
    DAT_CR_HANDLE cr = request();
    DAT_CR_PARAM asked;
    OK(dat_cr_query(cr, DAT_CR_FIELD_ALL, &asked));
    CHECK(asked.private_data_size == 6 && !memcmp(asked.private_data, "please", 6));
    CHECK(asked.local_ep_handle == DAT_HANDLE_NULL);
    CHECK(((struct sockaddr_in *)asked.remote_ia_address_ptr)->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    static char data[1000];
    WANT(dat_cr_accept(cr, DAT_HANDLE_NULL, 0, NULL), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP);
    WANT(dat_cr_accept(cr, NOTHING, 0, NULL), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP);
    WANT(dat_cr_accept(cr, a.ep, 0, NULL), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_ACTCONNPENDING);
    WANT(dat_cr_accept(cr, b.ep, 1000, data), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(dat_cr_accept(cr, b.ep, 4, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    OK(dat_cr_reject(cr, 2, (DAT_PVOID) "no"));
    WANT(dat_cr_reject(cr, 0, NULL), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_CR);
    WANT(dat_cr_accept(cr, b.ep, 0, NULL), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_CR);
    DAT_EVENT event = next(a.conn);
    CHECK(event.event_number == DAT_CONNECTION_EVENT_PEER_REJECTED);
    CHECK(event.event_data.connect_event_data.private_data_size == 2);
    CHECK(state(a.ep) == DAT_EP_STATE_DISCONNECTED);
    OK(dat_ep_disconnect(a.ep, DAT_CLOSE_ABRUPT_FLAG));
    WANT(connect_to(a.ep, SERVICE, ""), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_DISCONNECTED);
    OK(dat_ep_reset(a.ep));
    OK(connect_to(a.ep, SERVICE - 1024 + 64512 * 3UL, "")); /* a number that names the same port, which nobody serves */
    CONNECTION(a.conn, DAT_CONNECTION_EVENT_NON_PEER_REJECTED);
    OK(dat_ep_reset(a.ep));
    OK(connect_to(a.ep, SERVICE + 1, ""));
    CONNECTION(a.conn, DAT_CONNECTION_EVENT_UNREACHABLE);
    OK(dat_ep_reset(a.ep));
    /* The time for connecting passes. */
    struct sockaddr_in address = here();
    OK(dat_ep_connect(a.ep, (DAT_IA_ADDRESS_PTR)&address, SERVICE, SECONDS, 0, NULL, 0, 0));
    cr = request();
    CONNECTION(a.conn, DAT_CONNECTION_EVENT_TIMED_OUT);
    OK(dat_ep_reset(a.ep));
    usleep(500000);
    WANT(dat_cr_accept(cr, b.ep, 0, NULL), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_CR);
    CHECK(state(b.ep) == DAT_EP_STATE_UNCONNECTED);
    /* Given up by disconnect. */
    OK(connect_to(a.ep, SERVICE, ""));
    cr = request();
    OK(dat_ep_disconnect(a.ep, DAT_CLOSE_ABRUPT_FLAG));
    CONNECTION(a.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    OK(dat_ep_reset(a.ep));

    /* Connected; then closed by one side, gracefully and abruptly. */
    join(&a, &b);
    CHECK(state(a.ep) == DAT_EP_STATE_CONNECTED && state(b.ep) == DAT_EP_STATE_CONNECTED);
    WANT(connect_to(a.ep, SERVICE, ""), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_CONNECTED);
    WANT(dat_ep_reset(a.ep), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_CONNECTED);
    WANT(dat_ep_modify(a.ep, DAT_EP_FIELD_PZ_HANDLE, &(DAT_EP_PARAM){.pz_handle = pz}), DAT_INVALID_STATE,
         DAT_INVALID_STATE_EP_CONNECTED);
    DAT_EP_PARAM param;
    OK(dat_ep_query(a.ep, DAT_EP_FIELD_ALL, &param));
    CHECK(param.remote_port_qual == SERVICE && param.ep_state == DAT_EP_STATE_CONNECTED);
    CHECK(((struct sockaddr_in *)param.remote_ia_address_ptr)->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    OK(dat_ep_query(b.ep, DAT_EP_FIELD_ALL, &param));
    CHECK(param.local_port_qual == SERVICE);
    struct side twin = side_in(pz), other = side_in(pz);
    OK(dat_ep_dup_connect(twin.ep, a.ep, LONG, 4, (DAT_PVOID) "twin", DAT_QOS_BEST_EFFORT));
    cr = request();
    OK(dat_cr_accept(cr, other.ep, 0, NULL));
    CONNECTION(twin.conn, DAT_CONNECTION_EVENT_ESTABLISHED);
    CONNECTION(other.conn, DAT_CONNECTION_EVENT_ESTABLISHED);
    OK(dat_ep_free(twin.ep)); /* connected: disconnects abruptly */
    CONNECTION(other.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    WANT(dat_ep_dup_connect(other.ep, b.ep, LONG, 0, NULL, 0), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_CONNECTED);
    OK(dat_ep_disconnect(a.ep, DAT_CLOSE_GRACEFUL_FLAG));
    CONNECTION(a.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    CONNECTION(b.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    CHECK(state(a.ep) == DAT_EP_STATE_DISCONNECTED && state(b.ep) == DAT_EP_STATE_DISCONNECTED);
    OK(dat_ep_disconnect(a.ep, DAT_CLOSE_GRACEFUL_FLAG));
    OK(dat_ep_reset(a.ep));
    OK(dat_ep_reset(b.ep));

    /* A send without a receive holds a graceful disconnect up; a second one is refused; an abrupt one ends it. */
    join(&a, &b);
    struct region memory = region(pz, 64, DAT_MEM_PRIV_ALL_FLAG);
    OK(dat_ep_post_send(a.ep, 1, &memory.local, COOKIE(5), PLAIN));
    OK(dat_ep_disconnect(a.ep, DAT_CLOSE_GRACEFUL_FLAG));
    CHECK(state(a.ep) == DAT_EP_STATE_DISCONNECT_PENDING);
    WANT(dat_ep_disconnect(a.ep, DAT_CLOSE_GRACEFUL_FLAG), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    WANT(dat_ep_reset(a.ep), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_DISCPENDING);
    OK(dat_ep_disconnect(a.ep, DAT_CLOSE_ABRUPT_FLAG));
    done(a.dto, 5, DAT_DTO_ERR_FLUSHED);
    CONNECTION(a.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    CONNECTION(b.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    OK(dat_ep_reset(a.ep));
    OK(dat_ep_reset(b.ep));

    /* Reserved service point: RESERVED, PASSIVE, then accepted with the endpoint it brought; it is gone by then. */
    WANT(dat_rsp_create(ia, SERVICE + 5, NOTHING, requests, &rsp), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP);
    WANT(dat_rsp_create(ia, SERVICE + 5, b.ep, a.dto, &rsp), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EVD_CR);
    WANT(dat_rsp_create(ia, SERVICE + 5, b.ep, requests, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG5);
    WANT(dat_rsp_create(ia, SERVICE, b.ep, requests, &rsp), DAT_CONN_QUAL_IN_USE, 0);
    OK(dat_rsp_create(ia, SERVICE + 5, b.ep, requests, &rsp));
    CHECK(state(b.ep) == DAT_EP_STATE_RESERVED);
    WANT(dat_ep_free(b.ep), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_RESERVED);
    WANT(dat_ep_disconnect(b.ep, 0), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_RESERVED);
    WANT(connect_to(b.ep, SERVICE, ""), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_RESERVED);
    WANT(dat_ep_post_send(b.ep, 1, &memory.local, COOKIE(1), PLAIN), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_RESERVED);
    DAT_RSP_PARAM reserved;
    OK(dat_rsp_query(rsp, DAT_RSP_FIELD_ALL, &reserved));
    CHECK(reserved.ep_handle == b.ep && reserved.conn_qual == SERVICE + 5 && reserved.ia_handle == ia);
    OK(dat_rsp_free(rsp));
    CHECK(state(b.ep) == DAT_EP_STATE_UNCONNECTED);
    OK(dat_rsp_create(ia, SERVICE + 5, b.ep, requests, &rsp));
    for (int accepted = 0; accepted < 2; accepted++) {
        OK(connect_to(a.ep, SERVICE + 5, "r"));
        cr = request();
        CHECK(state(b.ep) == DAT_EP_STATE_PASSIVE_CONNECTION_PENDING);
        WANT(dat_ep_free(b.ep), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_PASSCONNPENDING);
        OK(dat_cr_query(cr, DAT_CR_FIELD_ALL, &asked));
        CHECK(asked.local_ep_handle == b.ep);
        WANT(dat_cr_accept(cr, b.ep, 0, NULL), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP); /* it has one */
        WANT(dat_rsp_free(rsp), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_RSP);               /* it has served */
        if (accepted) {
            OK(dat_cr_accept(cr, DAT_HANDLE_NULL, 0, NULL));
            CONNECTION(a.conn, DAT_CONNECTION_EVENT_ESTABLISHED);
            CONNECTION(b.conn, DAT_CONNECTION_EVENT_ESTABLISHED);
        } else {
            OK(dat_cr_reject(cr, 0, NULL));
            CONNECTION(a.conn, DAT_CONNECTION_EVENT_PEER_REJECTED);
            CHECK(state(b.ep) == DAT_EP_STATE_UNCONNECTED);
            OK(dat_ep_reset(a.ep));
            OK(dat_rsp_create(ia, SERVICE + 5, b.ep, requests, &rsp));
        }
    }
    OK(dat_ep_disconnect(a.ep, DAT_CLOSE_ABRUPT_FLAG));
    CONNECTION(a.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    CONNECTION(b.conn, DAT_CONNECTION_EVENT_DISCONNECTED);

    /* The provider makes the endpoint: TENTATIVE, unconfigured; configured it is accepted; rejected it is gone. */
    OK(dat_psp_create(ia, SERVICE + 6, requests, DAT_PSP_PROVIDER_FLAG, &psp));
    for (int accepted = 0; accepted < 2; accepted++) {
        OK(dat_ep_reset(a.ep));
        OK(connect_to(a.ep, SERVICE + 6, "p"));
        cr = request();
        OK(dat_cr_query(cr, DAT_CR_FIELD_ALL, &asked));
        DAT_EP_HANDLE made = asked.local_ep_handle;
        CHECK(made != DAT_HANDLE_NULL && state(made) == DAT_EP_STATE_TENTATIVE_CONNECTION_PENDING);
        WANT(dat_ep_free(made), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_TENTCONNPENDING);
        WANT(dat_ep_disconnect(made, 0), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_TENTCONNPENDING);
        if (accepted) {
            WANT(dat_cr_accept(cr, DAT_HANDLE_NULL, 0, NULL), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_NOTREADY);
            param.pz_handle = pz;
            param.connect_evd_handle = b.conn;
            param.recv_evd_handle = param.request_evd_handle = b.dto;
            OK(dat_ep_modify(made, DAT_EP_FIELD_PZ_HANDLE | DAT_EP_FIELD_CONNECT_EVD_HANDLE |
                                       DAT_EP_FIELD_RECV_EVD_HANDLE | DAT_EP_FIELD_REQUEST_EVD_HANDLE, &param));
            OK(dat_cr_accept(cr, DAT_HANDLE_NULL, 0, NULL));
            CONNECTION(a.conn, DAT_CONNECTION_EVENT_ESTABLISHED);
            event = next(b.conn);
            CHECK(event.event_data.connect_event_data.ep_handle == made);
            OK(dat_ep_free(made));
            CONNECTION(a.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
        } else {
            OK(dat_cr_reject(cr, 0, NULL));
            CONNECTION(a.conn, DAT_CONNECTION_EVENT_PEER_REJECTED);
            WANT(dat_ep_free(made), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP);
        }
    }
    /* The peer goes between accept and establishment. */
    OK(dat_ep_reset(a.ep));
    OK(dat_ep_reset(b.ep));
    OK(connect_to(a.ep, SERVICE, ""));
    cr = request();
    CHECK(state(b.ep) == DAT_EP_STATE_UNCONNECTED);
}

/* 4.7: what a post answers. */
static void dto(void)
{
    open_ia();
    serve();
    struct side a = side_in(pz), b = side_in(pz);
    struct region mine = region(pz, 4096, DAT_MEM_PRIV_ALL_FLAG), theirs = region(pz, 4096, DAT_MEM_PRIV_ALL_FLAG);
    struct region foreign = region(other_pz, 64, DAT_MEM_PRIV_ALL_FLAG);
    struct region readable = region(pz, 64, DAT_MEM_PRIV_LOCAL_READ_FLAG);
    WANT(dat_ep_post_send(NOTHING, 1, &mine.local, COOKIE(1), PLAIN), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP);
    /* A request needs a connection; a receive does not. */
    WANT(dat_ep_post_send(a.ep, 1, &mine.local, COOKIE(1), PLAIN), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_UNCONNECTED);
    WANT(dat_ep_post_rdma_write(a.ep, 1, &mine.local, COOKIE(1), &theirs.remote, PLAIN), DAT_INVALID_STATE,
         DAT_INVALID_STATE_EP_UNCONNECTED);
    WANT(dat_ep_post_rdma_read(a.ep, 1, &mine.local, COOKIE(1), &theirs.remote, PLAIN), DAT_INVALID_STATE,
         DAT_INVALID_STATE_EP_UNCONNECTED);
    DAT_LMR_TRIPLET inbox = theirs.local;
    inbox.virtual_address += 1024;
    inbox.segment_length = 512;
    for (int i = 0; i < 8; i++)
        OK(dat_ep_post_recv(b.ep, 1, &inbox, COOKIE(100 + i), PLAIN));
    WANT(dat_ep_post_recv(b.ep, 1, &inbox, COOKIE(108), PLAIN), DAT_INSUFFICIENT_RESOURCES, DAT_RESOURCE_MEMORY);
    DAT_COUNT posted, span;
    OK(dat_ep_recv_query(b.ep, &posted, &span));
    CHECK(posted == 8 && span == 8);
    WANT(dat_ep_set_watermark(b.ep, 1, 2), DAT_MODEL_NOT_SUPPORTED, 0);
    join(&a, &b);

    DAT_LMR_TRIPLET iov[5] = {mine.local, mine.local, mine.local, mine.local, mine.local}, bad;
    WANT(dat_ep_post_send(a.ep, 5, iov, COOKIE(1), PLAIN), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    WANT(dat_ep_post_send(a.ep, -1, iov, COOKIE(1), PLAIN), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    WANT(dat_ep_post_send(a.ep, 1, NULL, COOKIE(1), PLAIN), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(dat_ep_post_rdma_write(a.ep, 1, iov, COOKIE(1), NULL, PLAIN), DAT_INVALID_PARAMETER, DAT_INVALID_ARG5);
#define EACH(triplet, type, subtype_read, subtype_write)                                                               \
    do {                                                                                                               \
        DAT_LMR_TRIPLET wrong = (triplet);                                                                             \
        WANT(dat_ep_post_send(a.ep, 1, &wrong, COOKIE(1), PLAIN), type, subtype_read);                                 \
        WANT(dat_ep_post_rdma_write(a.ep, 1, &wrong, COOKIE(1), &theirs.remote, PLAIN), type, subtype_read);           \
        WANT(dat_ep_post_rdma_read(a.ep, 1, &wrong, COOKIE(1), &theirs.remote, PLAIN), type, subtype_write);           \
        WANT(dat_ep_post_recv(a.ep, 1, &wrong, COOKIE(1), PLAIN), type, subtype_write);                                \
    } while (0)
    bad = mine.local;
    bad.segment_length++;
    EACH(bad, DAT_INVALID_PARAMETER, DAT_INVALID_ARG3, DAT_INVALID_ARG3);
    bad = mine.local;
    bad.virtual_address--;
    EACH(bad, DAT_INVALID_PARAMETER, DAT_INVALID_ARG3, DAT_INVALID_ARG3);
    EACH(foreign.local, DAT_PROTECTION_VIOLATION, DAT_PROTECTION_READ, DAT_PROTECTION_WRITE);
    bad = mine.local;
    bad.lmr_context ^= 1;
    EACH(bad, DAT_PRIVILEGES_VIOLATION, DAT_PRIVILEGES_READ, DAT_PRIVILEGES_WRITE);
    bad = readable.local;
    WANT(dat_ep_post_recv(a.ep, 1, &bad, COOKIE(1), PLAIN), DAT_PRIVILEGES_VIOLATION, DAT_PRIVILEGES_WRITE);
    WANT(dat_ep_post_rdma_read(a.ep, 1, &bad, COOKIE(1), &theirs.remote, PLAIN), DAT_PRIVILEGES_VIOLATION,
         DAT_PRIVILEGES_WRITE);
    DAT_RMR_TRIPLET less = theirs.remote;
    less.segment_length = 100;
    WANT(dat_ep_post_rdma_write(a.ep, 1, &mine.local, COOKIE(1), &less, PLAIN), DAT_LENGTH_ERROR, 0);
    bad = mine.local;
    bad.segment_length = 10;
    WANT(dat_ep_post_rdma_read(a.ep, 1, &bad, COOKIE(1), &less, PLAIN), DAT_LENGTH_ERROR, 0);
    const int unsignalled = DAT_COMPLETION_UNSIGNALLED_FLAG;
    WANT(dat_ep_post_rdma_write(a.ep, 1, &mine.local, COOKIE(1), &theirs.remote, unsignalled), DAT_INVALID_PARAMETER,
         DAT_INVALID_ARG6);
    WANT(dat_ep_post_rdma_read(a.ep, 1, &mine.local, COOKIE(1), &theirs.remote, unsignalled), DAT_INVALID_PARAMETER,
         DAT_INVALID_ARG6);
    WANT(dat_ep_post_send(a.ep, 1, &mine.local, COOKIE(1), unsignalled), DAT_INVALID_PARAMETER, DAT_INVALID_ARG5);
    WANT(dat_ep_post_recv(a.ep, 1, &mine.local, COOKIE(1), unsignalled), DAT_INVALID_PARAMETER, DAT_INVALID_ARG5);
    WANT(dat_ep_post_send(a.ep, 1, &mine.local, COOKIE(1), 0x80), DAT_INVALID_PARAMETER, DAT_INVALID_ARG5);

    /* The endpoint is usable after all that: a write in pieces, a read, a send, in order; a suppressed one is silent. */
    for (int i = 0; i < 64; i++)
        mine.bytes[i] = (char)i;
    DAT_LMR_TRIPLET pieces[3] = {mine.local, {0, 0, 0}, mine.local};
    pieces[0].segment_length = 3;
    pieces[2].virtual_address += 10;
    pieces[2].segment_length = 5;
    less.segment_length = 8;
    OK(dat_ep_post_rdma_write(a.ep, 3, pieces, COOKIE(1), &less, PLAIN));
    OK(dat_ep_post_rdma_write(a.ep, 1, pieces, COOKIE(2), &less, DAT_COMPLETION_SUPPRESS_FLAG));
    DAT_LMR_TRIPLET back = mine.local;
    back.virtual_address += 2000;
    back.segment_length = 8;
    OK(dat_ep_post_rdma_read(a.ep, 1, &back, COOKIE(3), &less, DAT_COMPLETION_BARRIER_FENCE_FLAG));
    OK(dat_ep_post_send(a.ep, 1, &pieces[2], COOKIE(4), DAT_COMPLETION_SOLICITED_WAIT_FLAG));
    DAT_DTO_COMPLETION_EVENT_DATA data = done(a.dto, 1, DAT_DTO_SUCCESS);
    CHECK(data.ep_handle == a.ep && data.transfered_length == 8 && data.operation == DAT_DTO_RDMA_WRITE);
    data = done(a.dto, 3, DAT_DTO_SUCCESS);
    CHECK(data.operation == DAT_DTO_RDMA_READ && data.transfered_length == 8);
    CHECK(!memcmp(mine.bytes + 2000, (char[]){0, 1, 2, 10, 11, 12, 13, 14}, 8));
    data = done(a.dto, 4, DAT_DTO_SUCCESS);
    CHECK(data.operation == DAT_DTO_SEND);
    data = done(b.dto, 100, DAT_DTO_SUCCESS);
    CHECK(data.ep_handle == b.ep && data.transfered_length == 5 && data.operation == DAT_DTO_RECEIVE);
    CHECK(theirs.bytes[1024] == 10 && theirs.bytes[1028] == 14);
    /* Of no bytes: nothing is looked at. */
    DAT_RMR_TRIPLET nowhere = {1, 0, 99};
    DAT_LMR_TRIPLET empty = {1, 0, 99};
    OK(dat_ep_post_rdma_write(a.ep, 1, &empty, COOKIE(5), &nowhere, PLAIN));
    OK(dat_ep_post_rdma_read(a.ep, 0, NULL, COOKIE(6), &nowhere, PLAIN));
    OK(dat_ep_post_send(a.ep, 0, NULL, COOKIE(7), PLAIN));
    done(a.dto, 5, DAT_DTO_SUCCESS);
    done(a.dto, 6, DAT_DTO_SUCCESS);
    done(a.dto, 7, DAT_DTO_SUCCESS);
    CHECK(done(b.dto, 101, DAT_DTO_SUCCESS).transfered_length == 0);
    /* More requests than it was made for: sends that wait for receives of the other side. */
    for (int i = 0; i < 8; i++)
        OK(dat_ep_post_send(b.ep, 0, NULL, COOKIE(200 + i), PLAIN));
    WANT(dat_ep_post_send(b.ep, 0, NULL, COOKIE(208), PLAIN), DAT_INSUFFICIENT_RESOURCES, DAT_RESOURCE_MEMORY);
    /* Disconnected: everything is flushed; posts are accepted and flushed. */
    OK(dat_ep_disconnect(b.ep, DAT_CLOSE_ABRUPT_FLAG));
    for (int i = 0; i < 8; i++)
        done(b.dto, 200 + i, DAT_DTO_ERR_FLUSHED);
    for (int i = 2; i < 8; i++)
        done(b.dto, 100 + i, DAT_DTO_ERR_FLUSHED);
    CONNECTION(b.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    CONNECTION(a.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    OK(dat_ep_post_send(a.ep, 1, &mine.local, COOKIE(8), DAT_COMPLETION_SUPPRESS_FLAG));
    done(a.dto, 8, DAT_DTO_ERR_FLUSHED);
    OK(dat_ep_post_recv(a.ep, 1, &mine.local, COOKIE(9), PLAIN));
    done(a.dto, 9, DAT_DTO_ERR_FLUSHED);
}

/* 5: what the target refuses, and rule 8 of 4.7. Each ends the connection: what is before is done, what is behind
 * flushed; not a byte is stored. */
static void faults(void)
{
    open_ia();
    serve();
    struct region mine = region(pz, 256, DAT_MEM_PRIV_ALL_FLAG), theirs = region(pz, 256, DAT_MEM_PRIV_ALL_FLAG);
    struct region foreign = region(other_pz, 256, DAT_MEM_PRIV_ALL_FLAG);
    struct region no_read = region(pz, 256, 0x31), no_write = region(pz, 256, 0x13), gone = region(pz, 256, 0x33);
    struct region local = region(pz, 256, 0x11);
    OK(dat_lmr_free(gone.lmr));
    struct { DAT_RMR_TRIPLET remote; int read; } bad[10];
    int count = 0;
#define BAD(triplet, is_read) bad[count].remote = (triplet), bad[count++].read = (is_read)
    BAD(foreign.remote, 0);                          /* rule 3: another zone */
    BAD(no_read.remote, 1);                          /* rule 4: the right */
    BAD(no_write.remote, 0);
    BAD(gone.remote, 0);                             /* rule 2: freed */
    DAT_RMR_TRIPLET never = theirs.remote, past = theirs.remote, before = theirs.remote, wrap = theirs.remote;
    DAT_RMR_TRIPLET hidden = {local.local.virtual_address, 256, local.local.lmr_context};
    never.rmr_context += 0x100000;
    past.virtual_address += 1;                       /* rule 5: bounds */
    before.virtual_address -= 1;
    wrap.virtual_address = UINT64_MAX - 10;
    BAD(never, 1);
    BAD(past, 0);
    BAD(before, 1);
    BAD(wrap, 0);
    BAD(hidden, 1);                                  /* no remote right at all */
    for (int i = 0; i < count; i++) {
        struct side a = side_in(pz), b = side_in(pz);
        join(&a, &b);
        memset(theirs.bytes, 1, 256);
        memset(foreign.bytes, 1, 256);
        memset(no_write.bytes, 1, 256);
        memset(mine.bytes, 2, 256);
        DAT_RMR_TRIPLET good = theirs.remote;
        OK(dat_ep_post_recv(b.ep, 1, &theirs.local, COOKIE(9), PLAIN));
        OK(dat_ep_post_rdma_write(a.ep, 0, NULL, COOKIE(1), &good, PLAIN));
        if (bad[i].read)
            OK(dat_ep_post_rdma_read(a.ep, 1, &mine.local, COOKIE(2), &bad[i].remote, PLAIN));
        else
            OK(dat_ep_post_rdma_write(a.ep, 1, &mine.local, COOKIE(2), &bad[i].remote, PLAIN));
        DAT_RETURN behind = dat_ep_post_rdma_write(a.ep, 1, &mine.local, COOKIE(3), &good, PLAIN);
        done(a.dto, 1, DAT_DTO_SUCCESS);
        done(a.dto, 2, DAT_DTO_ERR_REMOTE_ACCESS);
        OK(behind);
        done(a.dto, 3, DAT_DTO_ERR_FLUSHED);
        CONNECTION(a.conn, DAT_CONNECTION_EVENT_BROKEN);
        CONNECTION(b.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
        done(b.dto, 9, DAT_DTO_ERR_FLUSHED);
        CHECK(state(a.ep) == DAT_EP_STATE_DISCONNECTED && state(b.ep) == DAT_EP_STATE_DISCONNECTED);
        for (int byte = 0; byte < 256; byte++)
            CHECK(theirs.bytes[byte] == 1 && foreign.bytes[byte] == 1 && no_write.bytes[byte] == 1 &&
                  mine.bytes[byte] == 2);
        OK(dat_ep_free(a.ep));
        OK(dat_ep_free(b.ep));
    }
    /* A message longer than its receive. */
    struct side a = side_in(pz), b = side_in(pz);
    join(&a, &b);
    DAT_LMR_TRIPLET small = theirs.local;
    small.segment_length = 10;
    OK(dat_ep_post_recv(b.ep, 1, &small, COOKIE(1), PLAIN));
    OK(dat_ep_post_send(a.ep, 1, &mine.local, COOKIE(2), PLAIN));
    done(b.dto, 1, DAT_DTO_ERR_LOCAL_LENGTH);
    done(a.dto, 2, DAT_DTO_ERR_REMOTE_RESPONDER);
    CONNECTION(a.conn, DAT_CONNECTION_EVENT_BROKEN);
    CONNECTION(b.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
}

static DAT_RETURN bind_to(DAT_RMR_HANDLE rmr, DAT_LMR_HANDLE of, DAT_LMR_TRIPLET part, int priv, DAT_EP_HANDLE ep,
                       DAT_UINT64 cookie, int flags, DAT_RMR_CONTEXT *context)
{
    return dat_rmr_bind(rmr, of, &part, (DAT_MEM_PRIV_FLAGS)priv, DAT_VA_TYPE_VA, ep, COOKIE(cookie),
                        (DAT_COMPLETION_FLAGS)flags, context);
}

static void bound(DAT_EVD_HANDLE evd, DAT_RMR_HANDLE rmr, DAT_UINT64 cookie, int status)
{
    DAT_EVENT event = next(evd);
    CHECK(event.event_number == DAT_RMR_BIND_COMPLETION_EVENT);
    DAT_RMR_BIND_COMPLETION_EVENT_DATA data = event.event_data.rmr_completion_event_data;
    CHECK(data.rmr_handle == rmr && data.user_cookie.as_64 == cookie && (int)data.status == status);
}

/* 4.4: the table of binds, and what a window is good for. */
static void rmr(void)
{
    open_ia();
    serve();
    struct side a = side_in(pz), b = side_in(pz), c = side_in(pz), d = side_in(pz);
    struct region mine = region(pz, 256, DAT_MEM_PRIV_ALL_FLAG);
    struct region window = region(pz, 256, 0x11); /* no remote right: the window gives them */
    struct region foreign = region(other_pz, 256, 0x11), no_write = region(pz, 256, 0x01), no_read = region(pz, 256, 0x10);
    DAT_RMR_HANDLE r, in_other_pz, gone;
    DAT_RMR_CONTEXT first, second, context;
    WANT(dat_rmr_create(NOTHING, &r), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_PZ);
    WANT(dat_rmr_create(pz, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    OK(dat_rmr_create(pz, &r));
    OK(dat_rmr_create(pz, &gone));
    OK(dat_rmr_free(gone));
    OK(dat_rmr_create(other_pz, &in_other_pz));
    DAT_LMR_TRIPLET part = window.local;
    part.virtual_address += 16;
    part.segment_length = 32;
    const int rw = 0x22;
    WANT(bind_to(gone, window.lmr, part, rw, b.ep, 1, 0, &context), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_RMR);
    WANT(bind_to(r, NOTHING, part, rw, b.ep, 1, 0, &context), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_LMR);
    WANT(bind_to(r, window.lmr, part, rw, NOTHING, 1, 0, &context), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP);
    WANT(bind_to(r, window.lmr, part, rw, b.ep, 1, 0, &context), DAT_INVALID_STATE, DAT_INVALID_STATE_EP_UNCONNECTED);
    join(&a, &b);
    join(&c, &d);
    DAT_LMR_TRIPLET outside = part;
    outside.segment_length = 241;
    WANT(bind_to(r, window.lmr, outside, rw, b.ep, 1, 0, &context), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(bind_to(r, mine.lmr, part, rw, b.ep, 1, 0, &context), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(bind_to(r, foreign.lmr, foreign.local, rw, b.ep, 1, 0, &context), DAT_PROTECTION_VIOLATION, 0);
    WANT(bind_to(in_other_pz, window.lmr, part, rw, b.ep, 1, 0, &context), DAT_PROTECTION_VIOLATION, 0);
    WANT(bind_to(in_other_pz, foreign.lmr, foreign.local, rw, b.ep, 1, 0, &context), DAT_PROTECTION_VIOLATION, 0);
    WANT(bind_to(r, no_read.lmr, no_read.local, 0x02, b.ep, 1, 0, &context), DAT_PRIVILEGES_VIOLATION, DAT_PRIVILEGES_READ);
    WANT(bind_to(r, no_write.lmr, no_write.local, 0x20, b.ep, 1, 0, &context), DAT_PRIVILEGES_VIOLATION,
         DAT_PRIVILEGES_WRITE);
    WANT(bind_to(r, window.lmr, part, rw, b.ep, 1, DAT_COMPLETION_UNSIGNALLED_FLAG, &context), DAT_INVALID_PARAMETER,
         DAT_INVALID_ARG8);
    WANT(bind_to(r, window.lmr, part, 0x800, b.ep, 1, 0, &context), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    for (int i = 0; i < 8; i++)
        OK(dat_ep_post_send(d.ep, 0, NULL, COOKIE(50 + i), PLAIN)); /* nobody receives */
    WANT(bind_to(r, window.lmr, part, rw, d.ep, 1, 0, &context), DAT_INSUFFICIENT_RESOURCES, DAT_RESOURCE_MEMORY);

    /* Bound: peers write and read through the new context, inside the window only. */
    OK(bind_to(r, window.lmr, part, rw, b.ep, 1, 0, &first));
    bound(b.dto, r, 1, DAT_DTO_SUCCESS);
    DAT_RMR_PARAM param;
    OK(dat_rmr_query(r, DAT_RMR_FIELD_ALL, &param));
    CHECK(param.ia_handle == ia && param.pz_handle == pz && param.rmr_context == first && param.mem_priv == rw);
    CHECK(param.lmr_triplet.virtual_address == part.virtual_address && param.lmr_triplet.segment_length == 32);
    WANT(dat_rmr_query(r, DAT_RMR_FIELD_ALL, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(dat_lmr_free(window.lmr), DAT_INVALID_STATE, DAT_INVALID_STATE_LMR_IN_USE);
    DAT_RMR_TRIPLET to = {part.virtual_address, 32, first};
    DAT_LMR_TRIPLET from = mine.local;
    from.segment_length = 32;
    memset(mine.bytes, 7, 256);
    OK(dat_ep_post_rdma_write(a.ep, 1, &from, COOKIE(2), &to, PLAIN));
    done(a.dto, 2, DAT_DTO_SUCCESS);
    CHECK(window.bytes[15] == 0 && window.bytes[16] == 7 && window.bytes[47] == 7 && window.bytes[48] == 0);
    /* Bound again: a new context, and the old one dies. What is posted behind the bind starts after it. */
    OK(bind_to(r, window.lmr, part, 0x02, b.ep, 3, DAT_COMPLETION_SUPPRESS_FLAG, &second));
    CHECK(second != first && second != 0);
    OK(dat_ep_post_recv(a.ep, 0, NULL, COOKIE(4), PLAIN));
    OK(dat_ep_post_send(b.ep, 0, NULL, COOKIE(5), PLAIN));
    done(b.dto, 5, DAT_DTO_SUCCESS);
    done(a.dto, 4, DAT_DTO_SUCCESS);
    to.rmr_context = second;
    OK(dat_ep_post_rdma_read(a.ep, 1, &from, COOKIE(6), &to, PLAIN));
    done(a.dto, 6, DAT_DTO_SUCCESS);
    OK(dat_ep_post_rdma_write(c.ep, 1, &from, COOKIE(7), &to, PLAIN)); /* any endpoint of the zone, but no such right */
    done(c.dto, 7, DAT_DTO_ERR_REMOTE_ACCESS);
    CONNECTION(c.conn, DAT_CONNECTION_EVENT_BROKEN);
    CONNECTION(d.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    for (int i = 0; i < 8; i++)
        done(d.dto, 50 + i, DAT_DTO_ERR_FLUSHED);
    /* Disconnected: accepted, and flushed. */
    OK(bind_to(r, window.lmr, part, 0x02, d.ep, 8, 0, &context));
    bound(d.dto, r, 8, DAT_DTO_ERR_FLUSHED);
    OK(dat_rmr_query(r, DAT_RMR_FIELD_ALL, &param));
    CHECK(param.rmr_context == second);

    /* 73, 74: a read into a window of one's own; a message that ends one of the peer's. */
    DAT_RMR_HANDLE sink;
    DAT_RMR_CONTEXT into;
    OK(dat_rmr_create(pz, &sink));
    struct region landing = region(pz, 64, 0x11);
    OK(bind_to(sink, landing.lmr, landing.local, rw, a.ep, 9, 0, &into));
    bound(a.dto, sink, 9, DAT_DTO_SUCCESS);
    DAT_RMR_TRIPLET here_it_goes = {landing.local.virtual_address, 32, into}, wrong = here_it_goes;
    OK(DAT_EP_POST_RDMA_READ_TO_RMR(a.ep, &here_it_goes, COOKIE(10), &to, PLAIN));
    done(a.dto, 10, DAT_DTO_SUCCESS);
    CHECK(landing.bytes[0] == 7 && landing.bytes[31] == 7 && landing.bytes[32] == 0);
    wrong.rmr_context = mine.local.lmr_context;
    wrong.virtual_address = mine.local.virtual_address;
    WANT(DAT_EP_POST_RDMA_READ_TO_RMR(a.ep, &wrong, COOKIE(10), &to, PLAIN), DAT_PRIVILEGES_VIOLATION,
         DAT_PRIVILEGES_RDMA_WRITE);
    wrong = here_it_goes;
    wrong.virtual_address += 40;
    WANT(DAT_EP_POST_RDMA_READ_TO_RMR(a.ep, &wrong, COOKIE(10), &to, PLAIN), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    OK(dat_ep_post_recv(a.ep, 0, NULL, COOKIE(11), PLAIN));
    OK(DAT_EP_POST_SEND_WITH_INVALIDATE(b.ep, 0, NULL, COOKIE(12), PLAIN, DAT_TRUE, into));
    done(b.dto, 12, DAT_DTO_SUCCESS);
    DAT_DTO_COMPLETION_EVENT_DATA data = done(a.dto, 11, DAT_DTO_SUCCESS);
    CHECK(data.operation == DAT_DTO_RECEIVE_WITH_INVALIDATE && data.rmr_context == into);
    WANT(DAT_EP_POST_RDMA_READ_TO_RMR(a.ep, &here_it_goes, COOKIE(10), &to, PLAIN), DAT_PRIVILEGES_VIOLATION,
         DAT_PRIVILEGES_RDMA_WRITE);
    OK(dat_lmr_free(landing.lmr));
    OK(dat_rmr_free(sink));

    /* 72: a window for one endpoint is for that endpoint. */
    struct side e = side_in(pz), f = side_in(pz);
    join(&e, &f);
    DAT_RMR_HANDLE scoped;
    OK(DAT_RMR_CREATE_FOR_EP(pz, &scoped));
    OK(bind_to(scoped, window.lmr, part, rw, b.ep, 13, 0, &context));
    bound(b.dto, scoped, 13, DAT_DTO_SUCCESS);
    OK(dat_rmr_query(scoped, DAT_RMR_FIELD_ALL, &param));
    CHECK(param.rmr_scope == DAT_RMR_SCOPE_EP);
    to.rmr_context = context;
    OK(dat_ep_post_rdma_read(a.ep, 1, &from, COOKIE(14), &to, PLAIN));
    done(a.dto, 14, DAT_DTO_SUCCESS);
    OK(dat_ep_post_rdma_read(e.ep, 1, &from, COOKIE(15), &to, PLAIN));
    done(e.dto, 15, DAT_DTO_ERR_REMOTE_ACCESS);
    CONNECTION(e.conn, DAT_CONNECTION_EVENT_BROKEN);

    /* Unbound by a bind of no bytes; a window that is freed is unbound; then the region is free. */
    part.segment_length = 0;
    OK(bind_to(scoped, window.lmr, part, 0, b.ep, 16, 0, &context));
    bound(b.dto, scoped, 16, DAT_DTO_SUCCESS);
    WANT(dat_lmr_free(window.lmr), DAT_INVALID_STATE, DAT_INVALID_STATE_LMR_IN_USE);
    OK(dat_rmr_free(r));
    WANT(dat_rmr_free(r), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_RMR);
    /* A bind that fails after it was posted breaks the connection: its region goes meanwhile. */
    OK(dat_ep_post_send(b.ep, 0, NULL, COOKIE(17), PLAIN)); /* nobody receives: the bind waits */
    part.segment_length = 8;
    OK(bind_to(scoped, window.lmr, part, rw, b.ep, 18, 0, &context));
    OK(dat_lmr_free(window.lmr));
    OK(dat_ep_post_recv(a.ep, 0, NULL, COOKIE(19), PLAIN));
    done(b.dto, 17, DAT_DTO_SUCCESS);
    bound(b.dto, scoped, 18, DAT_RMR_OPERATION_FAILED);
    CONNECTION(b.conn, DAT_CONNECTION_EVENT_BROKEN);
    CONNECTION(a.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    OK(dat_rmr_free(scoped));
}

/* Shared receive queues; 4.7: a receive on an endpoint that has one. */
static void srq(void)
{
    open_ia();
    serve();
    DAT_SRQ_HANDLE q;
    DAT_SRQ_ATTR attr = {4, 4, 0}, wrong = attr;
    WANT(dat_srq_create(ia, NOTHING, &attr, &q), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_PZ);
    WANT(dat_srq_create(ia, pz, NULL, &q), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(dat_srq_create(ia, pz, &attr, NULL), DAT_INVALID_PARAMETER, DAT_INVALID_ARG4);
    wrong.max_recv_dtos = 0;
    WANT(dat_srq_create(ia, pz, &wrong, &q), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    wrong = attr;
    wrong.max_recv_iov = 1000;
    WANT(dat_srq_create(ia, pz, &wrong, &q), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    wrong = attr;
    wrong.low_watermark = 1;
    WANT(dat_srq_create(ia, pz, &wrong, &q), DAT_MODEL_NOT_SUPPORTED, 0);
    OK(dat_srq_create(ia, pz, &attr, &q));
    WANT(dat_srq_set_lw(q, 1), DAT_MODEL_NOT_SUPPORTED, 0);
    WANT(dat_srq_free(NOTHING), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_SRQ);

    struct region memory = region(pz, 4096, DAT_MEM_PRIV_ALL_FLAG);
    DAT_EP_ATTR of = attributes();
    struct side a[2] = {side_in(pz), side_in(pz)}, b[2];
    for (int i = 0; i < 2; i++) {
        b[i] = side_in(pz);
        OK(dat_ep_free(b[i].ep));
        WANT(dat_ep_create_with_srq(ia, pz, b[i].dto, b[i].dto, b[i].conn, NOTHING, &of, &b[i].ep), DAT_INVALID_HANDLE,
             DAT_INVALID_HANDLE_SRQ);
        WANT(dat_ep_create_with_srq(ia, other_pz, b[i].dto, b[i].dto, b[i].conn, q, &of, &b[i].ep), DAT_INVALID_PARAMETER,
             DAT_INVALID_ARG7);
        OK(dat_ep_create_with_srq(ia, pz, b[i].dto, b[i].dto, b[i].conn, q, &of, &b[i].ep));
    }
    WANT(dat_srq_free(q), DAT_INVALID_STATE, DAT_INVALID_STATE_SRQ_IN_USE);
    WANT(dat_ep_post_recv(b[0].ep, 1, &memory.local, COOKIE(1), PLAIN), DAT_INVALID_STATE, DAT_INVALID_STATE_SRQ_IN_USE);
    join(&a[0], &b[0]);
    join(&a[1], &b[1]);
    /* Sends of both wait; receives are promised in the order of asking, and a message takes one. */
    DAT_LMR_TRIPLET word = memory.local;
    word.segment_length = 8;
    OK(dat_ep_post_send(a[0].ep, 1, &word, COOKIE(1), PLAIN));
    usleep(100000);
    OK(dat_ep_post_send(a[1].ep, 1, &word, COOKIE(2), PLAIN));
    usleep(100000);
    OK(dat_srq_post_recv(q, 1, &memory.local, COOKIE(10)));
    done(a[0].dto, 1, DAT_DTO_SUCCESS);
    DAT_DTO_COMPLETION_EVENT_DATA data = done(b[0].dto, 10, DAT_DTO_SUCCESS);
    CHECK(data.ep_handle == b[0].ep && data.transfered_length == 8);
    OK(dat_srq_post_recv(q, 1, &memory.local, COOKIE(11)));
    done(a[1].dto, 2, DAT_DTO_SUCCESS);
    data = done(b[1].dto, 11, DAT_DTO_SUCCESS);
    CHECK(data.ep_handle == b[1].ep);
    for (int i = 0; i < 4; i++)
        OK(dat_srq_post_recv(q, 1, &memory.local, COOKIE(20 + i)));
    WANT(dat_srq_post_recv(q, 1, &memory.local, COOKIE(24)), DAT_INSUFFICIENT_RESOURCES, DAT_RESOURCE_MEMORY);
    DAT_LMR_TRIPLET bad = memory.local;
    bad.lmr_context ^= 1;
    WANT(dat_srq_resize(q, 3), DAT_INVALID_STATE, 0);
    WANT(dat_srq_resize(q, 0), DAT_INVALID_PARAMETER, DAT_INVALID_ARG2);
    OK(dat_srq_resize(q, 5));
    WANT(dat_srq_post_recv(q, 1, &bad, COOKIE(24)), DAT_PRIVILEGES_VIOLATION, DAT_PRIVILEGES_WRITE);
    DAT_SRQ_PARAM param;
    OK(dat_srq_query(q, DAT_SRQ_FIELD_ALL, &param));
    CHECK(param.ia_handle == ia && param.pz_handle == pz && param.max_recv_dtos == 5);
    CHECK(param.available_dto_count == 4 && param.srq_state == DAT_SRQ_STATE_OPERATIONAL);
    /* One that goes gives back what it was promised: the other gets all the messages through. */
    for (int i = 0; i < 3; i++) {
        OK(dat_ep_post_send(a[1].ep, 1, &word, COOKIE(30 + i), PLAIN));
        done(a[1].dto, 30 + i, DAT_DTO_SUCCESS);
        done(b[1].dto, 20 + i, DAT_DTO_SUCCESS);
    }
    OK(dat_ep_disconnect(a[1].ep, DAT_CLOSE_ABRUPT_FLAG));
    CONNECTION(b[1].conn, DAT_CONNECTION_EVENT_DISCONNECTED);
    DAT_EVENT ended = next(async); /* it takes no more of the queue's receives */
    CHECK(ended.event_number == DAT_ASYNC_ERROR_EP_BROKEN);
    CHECK(ended.event_data.asynch_error_event_data.dat_handle == b[1].ep);
    OK(dat_ep_post_send(a[0].ep, 1, &word, COOKIE(40), PLAIN));
    done(a[0].dto, 40, DAT_DTO_SUCCESS);
    done(b[0].dto, 23, DAT_DTO_SUCCESS);
    OK(dat_ep_free(b[0].ep));
    OK(dat_ep_free(b[1].ep));
    OK(dat_srq_free(q));
    WANT(dat_srq_free(q), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_SRQ);
}

static void atomically(DAT_EVD_HANDLE evd, DAT_UINT64 cookie, int type, int status)
{
    DAT_EVENT event = next(evd);
    DAT_IB_EXTENSION_EVENT_DATA *extension = (DAT_IB_EXTENSION_EVENT_DATA *)event.event_extension_data;
    CHECK(event.event_number == (DAT_EVENT_NUMBER)DAT_IB_DTO_EVENT && (int)extension->type == type);
    CHECK(event.event_data.dto_completion_event_data.user_cookie.as_64 == cookie);
    CHECK((int)event.event_data.dto_completion_event_data.status == status);
}

/* 8, and rules 4 and 6 of 5. */
static void atomics(void)
{
    open_ia();
    serve();
    struct side a = side_in(pz), b = side_in(pz);
    struct region mine = region(pz, 64, DAT_MEM_PRIV_ALL_FLAG), theirs = region(pz, 64, 0x73), plain = region(pz, 64, 0x33);
    DAT_LMR_TRIPLET to = mine.local;
    DAT_RMR_TRIPLET word = theirs.remote;
    to.segment_length = word.segment_length = 8;
    WANT(dat_ib_post_fetch_and_add(NOTHING, 1, &to, COOKIE(1), &word, PLAIN), DAT_INVALID_HANDLE, DAT_INVALID_HANDLE_EP);
    WANT(dat_ib_post_fetch_and_add(a.ep, 1, &to, COOKIE(1), &word, PLAIN), DAT_INVALID_STATE,
         DAT_INVALID_STATE_EP_UNCONNECTED);
    join(&a, &b);
    DAT_UINT64 *before = (DAT_UINT64 *)mine.bytes, *value = (DAT_UINT64 *)theirs.bytes;
    *value = 0x100000000000000aUL;
    WANT(dat_ib_post_fetch_and_add(a.ep, 1, NULL, COOKIE(1), &word, PLAIN), DAT_INVALID_PARAMETER, DAT_INVALID_ARG3);
    WANT(dat_ib_post_fetch_and_add(a.ep, 1, &to, COOKIE(1), NULL, PLAIN), DAT_INVALID_PARAMETER, DAT_INVALID_ARG5);
    WANT(dat_ib_post_fetch_and_add(a.ep, 1, &mine.local, COOKIE(1), &word, PLAIN), DAT_LENGTH_ERROR, 0);
    OK(dat_ib_post_fetch_and_add(a.ep, 0x2000000000000005UL, &to, COOKIE(1), &word, PLAIN));
    atomically(a.dto, 1, DAT_IB_FETCH_AND_ADD, DAT_DTO_SUCCESS);
    CHECK(*before == 0x100000000000000aUL && *value == 0x300000000000000fUL);
    OK(dat_ib_post_cmp_and_swap(a.ep, 0x300000000000000fUL, 77, &to, COOKIE(2), &word, PLAIN));
    atomically(a.dto, 2, DAT_IB_CMP_AND_SWAP, DAT_DTO_SUCCESS);
    CHECK(*before == 0x300000000000000fUL && *value == 77);
    OK(dat_ib_post_cmp_and_swap(a.ep, 76, 78, &to, COOKIE(3), &word, PLAIN));
    atomically(a.dto, 3, DAT_IB_CMP_AND_SWAP, DAT_DTO_SUCCESS);
    CHECK(*before == 77 && *value == 77);
    /* Without the right; not aligned. */
    DAT_RMR_TRIPLET bad[2] = {plain.remote, word};
    bad[0].segment_length = 8;
    bad[1].virtual_address += 4;
    for (int i = 0; i < 2; i++) {
        struct side c = side_in(pz), d = side_in(pz);
        join(&c, &d);
        OK(dat_ib_post_fetch_and_add(c.ep, 1, &to, COOKIE(4), &bad[i], PLAIN));
        atomically(c.dto, 4, DAT_IB_FETCH_AND_ADD, i ? DAT_DTO_ERR_REMOTE_RESPONDER : DAT_DTO_ERR_REMOTE_ACCESS);
        CONNECTION(c.conn, DAT_CONNECTION_EVENT_BROKEN);
        CONNECTION(d.conn, DAT_CONNECTION_EVENT_DISCONNECTED);
        CHECK(*value == 77);
    }
}

/* 3.3: slots for what is not offered answer so. */
static void slots(void)
{
    open_ia();
    DAT_IA_HANDLE inner;
    OK(dats_get_ia_handle(ia, &inner));
    DAT_CSP_HANDLE csp;
    DAT_CSP_PARAM about;
    DAT_COMM comm = {0, 0, 0};
    struct sockaddr_in address = here();
    struct side side = side_in(pz);
    WANT(DAT_CSP_CREATE(inner, &comm, (DAT_IA_ADDRESS_PTR)&address, side.conn, &csp), DAT_NOT_IMPLEMENTED, 0);
    WANT(DAT_CSP_QUERY(side.ep, DAT_CSP_FIELD_ALL, &about), DAT_NOT_IMPLEMENTED, 0);
    WANT(DAT_CSP_FREE(side.ep), DAT_NOT_IMPLEMENTED, 0);
    WANT(DAT_EP_COMMON_CONNECT(side.ep, (DAT_IA_ADDRESS_PTR)&address, LONG, 0, NULL), DAT_MODEL_NOT_SUPPORTED, 0);
    WANT(dat_extension_op(side.ep, DAT_IB_RDMA_WRITE_IMMED_OP, 0), DAT_NOT_IMPLEMENTED, 0);
    DAT_BOOLEAN related = DAT_TRUE;
    DAT_PROVIDER *table = *(DAT_PROVIDER **)inner;
    OK(table->ia_ha_related_func(inner, (char *)"windlass", &related));
    CHECK(!related && !strcmp(table->device_name, "windlass"));
    /* Every slot is filled. */
    void **slot = (void **)table;
    for (size_t i = 2; i < sizeof *table / sizeof *slot; i++)
        CHECK(slot[i] != NULL);
    CHECK(sizeof *table == 648);
}

int main(int count, char **words)
{
    static const struct { const char *name; void (*run)(void); } sections[] = {
        {"ia_and_pz", ia_and_pz}, {"lmr", lmr},   {"shared_virtual", shared_virtual}, {"evd", evd}, {"cno", cno}, {"ep", ep},
        {"life", life},           {"dto", dto},   {"faults", faults}, {"rmr", rmr},   {"srq", srq}, {"atomics", atomics}, {"slots", slots},
    };
    alarm(280);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        if (count == 2 && !strcmp(words[1], sections[i].name)) {
            sections[i].run();
            if (ia)
                OK(dat_ia_close(ia, DAT_CLOSE_ABRUPT_FLAG));
            return 0;
        }
    fprintf(stderr, "dat_rows SECTION\n");
    return 2;
}

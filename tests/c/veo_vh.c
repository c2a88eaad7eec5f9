/* The VH program of tests/c_veo.rs: veo_vh TEST LIBRARY [...]. */
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ve_offload.h"
#include "veo_check.h"

#define MIB (1UL << 20)

static const char *library;

static struct veo_proc_handle *create(int node)
{
    struct veo_proc_handle *proc = veo_proc_create(node);
    CHECK(proc != NULL);
    return proc;
}

static uint64_t load(struct veo_proc_handle *proc)
{
    uint64_t handle = veo_load_library(proc, library);
    CHECK(handle != 0);
    return handle;
}

static uint64_t find(struct veo_proc_handle *proc, const char *name)
{
    uint64_t address = veo_get_sym(proc, load(proc), name);
    CHECK(address != 0);
    return address;
}

static uint64_t call(struct veo_proc_handle *proc, const char *name, struct veo_args *args)
{
    uint64_t result = 12345;
    EQUAL(veo_call_sync(proc, find(proc, name), args, &result), 0);
    return result;
}

static struct veo_args *numbers(uint64_t first, uint64_t second)
{
    struct veo_args *args = veo_args_alloc();
    CHECK(args != NULL);
    EQUAL(veo_args_set_u64(args, 0, first), 0);
    EQUAL(veo_args_set_u64(args, 1, second), 0);
    return args;
}

/* ve-memory 12: 64 bits come back, whatever they mean. */
static void results(void)
{
    struct veo_proc_handle *proc = create(0);
    struct veo_thr_ctxt *ctx = veo_context_open(proc);
    CHECK(ctx != NULL);
    const double doubles[] = {0.0, -0.0, 1.5, -3.25e300, 5e-324, 1.0 / 0.0};
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++) {
        struct veo_args *args = veo_args_alloc();
        double result, wanted = doubles[i] * -2.0, kept = 0;
        EQUAL(veo_args_set_double(args, 0, doubles[i]), 0);
        EQUAL(veo_args_set_double(args, 1, -2.0), 0);
        uint64_t bits = call(proc, "product", args);
        memcpy(&result, &bits, sizeof result);
        CHECK(memcmp(&result, &wanted, sizeof result) == 0);
        uint64_t id = veo_call_async(ctx, find(proc, "product"), args);
        EQUAL(veo_call_wait_result(ctx, id, &bits), VEO_COMMAND_OK);
        CHECK(memcmp(&bits, &wanted, sizeof bits) == 0);

        float single, other = (float)doubles[i] / 8.0F;
        veo_args_clear(args);
        EQUAL(veo_args_set_float(args, 0, (float)doubles[i]), 0);
        EQUAL(veo_args_set_float(args, 1, 8.0F), 0);
        uint32_t upper = (uint32_t)(call(proc, "quotient", args) >> 32);
        memcpy(&single, &upper, sizeof single);
        CHECK(memcmp(&single, &other, sizeof single) == 0);

        /* Returned as floating point: the call is done, and answers some 64 bits. */
        veo_args_clear(args);
        EQUAL(veo_args_set_double(args, 0, 1.0 + (double)i), 0);
        call(proc, "twice", args);
        EQUAL(veo_read_mem(proc, &kept, find(proc, "kept"), sizeof kept), 0);
        CHECK(kept == 2.0 * (1.0 + (double)i));
        veo_args_clear(args);
        EQUAL(veo_args_set_float(args, 0, 5.0F), 0);
        call(proc, "half", args);
        EQUAL(veo_read_mem(proc, &kept, find(proc, "kept"), sizeof kept), 0);
        CHECK(kept == 2.5);
        veo_args_free(args);
    }
    EQUAL(veo_context_close(ctx), 0);
    EQUAL(veo_proc_destroy(proc), 0);
}

static void processes(void)
{
    EQUAL(veo_api_version(), 16);
    EQUAL(VEO_API_VERSION, 16);
    CHECK(strlen(veo_version_string()) > 0);
    EQUAL(veo_get_max_proc_identifier(), 16);
    EQUAL(veo_get_ve_arch(0), 1);
    EQUAL(veo_get_ve_arch(8), 0);

    struct veo_proc_handle *first = create(0), *second = create(1);
    CHECK(first != second);
    EQUAL(veo_proc_identifier(first), 0);
    EQUAL(veo_proc_identifier(second), 1);
    EQUAL(call(first, "node", NULL), 0);
    EQUAL(call(second, "node", NULL), 1);
    CHECK(call(first, "process", NULL) != call(second, "process", NULL));
    CHECK(call(first, "process", NULL) != (uint64_t)getpid());

    EQUAL(veo_proc_destroy(first), 0);
    FAILS(veo_proc_destroy(first), -1, EBUSY);
    FAILS(veo_proc_identifier(first), -1, EBUSY);
    EQUAL(veo_proc_identifier(second), 1);
    struct veo_proc_handle *third = create(-1);
    CHECK(third != first);
    EQUAL(veo_proc_identifier(third), 0);
    EQUAL(call(third, "node", NULL), 0);
    EQUAL(veo_proc_destroy(third), 0);
    EQUAL(veo_proc_destroy(second), 0);

    CHECK(veo_proc_create(-2) == NULL && errno == EINVAL);
    CHECK(veo_proc_create(8) == NULL && errno == ENODEV);
    CHECK(veo_proc_create_static(0, NULL) == NULL && errno == EINVAL);
    CHECK(veo_proc_create_static(0, "/does/not/exist") == NULL && errno == ENOENT);
    /* A program that is no VE process: it ends. */
    CHECK(veo_proc_create_static(0, "/bin/true") == NULL && errno == EBUSY);

    /* Null is no handle. */
    FAILS(veo_proc_destroy(NULL), -1, EBUSY);
    FAILS(veo_num_contexts(NULL), -1, EINVAL);
    FAILS(veo_load_library(NULL, library), 0, EINVAL);
    FAILS(veo_get_sym(NULL, 0, "zero"), 0, EINVAL);
    FAILS(veo_call_sync(NULL, 1, NULL, NULL), -1, EINVAL);
    CHECK(veo_context_open(NULL) == NULL && errno == EINVAL);
}

/* The node is what the environment says: argv[3]; "none" for a failure. argv[4] is asked for. */
static void chosen_node(const char *expected, const char *wanted)
{
    struct veo_proc_handle *proc = veo_proc_create(atoi(wanted));
    if (strcmp(expected, "none") == 0) {
        CHECK(proc == NULL);
        return;
    }
    CHECK(proc != NULL);
    EQUAL(call(proc, "node", NULL), atoi(expected));
    EQUAL(veo_proc_destroy(proc), 0);
}

/* The generation of VE 0, and of the one that the environment names. */
static void architecture(int expected)
{
    EQUAL(veo_get_ve_arch(0), expected);
    EQUAL(veo_get_ve_arch(-1), expected);
    EQUAL(veo_get_ve_arch(-2), 0);
}

/* The card of the node: its generation, and its memory in GiB, before a VE process is on it and then. */
static void card(int generation, uint64_t gib)
{
    struct veo_proc_handle *proc = create(0);
    const size_t whole = (size_t)gib << 30;
    uint64_t block;
    EQUAL(veo_get_ve_arch(0), generation);
    EQUAL(veo_alloc_mem(proc, &block, whole + 1), -1);
    EQUAL(veo_alloc_mem(proc, &block, whole), 0);
    EQUAL(veo_free_mem(proc, block), 0);
    EQUAL(veo_proc_destroy(proc), 0);
}

/* argv[3] runs in aveorun's place. */
static void by_program(const char *program)
{
    struct veo_proc_handle *proc = veo_proc_create_static(2, (char *)program);
    CHECK(proc != NULL);
    EQUAL(call(proc, "node", NULL), 2);
    EQUAL(veo_proc_destroy(proc), 0);
}

static void libraries(void)
{
    struct veo_proc_handle *proc = create(0);
    uint64_t lib = load(proc);
    EQUAL(load(proc), lib);
    CHECK(veo_get_sym(proc, lib, "zero") != 0);
    EQUAL(veo_get_sym(proc, lib, "zero"), veo_get_sym(proc, lib, "zero"));
    CHECK(veo_get_sym(proc, 0, "malloc") != 0);
    FAILS(veo_get_sym(proc, 0, "zero"), 0, ENOENT);
    FAILS(veo_get_sym(proc, lib, "not_there"), 0, ENOENT);
    FAILS(veo_get_sym(proc, lib + 8, "zero"), 0, ENOENT);
    FAILS(veo_get_sym(proc, lib, NULL), 0, EINVAL);
    char name[VEO_SYMNAME_LEN_MAX + 2];
    memset(name, 'x', sizeof name);
    name[VEO_SYMNAME_LEN_MAX + 1] = 0;
    FAILS(veo_get_sym(proc, lib, name), 0, ENAMETOOLONG);
    name[VEO_SYMNAME_LEN_MAX] = 0;
    FAILS(veo_get_sym(proc, lib, name), 0, ENOENT);
    FAILS(veo_load_library(proc, "./not_there.so"), 0, ENOENT);
    FAILS(veo_load_library(proc, NULL), 0, EINVAL);
    EQUAL(veo_unload_library(proc, lib), 0);
    CHECK(veo_get_sym(proc, lib, "zero") != 0);
    EQUAL(veo_unload_library(proc, lib), 0);
    FAILS(veo_unload_library(proc, lib), -1, EINVAL);
    FAILS(veo_get_sym(proc, lib, "zero"), 0, ENOENT);
    EQUAL(veo_proc_destroy(proc), 0);

    /* A library as the program: its functions are there without a handle. */
    proc = veo_proc_create_static(0, (char *)library);
    CHECK(proc != NULL);
    uint64_t zero = veo_get_sym(proc, 0, "minus_one"), result = 0;
    CHECK(zero != 0);
    EQUAL(veo_call_sync(proc, zero, NULL, &result), 0);
    EQUAL(result, -1);
    EQUAL(veo_proc_destroy(proc), 0);
}

static void contexts(void)
{
    struct veo_proc_handle *proc = create(0);
    EQUAL(veo_num_contexts(proc), 1);
    struct veo_thr_ctxt *main_ctx = veo_get_context(proc, 0), *ctx[64];
    CHECK(main_ctx != NULL);
    CHECK(veo_get_context(proc, 1) == NULL && errno == EINVAL);
    CHECK(veo_get_context(proc, -1) == NULL && errno == EINVAL);
    EQUAL(veo_get_context_state(main_ctx), VEO_STATE_RUNNING);
    EQUAL(veo_get_context_state(NULL), VEO_STATE_UNKNOWN);
    EQUAL(veo_context_close(main_ctx), 0);
    EQUAL(veo_get_context_state(main_ctx), VEO_STATE_RUNNING);
    EQUAL(veo_num_contexts(proc), 1);

    /* 64 threads for a process (ve-memory 1). */
    for (int i = 1; i < 64; i++) {
        CHECK((ctx[i] = veo_context_open(proc)) != NULL);
        CHECK(veo_get_context(proc, i) == ctx[i]);
    }
    EQUAL(veo_num_contexts(proc), 64);
    CHECK(veo_context_open(proc) == NULL && errno == EAGAIN);

    /* Each has a thread of its own. */
    uint64_t thread = find(proc, "thread"), threads[64];
    for (int i = 1; i < 64; i++) {
        uint64_t request = veo_call_async(ctx[i], thread, NULL);
        EQUAL(veo_call_wait_result(ctx[i], request, &threads[i]), VEO_COMMAND_OK);
        for (int j = 1; j < i; j++)
            CHECK(threads[i] != threads[j]);
    }
    for (int i = 2; i < 64; i++)
        EQUAL(veo_context_close(ctx[i]), 0);
    EQUAL(veo_num_contexts(proc), 2);

    /* A closed one answers EBUSY to everything. */
    uint64_t result;
    FAILS(veo_context_close(ctx[2]), -1, EBUSY);
    EQUAL(veo_get_context_state(ctx[2]), VEO_STATE_EXIT);
    FAILS(veo_call_async(ctx[2], thread, NULL), VEO_REQUEST_ID_INVALID, EBUSY);
    FAILS(veo_call_async_by_name(ctx[2], load(proc), "zero", NULL), VEO_REQUEST_ID_INVALID, EBUSY);
    FAILS(veo_call_async_vh(ctx[2], (uint64_t(*)(void *))contexts, NULL), VEO_REQUEST_ID_INVALID, EBUSY);
    FAILS(veo_call_wait_result(ctx[2], 1, &result), -1, EBUSY);
    FAILS(veo_call_peek_result(ctx[2], 1, &result), -1, EBUSY);
    FAILS(veo_async_read_mem(ctx[2], &result, 1, 1), VEO_REQUEST_ID_INVALID, EBUSY);
    FAILS(veo_async_write_mem(ctx[2], 1, &result, 1), VEO_REQUEST_ID_INVALID, EBUSY);
    FAILS(veo_alloc_mem_async(ctx[2], 1), VEO_REQUEST_ID_INVALID, EBUSY);
    FAILS(veo_free_mem_async(ctx[2], 1), VEO_REQUEST_ID_INVALID, EBUSY);
    veo_context_sync(ctx[2]);

    /* Attributes. */
    struct veo_thr_ctxt_attr *attr = veo_alloc_thr_ctxt_attr();
    size_t size = 0;
    EQUAL(veo_get_thr_ctxt_stacksize(attr, &size), 0);
    EQUAL(size, 128 * MIB);
    FAILS(veo_set_thr_ctxt_stacksize(attr, 4 * MIB - 1), -1, EINVAL);
    FAILS(veo_set_thr_ctxt_stacksize(NULL, 4 * MIB), -1, EINVAL);
    FAILS(veo_get_thr_ctxt_stacksize(NULL, &size), -1, EINVAL);
    FAILS(veo_get_thr_ctxt_stacksize(attr, NULL), -1, EINVAL);
    EQUAL(veo_set_thr_ctxt_stacksize(attr, 300 * MIB), 0);
    EQUAL(veo_get_thr_ctxt_stacksize(attr, &size), 0);
    EQUAL(size, 300 * MIB);
    struct veo_thr_ctxt *deep = veo_context_open_with_attr(proc, attr);
    CHECK(deep != NULL);
    struct veo_args *args = numbers(280, 0);
    uint64_t request = veo_call_async(deep, find(proc, "use_stack"), args);
    EQUAL(veo_call_wait_result(deep, request, &result), VEO_COMMAND_OK);
    EQUAL(result, 1);
    veo_args_free(args);
    CHECK(veo_context_open_with_attr(proc, NULL) == NULL && errno == EINVAL);
    CHECK(veo_context_open_with_attr(NULL, attr) == NULL && errno == EINVAL);
    EQUAL(veo_free_thr_ctxt_attr(attr), 0);
    FAILS(veo_free_thr_ctxt_attr(NULL), -1, EINVAL);

    /* Closing finishes what was requested. */
    args = numbers(0, 0);
    for (int i = 0; i < 100; i++) {
        veo_args_set_u64(args, 1, (uint64_t)i);
        CHECK(veo_call_async(deep, find(proc, "append"), args) != VEO_REQUEST_ID_INVALID);
    }
    veo_args_free(args);
    EQUAL(veo_context_close(deep), 0);
    uint64_t count = 0;
    EQUAL(veo_read_mem(proc, &count, find(proc, "counts"), sizeof count), 0);
    EQUAL(count, 100);
    EQUAL(veo_proc_destroy(proc), 0);
    EQUAL(veo_get_context_state(main_ctx), VEO_STATE_EXIT);
    FAILS(veo_call_async(main_ctx, thread, NULL), VEO_REQUEST_ID_INVALID, EBUSY);
    CHECK(veo_get_context(proc, 0) == NULL && errno == EBUSY);
    CHECK(veo_context_open(proc) == NULL && errno == EBUSY);
}

struct point {
    int32_t x, y;
    double weight;
};

static void arguments(void)
{
    struct veo_proc_handle *proc = create(0);
    struct veo_args *args = veo_args_alloc();
    EQUAL(veo_args_set_i8(args, 0, -8), 0);
    EQUAL(veo_args_set_u8(args, 1, 200), 0);
    EQUAL(veo_args_set_i16(args, 2, -1600), 0);
    EQUAL(veo_args_set_u16(args, 3, 60000), 0);
    EQUAL(veo_args_set_i32(args, 4, -320000), 0);
    EQUAL(veo_args_set_u32(args, 5, 4000000000U), 0);
    EQUAL(veo_args_set_i64(args, 6, -64000000000LL), 0);
    EQUAL(veo_args_set_u64(args, 7, 18000000000000000000ULL), 0);
    EQUAL(call(proc, "widths", args), 1);
    EQUAL(veo_args_set_u8(args, 1, 201), 0);
    EQUAL(call(proc, "widths", args), 0);

    veo_args_clear(args);
    double halves[] = {0.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5};
    int places[] = {1, 3, 5, 6, 7, 8, 9, 10};
    for (int i = 0; i < 8; i++)
        EQUAL(veo_args_set_double(args, places[i], halves[i]), 0);
    EQUAL(veo_args_set_i32(args, 0, 1), 0);
    EQUAL(veo_args_set_float(args, 2, 1.5F), 0);
    EQUAL(veo_args_set_i32(args, 4, 2), 0);
    EQUAL(veo_args_set_float(args, 11, 9.5F), 0);
    for (int i = 0; i < 4; i++)
        EQUAL(veo_args_set_i64(args, 12 + i, 3 + i), 0);
    EQUAL(veo_args_set_double(args, 16, 10.5), 0);
    EQUAL(veo_args_set_i8(args, 17, 'r'), 0);
    EQUAL(call(proc, "mixed", args), 1);

    veo_args_clear(args);
    for (int i = VEO_MAX_NUM_ARGS - 1; i >= 0; i--)
        EQUAL(veo_args_set_i64(args, i, i), 0);
    EQUAL(call(proc, "many", args), 1);
    FAILS(veo_args_set_i64(args, VEO_MAX_NUM_ARGS, 0), -1, EINVAL);
    FAILS(veo_args_set_double(args, -1, 0), -1, EINVAL);
    FAILS(veo_args_set_u64(NULL, 0, 0), -1, EINVAL);

    /* A gap is not called. */
    veo_args_clear(args);
    EQUAL(veo_args_set_i64(args, 1, 5), 0);
    uint64_t zero = find(proc, "zero"), result = 9;
    FAILS(veo_call_sync(proc, zero, args, &result), -1, EINVAL);
    FAILS(veo_call_async(veo_get_context(proc, 0), zero, args), VEO_REQUEST_ID_INVALID, EINVAL);
    FAILS(veo_call_sync(proc, 0, NULL, &result), -1, EINVAL);
    EQUAL(result, 9);
    EQUAL(veo_call_sync(proc, zero, NULL, NULL), 0);

    /* Buffers. */
    struct point in[5], both[5], out[5];
    for (int i = 0; i < 5; i++) {
        in[i] = (struct point){i, 10 * i, i + 0.25};
        both[i] = (struct point){i + 1, i, 9};
        out[i] = (struct point){-1, -1, -1};
    }
    veo_args_clear(args);
    EQUAL(veo_args_set_stack(args, VEO_INTENT_IN, 0, (char *)in, sizeof in), 0);
    EQUAL(veo_args_set_stack(args, VEO_INTENT_INOUT, 1, (char *)both, sizeof both), 0);
    EQUAL(veo_args_set_stack(args, VEO_INTENT_OUT, 2, (char *)out, sizeof out), 0);
    EQUAL(veo_args_set_u64(args, 3, 5), 0);
    EQUAL(call(proc, "points", args), 0 + 1 + 2 + 3 + 4);
    for (int i = 0; i < 5; i++) {
        CHECK(in[i].x == i && both[i].x == -(i + 1) && both[i].y == i && both[i].weight == 9);
        CHECK(out[i].x == 0 && out[i].y == 11 * i && out[i].weight == 2 * (i + 0.25));
    }
    FAILS(veo_args_set_stack(args, (enum veo_args_intent)3, 0, (char *)in, 1), -1, EINVAL);
    FAILS(veo_args_set_stack(args, VEO_INTENT_IN, 0, NULL, 1), -1, EINVAL);
    FAILS(veo_args_set_stack(args, VEO_INTENT_IN, 256, (char *)in, 1), -1, EINVAL);

    /* Of every size up to 63 MiB, and aligned. */
    static unsigned char bytes[63 * MIB + 1];
    size_t sizes[] = {0, 1, 7, 8, 4095, 65537, 3 * MIB + 3, 63 * MIB};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < sizes[s]; i++)
            sum += bytes[i] = (unsigned char)(i * 7 + s);
        veo_args_clear(args);
        EQUAL(veo_args_set_stack(args, VEO_INTENT_IN, 0, (char *)bytes, sizes[s]), 0);
        EQUAL(veo_args_set_u64(args, 1, sizes[s]), 0);
        EQUAL(call(proc, "sum_bytes", args), sum);
        EQUAL(call(proc, "misaligned", args), 0);
        bytes[sizes[s]] = 99;
        EQUAL(veo_args_set_stack(args, VEO_INTENT_OUT, 0, (char *)bytes, sizes[s]), 0);
        EQUAL(call(proc, "fill_bytes", args), sizes[s]);
        for (size_t i = 0; i < sizes[s]; i++)
            CHECK(bytes[i] == i % 253);
        EQUAL(bytes[sizes[s]], 99);
    }
    EQUAL(veo_args_set_stack(args, VEO_INTENT_IN, 0, (char *)bytes, sizeof bytes), 0);
    FAILS(veo_call_sync(proc, zero, args, &result), -1, E2BIG);

    /* An HMEM pointer without its tag. */
    void *pointer;
    EQUAL(veo_alloc_hmem(proc, &pointer, 100), 0);
    EQUAL(veo_args_set_hmem(args, 0, veo_get_hmem_addr(pointer)), 0);
    EQUAL(veo_args_set_u64(args, 1, 100), 0);
    EQUAL(call(proc, "fill_bytes", args), 100);
    EQUAL(call(proc, "sum_bytes", args), 99 * 100 / 2);
    EQUAL(veo_free_hmem(pointer), 0);
    veo_args_free(args);
    veo_args_free(NULL);
    veo_args_clear(NULL);
    EQUAL(veo_proc_destroy(proc), 0);
}

static void fill(unsigned char *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(i * 31 + i / 253 + seed);
}

/* argv[3]: the largest transfer in MiB. */
static void memory(const char *largest)
{
    size_t most = strtoul(largest, NULL, 10) * MIB;
    struct veo_proc_handle *proc = create(0);
    struct veo_thr_ctxt *ctx = veo_context_open(proc);
    uint64_t block, result;

    /* From 64 MiB on not at a page of the VE, but where malloc of the VE has it. */
    size_t sizes[] = {0, 1, 100, 4096, 2 * MIB, 64 * MIB - 1, 64 * MIB, 64 * MIB + 1, 200 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        EQUAL(veo_alloc_mem(proc, &block, sizes[i]), 0);
        CHECK(block != 0 && block >> 47 == 0);
        EQUAL(block % 16, 0);
        CHECK(sizes[i] < 64 * MIB || block % (64 * MIB) == 16);
        if (sizes[i] > 0)
            EQUAL(veo_write_mem(proc, block + sizes[i] - 1, "x", 1), 0);
        EQUAL(veo_free_mem(proc, block), 0);
        FAILS(veo_free_mem(proc, block), -1, EINVAL);
    }
    FAILS(veo_alloc_mem(proc, &block, 1UL << 40), -1, ENOMEM);
    FAILS(veo_alloc_mem(proc, &block, ~0UL), -1, ENOMEM);
    FAILS(veo_alloc_mem(proc, NULL, 1), -2, EFAULT);
    FAILS(veo_alloc_mem(NULL, &block, 1), -2, EINVAL);
    FAILS(veo_free_mem(proc, 0), -1, EINVAL);

    /* There and back, at every alignment, of every size. */
    size_t room = most + 4096;
    unsigned char *here = malloc(room), *back = malloc(room);
    CHECK(here != NULL && back != NULL);
    EQUAL(veo_alloc_mem(proc, &block, room), 0);
    size_t moved[] = {0, 1, 3, 8, 4095, 65536, 65537, 3 * MIB + 5, most};
    for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
        size_t size = moved[i] < most ? moved[i] : most, ours = i % 7, theirs = i * 3 % 11;
        fill(here + ours, size, (unsigned)i);
        memset(back, 0xee, size + 64);
        if (i % 2 == 0) {
            EQUAL(veo_write_mem(proc, block + theirs, here + ours, size), 0);
            EQUAL(veo_read_mem(proc, back + 5, block + theirs, size), 0);
        } else {
            uint64_t request = veo_async_write_mem(ctx, block + theirs, here + ours, size);
            EQUAL(veo_call_wait_result(ctx, request, &result), VEO_COMMAND_OK);
            EQUAL(result, 0);
            request = veo_async_read_mem(ctx, back + 5, block + theirs, size);
            EQUAL(veo_call_wait_result(ctx, request, &result), VEO_COMMAND_OK);
        }
        EQUAL(memcmp(here + ours, back + 5, size), 0);
        CHECK(back[4] == 0xee && back[size + 5] == 0xee);
    }
    /* The function sees what was written, and what it writes is read. */
    struct veo_args *args = numbers(block + 1, 1000);
    uint64_t sum = 0;
    EQUAL(veo_read_mem(proc, back, block + 1, 1000), 0);
    for (int i = 0; i < 1000; i++)
        sum += back[i];
    EQUAL(call(proc, "sum_bytes", args), sum);
    EQUAL(call(proc, "fill_bytes", args), 1000);
    EQUAL(veo_read_mem(proc, back, block + 1, 1000), 0);
    for (int i = 0; i < 1000; i++)
        CHECK(back[i] == i % 253);
    veo_args_free(args);

    /* Addresses that are none: refused, and the process lives. */
    FAILS(veo_write_mem(proc, 16, here, 8), -1, EFAULT);
    FAILS(veo_read_mem(proc, back, 16, 8), -1, EFAULT);
    FAILS(veo_read_mem(proc, back, ~0UL - 3, 8), -1, EFAULT);
    FAILS(veo_write_mem(proc, block, NULL, 8), -1, EFAULT);
    FAILS(veo_read_mem(proc, NULL, block, 8), -1, EFAULT);
    EQUAL(veo_write_mem(proc, 16, NULL, 0), 0);
    EQUAL(veo_read_mem(proc, NULL, 16, 0), 0);
    uint64_t request = veo_async_read_mem(ctx, back, 16, 8);
    EQUAL(veo_call_wait_result(ctx, request, &result), VEO_COMMAND_ERROR);
    EQUAL(call(proc, "zero", NULL), 0);
    EQUAL(veo_free_mem(proc, block), 0);

    /* Asynchronous allocation. */
    request = veo_alloc_mem_async(ctx, 65 * MIB);
    EQUAL(veo_call_wait_result(ctx, request, &block), VEO_COMMAND_OK);
    EQUAL(block % (64 * MIB), 16);
    EQUAL(veo_write_mem(proc, block + 65 * MIB - 1, "x", 1), 0);
    request = veo_free_mem_async(ctx, block);
    EQUAL(veo_call_wait_result(ctx, request, &result), VEO_COMMAND_OK);
    request = veo_free_mem_async(ctx, block);
    EQUAL(veo_call_wait_result(ctx, request, &result), VEO_COMMAND_ERROR);
    request = veo_alloc_mem_async(ctx, 1UL << 40);
    EQUAL(veo_call_wait_result(ctx, request, &result), VEO_COMMAND_ERROR);

    FAILS((veo_write_mem(NULL, 1, here, 1)), -1, EINVAL);
    FAILS((veo_read_mem(NULL, back, 1, 1)), -1, EINVAL);
    EQUAL(veo_proc_destroy(proc), 0);
    FAILS(veo_alloc_mem(proc, &block, 1), -2, EBUSY);
    FAILS(veo_free_mem(proc, block), -1, EBUSY);
    FAILS(veo_write_mem(proc, block, here, 1), -1, EBUSY);
    FAILS(veo_read_mem(proc, back, block, 1), -1, EBUSY);
    free(here);
    free(back);
}

static void hmem(void)
{
    struct veo_proc_handle *proc[18];
    void *pointer[18], *host, *other;
    char text[32] = "by way of the VE", back[32] = "";
    for (int i = 0; i < 18; i++)
        proc[i] = create(i % 3);
    for (int i = 0; i < 16; i++) {
        EQUAL(veo_proc_identifier(proc[i]), i);
        EQUAL(veo_alloc_hmem(proc[i], &pointer[i], 100), 0);
        uint64_t bits = (uint64_t)pointer[i];
        EQUAL(bits >> 63, 1);
        EQUAL(bits >> 59 & 15, i);
        EQUAL(veo_is_ve_addr(pointer[i]), 1);
        EQUAL((uint64_t)veo_get_hmem_addr(pointer[i]), bits & ~(0x1fUL << 59));
        CHECK(veo_set_proc_identifier(veo_get_hmem_addr(pointer[i]), i) == pointer[i]);
        EQUAL(veo_get_proc_identifier_from_hmem(pointer[i]), i);
        CHECK(veo_get_proc_handle_from_hmem(pointer[i]) == proc[i]);
        EQUAL(veo_get_pid_from_hmem(pointer[i]), call(proc[i], "process", NULL));
        EQUAL(veo_get_venum_from_hmem(pointer[i]), i % 3);
    }
    /* No identifier beyond 16. */
    EQUAL(veo_proc_identifier(proc[16]), 16);
    EQUAL(veo_alloc_hmem(proc[16], &pointer[16], 100), -1);
    EQUAL(veo_alloc_hmem(proc[17], &pointer[17], 100), -1);
    CHECK(veo_set_proc_identifier(text, 16) == NULL && errno == EINVAL);
    CHECK(veo_set_proc_identifier(text, -1) == NULL && errno == EINVAL);

    EQUAL(veo_alloc_hmem(NULL, &host, 100), 0);
    EQUAL(veo_is_ve_addr(host), 0);
    CHECK(veo_get_hmem_addr(host) == host);
    FAILS(veo_get_pid_from_hmem(host), -1, EINVAL);
    FAILS(veo_get_venum_from_hmem(host), -1, EINVAL);
    FAILS(veo_get_proc_identifier_from_hmem(host), -1, EINVAL);
    CHECK(veo_get_proc_handle_from_hmem(host) == NULL);
    FAILS(veo_alloc_hmem(proc[0], NULL, 1), -2, EFAULT);
    FAILS(veo_alloc_hmem(proc[0], &other, 1UL << 40), -1, ENOMEM);

    /* VH to VH, to VE, inside the VE, to VH. */
    EQUAL(veo_alloc_hmem(proc[5], &other, 100), 0);
    EQUAL(veo_hmemcpy(host, text, sizeof text), 0);
    EQUAL(veo_hmemcpy(pointer[5], host, sizeof text), 0);
    EQUAL(veo_hmemcpy((char *)other + 3, pointer[5], sizeof text), 0);
    EQUAL(veo_hmemcpy(back, (char *)other + 3, sizeof text), 0);
    EQUAL(strcmp(back, text), 0);
    FAILS(veo_hmemcpy(pointer[4], pointer[5], 8), -1, EINVAL);
    FAILS(veo_hmemcpy(veo_set_proc_identifier((void *)16, 5), text, 8), -1, EFAULT);
    EQUAL(veo_hmemcpy(pointer[4], pointer[4], 0), 0);
    FAILS(veo_hmemcpy(NULL, text, 8), -1, EFAULT);

    for (int i = 0; i < 16; i++)
        EQUAL(veo_free_hmem(pointer[i]), 0);
    FAILS(veo_free_hmem(pointer[3]), -1, EINVAL);
    EQUAL(veo_free_hmem(host), 0);
    EQUAL(veo_free_hmem(NULL), 0);
    for (int i = 0; i < 18; i++)
        EQUAL(veo_proc_destroy(proc[i]), 0);
    FAILS(veo_free_hmem(pointer[3]), -1, EBUSY);
    FAILS(veo_hmemcpy(pointer[3], text, 8), -1, EBUSY);
    FAILS(veo_get_pid_from_hmem(pointer[3]), -1, EINVAL);
    FAILS(veo_alloc_hmem(proc[3], &other, 1), -2, EBUSY);
}

static uint64_t ran_on_vh;

static uint64_t vh_function(void *argument)
{
    ran_on_vh++;
    return *(uint64_t *)argument + 1;
}

#define ROUNDS 1000

static void asynchronous(void)
{
    struct veo_proc_handle *proc = create(0);
    struct veo_thr_ctxt *ctx[4];
    static uint64_t ids[4][ROUNDS];
    uint64_t append = find(proc, "append"), result, value;
    struct veo_args *args = veo_args_alloc();
    for (int c = 0; c < 4; c++)
        CHECK((ctx[c] = veo_context_open(proc)) != NULL);
    for (int i = 0; i < ROUNDS; i++)
        for (int c = 0; c < 4; c++) {
            /* The same object for all: a call takes its values when it is requested. */
            veo_args_set_u64(args, 0, (uint64_t)c);
            veo_args_set_u64(args, 1, (uint64_t)(i * 10 + c));
            ids[c][i] = veo_call_async(ctx[c], append, args);
            CHECK(ids[c][i] != VEO_REQUEST_ID_INVALID);
        }
    veo_args_free(args);
    veo_context_sync(ctx[0]);
    EQUAL(veo_call_peek_result(ctx[0], ids[0][ROUNDS - 1], &result), VEO_COMMAND_OK);
    EQUAL(result, (ROUNDS - 1) * 10 + 1);
    for (int c = 0; c < 4; c++)
        for (int i = ROUNDS - 1 - (c == 0); i >= 0; i--) {
            EQUAL(veo_call_wait_result(ctx[c], ids[c][i], &result), VEO_COMMAND_OK);
            EQUAL(result, i * 10 + c + 1);
            /* Given out once. */
            EQUAL(veo_call_wait_result(ctx[c], ids[c][i], &result), VEO_COMMAND_ERROR);
            EQUAL(veo_call_peek_result(ctx[c], ids[c][i], &result), VEO_COMMAND_ERROR);
        }
    static uint64_t records[4][4096];
    EQUAL(veo_read_mem(proc, records, find(proc, "records"), sizeof records), 0);
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < ROUNDS; i++)
            EQUAL(records[c][i], i * 10 + c);

    /* Not finished, then finished. Others go on meanwhile. */
    args = numbers(1, 0);
    uint64_t waits = veo_call_async_by_name(ctx[0], load(proc), "wait_for_gate", args);
    EQUAL(veo_call_peek_result(ctx[0], waits, &result), VEO_COMMAND_UNFINISHED);
    uint64_t behind = veo_call_async_by_name(ctx[0], load(proc), "zero", NULL);
    uint64_t beside = veo_call_async_by_name(ctx[1], load(proc), "zero", NULL);
    EQUAL(veo_call_wait_result(ctx[1], beside, NULL), VEO_COMMAND_OK);
    EQUAL(veo_call_peek_result(ctx[0], behind, &result), VEO_COMMAND_UNFINISHED);
    value = 1;
    EQUAL(veo_write_mem(proc, find(proc, "gate"), &value, sizeof value), 0);
    EQUAL(veo_call_wait_result(ctx[0], behind, &result), VEO_COMMAND_OK);
    EQUAL(veo_call_peek_result(ctx[0], waits, &result), VEO_COMMAND_OK);
    EQUAL(result, 1);
    EQUAL(veo_call_wait_result(ctx[0], 0, &result), VEO_COMMAND_ERROR);
    EQUAL(veo_call_wait_result(ctx[0], VEO_REQUEST_ID_INVALID, &result), VEO_COMMAND_ERROR);
    FAILS(veo_call_async_by_name(ctx[0], load(proc), "not_there", NULL), VEO_REQUEST_ID_INVALID, ENOENT);
    FAILS(veo_call_async(ctx[0], 0, NULL), VEO_REQUEST_ID_INVALID, EINVAL);
    FAILS(veo_call_async_vh(ctx[0], NULL, NULL), VEO_REQUEST_ID_INVALID, EINVAL);

    /* A function of the VH takes its turn. */
    value = 41;
    EQUAL(veo_call_wait_result(ctx[2], veo_call_async_vh(ctx[2], vh_function, &value), &result), VEO_COMMAND_OK);
    EQUAL(result, 42);
    EQUAL(ran_on_vh, 1);

    /* Buffers of a call that is not finished are written when it is. */
    static unsigned char bytes[MIB];
    struct veo_args *buffer = veo_args_alloc();
    veo_args_set_stack(buffer, VEO_INTENT_OUT, 0, (char *)bytes, sizeof bytes);
    veo_args_set_u64(buffer, 1, sizeof bytes);
    uint64_t filled = veo_call_async_by_name(ctx[3], load(proc), "fill_bytes", buffer);
    veo_args_free(buffer);
    EQUAL(veo_call_wait_result(ctx[3], filled, &result), VEO_COMMAND_OK);
    EQUAL(bytes[252], 252);
    EQUAL(bytes[sizeof bytes - 1], (sizeof bytes - 1) % 253);

    veo_args_free(args);
    EQUAL(veo_proc_destroy(proc), 0);
}

struct nested {
    struct veo_proc_handle *proc;
    struct veo_thr_ctxt *ctx;
    uint64_t address;
};

/* Uses the very context it runs on. */
static uint64_t nested(void *argument)
{
    struct nested *nested = argument;
    uint64_t value = 7, result = 0;
    if (veo_write_mem(nested->proc, nested->address, &value, sizeof value) != 0)
        return 1;
    uint64_t request = veo_call_async_by_name(nested->ctx, veo_load_library(nested->proc, library), "process", NULL);
    if (veo_call_wait_result(nested->ctx, request, &result) != VEO_COMMAND_OK || result == 0)
        return 2;
    veo_context_sync(nested->ctx);
    return 3;
}

#define THREADS 4

struct worker {
    struct veo_proc_handle *proc;
    struct veo_thr_ctxt *ctx;
    uint64_t number;
};

static void *work(void *argument)
{
    struct worker *worker = argument;
    uint64_t result, block;
    char bytes[100], back[100];
    for (int i = 0; i < 100; i++) {
        EQUAL(veo_call_sync(worker->proc, find(worker->proc, "zero"), NULL, &result), 0);
        EQUAL(veo_alloc_mem(worker->proc, &block, sizeof bytes), 0);
        memset(bytes, (int)(worker->number * 50 + (uint64_t)i), sizeof bytes);
        EQUAL(veo_write_mem(worker->proc, block, bytes, sizeof bytes), 0);
        /* A block of three: nobody comes between. */
        veo_req_block_begin(worker->ctx);
        struct veo_args *args = numbers(4, worker->number);
        uint64_t append = find(worker->proc, "append");
        uint64_t request = 0;
        for (int j = 0; j < 3; j++)
            request = veo_call_async(worker->ctx, append, args);
        veo_req_block_end(worker->ctx);
        EQUAL(veo_call_wait_result(worker->ctx, request, &result), VEO_COMMAND_OK);
        veo_args_free(args);
        EQUAL(veo_read_mem(worker->proc, back, block, sizeof back), 0);
        EQUAL(memcmp(bytes, back, sizeof back), 0);
        EQUAL(veo_free_mem(worker->proc, block), 0);
    }
    return NULL;
}

static void threads(void)
{
    struct veo_proc_handle *proc = create(0);
    struct veo_thr_ctxt *ctx = veo_context_open(proc);
    struct worker worker[THREADS];
    pthread_t thread[THREADS];
    for (uint64_t i = 0; i < THREADS; i++) {
        worker[i] = (struct worker){proc, ctx, i};
        EQUAL(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        EQUAL(pthread_join(thread[i], NULL), 0);
    uint64_t records[THREADS * 300];
    EQUAL(veo_read_mem(proc, records, find(proc, "records") + 4 * 4096 * 8, sizeof records), 0);
    for (int i = 0; i < THREADS * 300; i += 3)
        CHECK(records[i] == records[i + 1] && records[i] == records[i + 2]);

    struct nested in = {proc, veo_get_context(proc, 0), find(proc, "gate")};
    uint64_t result, value = 0;
    uint64_t request = veo_call_async_vh(in.ctx, nested, &in);
    EQUAL(veo_call_wait_result(in.ctx, request, &result), VEO_COMMAND_OK);
    EQUAL(result, 3);
    EQUAL(veo_read_mem(proc, &value, in.address, sizeof value), 0);
    EQUAL(value, 7);
    EQUAL(veo_proc_destroy(proc), 0);
}

/* A VE function that ends its process: argv[3], by argv[4] (sync or async). */
static void exception(const char *name, const char *way)
{
    struct veo_proc_handle *proc = create(0);
    struct veo_thr_ctxt *ctx = veo_context_open(proc), *other = veo_context_open(proc);
    uint64_t function = find(proc, name), zero = find(proc, "zero"), gate = find(proc, "wait_for_gate"), block = 0, result = 3;
    struct veo_args *args = numbers(7, 0);
    EQUAL(veo_alloc_mem(proc, &block, 64), 0);
    if (strcmp(way, "sync") == 0) {
        FAILS(veo_call_sync(proc, function, args, &result), -1, EBUSY);
        EQUAL(result, 3);
    } else {
        uint64_t waits = veo_call_async(other, gate, args), entered = 0, at = find(proc, "entered");
        while (entered == 0)
            EQUAL(veo_read_mem(proc, &entered, at, sizeof entered), 0);
        uint64_t request = veo_call_async(ctx, function, args), behind = veo_call_async(ctx, zero, NULL);
        EQUAL(veo_call_wait_result(ctx, request, &result), VEO_COMMAND_EXCEPTION);
        /* Not begun: an error. */
        if (behind != VEO_REQUEST_ID_INVALID)
            EQUAL(veo_call_wait_result(ctx, behind, &result), VEO_COMMAND_ERROR);
        EQUAL(veo_call_wait_result(other, waits, &result), VEO_COMMAND_EXCEPTION);
    }
    veo_args_free(args);
    /* The process is gone, everything says so. */
    EQUAL(veo_get_context_state(ctx), VEO_STATE_EXIT);
    EQUAL(veo_get_context_state(veo_get_context(proc, 0)), VEO_STATE_EXIT);
    FAILS(veo_call_sync(proc, zero, NULL, &result), -1, EBUSY);
    FAILS(veo_load_library(proc, library), 0, EBUSY);
    FAILS(veo_get_sym(proc, 0, "malloc"), 0, EBUSY);
    FAILS(veo_alloc_mem(proc, &block, 1), -2, EBUSY);
    FAILS(veo_free_mem(proc, block), -1, EBUSY);
    FAILS(veo_write_mem(proc, block, &result, 8), -1, EBUSY);
    FAILS(veo_read_mem(proc, &result, block, 8), -1, EBUSY);
    CHECK(veo_context_open(proc) == NULL && errno == EBUSY);
    uint64_t late = veo_call_async(other, zero, NULL);
    if (late != VEO_REQUEST_ID_INVALID)
        CHECK(veo_call_wait_result(other, late, &result) != VEO_COMMAND_OK);
    EQUAL(veo_context_close(ctx), 0);
    EQUAL(veo_proc_destroy(proc), 0);
    /* And another one works. */
    proc = create(0);
    EQUAL(call(proc, "zero", NULL), 0);
    EQUAL(veo_proc_destroy(proc), 0);
}

/* A pointer of the VH to VE memory, given to a VE function as it is. */
static void tagged(void)
{
    struct veo_proc_handle *proc = create(0);
    struct veo_args *args = numbers(0, 100);
    void *pointer;
    EQUAL(veo_alloc_hmem(proc, &pointer, 100), 0);
    EQUAL(veo_args_set_hmem(args, 0, pointer), 0);
    FAILS(veo_call_sync(proc, find(proc, "fill_bytes"), args, NULL), -1, EBUSY);
    veo_args_free(args);
    EQUAL(veo_proc_destroy(proc), 0);
}

/* exit(3) on the VE at veo_proc_destroy, or at the end of this program: argv[3] is the file it writes. */
static void endings(const char *file, int destroy)
{
    struct veo_proc_handle *proc = create(0);
    struct veo_args *args = veo_args_alloc();
    veo_args_set_stack(args, VEO_INTENT_IN, 0, (char *)file, strlen(file) + 1);
    EQUAL(call(proc, "tell_end", args), 0);
    veo_args_free(args);
    if (!destroy)
        return;
    /* What runs is ended with the process. */
    struct veo_thr_ctxt *ctx = veo_context_open(proc);
    CHECK(veo_call_async(ctx, find(proc, "for_ever"), NULL) != VEO_REQUEST_ID_INVALID);
    EQUAL(veo_proc_destroy(proc), 0);
    EQUAL(access(file, R_OK), 0);
}

/* Says its phase, and is killed there, or its VE process: argv[3] names the phase, argv[4] the victim. */
static const char *wanted, *victim;
static pid_t ve_pid;

static void phase(const char *name)
{
    if (strcmp(wanted, name) != 0)
        return;
    printf("%s\n", name);
    fflush(stdout);
    if (strcmp(victim, "ve") == 0) {
        kill(ve_pid, SIGKILL);
    } else if (strcmp(victim, "vh") == 0) {
        kill(getpid(), SIGKILL);
    } else if (strcmp(victim, "exit") == 0) {
        exit(7);
    } else if (strcmp(victim, "_exit") == 0) {
        _exit(7);
    } else if (strcmp(victim, "stopped") == 0) {
        kill(ve_pid, SIGSTOP);
        kill(getpid(), SIGKILL);
    }
}

static void *phase_later(void *name)
{
    usleep(50000);
    phase(name);
    return NULL;
}

/* Everything may fail once the VE process is dead; nothing may hang or crash. */
static void death(void)
{
    struct veo_proc_handle *proc = create(0);
    uint64_t pid = call(proc, "process", NULL), lib = load(proc), block = 0, result;
    ve_pid = (pid_t)pid;
    phase("created");
    uint64_t function = veo_get_sym(proc, lib, "for_ever");
    phase("found");
    veo_alloc_mem(proc, &block, 128 * MIB);
    phase("allocated");
    char *bytes = calloc(1, 128 * MIB);
    pthread_t thread;
    pthread_create(&thread, NULL, phase_later, "writing");
    for (int i = 0; i < 20 && strcmp(wanted, "writing") == 0; i++)
        veo_write_mem(proc, block, bytes, 128 * MIB);
    pthread_join(thread, NULL);
    struct veo_thr_ctxt *ctx = veo_context_open(proc);
    phase("opened");
    uint64_t request = VEO_REQUEST_ID_INVALID;
    if (ctx) {
        request = veo_call_async(ctx, function, NULL);
        phase("requested");
        pthread_create(&thread, NULL, phase_later, "waiting");
        if (strcmp(wanted, "waiting") == 0) {
            EQUAL(veo_call_wait_result(ctx, request, &result), VEO_COMMAND_EXCEPTION);
        }
        pthread_join(thread, NULL);
    }
    free(bytes);
    phase("destroying");
    EQUAL(veo_proc_destroy(proc), 0);
    phase("destroyed");
    proc = create(0);
    EQUAL(call(proc, "zero", NULL), 0);
    EQUAL(veo_proc_destroy(proc), 0);
}

static int entries(const char *path)
{
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    int count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* Processes come and go, by all ways; descriptors and threads of this program do not pile up. */
/* What a thread of this process blocks, as the kernel says: signal N is bit N - 1. */
static uint64_t blocked_by(const char *thread)
{
    char path[300], line[256];
    unsigned long set = 0;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", thread);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) && sscanf(line, "SigBlk: %lx", &set) != 1)
        ;
    fclose(file);
    return set;
}

/* A VE process hears the signals that its maker hears; threads of the library hear none but real-time signals, and of those the
   same. */
static void signals(void)
{
    sigset_t mask, without;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGRTMIN + 1);
    EQUAL(pthread_sigmask(SIG_SETMASK, &mask, &without), 0);
    struct veo_proc_handle *proc = create(0);
    EQUAL(pthread_sigmask(SIG_SETMASK, &without, &mask), 0);
    CHECK(sigismember(&mask, SIGUSR1) && !sigismember(&mask, SIGUSR2)); /* this thread's own mask stayed */
    struct veo_thr_ctxt *ctx = veo_context_open(proc);
    CHECK(ctx != NULL);
    uint64_t function = find(proc, "blocks"), blocked;
    for (int i = 1; i <= SIGRTMAX; i++) {
        struct veo_args *args = numbers((uint64_t)i, 0);
        EQUAL(call(proc, "blocks", args), sigismember(&mask, i) == 1);
        EQUAL(veo_call_wait_result(ctx, veo_call_async(ctx, function, args), &blocked), VEO_COMMAND_OK);
        EQUAL(blocked, sigismember(&mask, i) == 1);
        veo_args_free(args);
    }
    EQUAL(call(proc, "alarmed", NULL), SIGALRM);

    /* Here: the keeper of the process, and a worker for each of its two contexts. */
    char myself[16];
    snprintf(myself, sizeof myself, "%d", getpid());
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    int seen = 0;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        if (task->d_name[0] == '.' || strcmp(task->d_name, myself) == 0)
            continue;
        uint64_t set = blocked_by(task->d_name);
        const uint64_t real_time = ~0UL << (SIGRTMIN - 1);
        EQUAL(set >> (SIGTERM - 1) & set >> (SIGALRM - 1) & set >> (SIGUSR2 - 1) & 1, 1);
        CHECK((set & real_time) == 0 || (set & real_time) == 2UL << (SIGRTMIN - 1));
        seen++;
    }
    closedir(tasks);
    EQUAL(seen, 3);

    /* By its default a signal ends it. */
    EQUAL(kill((pid_t)call(proc, "process", NULL), SIGTERM), 0);
    while (veo_get_context_state(veo_get_context(proc, 0)) != VEO_STATE_EXIT)
        usleep(1000);
    EQUAL(veo_proc_destroy(proc), 0);
}

static void rounds(void)
{
    /* What the library keeps from its first process on is there now: nothing. */
    int files = entries("/proc/self/fd"), tasks = entries("/proc/self/task");
    for (int round = 0; round < 50; round++) {
        struct veo_proc_handle *proc = create(round % 8);
        struct veo_thr_ctxt *ctx = veo_context_open(proc), *other = veo_context_open(proc);
        uint64_t result, request = veo_call_async_by_name(ctx, load(proc), "zero", NULL);
        EQUAL(veo_call_wait_result(ctx, request, &result), VEO_COMMAND_OK);
        EQUAL(veo_context_close(other), 0);
        if (round % 5 == 1)
            kill((pid_t)call(proc, "process", NULL), SIGKILL);
        if (round % 5 == 2)
            CHECK(veo_call_async_by_name(ctx, load(proc), "for_ever", NULL) != VEO_REQUEST_ID_INVALID);
        if (round % 5 == 3)
            EQUAL(veo_call_sync(proc, find(proc, "touch_null"), NULL, NULL), -1);
        EQUAL(veo_proc_destroy(proc), 0);
        /* A thread may need a moment to end, but not for ever. */
        for (int i = 0; i < 20000 && (entries("/proc/self/task") > tasks || entries("/proc/self/fd") > files); i++)
            usleep(1000);
        EQUAL(entries("/proc/self/fd"), files);
        EQUAL(entries("/proc/self/task"), tasks);
    }
}

/* A child of fork has none of its parent's processes; its exit does not end them. */
static void forks(void)
{
    struct veo_proc_handle *proc = create(0);
    struct veo_thr_ctxt *ctx = veo_context_open(proc);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        uint64_t block;
        FAILS(veo_alloc_mem(proc, &block, 1), -2, EBUSY);
        FAILS(veo_proc_destroy(proc), -1, EBUSY);
        FAILS(veo_call_async(ctx, 1, NULL), VEO_REQUEST_ID_INVALID, EBUSY);
        CHECK(veo_proc_create(0) == NULL && errno == EBUSY);
        exit(0);
    }
    int status;
    EQUAL(waitpid(child, &status, 0), child);
    EQUAL(status, 0);
    EQUAL(call(proc, "zero", NULL), 0);
    /* A child that stays holds copies of the sockets: the VE process ends all the same. */
    child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    kill(child, SIGKILL);
    EQUAL(waitpid(child, &status, 0), child);
    EQUAL(veo_proc_destroy(proc), 0);
    /* No child is left to be waited for. */
    FAILS(waitpid(-1, &status, WNOHANG), -1, ECHILD);
}

static void hook_two(void *payload, ...)
{
    ++*(int *)payload;
}

static void *hooked;
static size_t hooked_size;
static uint64_t unhooked;

static void on_alloc(void *pointer, size_t size)
{
    hooked = pointer;
    hooked_size = size;
}

static void on_free(uint64_t pointer)
{
    unhooked = pointer;
}

static void hooks(void)
{
    struct veo_proc_handle *proc = create(0);
    struct veo_thr_ctxt *ctx = veo_context_open(proc);
    int calls[6] = {0};
    void *functions[] = {(void *)veo_alloc_mem, (void *)veo_free_mem, (void *)veo_alloc_hmem,
                         (void *)veo_free_hmem, (void *)veo_alloc_mem_async, (void *)veo_free_mem_async};
    for (int i = 0; i < 6; i++) {
        CHECK(veo_get_hook(functions[i]) == NULL);
        veo_register_hook(functions[i], hook_two, &calls[i]);
        CHECK(veo_get_hook(functions[i]) == (void *)hook_two);
    }
    for (int round = 1; round <= 2; round++) {
        uint64_t block, result;
        void *pointer;
        EQUAL(veo_alloc_mem(proc, &block, 10), 0);
        EQUAL(veo_free_mem(proc, block), 0);
        EQUAL(veo_alloc_hmem(proc, &pointer, 10), 0);
        EQUAL(veo_free_hmem(pointer), 0);
        EQUAL(veo_call_wait_result(ctx, veo_alloc_mem_async(ctx, 10), &block), VEO_COMMAND_OK);
        EQUAL(veo_call_wait_result(ctx, veo_free_mem_async(ctx, block), &result), VEO_COMMAND_OK);
        for (int i = 0; i < 6; i++)
            EQUAL(calls[i], 1);
        for (int i = 0; i < 6; i++)
            veo_unregister_hook(functions[i]);
    }
    veo_register_hmem_hook_functions(on_alloc, on_free);
    uint64_t block, result;
    EQUAL(veo_alloc_mem(proc, &block, 10), 0);
    CHECK(hooked == veo_set_proc_identifier((void *)block, 0) && hooked_size == 10);
    EQUAL(veo_free_mem(proc, block), 0);
    EQUAL(unhooked, (uint64_t)hooked);
    EQUAL(veo_call_wait_result(ctx, veo_alloc_mem_async(ctx, 11), &block), VEO_COMMAND_OK);
    CHECK(hooked == veo_set_proc_identifier((void *)block, 0) && hooked_size == 11);
    EQUAL(veo_call_wait_result(ctx, veo_free_mem_async(ctx, block), &result), VEO_COMMAND_OK);
    EQUAL(unhooked, (uint64_t)hooked);
    veo_unregister_hmem_hook_functions();
    EQUAL(veo_alloc_mem(proc, &block, 12), 0);
    EQUAL(hooked_size, 11);
    EQUAL(veo_proc_destroy(proc), 0);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    const char *test = argv[1], *first = argc > 3 ? argv[3] : "", *second = argc > 4 ? argv[4] : "";
    library = argv[2];
#define TEST(name, call)         \
    if (strcmp(test, name) == 0) \
    call
    TEST("processes", processes());
    else TEST("node", chosen_node(first, second));
    else TEST("program", by_program(first));
    else TEST("arch", architecture(atoi(first)));
    else TEST("no_arch", EQUAL(veo_get_ve_arch(atoi(first)), 0));
    else TEST("card", card(atoi(first), (uint64_t)atoi(second)));
    else TEST("libraries", libraries());
    else TEST("contexts", contexts());
    else TEST("arguments", arguments());
    else TEST("results", results());
    else TEST("memory", memory(first));
    else TEST("hmem", hmem());
    else TEST("asynchronous", asynchronous());
    else TEST("threads", threads());
    else TEST("exception", exception(first, second));
    else TEST("tagged", tagged());
    else TEST("destroy", endings(first, 1));
    else TEST("end", endings(first, 0));
    else TEST("forks", forks());
    else TEST("hooks", hooks());
    else TEST("signals", signals());
    else TEST("rounds", rounds());
    else TEST("death", (wanted = first, victim = second, death()));
    else return 2;
    return 0;
}

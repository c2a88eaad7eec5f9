/*
 * ve_offload.h - VE offloading: a program of the vector host (VH) runs functions on a Vector Engine (VE).
 *
 * Link with -lveo. A VE process is here a process of the host; a VE library is one built with
 *     cc -shared -fPIC -o libmine.so mine.c
 * and its functions answer a 64-bit integer or a pointer, as VEO demands. What they compute as float or double they answer
 * as its bits in one. (A card has the result of a function that returns double in all 64 bits of the register that VEO
 * reads, of one that returns float in the upper 32; on the host it is in another register, and is not passed on.)
 * Functions that fail set errno: EBUSY when the VE process is gone or a handle is closed, EINVAL for null or
 * a number out of range, otherwise what the VE process says. What errno cannot say is on standard error: why there is no VE
 * process, and how one has ended that nobody destroyed, in which function.
 */
#ifndef WINDLASS_VE_OFFLOAD_H
#define WINDLASS_VE_OFFLOAD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#include "veo_hmem.h"

#define VEO_API_VERSION 16
/* Longest name that veo_get_sym takes. */
#define VEO_SYMNAME_LEN_MAX (255)
/* Arguments of a call: numbers 0 to 255. */
#define VEO_MAX_NUM_ARGS (256)
/* VE processes that pointers to VE memory can tell apart. */
#define VEO_MAX_HMEM_PROCS (16)
#define VEO_REQUEST_ID_INVALID (~0UL)

#ifdef __cplusplus
extern "C" {
#endif

enum veo_context_state {
    VEO_STATE_UNKNOWN = 0,
    VEO_STATE_RUNNING,
    VEO_STATE_SYSCALL, /* never answered */
    VEO_STATE_BLOCKED, /* never answered */
    VEO_STATE_EXIT,
};

enum veo_command_state {
    VEO_COMMAND_OK = 0,
    VEO_COMMAND_EXCEPTION, /* the function ended its VE process */
    VEO_COMMAND_ERROR,     /* not carried out, or no such request */
    VEO_COMMAND_UNFINISHED,
};

enum veo_queue_state {
    VEO_QUEUE_READY = 0,
    VEO_QUEUE_CLOSED,
};

enum veo_args_intent {
    VEO_INTENT_IN = 0,
    VEO_INTENT_INOUT,
    VEO_INTENT_OUT,
};

struct veo_args;
struct veo_proc_handle;
struct veo_thr_ctxt;
struct veo_thr_ctxt_attr;

int veo_api_version(void);
const char *veo_version_string(void);
/* 1 or 3: the generation of a VE; 0 for a node that is none. */
int veo_get_ve_arch(int venode);

/*
 * VE processes. A child of fork(2) has none of its parent's and can make none (EBUSY). Node -1 is the environment's VE_NODE_NUMBER, or 0; where a scheduler set _VENODELIST (numbers
 * with spaces between), other numbers count its entries. NULL and errno on failure.
 *
 * veo_proc_create starts aveorun: WINDLASS_VEORUN, else the one beside this library, else the one on PATH.
 * veo_proc_create_static starts `veobin` in its place (it must run aveorun in the end, with its arguments), or,
 * when `veobin` is a shared library, an aveorun that has it loaded: veo_get_sym finds its functions with library 0.
 * With a card, each context of a VE process needs huge pages of the host (sysctl vm.nr_hugepages); here none does.
 * A VE process blocks the signals that the thread blocks which made it.
 */
struct veo_proc_handle *veo_proc_create(int venode);
struct veo_proc_handle *veo_proc_create_static(int venode, char *veobin);
/* exit(3) on the VE, SIGKILL after five seconds. Requests that wait fail. */
int veo_proc_destroy(struct veo_proc_handle *proc);
int veo_proc_identifier(struct veo_proc_handle *proc);
int veo_get_max_proc_identifier(void);

/* A handle, 0 on failure. */
uint64_t veo_load_library(struct veo_proc_handle *proc, const char *path);
int veo_unload_library(struct veo_proc_handle *proc, const uint64_t library);
/* An address on the VE, 0 on failure. */
uint64_t veo_get_sym(struct veo_proc_handle *proc, uint64_t library, const char *name);

/*
 * VE memory. 0, or -1 without memory, -2 for any other failure of an allocation. A block is malloc's of
 * the VE: aligned to 16 bytes, and of no size to a page. What is to be VESHM, or for the DMA engine, is in whole pages (64 MiB): allocate one
 * page more and round up the address, or the HMEM pointer of veo_alloc_hmem; free what was allocated. All blocks of a process
 * together have at most the card's memory: 48 GiB, on VE3 96. Transfers answer 0 or a negative number.
 */
int veo_alloc_mem(struct veo_proc_handle *proc, uint64_t *address, const size_t size);
int veo_free_mem(struct veo_proc_handle *proc, uint64_t address);
int veo_read_mem(struct veo_proc_handle *proc, void *dst, uint64_t src, size_t size);
int veo_write_mem(struct veo_proc_handle *proc, uint64_t dst, const void *src, size_t size);

/*
 * Pointers to VE or VH memory (see veo_hmem.h), of the first VEO_MAX_HMEM_PROCS processes that are there: of others -1 (ENOMEM). veo_alloc_hmem without a process allocates VH memory. veo_hmemcpy
 * copies between the two, on the VH, or inside one VE process.
 */
int veo_alloc_hmem(struct veo_proc_handle *proc, void **pointer, const size_t size);
int veo_free_hmem(void *pointer);
int veo_hmemcpy(void *dst, const void *src, size_t size);
void *veo_set_proc_identifier(void *address, int identifier);
struct veo_proc_handle *veo_get_proc_handle_from_hmem(const void *pointer);
int veo_get_proc_identifier_from_hmem(const void *pointer);
/* -1 and EINVAL for a pointer that is not to VE memory of a VE process that was created and not destroyed, EBUSY when that has died. */
pid_t veo_get_pid_from_hmem(const void *pointer);
int veo_get_venum_from_hmem(const void *pointer);

/* Contexts: a thread on the VE each. The first of a process, its main context, is there from the beginning. */
int veo_num_contexts(struct veo_proc_handle *proc);
struct veo_thr_ctxt *veo_get_context(struct veo_proc_handle *proc, int index);
struct veo_thr_ctxt *veo_context_open(struct veo_proc_handle *proc);
struct veo_thr_ctxt *veo_context_open_with_attr(struct veo_proc_handle *proc, struct veo_thr_ctxt_attr *attr);
/* Finishes what was requested; does nothing to a main context. */
int veo_context_close(struct veo_thr_ctxt *ctx);
void veo_context_sync(struct veo_thr_ctxt *ctx);
int veo_get_context_state(struct veo_thr_ctxt *ctx);

struct veo_thr_ctxt_attr *veo_alloc_thr_ctxt_attr(void);
int veo_free_thr_ctxt_attr(struct veo_thr_ctxt_attr *attr);
/* 4 MiB and more; 128 MiB unless set. */
int veo_set_thr_ctxt_stacksize(struct veo_thr_ctxt_attr *attr, size_t size);
int veo_get_thr_ctxt_stacksize(struct veo_thr_ctxt_attr *attr, size_t *size);

/*
 * Arguments. A buffer of veo_args_set_stack looks to the function like a variable of its caller; buffers of IN and
 * INOUT are read when the call is requested, those of OUT and INOUT written before its result is there: at most
 * 63 MiB in one call. Every argument between the first and the last must be set.
 */
struct veo_args *veo_args_alloc(void);
void veo_args_clear(struct veo_args *args);
void veo_args_free(struct veo_args *args);
int veo_args_set_i64(struct veo_args *args, int number, int64_t value);
int veo_args_set_u64(struct veo_args *args, int number, uint64_t value);
int veo_args_set_i32(struct veo_args *args, int number, int32_t value);
int veo_args_set_u32(struct veo_args *args, int number, uint32_t value);
int veo_args_set_i16(struct veo_args *args, int number, int16_t value);
int veo_args_set_u16(struct veo_args *args, int number, uint16_t value);
int veo_args_set_i8(struct veo_args *args, int number, int8_t value);
int veo_args_set_u8(struct veo_args *args, int number, uint8_t value);
int veo_args_set_double(struct veo_args *args, int number, double value);
int veo_args_set_float(struct veo_args *args, int number, float value);
int veo_args_set_stack(struct veo_args *args, enum veo_args_intent intent, int number, char *buffer, size_t size);
/* Takes what veo_get_hmem_addr answers. */
int veo_args_set_hmem(struct veo_args *args, int number, void *pointer);

/* Calls. veo_call_sync runs on the main context, behind what was requested there. NULL stands for no arguments. */
int veo_call_sync(struct veo_proc_handle *proc, uint64_t function, struct veo_args *args, uint64_t *result);
uint64_t veo_call_async(struct veo_thr_ctxt *ctx, uint64_t function, struct veo_args *args);
uint64_t veo_call_async_by_name(struct veo_thr_ctxt *ctx, uint64_t library, const char *name,
                                struct veo_args *args);
/* Runs `function` on the VH, in its turn. */
uint64_t veo_call_async_vh(struct veo_thr_ctxt *ctx, uint64_t (*function)(void *), void *argument);
/* A number of enum veo_command_state; -1 for a context that is closed. A result is given out once. */
int veo_call_peek_result(struct veo_thr_ctxt *ctx, uint64_t request, uint64_t *result);
int veo_call_wait_result(struct veo_thr_ctxt *ctx, uint64_t request, uint64_t *result);

uint64_t veo_async_read_mem(struct veo_thr_ctxt *ctx, void *dst, uint64_t src, size_t size);
uint64_t veo_async_write_mem(struct veo_thr_ctxt *ctx, uint64_t dst, const void *src, size_t size);
/* The result is the address. */
uint64_t veo_alloc_mem_async(struct veo_thr_ctxt *ctx, const size_t size);
uint64_t veo_free_mem_async(struct veo_thr_ctxt *ctx, uint64_t address);

/* Between the two, requests of other threads to this context wait. */
void veo_req_block_begin(struct veo_thr_ctxt *ctx);
void veo_req_block_end(struct veo_thr_ctxt *ctx);

/*
 * Hooks for upper layers, called after
 *     veo_alloc_mem       (payload, proc, address of the address, size)
 *     veo_free_mem        (payload, proc, address)
 *     veo_alloc_hmem      (payload, proc, pointer, size)
 *     veo_free_hmem       (payload, proc, pointer)
 *     veo_alloc_mem_async (payload, ctx, address, size)
 *     veo_free_mem_async  (payload, ctx, address)
 * and a pair for all memory, which gets pointers to VE memory.
 */
void veo_register_hook(void *function, void (*hook)(void *, ...), void *payload);
void *veo_get_hook(void *function);
void veo_unregister_hook(void *function);
void veo_register_hmem_hook_functions(void (*allocated)(void *, size_t), void (*freed)(uint64_t));
void veo_unregister_hmem_hook_functions(void);

#ifdef __cplusplus
}
#endif
#endif

/* Each row of the tables of rsm 5 and 7 but the map's; words: the launcher and a file to write segment ids to. */
#include "rsm_support.h"

#include <sys/resource.h>
#include <sys/time.h>

static void *nothing; /* a number that is no handle */
static void *volatile wrong = (void *)16; /* an address where nothing is */

static void controllers(void)
{
    rsmapi_controller_handle_t again = NULL, one = controller;
    rsmapi_controller_attr_t attr;
    char name[] = "LoopBack", other[] = "sci0", longest[301];
    memset(longest, 'x', 300);
    longest[300] = 0;
    SAME(rsm_get_controller(other, NULL), RSMERR_BAD_CTLR_HNDL);
    SAME(rsm_get_controller(other, &again), RSMERR_CTLR_NOT_PRESENT);
    SAME(rsm_get_controller(longest, &again), RSMERR_CTLR_NOT_PRESENT);
    SAME(again, NULL);
    FINE(rsm_get_controller(name, &again));
    SAME(again, one);
    SAME(rsm_get_controller_attr(nothing, NULL), RSMERR_BAD_CTLR_HNDL);
    SAME(rsm_get_controller_attr(NULL, &attr), RSMERR_BAD_CTLR_HNDL);
    SAME(rsm_get_controller_attr(again, NULL), RSMERR_BAD_ADDR);
    FINE(rsm_get_controller_attr(again, &attr));
    SAME(attr.attr_direct_access_sizes, RSM_DAS8 | RSM_DAS16 | RSM_DAS32 | RSM_DAS64);
    SAME(attr.attr_atomic_sizes, RSM_DAS32 | RSM_DAS64);
    SAME(attr.attr_page_size, sysconf(_SC_PAGESIZE));
    SAME(attr.attr_max_export_segment_size, 0);
    TRUE(attr.attr_max_import_segments > 0 && attr.attr_max_import_map_size > 0);
    /* The last release ends what was built on it. */
    void *segment = NULL, *import = NULL, *window = NULL;
    char *memory = pages(1);
    rsm_memseg_id_t id = 0;
    FINE(rsm_memseg_export_create(one, &segment, memory, PAGE, 0));
    FINE(rsm_memseg_export_publish(segment, &id, NULL, 0));
    import = connected(id, RSM_PERM_RDWR);
    FINE(rsm_memseg_import_map(import, &window, 0, RSM_PERM_RDWR, 0, PAGE));
    strcpy(window, "stays");
    FINE(rsm_release_controller(one));
    FINE(rsm_memseg_import_unmap(import));
    FINE(rsm_release_controller(one));
    SAME(rsm_release_controller(one), RSMERR_BAD_CTLR_HNDL);
    SAME(rsm_release_controller(nothing), RSMERR_BAD_CTLR_HNDL);
    SAME(rsm_memseg_export_destroy(segment), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_import_disconnect(import), RSMERR_BAD_SEG_HNDL);
    FINE(strcmp(memory, "stays"));
    FINE(munmap(memory, PAGE));
    FINE(rsm_get_controller(NULL, &controller));
    TRUE(controller != one);
    SAME(rsm_get_controller_attr(one, &attr), RSMERR_BAD_CTLR_HNDL);
}

static void create(void)
{
    void *segment = &segment;
    char *memory = pages(4);
    void *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
#define REFUSED(code, ...)                                                    \
    do {                                                                      \
        segment = &segment;                                                   \
        SAME(rsm_memseg_export_create(__VA_ARGS__), code);                    \
        SAME(segment, NULL);                                                  \
    } while (0)
    REFUSED(RSMERR_BAD_CTLR_HNDL, nothing, &segment, NULL, 0, 0);
    SAME(rsm_memseg_export_create(controller, NULL, NULL, 0, 0), RSMERR_BAD_SEG_HNDL);
    REFUSED(RSMERR_BAD_ADDR, controller, &segment, NULL, 0, 0);
    REFUSED(RSMERR_BAD_LENGTH, controller, &segment, memory + 1, 0, 0);
    REFUSED(RSMERR_BAD_MEM_ALIGNMENT, controller, &segment, memory + 1, PAGE, 0);
    REFUSED(RSMERR_BAD_MEM_ALIGNMENT, controller, &segment, memory, PAGE + 1, 0);
    REFUSED(RSMERR_INSUFFICIENT_RESOURCES, controller, &segment, shared, PAGE, 0);
    /* A part that is not mapped comes before a part that is closed. */
    FINE(mprotect(memory, PAGE, PROT_READ));
    REFUSED(RSMERR_PERM_DENIED, controller, &segment, memory, 4 * PAGE, 0);
    FINE(munmap(memory + 2 * PAGE, PAGE));
    REFUSED(RSMERR_BAD_ADDR, controller, &segment, memory, 4 * PAGE, 0);
    REFUSED(RSMERR_BAD_ADDR, controller, &segment, memory, (size_t)-PAGE, 0);
    FINE(mprotect(memory, PAGE, PROT_READ | PROT_WRITE));
    /* No descriptor is left. */
    struct rlimit before, none;
    FINE(getrlimit(RLIMIT_NOFILE, &before));
    none = (struct rlimit){3, before.rlim_max};
    FINE(setrlimit(RLIMIT_NOFILE, &none));
    REFUSED(RSMERR_INSUFFICIENT_RESOURCES, controller, &segment, memory, PAGE, RSM_CREATE_SEG_DONTWAIT);
    FINE(setrlimit(RLIMIT_NOFILE, &before));
    /* Unknown flags mean nothing. */
    FINE(rsm_memseg_export_create(controller, &segment, memory, PAGE, 0xF0));
    FINE(rsm_memseg_export_destroy(segment));
    SAME(rsm_memseg_export_destroy(segment), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_export_destroy(nothing), RSMERR_BAD_SEG_HNDL);
    FINE(munmap(shared, PAGE));
    FINE(munmap(memory, 2 * PAGE));
    FINE(munmap(memory + 3 * PAGE, PAGE));
}

/* What a child that was forked from the creator is answered. */
static void in_a_child(void *segment)
{
    pid_t child = fork();
    if (child == 0) {
        rsm_memseg_id_t id = 0, reserved = 5;
        rsmapi_access_entry_t two[2] = {{0, 0600}, {0, 0600}};
        SAME(rsm_memseg_export_publish(segment, &id, NULL, 0), RSMERR_NOT_CREATOR);
        SAME(rsm_memseg_export_publish(segment, &reserved, NULL, 0), RSMERR_RESERVED_SEGID);
        SAME(rsm_memseg_export_publish(segment, &id, two, 2), RSMERR_NOT_CREATOR);
        SAME(rsm_memseg_export_unpublish(segment), RSMERR_NOT_CREATOR);
        SAME(rsm_memseg_export_republish(segment, NULL, 0), RSMERR_NOT_CREATOR);
        SAME(rsm_memseg_export_republish(segment, two, 2), RSMERR_BAD_ACL);
        SAME(rsm_memseg_export_rebind(segment, pages(2), 0, 2 * PAGE), RSMERR_NOT_CREATOR);
        SAME(rsm_memseg_export_destroy(segment), RSMERR_NOT_CREATOR);
        /* It is another process, with segments of its own. */
        void *own = NULL, *import = NULL;
        FINE(rsm_memseg_export_create(controller, &own, pages(1), PAGE, 0));
        FINE(rsm_memseg_export_publish(own, &id, NULL, 0));
        import = connected(id, RSM_PERM_READ);
        FINE(rsm_memseg_import_disconnect(import));
        FINE(rsm_release_controller(controller));
        _exit(0);
    }
    int status = 1;
    TRUE(waitpid(child, &status, 0) == child);
    FINE(status);
}

static void publish_and_rebind(void)
{
    void *one = NULL, *two = NULL;
    char *memory = pages(2), *other = pages(4);
    rsm_memseg_id_t id = 0x600001, reserved = 0x3FFFFF, free_one = 0;
    rsmapi_access_entry_t list[2] = {{0, 0600}, {0, 0600}}, foreign = {7, 0600}, high = {0, 0667};
    FINE(rsm_memseg_export_create(controller, &one, memory, 2 * PAGE, RSM_ALLOW_REBIND));
    FINE(rsm_memseg_export_create(controller, &two, other, 2 * PAGE, 0));
    in_a_child(one);
    SAME(rsm_memseg_export_publish(nothing, NULL, NULL, 1), RSMERR_BAD_SEGID);
    SAME(rsm_memseg_export_publish(nothing, &reserved, NULL, 1), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_export_publish(one, &reserved, NULL, 1), RSMERR_BAD_ACL);
    SAME(rsm_memseg_export_publish(one, &reserved, list, 2), RSMERR_RESERVED_SEGID);
    SAME(rsm_memseg_export_publish(one, &id, list, 2), RSMERR_BAD_ACL);
    SAME(rsm_memseg_export_publish(one, &id, wrong, 1), RSMERR_BAD_ADDR);
    SAME(rsm_memseg_export_publish(one, &id, &foreign, 1), RSMERR_BAD_ACL);
    SAME(rsm_memseg_export_publish(one, &id, &high, 1), RSMERR_BAD_ACL);
    SAME(rsm_memseg_export_republish(one, NULL, 1), RSMERR_SEG_NOT_PUBLISHED);
    SAME(rsm_memseg_export_unpublish(one), RSMERR_SEG_NOT_PUBLISHED);
    FINE(rsm_memseg_export_publish(one, &id, list, 1));
    SAME(id, 0x600001);
    SAME(rsm_memseg_export_publish(one, &reserved, NULL, 0), RSMERR_SEG_ALREADY_PUBLISHED);
    SAME(rsm_memseg_export_publish(one, &reserved, NULL, 1), RSMERR_BAD_ACL);
    SAME(rsm_memseg_export_publish(two, &id, NULL, 0), RSMERR_SEGID_IN_USE);
    FINE(rsm_memseg_export_publish(two, &free_one, NULL, 0));
    TRUE(free_one >= 0x80000000);
    SAME(rsm_memseg_export_republish(nothing, NULL, 0), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_export_republish(one, NULL, 1), RSMERR_BAD_ACL);
    SAME(rsm_memseg_export_republish(one, list, 2), RSMERR_BAD_ACL);
    SAME(rsm_memseg_export_republish(one, &high, 1), RSMERR_BAD_ACL);
    FINE(rsm_memseg_export_republish(one, NULL, 0));
    in_a_child(one);

    SAME(rsm_memseg_export_rebind(nothing, NULL, 0, 0), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_export_rebind(two, NULL, 0, 1), RSMERR_BAD_ADDR);
    SAME(rsm_memseg_export_rebind(two, other + 1, 0, 1), RSMERR_REBIND_NOT_ALLOWED);
    SAME(rsm_memseg_export_rebind(one, other + 1, 0, PAGE), RSMERR_BAD_LENGTH);
    SAME(rsm_memseg_export_rebind(one, other + 2 * PAGE + 1, 0, 2 * PAGE), RSMERR_BAD_ADDR);
    FINE(munmap(other + 3 * PAGE, PAGE));
    SAME(rsm_memseg_export_rebind(one, other + 2 * PAGE, 0, 2 * PAGE), RSMERR_BAD_ADDR);
    FINE(rsm_memseg_export_rebind(one, memory, 99, 2 * PAGE));
    char *closed = pages(2);
    FINE(mprotect(closed, PAGE, PROT_NONE));
    SAME(rsm_memseg_export_rebind(one, closed, 0, 2 * PAGE), RSMERR_PERM_DENIED);
    memory[5] = 1;
    void *import = connected(id, RSM_PERM_READ);
    FINE(rsm_memseg_import_set_mode(import, RSM_BARRIER_MODE_EXPLICIT));
    char byte = 0;
    FINE(rsm_memseg_import_get(import, 5, &byte, 1));
    SAME(byte, 1); /* the old memory is in force */
    FINE(rsm_memseg_import_unmap(import));
    FINE(rsm_memseg_import_disconnect(import));
    struct pollfd fd;
    FINE(rsm_memseg_get_pollfd(one, &fd));
    SAME(rsm_memseg_export_destroy(one), RSMERR_POLLFD_IN_USE);
    FINE(rsm_memseg_release_pollfd(one));
    FINE(rsm_memseg_export_unpublish(one));
    FINE(rsm_memseg_export_destroy(one));
    FINE(rsm_memseg_export_destroy(two));
    SAME(rsm_memseg_export_unpublish(two), RSMERR_BAD_SEG_HNDL);
    FINE(munmap(memory, 2 * PAGE));
    FINE(munmap(closed, 2 * PAGE));
    FINE(munmap(other, 3 * PAGE));
}

static void connect_and_disconnect(void)
{
    struct exporter exporter;
    rsm_memseg_id_t id = exporting(&exporter, 2, ALL);
    void *handle = NULL, *at = NULL;
    struct pollfd fd;
    SAME(rsm_memseg_import_connect(nothing, 9, 1, 1, NULL), RSMERR_BAD_CTLR_HNDL);
    SAME(rsm_memseg_import_connect(controller, 9, 1, 1, NULL), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_import_connect(controller, 9, 1, 04, &handle), RSMERR_PERM_DENIED);
    SAME(rsm_memseg_import_connect(controller, 9, 1, RSM_PERM_READ, &handle), RSMERR_CTLR_NOT_PRESENT);
    SAME(rsm_memseg_import_connect(controller, 0, 1, RSM_PERM_READ, &handle), RSMERR_SEG_NOT_PUBLISHED);
    SAME(handle, NULL);
    struct rlimit before, none;
    FINE(getrlimit(RLIMIT_NOFILE, &before));
    none = (struct rlimit){3, before.rlim_max};
    FINE(setrlimit(RLIMIT_NOFILE, &none));
    SAME(rsm_memseg_import_connect(controller, 0, id, RSM_PERM_READ, &handle), RSMERR_INSUFFICIENT_RESOURCES);
    FINE(setrlimit(RLIMIT_NOFILE, &before));
    handle = connected(id, RSM_PERM_NONE);
    FINE(rsm_memseg_import_disconnect(handle));
    handle = connected(id, RSM_PERM_RDWR);
    FINE(rsm_memseg_import_map(handle, &at, 0, RSM_PERM_READ, 0, 1));
    FINE(rsm_memseg_get_pollfd(handle, &fd));
    SAME(rsm_memseg_import_disconnect(handle), RSMERR_SEG_STILL_MAPPED);
    FINE(rsm_memseg_import_unmap(handle)); /* the count does not prevent it */
    SAME(rsm_memseg_import_disconnect(handle), RSMERR_POLLFD_IN_USE);
    FINE(rsm_memseg_release_pollfd(handle));
    FINE(rsm_memseg_release_pollfd(handle));
    FINE(rsm_memseg_import_disconnect(handle));
    SAME(rsm_memseg_import_disconnect(handle), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_import_disconnect(nothing), RSMERR_BAD_SEG_HNDL);
    stop(&exporter, 0);
}

static void transfers(void)
{
    struct exporter exporter;
    rsm_memseg_id_t id = exporting(&exporter, 2, ALL);
    void *reader = connected(id, RSM_PERM_READ), *handle = connected(id, RSM_PERM_RDWR);
    rsmapi_barrier_t barrier;
    uint64_t words[4] = {0, 0, 0, 0};
    uint32_t halves[2] = {1, 2};
    uint16_t quarters[2] = {3, 4};
    uint8_t bytes[2] = {5, 6};
    char *odd = (char *)words + 1;
    off_t end = 2 * PAGE;
    SAME(rsm_memseg_import_get64(nothing, 1, NULL, 1), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_import_put64(reader, 1, NULL, 1), RSMERR_BAD_ADDR);
    SAME(rsm_memseg_import_put64(reader, 0, (void *)odd, 1), RSMERR_BAD_MEM_ALIGNMENT);
    SAME(rsm_memseg_import_put64(reader, 4, words, 1), RSMERR_BAD_MEM_ALIGNMENT);
    SAME(rsm_memseg_import_put32(reader, 2, halves, 1), RSMERR_BAD_MEM_ALIGNMENT);
    SAME(rsm_memseg_import_put16(reader, 1, quarters, 1), RSMERR_BAD_MEM_ALIGNMENT);
    SAME(rsm_memseg_import_put64(reader, 0, words, (size_t)-1), RSMERR_BAD_LENGTH);
    SAME(rsm_memseg_import_put64(reader, -8, words, 1), RSMERR_PERM_DENIED);
    SAME(rsm_memseg_import_put8(reader, end, bytes, 1), RSMERR_PERM_DENIED);
    SAME(rsm_memseg_import_get64(reader, -8, words, 1), RSMERR_BAD_OFFSET);
    SAME(rsm_memseg_import_get64(reader, end, words, 1), RSMERR_BAD_LENGTH);
    SAME(rsm_memseg_import_get64(reader, 0, words, 1), RSMERR_BARRIER_UNINITIALIZED);
    SAME(rsm_memseg_import_get64(reader, end, words, 0), RSMERR_BARRIER_UNINITIALIZED);
    FINE(rsm_memseg_import_init_barrier(handle, RSM_BARRIER_SEGMENT, &barrier));
    FINE(rsm_memseg_import_get64(handle, end, words, 0));
    FINE(rsm_memseg_import_put8(handle, 0, bytes, 2));
    FINE(rsm_memseg_import_put16(handle, 2, quarters, 2));
    FINE(rsm_memseg_import_put32(handle, 8, halves, 2));
    words[0] = 0x1122334455667788;
    FINE(rsm_memseg_import_put64(handle, 16, words, 1));
    SAME(ask(&exporter, PEEK, 1), 6);
    SAME(ask(&exporter, PEEK, 4), 4);
    SAME(ask(&exporter, PEEK, 12), 2);
    SAME(ask(&exporter, PEEK, 16), 0x88);
    memset(words, 0, sizeof words);
    FINE(rsm_memseg_import_get64(handle, 0, words, 3));
    SAME(words[2], 0x1122334455667788);
    FINE(rsm_memseg_import_get32(handle, 8, halves, 2));
    FINE(rsm_memseg_import_get16(handle, 2, quarters, 2));
    FINE(rsm_memseg_import_get8(handle, 0, bytes, 2));
    TRUE(halves[1] == 2 && quarters[1] == 4 && bytes[1] == 6);
    FINE(rsm_memseg_import_put(handle, end - 5, "hello", 5));
    FINE(rsm_memseg_import_get(handle, end - 5, odd, 5));
    FINE(memcmp(odd, "hello", 5));
    /* Check 4 of section 9: a window in the middle, and what lies beside it. */
    void *at = NULL;
    SAME(rsm_memseg_import_map(handle, &at, 0, RSM_PERM_READ, PAGE, 8), RSMERR_SEG_ALREADY_MAPPED);
    FINE(rsm_memseg_import_unmap(handle));
    FINE(rsm_memseg_import_map(handle, &at, 0, RSM_PERM_READ, PAGE, 8));
    SAME(rsm_memseg_import_get8(handle, PAGE - 1, bytes, 1), RSMERR_BAD_OFFSET);
    SAME(rsm_memseg_import_get8(handle, PAGE + 8, bytes, 1), RSMERR_BAD_OFFSET);
    FINE(rsm_memseg_import_get64(handle, PAGE, words, 1));
    FINE(rsm_memseg_import_put64(handle, PAGE, words, 1)); /* the connection's right, not the window's */
    /* Aborted: with a mapping by the barrier, without one at once. */
    FINE(ask(&exporter, UNPUBLISH, 0));
    SAME(rsm_memseg_import_put64(handle, PAGE, words, 1), RSMERR_CONN_ABORTED);
    SAME(rsm_memseg_import_put64(handle, 0, words, 1), RSMERR_BAD_OFFSET);
    FINE(rsm_memseg_import_unmap(handle));
    SAME(rsm_memseg_import_put64(handle, 0, words, 1), RSMERR_CONN_ABORTED);
    FINE(rsm_memseg_import_unmap(reader));
    SAME(rsm_memseg_import_put64(reader, -8, words, 1), RSMERR_CONN_ABORTED);
    FINE(rsm_memseg_import_disconnect(handle));
    FINE(rsm_memseg_import_disconnect(reader));
    stop(&exporter, 0);
}

static void lists(void)
{
    struct exporter exporter;
    rsm_memseg_id_t id = exporting(&exporter, 2, ALL);
    void *handle = connected(id, RSM_PERM_RDWR), *reader = connected(id, RSM_PERM_READ), *local = &local, *kept = NULL;
    rsmapi_barrier_t barrier, second;
    char *memory = pages(1), text[] = "by address";
    SAME(rsm_create_localmemory_handle(nothing, NULL, memory + 1, 0), RSMERR_BAD_ADDR);
    SAME(rsm_create_localmemory_handle(nothing, NULL, memory, 0), RSMERR_BAD_CTLR_HNDL);
    SAME(rsm_create_localmemory_handle(controller, NULL, memory, 0), RSMERR_BAD_LOCALMEM_HNDL);
    SAME(rsm_create_localmemory_handle(controller, &local, memory, 0), RSMERR_BAD_LENGTH);
    FINE(rsm_create_localmemory_handle(controller, &local, memory, PAGE));
    SAME(rsm_free_localmemory_handle(nothing, local), RSMERR_BAD_CTLR_HNDL);
    SAME(rsm_free_localmemory_handle(controller, handle), RSMERR_BAD_LOCALMEM_HNDL);
    strcpy(memory + 100, "by handle");
    rsm_iovec_t entries[3] = {
        {RSM_HANDLE_TYPE, {.handle = local}, 100, 0, 10},
        {RSM_VA_TYPE, {.vaddr = text}, 3, 50, 8},
        {RSM_VA_TYPE, {.vaddr = text}, 0, PAGE, 0},
    };
    rsm_scat_gath_t list = {0, 3, 99, 0, nothing, entries};
    SAME(rsm_memseg_import_putv(NULL), RSMERR_BAD_SGIO);
    SAME(rsm_memseg_import_putv(&list), RSMERR_BAD_SEG_HNDL);
    list.remote_handle = handle;
    list.io_request_count = 0;
    SAME(rsm_memseg_import_putv(&list), RSMERR_BAD_SGIO);
    list.io_request_count = 17;
    SAME(rsm_memseg_import_putv(&list), RSMERR_BAD_SGIO);
    list.io_request_count = 3;
    list.iovec = NULL;
    SAME(rsm_memseg_import_putv(&list), RSMERR_BAD_SGIO);
    list.iovec = entries;
    entries[2].io_type = 3;
    SAME(rsm_memseg_import_putv(&list), RSMERR_BAD_SGIO);
    entries[2].io_type = RSM_HANDLE_TYPE; /* of which the local address is no handle */
    SAME(rsm_memseg_import_putv(&list), RSMERR_BAD_SGIO);
    SAME(list.io_residual_count, 99);
    entries[2].io_type = RSM_VA_TYPE;
    SAME(rsm_memseg_import_putv(&list), RSMERR_BARRIER_UNINITIALIZED);
    FINE(rsm_memseg_import_init_barrier(handle, RSM_BARRIER_NODE, &barrier));
    FINE(rsm_memseg_import_init_barrier(reader, RSM_BARRIER_NODE, &second));
    list.flags = RSM_IMPLICIT_SIGPOST | RSM_SIGPOST_NO_ACCUMULATE;
    FINE(rsm_memseg_import_putv(&list));
    SAME(list.io_residual_count, 0);
    SAME(list.flags, RSM_IMPLICIT_SIGPOST | RSM_SIGPOST_NO_ACCUMULATE);
    FINE(rsm_memseg_import_putv(&list)); /* one is pending already */
    FINE(ask(&exporter, WAIT, 10000));
    SAME(ask(&exporter, WAIT, 0), RSMERR_TIMEOUT);
    list.flags = 0;
    memset(memory, 0, PAGE);
    memset(text + 3, 0, 7);
    FINE(rsm_memseg_import_getv(&list));
    FINE(strcmp(memory + 100, "by handle") | strcmp(text, "by address"));
    /* The entry that fails ends it: the right, the segment's range, the handle's, the address. */
    struct { rsm_iovec_t entry; int code; } bad[] = {
        {{RSM_VA_TYPE, {.vaddr = text}, 0, (size_t)-1, 1}, RSMERR_BAD_OFFSET},
        {{RSM_VA_TYPE, {.vaddr = text}, 0, 2 * PAGE, 1}, RSMERR_BAD_LENGTH},
        {{RSM_VA_TYPE, {.vaddr = text}, 0, 0, (size_t)-1}, RSMERR_BAD_LENGTH},
        {{RSM_HANDLE_TYPE, {.handle = local}, PAGE + 1, 0, 0}, RSMERR_BAD_OFFSET},
        {{RSM_HANDLE_TYPE, {.handle = local}, 1, 0, PAGE}, RSMERR_BAD_LENGTH},
        {{RSM_VA_TYPE, {.vaddr = NULL}, 0, 0, 1}, RSMERR_BAD_ADDR},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        entries[1] = bad[i].entry;
        SAME(rsm_memseg_import_getv(&list), bad[i].code);
        SAME(list.io_residual_count, 2);
    }
    list.remote_handle = reader;
    SAME(rsm_memseg_import_putv(&list), RSMERR_PERM_DENIED);
    SAME(list.io_residual_count, 3);
    FINE(ask(&exporter, UNPUBLISH, 0));
    SAME(rsm_memseg_import_getv(&list), RSMERR_CONN_ABORTED);
    SAME(list.io_residual_count, 3);
    kept = local;
    FINE(rsm_free_localmemory_handle(controller, local));
    SAME(rsm_free_localmemory_handle(controller, kept), RSMERR_BAD_LOCALMEM_HNDL);
    FINE(rsm_memseg_import_disconnect(handle));
    FINE(rsm_memseg_import_unmap(reader));
    FINE(rsm_memseg_import_disconnect(reader));
    FINE(munmap(memory, PAGE));
    stop(&exporter, 0);
}

static void barriers(void)
{
    struct exporter exporter;
    rsm_memseg_id_t id = exporting(&exporter, 1, ALL);
    void *handle = connected(id, RSM_PERM_RDWR);
    rsmapi_barrier_t barrier, moved, wild;
    rsm_barrier_mode_t mode = 9;
    char byte = 1;
    memset(&wild, 0x5A, sizeof wild);
    SAME(rsm_memseg_import_init_barrier(nothing, 3, NULL), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_import_init_barrier(handle, 3, NULL), RSMERR_BAD_BARRIER_PTR);
    SAME(rsm_memseg_import_init_barrier(handle, 3, &barrier), RSMERR_BAD_BARRIER_PTR);
    int (*const functions[])(rsmapi_barrier_t *) = {rsm_memseg_import_open_barrier, rsm_memseg_import_order_barrier,
                                                    rsm_memseg_import_close_barrier, rsm_memseg_import_destroy_barrier};
    for (int i = 0; i < 4; i++) {
        SAME(functions[i](NULL), RSMERR_BAD_BARRIER_PTR);
        SAME(functions[i](&wild), RSMERR_BARRIER_UNINITIALIZED);
    }
    const unsigned types[] = {RSM_BARRIER_SEGMENT, RSM_BARRIER_NODE, RSM_BARRIER_SEGMENT_THREAD, RSM_BARRIER_NODE_THREAD};
    for (int i = 0; i < 4; i++) {
        FINE(rsm_memseg_import_init_barrier(handle, types[i], &barrier));
        SAME(rsm_memseg_import_order_barrier(&barrier), RSMERR_BARRIER_NOT_OPENED);
        SAME(rsm_memseg_import_close_barrier(&barrier), RSMERR_BARRIER_NOT_OPENED);
        FINE(rsm_memseg_import_open_barrier(&barrier));
        FINE(rsm_memseg_import_order_barrier(&barrier));
        FINE(rsm_memseg_import_open_barrier(&barrier));
        FINE(rsm_memseg_import_put(handle, 0, &byte, 1));
        FINE(rsm_memseg_import_close_barrier(&barrier));
        SAME(rsm_memseg_import_close_barrier(&barrier), RSMERR_BARRIER_NOT_OPENED);
    }
    moved = barrier;
    FINE(rsm_memseg_import_destroy_barrier(&barrier));
    for (int i = 0; i < 4; i++) {
        SAME(functions[i](&barrier), RSMERR_BARRIER_UNINITIALIZED);
        SAME(functions[i](&moved), RSMERR_BARRIER_UNINITIALIZED);
    }
    SAME(rsm_memseg_import_put(handle, 0, &byte, 1), RSMERR_BARRIER_UNINITIALIZED);
    SAME(rsm_memseg_import_set_mode(nothing, 2), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_import_set_mode(handle, 2), RSMERR_BAD_MODE);
    SAME(rsm_memseg_import_get_mode(nothing, NULL), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_import_get_mode(handle, NULL), RSMERR_BAD_ADDR);
    FINE(rsm_memseg_import_get_mode(handle, &mode));
    SAME(mode, RSM_BARRIER_MODE_IMPLICIT);
    FINE(rsm_memseg_import_set_mode(handle, RSM_BARRIER_MODE_EXPLICIT));
    FINE(rsm_memseg_import_get_mode(handle, &mode));
    SAME(mode, RSM_BARRIER_MODE_EXPLICIT);
    /* Explicit mode: what is lost is said by the close. */
    FINE(rsm_memseg_import_init_barrier(handle, RSM_BARRIER_SEGMENT, &barrier));
    FINE(rsm_memseg_import_open_barrier(&barrier));
    FINE(rsm_memseg_import_put(handle, 0, &byte, 1));
    FINE(rsm_memseg_import_close_barrier(&barrier));
    FINE(rsm_memseg_import_open_barrier(&barrier));
    FINE(ask(&exporter, DESTROY, 0));
    FINE(rsm_memseg_import_put(handle, 0, &byte, 1));
    SAME(rsm_memseg_import_close_barrier(&barrier), RSMERR_CONN_ABORTED);
    SAME(rsm_memseg_import_close_barrier(&barrier), RSMERR_BARRIER_NOT_OPENED);
    FINE(rsm_memseg_import_open_barrier(&barrier));
    SAME(rsm_memseg_import_close_barrier(&barrier), RSMERR_CONN_ABORTED);
    FINE(rsm_memseg_import_disconnect(handle));
    SAME(rsm_memseg_import_open_barrier(&barrier), RSMERR_BAD_SEG_HNDL);
    FINE(rsm_memseg_import_destroy_barrier(&barrier));
    stop(&exporter, 0);
}

static void nobody_cares(int signal) { (void)signal; }

static void signals(void)
{
    struct exporter exporter;
    rsm_memseg_id_t id = exporting(&exporter, 1, ALL);
    void *one = connected(id, RSM_PERM_READ), *two = connected(id, RSM_PERM_READ), *own = NULL;
    struct pollfd fds[3], fd;
    int count = 9, pipes[2];
    FINE(pipe2(pipes, O_CLOEXEC));
    SAME(rsm_intr_signal_post(nothing, 0), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_intr_signal_wait(nothing, 0), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_intr_signal_wait(one, 0), RSMERR_TIMEOUT);
    SAME(rsm_intr_signal_wait(one, 10), RSMERR_TIMEOUT);
    struct sigaction action = {.sa_handler = nobody_cares};
    FINE(sigaction(SIGALRM, &action, NULL));
    struct itimerval soon = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    FINE(setitimer(ITIMER_REAL, &soon, NULL));
    SAME(rsm_intr_signal_wait(one, -1), RSMERR_INTERRUPTED);
    FINE(setitimer(ITIMER_REAL, &never, NULL));
    FINE(ask(&exporter, POST, 0));
    FINE(ask(&exporter, POST, RSM_SIGPOST_NO_ACCUMULATE));
    FINE(ask(&exporter, POST, 0));
    FINE(rsm_intr_signal_wait(one, -1));
    FINE(rsm_intr_signal_wait(one, 0));
    SAME(rsm_intr_signal_wait(one, 0), RSMERR_TIMEOUT);
    FINE(rsm_intr_signal_post(two, 0));
    FINE(rsm_intr_signal_post(one, RSM_SIGPOST_NO_ACCUMULATE));
    FINE(ask(&exporter, WAIT, 10000));
    SAME(ask(&exporter, WAIT, 0), RSMERR_TIMEOUT);
    /* Descriptors: of an export segment only while it is published; the same each time. */
    SAME(rsm_memseg_get_pollfd(nothing, NULL), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_get_pollfd(one, NULL), RSMERR_BAD_ADDR);
    FINE(rsm_memseg_export_create(controller, &own, pages(1), PAGE, 0));
    SAME(rsm_memseg_get_pollfd(own, NULL), RSMERR_BAD_SEG_HNDL);
    FINE(rsm_intr_signal_post(own, 0)); /* to nobody */
    SAME(rsm_memseg_release_pollfd(nothing), RSMERR_BAD_SEG_HNDL);
    FINE(rsm_memseg_get_pollfd(two, &fds[0]));
    FINE(rsm_memseg_get_pollfd(two, &fd));
    TRUE(fd.fd == fds[0].fd && fd.events == POLLRDNORM);
    FINE(rsm_memseg_get_pollfd(one, &fds[2]));
    fds[1] = (struct pollfd){pipes[0], POLLIN, 0};
    SAME(rsm_intr_signal_wait_pollfd(NULL, 3, 0, &count), RSMERR_BAD_ADDR);
    SAME(rsm_intr_signal_wait_pollfd(fds, 3, 0, NULL), RSMERR_BAD_ADDR);
    SAME(rsm_intr_signal_wait_pollfd(wrong, 3, 0, &count), RSMERR_BAD_ADDR);
    SAME(rsm_intr_signal_wait_pollfd(fds, (nfds_t)1 << 40, 0, &count), RSMERR_BAD_ARGS_ERRORS);
    SAME(rsm_intr_signal_wait_pollfd(fds, 0x7fffffff, 0, &count), RSMERR_BAD_ARGS_ERRORS);
    FINE(ask(&exporter, POST, 0)); /* one has this, two the others still */
    FINE(rsm_intr_signal_wait_pollfd(fds + 2, 1, -1, &count));
    SAME(count, 1);
    SAME(fds[2].revents, POLLRDNORM);
    SAME(rsm_intr_signal_wait_pollfd(fds + 2, 1, 0, &count), RSMERR_TIMEOUT);
    FINE(setitimer(ITIMER_REAL, &soon, NULL));
    SAME(rsm_intr_signal_wait_pollfd(fds + 2, 1, -1, &count), RSMERR_INTERRUPTED);
    FINE(setitimer(ITIMER_REAL, &never, NULL));
    TRUE(write(pipes[1], "x", 1) == 1);
    FINE(rsm_intr_signal_wait_pollfd(fds, 3, -1, &count));
    SAME(count, 2); /* two's three posts, and the pipe */
    TRUE(fds[0].revents == POLLRDNORM && fds[1].revents == POLLIN && fds[2].revents == 0);
    FINE(rsm_intr_signal_wait(two, 0));
    FINE(rsm_intr_signal_wait(two, 0));
    SAME(rsm_intr_signal_wait(two, 0), RSMERR_TIMEOUT);
    /* The exporter goes: sleepers wake. */
    stop(&exporter, SIGKILL);
    SAME(rsm_intr_signal_wait(one, 10000), RSMERR_CONN_ABORTED);
    FINE(rsm_intr_signal_wait_pollfd(fds, 1, 10000, &count));
    SAME(fds[0].revents, POLLHUP);
    SAME(rsm_intr_signal_post(one, 0), RSMERR_CONN_ABORTED);
    for (int i = 0; i < 3; i++)
        FINE(rsm_memseg_release_pollfd(two));
    FINE(rsm_memseg_release_pollfd(one));
    FINE(rsm_memseg_import_disconnect(one));
    FINE(rsm_memseg_import_disconnect(two));
    FINE(rsm_memseg_export_destroy(own));
    close(pipes[0]);
    close(pipes[1]);
}

static void topology(const char *file)
{
    rsm_topology_t *topology = NULL;
    SAME(rsm_get_interconnect_topology(NULL), RSMERR_BAD_TOPOLOGY_PTR);
    FINE(rsm_get_interconnect_topology(&topology));
    SAME(topology->topology_hdr.local_nodeid, 0);
    SAME(topology->topology_hdr.local_cntlr_count, 1);
    const rsm_connections_t *connections = topology->local_cntlr[0];
    FINE(strcmp(connections->hdr.cntlr_name, "loopback"));
    SAME(connections->hdr.remote_cntlr_count, 1);
    SAME(connections->remote_cntlr[0].remote_nodeid, 0);
    SAME(connections->remote_cntlr[0].connection_state, RSM_CONNECTION_ACTIVE);
    FINE(strcmp(connections->remote_cntlr[0].remote_cntlrname, "loopback"));
    rsm_free_interconnect_topology(topology);
    rsm_free_interconnect_topology(NULL);

    rsm_memseg_id_t base = 0;
    uint32_t length = 0;
    SAME(rsm_get_segmentid_range(NULL, &base, &length), RSMERR_BAD_ADDR);
    SAME(rsm_get_segmentid_range("ours", NULL, &length), RSMERR_BAD_ADDR);
    SAME(rsm_get_segmentid_range("ours", &base, NULL), RSMERR_BAD_ADDR);
    SAME(rsm_get_segmentid_range("ours", &base, &length), RSMERR_BAD_CONF);
    const struct { const char *line; int code; } lines[] = {
        {"# none\n", RSMERR_BAD_APPID},
        {"reserved Ours 600000 16\n", 0},
        {"reserved other 600000 16\n", RSMERR_BAD_APPID},
        {"reserved ours 600000\n", RSMERR_BAD_CONF},
        {"booked ours 600000 16\n", RSMERR_BAD_CONF},
        {"reserved ours 60000x 16\n", RSMERR_BAD_CONF},
        {"reserved ours 600000 0x10\n", RSMERR_BAD_CONF},
    };
    for (unsigned i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        FILE *out = fopen(file, "w");
        TRUE(out != NULL && fputs(lines[i].line, out) >= 0 && fclose(out) == 0);
        SAME(rsm_get_segmentid_range("ours", &base, &length), lines[i].code);
    }
    TRUE(base == 0x600000 && length == 16);
    FINE(unlink(file));
}

/* The node's service goes while the process has a controller; the next one is another. */
static void lost(const char *launcher)
{
    rsmapi_controller_attr_t attr;
    void *segment = NULL;
    char *memory = pages(1);
    pid_t child = fork();
    if (child == 0) {
        execl(launcher, launcher, "node", "--stop", getenv("WINDLASS_NODE_NAME"), (char *)NULL);
        _exit(127);
    }
    int status = 1;
    TRUE(waitpid(child, &status, 0) == child);
    FINE(status);
    SAME(rsm_get_controller_attr(controller, &attr), RSMERR_CTLR_NOT_PRESENT);
    SAME(rsm_memseg_export_create(controller, &segment, memory, PAGE, 0), RSMERR_CTLR_NOT_PRESENT);
    SAME(rsm_memseg_import_connect(controller, 0, 1, 0, &segment), RSMERR_CTLR_NOT_PRESENT);
    FINE(rsm_release_controller(controller));
    FINE(rsm_get_controller(NULL, &controller));
    FINE(rsm_get_controller_attr(controller, &attr));
    FINE(munmap(memory, PAGE));
}

int main(int argc, char **argv)
{
    SAME(argc, 3);
    nothing = (void *)(uintptr_t)0x123456789AB0;
    FINE(rsm_get_controller(NULL, &controller));
    controllers();
    create();
    publish_and_rebind();
    connect_and_disconnect();
    transfers();
    lists();
    barriers();
    signals();
    topology(argv[2]);
    lost(argv[1]);
    FINE(rsm_release_controller(controller));
    puts("all as specified");
    return 0;
}

/* Windows (rsm 6): each row of the table of rsm_memseg_import_map, of two rows that hold the first, and a right call after each. */
#include "rsm_support.h"

#include <sys/resource.h>

enum { PAGES = 4 };

struct map {
    void *handle;
    int without_address;
    char *at;
    unsigned attr;
    rsm_permission_t permission;
    off_t offset;
    size_t length;
};

static int run(const struct map *map)
{
    void *address = map->at;
    int code = rsm_memseg_import_map(map->handle, map->without_address ? NULL : &address, map->attr, map->permission,
                                     map->offset, map->length);
    if (code != RSM_SUCCESS)
        SAME(address, map->at); /* unchanged */
    return code;
}

static rsm_memseg_export_handle_t own;
static char *place; /* free addresses */

static void bad_handle(struct map *map) { map->handle = NULL; }
static void exports_handle(struct map *map) { map->handle = own; }
static void number(struct map *map) { map->handle = (void *)(uintptr_t)12345678; }
static void no_address(struct map *map) { map->without_address = 1; }
static void permission_bits(struct map *map) { map->permission = 0601; }
static void attributes(struct map *map) { map->attr = 4; }
static void no_length(struct map *map) { map->length = 0; }
static void negative(struct map *map) { map->offset = -1; }
static void at_the_end(struct map *map) { map->offset = PAGES * PAGE; }
static void too_long(struct map *map) { map->length = PAGES * PAGE + 1; }
static void wrapping(struct map *map) { map->length = (size_t)-1; }
static void misaligned_offset(struct map *map) { map->offset = 8; }
static void misaligned_address(struct map *map) { map->attr = RSM_MAP_FIXED, map->at = place + 8; }
static void nowhere(struct map *map) { map->attr = RSM_MAP_FIXED, map->at = NULL; }
static void kernels(struct map *map) { map->attr = RSM_MAP_FIXED, map->at = (char *)0x7ffffffff000; }
static void not_granted(struct map *map) { map->permission = RSM_PERM_RDWR; }

/* about: which argument; two rows about the same one cannot hold at once. */
static const struct row {
    int row;
    char about;
    void (*spoil)(struct map *);
    int code;
} rows[] = {
    {1, 'h', bad_handle, RSMERR_BAD_SEG_HNDL},
    {1, 'h', exports_handle, RSMERR_BAD_SEG_HNDL},
    {1, 'h', number, RSMERR_BAD_SEG_HNDL},
    {2, 'a', no_address, RSMERR_BAD_ADDR},
    {5, 'p', permission_bits, RSMERR_BAD_PERMS},
    {6, 'a', attributes, RSMERR_MAP_FAILED},
    {7, 'l', no_length, RSMERR_BAD_LENGTH},
    {8, 'o', negative, RSMERR_BAD_OFFSET},
    {8, 'o', at_the_end, RSMERR_BAD_OFFSET},
    {9, 'l', too_long, RSMERR_BAD_LENGTH},
    {9, 'l', wrapping, RSMERR_BAD_LENGTH},
    {10, 'o', misaligned_offset, RSMERR_BAD_MEM_ALIGNMENT},
    {11, 'a', misaligned_address, RSMERR_BAD_MEM_ALIGNMENT},
    {12, 'a', nowhere, RSMERR_BAD_ADDR},
    {12, 'a', kernels, RSMERR_BAD_ADDR},
    {14, 'p', not_granted, RSMERR_BAD_PERMS},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static void table(void)
{
    struct exporter exporter;
    rsm_memseg_id_t id = exporting(&exporter, PAGES, ALL);
    void *handle = connected(id, RSM_PERM_READ);
    FINE(rsm_memseg_export_create(controller, &own, pages(1), PAGE, 0));
    place = mmap(NULL, 2 * PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct map right = {.handle = handle, .permission = RSM_PERM_READ, .length = 1};
    for (int i = 0; i < ROWS; i++) {
        struct map map = right;
        rows[i].spoil(&map);
        SAME(run(&map), rows[i].code);
        for (int j = i + 1; j < ROWS; j++) {
            struct map both = map;
            if (rows[j].about == rows[i].about)
                continue;
            rows[j].spoil(&both);
            SAME(run(&both), rows[i].code);
        }
        FINE(run(&right));
        /* Row 3 comes after rows 1 and 2. */
        SAME(run(&map), rows[i].row < 3 ? rows[i].code : RSMERR_SEG_ALREADY_MAPPED);
        FINE(rsm_memseg_import_unmap(handle));
    }
    /* Row 3 by a transfer's own mapping, and when the exporter has gone; row 13. */
    char byte = 0;
    FINE(rsm_memseg_import_set_mode(handle, RSM_BARRIER_MODE_EXPLICIT));
    FINE(rsm_memseg_import_get(handle, 0, &byte, 1));
    SAME(run(&right), RSMERR_SEG_ALREADY_MAPPED);
    FINE(ask(&exporter, UNPUBLISH, 0));
    SAME(run(&right), RSMERR_SEG_ALREADY_MAPPED);
    FINE(rsm_memseg_import_unmap(handle));
    SAME(run(&right), RSMERR_CONN_ABORTED);
    for (int i = 0; i < ROWS; i++) {
        struct map map = right;
        rows[i].spoil(&map);
        SAME(run(&map), rows[i].row > 13 ? RSMERR_CONN_ABORTED : rows[i].code);
    }
    SAME(rsm_memseg_import_unmap(handle), RSMERR_SEG_NOT_MAPPED);
    FINE(rsm_memseg_import_disconnect(handle));
    SAME(run(&right), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_import_unmap(handle), RSMERR_BAD_SEG_HNDL);
    SAME(rsm_memseg_import_unmap(own), RSMERR_BAD_SEG_HNDL);
    FINE(rsm_memseg_export_destroy(own));
    FINE(munmap(place, 2 * PAGES * PAGE));
    stop(&exporter, 0);
}

/* Row 15: the system has no so many addresses. */
static void no_room(void)
{
    struct exporter exporter;
    size_t many = 1 << 16;
    rsm_memseg_id_t id = exporting(&exporter, many, ALL);
    void *handle = connected(id, RSM_PERM_READ), *address = NULL;
    struct rlimit before, none;
    FINE(getrlimit(RLIMIT_AS, &before));
    none = (struct rlimit){64UL << 20, before.rlim_max};
    FINE(setrlimit(RLIMIT_AS, &none));
    SAME(rsm_memseg_import_map(handle, &address, 0, RSM_PERM_READ, 0, many * PAGE), RSMERR_BAD_LENGTH);
    SAME(rsm_memseg_import_get(handle, 0, &before, 1), RSMERR_BAD_LENGTH); /* which would map it */
    FINE(setrlimit(RLIMIT_AS, &(struct rlimit){none.rlim_max, none.rlim_max}));
    FINE(rsm_memseg_import_map(handle, &address, 0, RSM_PERM_READ, 0, many * PAGE));
    FINE(rsm_memseg_import_unmap(handle));
    FINE(rsm_memseg_import_disconnect(handle));
    stop(&exporter, 0);
}

/* Check 3 of section 9: no sum wraps. */
static void sums(void)
{
    struct exporter exporter;
    void *handle = connected(exporting(&exporter, PAGES, ALL), RSM_PERM_RDWR), *address = NULL;
    const off_t offsets[] = {-1, -(off_t)PAGE, INT64_MAX - (off_t)(PAGE - 1), INT64_MAX, INT64_MIN};
    const size_t lengths[] = {SIZE_MAX, (size_t)-PAGE, 1, 0};
    for (unsigned o = 0; o < sizeof offsets / sizeof offsets[0]; o++)
        for (unsigned l = 0; l < sizeof lengths / sizeof lengths[0]; l++)
            TRUE(rsm_memseg_import_map(handle, &address, 0, RSM_PERM_READ, offsets[o], lengths[l]) != 0);
    for (unsigned l = 0; l < 2; l++) {
        SAME(rsm_memseg_import_map(handle, &address, 0, RSM_PERM_READ, 0, lengths[l]), RSMERR_BAD_LENGTH);
        SAME(rsm_memseg_import_map(handle, &address, 0, RSM_PERM_READ, PAGE, lengths[l]), RSMERR_BAD_LENGTH);
    }
    SAME(rsm_memseg_import_put(handle, PAGE, &address, lengths[0]), RSMERR_BAD_LENGTH);
    SAME(rsm_memseg_import_put(handle, PAGE, &address, lengths[1]), RSMERR_BAD_LENGTH);
    SAME(address, NULL);
    FINE(rsm_memseg_import_unmap(handle)); /* the transfers' */
    FINE(rsm_memseg_import_disconnect(handle));
    stop(&exporter, 0);
}

/* Stores on one side are loads on the other; a window is exactly where it was wanted; two handles have two windows. */
static void memory_is_shared(void)
{
    struct exporter exporter;
    rsm_memseg_id_t id = exporting(&exporter, PAGES, ALL);
    void *one = connected(id, RSM_PERM_RDWR), *two = connected(id, RSM_PERM_READ);
    void *at = NULL, *fixed = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *wanted = fixed;
    SAME(ask2(&exporter, POKE, PAGE + 3, 77), 77);
    FINE(rsm_memseg_import_map(one, &at, RSM_MAP_NONE, RSM_PERM_RDWR, PAGE, PAGE));
    SAME(((volatile char *)at)[3], 77);
    ((volatile char *)at)[4] = 88;
    SAME(ask(&exporter, PEEK, PAGE + 4), 88);
    FINE(rsm_memseg_import_map(two, &fixed, RSM_MAP_FIXED | RSM_MAP_RESERVED, RSM_PERM_READ, PAGE, PAGE + 1));
    SAME(fixed, wanted);
    SAME(((volatile char *)fixed)[4], 88);
    /* A child has none of it. */
    pid_t child = fork();
    if (child == 0) {
        SAME(rsm_memseg_import_unmap(one), RSMERR_BAD_SEG_HNDL);
        SAME(msync(at, PAGE, MS_ASYNC), -1);
        SAME(errno, ENOMEM);
        _exit(0);
    }
    int status = 1;
    TRUE(waitpid(child, &status, 0) == child);
    FINE(status);
    FINE(rsm_memseg_import_unmap(one));
    FINE(rsm_memseg_import_unmap(two));
    /* Without rights: addresses alone. */
    FINE(rsm_memseg_import_map(two, &fixed, RSM_MAP_NONE, RSM_PERM_NONE, 0, 1));
    FINE(rsm_memseg_import_unmap(two));
    FINE(rsm_memseg_import_disconnect(one));
    FINE(rsm_memseg_import_disconnect(two));
    stop(&exporter, 0);
}

int main(void)
{
    FINE(rsm_get_controller(NULL, &controller));
    table();
    no_room();
    sums();
    memory_is_shared();
    FINE(rsm_release_controller(controller));
    puts("all as specified");
    return 0;
}

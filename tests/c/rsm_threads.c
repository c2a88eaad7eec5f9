/*
 * Threads: of an exporter that store while its memory goes into a file and comes back, and moves; of an importer that use handles
 * which others end. Words: rounds.
 */
#include "rsm_support.h"

#include <pthread.h>

enum { PAGES = 8, WRITERS = 2 };

static char *shared_memory;
static int over;

/* Counts in the memory, on the first word of every page, and by itself. */
static void *counts(void *which)
{
    uintptr_t word = (uintptr_t)which;
    uint64_t count = 0;
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
        count++;
        for (int page = 0; page < PAGES; page++)
            ((volatile uint64_t *)(shared_memory + page * PAGE))[word] += 1;
    }
    return (void *)(uintptr_t)count;
}

/* No store of a thread is lost, whatever becomes of the segment. */
static void exporters_threads(int rounds)
{
    pthread_t threads[WRITERS];
    void *segment = NULL, *count = NULL;
    rsmapi_access_entry_t readers = {0, 0444};
    shared_memory = pages(PAGES);
    FINE(rsm_memseg_export_create(controller, &segment, shared_memory, PAGES * PAGE, RSM_ALLOW_REBIND));
    for (uintptr_t i = 0; i < WRITERS; i++)
        FINE(pthread_create(&threads[i], NULL, counts, (void *)i));
    for (int round = 0; round < rounds; round++) {
        rsm_memseg_id_t id = 0;
        uint64_t seen = 0;
        FINE(rsm_memseg_export_publish(segment, &id, round & 1 ? &readers : NULL, round & 1));
        void *import = connected(id, RSM_PERM_READ);
        FINE(rsm_memseg_import_set_mode(import, RSM_BARRIER_MODE_EXPLICIT));
        FINE(rsm_memseg_import_get64(import, (PAGES - 1) * PAGE, &seen, 1));
        if (round & 1)
            FINE(rsm_memseg_export_republish(segment, NULL, 0)); /* to another file */
        FINE(rsm_memseg_export_unpublish(segment));
        FINE(rsm_memseg_import_unmap(import));
        FINE(rsm_memseg_import_disconnect(import));
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    for (uintptr_t i = 0; i < WRITERS; i++) {
        FINE(pthread_join(threads[i], &count));
        TRUE(count != NULL);
        for (int page = 0; page < PAGES; page++)
            SAME(((uint64_t *)(shared_memory + page * PAGE))[i], (uintptr_t)count);
    }
    FINE(rsm_memseg_export_destroy(segment));
}

static void *handle;
static rsm_memseg_id_t published;

/* Uses a handle that others map, unmap and disconnect: every answer is one of those that there are for that. */
static void *uses(void *unused)
{
    (void)unused;
    uint64_t word = 0;
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
        void *at = NULL, *it = __atomic_load_n(&handle, __ATOMIC_ACQUIRE);
        int got = rsm_memseg_import_get64(it, 8, &word, 1), mapped = rsm_memseg_import_map(it, &at, 0, RSM_PERM_READ, 0, PAGE),
            unmapped = rsm_memseg_import_unmap(it);
        TRUE(got == 0 || got == RSMERR_BAD_SEG_HNDL || got == RSMERR_BARRIER_UNINITIALIZED);
        TRUE(mapped == 0 || mapped == RSMERR_BAD_SEG_HNDL || mapped == RSMERR_SEG_ALREADY_MAPPED);
        TRUE(unmapped == 0 || unmapped == RSMERR_BAD_SEG_HNDL || unmapped == RSMERR_SEG_NOT_MAPPED);
    }
    return NULL;
}

static void importers_threads(int rounds)
{
    struct exporter exporter;
    pthread_t threads[WRITERS];
    published = exporting(&exporter, 1, ALL);
    handle = connected(published, RSM_PERM_READ);
    over = 0;
    for (int i = 0; i < WRITERS; i++)
        FINE(pthread_create(&threads[i], NULL, uses, NULL));
    for (int round = 0; round < rounds; round++) {
        void *next = connected(published, RSM_PERM_READ), *old = __atomic_exchange_n(&handle, next, __ATOMIC_ACQ_REL);
        FINE(rsm_memseg_import_set_mode(next, RSM_BARRIER_MODE_EXPLICIT));
        int code;
        while ((code = rsm_memseg_import_disconnect(old)) == RSMERR_SEG_STILL_MAPPED)
            (void)rsm_memseg_import_unmap(old);
        FINE(code);
        SAME(rsm_memseg_import_disconnect(old), RSMERR_BAD_SEG_HNDL);
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < WRITERS; i++)
        FINE(pthread_join(threads[i], NULL));
    (void)rsm_memseg_import_unmap(handle);
    FINE(rsm_memseg_import_disconnect(handle));
    stop(&exporter, 0);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    FINE(rsm_get_controller(NULL, &controller));
    exporters_threads(rounds);
    importers_threads(rounds * 10);
    FINE(rsm_release_controller(controller));
    puts("all as specified");
    return 0;
}

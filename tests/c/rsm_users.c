/*
 * Users and groups (check 6 of section 9): a list with 0624 gives the owner 6, a member of the group 2, and others 4, by a node
 * that admits every user. For root alone, who becomes them.
 */
#include "rsm_support.h"

#include <dirent.h>

enum { OWNER = 61001, MEMBER = 61002, OTHER = 61003, GROUP = 62001, ELSEWHERE = 62002 };

/* No descriptor of a segment of another's can be opened for more than it was given for. */
static void no_more_than_given(void)
{
    int found = 0;
    DIR *dir = opendir("/proc/self/fd");
    TRUE(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[300], target[100] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        if (readlink(path, target, sizeof target - 1) < 0 || strncmp(target, "/memfd:windlass-rsm", 19) != 0)
            continue;
        found++;
        SAME(open(path, O_RDWR | O_CLOEXEC), -1);
        SAME(errno, EACCES);
    }
    closedir(dir);
    TRUE(found > 0);
}

/* What rights a user gets, asked for in every combination. */
static void rights(uid_t uid, gid_t gid, gid_t further, rsm_memseg_id_t id, rsm_permission_t granted)
{
    pid_t child = fork();
    if (child == 0) {
        TRUE(setgroups(further != 0, &further) == 0 && setgid(gid) == 0 && setuid(uid) == 0);
        for (rsm_permission_t asked = 0; asked <= RSM_PERM_RDWR; asked += RSM_PERM_WRITE) {
            void *handle = NULL;
            int code = rsm_memseg_import_connect(controller, 0, id, asked, &handle);
            SAME(code, asked & ~granted ? RSMERR_PERM_DENIED : 0);
            if (code == 0 && asked == RSM_PERM_READ && uid != OWNER)
                no_more_than_given();
            if (code == 0)
                FINE(rsm_memseg_import_disconnect(handle));
        }
        _exit(0);
    }
    int status = 1;
    TRUE(waitpid(child, &status, 0) == child);
    FINE(status);
}

int main(void)
{
    if (geteuid() != 0) {
        puts("not root: not tried\nall as specified");
        return 0;
    }
    FINE(rsm_get_controller(NULL, &controller));
    struct exporter exporter = start(OWNER, GROUP);
    FINE(ask2(&exporter, NEW, 1, 0));
    uint64_t answer = ask2(&exporter, PUBLISH, 0, 0624);
    FINE(answer >> 32);
    rsm_memseg_id_t id = (rsm_memseg_id_t)answer;
    rights(OWNER, ELSEWHERE, 0, id, RSM_PERM_RDWR);
    rights(MEMBER, GROUP, 0, id, RSM_PERM_WRITE);
    rights(MEMBER, ELSEWHERE, GROUP, id, RSM_PERM_WRITE);
    rights(OTHER, ELSEWHERE, 0, id, RSM_PERM_READ);
    /* What is between: connections in being keep their rights, and root has all of them. */
    void *handle = connected(id, RSM_PERM_RDWR);
    FINE(ask(&exporter, REPUBLISH, 0600));
    rights(MEMBER, GROUP, 0, id, RSM_PERM_NONE);
    rights(OTHER, ELSEWHERE, 0, id, RSM_PERM_NONE);
    FINE(rsm_memseg_import_set_mode(handle, RSM_BARRIER_MODE_EXPLICIT));
    FINE(rsm_memseg_import_put(handle, 0, "x", 1));
    SAME(ask(&exporter, PEEK, 0), 'x');
    FINE(rsm_memseg_import_unmap(handle));
    FINE(rsm_memseg_import_disconnect(handle));
    /* Read-only: others read, and nobody writes, root included. */
    FINE(ask(&exporter, UNPUBLISH, 0));
    answer = ask2(&exporter, PUBLISH, 0, 0444);
    FINE(answer >> 32);
    SAME(rsm_memseg_import_connect(controller, 0, (rsm_memseg_id_t)answer, RSM_PERM_RDWR, &handle), RSMERR_PERM_DENIED);
    rights(OWNER, ELSEWHERE, 0, (rsm_memseg_id_t)answer, RSM_PERM_READ);
    rights(OTHER, ELSEWHERE, 0, (rsm_memseg_id_t)answer, RSM_PERM_READ);
    stop(&exporter, 0);
    FINE(rsm_release_controller(controller));
    puts("all as specified");
    return 0;
}

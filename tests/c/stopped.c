/*
 * Check 16: VEOS of the owner's VE is stopped. Needs WINDLASS_NODE_NAME. Argument: the command `windlass`.
 */
#include "support.h"

int main(int count, char **arguments)
{
    const char *node = getenv("WINDLASS_NODE_NAME");
    TRUE(count > 1 && node != NULL);
    setenv("VE_NODE_NUMBER", "2", 1);
    SAME(ve_get_pgmode(VE_ADDR_PCI, getpid(), NULL), M64);
    struct peer owner = start(1), attacher = start(0), bystander = start(0), neighbour = start(1);
    uint64_t at = ASK(owner, PAGES, 1);
    FINE(ASK(owner, OPEN, at, M64, 0, VE_REGISTER_PCI));
    SAME(ASK(attacher, ATTACH, owner.pid, at, M64, 0, VE_REGISTER_PCI | VE_REGISTER_VEHVA), 0x070000000000);
    uint64_t own = ASK(bystander, PAGES, 1);
    FINE(ASK(bystander, OPEN, own, M64, 0, VE_REGISTER_PCI));
    SAME(ASK(neighbour, PGMODE, VE_ADDR_PCI, neighbour.pid, 0), M64);
    char command[4096];
    snprintf(command, sizeof command, "%s node --stop-ve %s:1 >&2", arguments[1], node);
    FINE(system(command));
    SAME(reap(owner), SIGKILL);
    SAME(reap(neighbour), SIGKILL);
    SAME(reap(attacher), SIGKILL);
    REFUSED(ASK(bystander, ATTACH, owner.pid, at, M64, 0, VE_REGISTER_PCI | VE_REGISTER_VEHVA), ESRCH);
    FINE(ASK(bystander, CLOSE, own, M64, 0, VE_REGISTER_PCI));
    REFUSED(ve_get_pgmode(VE_ADDR_PCI, owner.pid, NULL), ESRCH);
    /* Nobody begins there. */
    struct peer late = start(1);
    REFUSED(ASK(late, PGMODE, VE_ADDR_PCI, late.pid, 0), ECANCELED);
    end(late);
    end(bystander);
    printf("stopped: all as specified\n");
    return 0;
}

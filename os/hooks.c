/* os/hooks.c -- the switchboard of test builds: where threads pause, which mistakes are planted.
 *
 * A hook lets a test stop whoever passes a named point, so that a race of nanoseconds can be held open
 * (TR-15).  A planted fault makes the library wrong in one known way; the suite must notice, which is
 * how the suite itself is tested.  GREY_FAULT=NO_DIRTY,EARLY_SWEEP plants faults in programs that know
 * nothing of them.  Release builds have none of this: the file is empty there.
 */
#include "os/os.h"

#ifdef GREY_HOOKS
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

void (*_Atomic os_hook_function)(enum os_hook point, const void *what);
atomic_bool os_fault_on[OS_FAULT_COUNT];
const char *const os_fault_name[OS_FAULT_COUNT] = {
#define X(name) #name,
    OS_FAULTS(X)
#undef X
};

static void plant(const char *name, size_t length)
{
    for (int i = 0; i < OS_FAULT_COUNT; i++) {
        if (strlen(os_fault_name[i]) == length && memcmp(os_fault_name[i], name, length) == 0) {
            /* relaxed: set before there are threads */
            atomic_store_explicit(&os_fault_on[i], true, memory_order_relaxed);
            return;
        }
    }
    /* A fault that isn't planted would look like a suite that doesn't notice it. */
    os_fatal(NULL, "GREY_FAULT: unknown fault in \"%s\"; the names are in OS_FAULTS (os/os.h)", name);
}

/* A constructor, and not a part of grey_init: a test of the start can have a fault in it too. */
__attribute__((constructor)) static void read_faults(void)
{
    const char *text = getenv("GREY_FAULT");
    if (text == NULL || getauxval(AT_SECURE) != 0)
        return;
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        if (length != 0)
            plant(text, length);
        text += length;
        if (*text == ',')
            text++;
    }
}
#endif

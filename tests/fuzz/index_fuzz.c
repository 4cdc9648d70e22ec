/* tests/fuzz/index_fuzz.c -- operations on the range index that libFuzzer makes up (FR-2, FR-5, FR-7).
 *
 * The input is a list of commands of six bytes: what to do, how many times, and two numbers of which
 * addresses are made.  Each is done on the index and on the model (unit/index_model.h), and the tree is
 * checked after it.  A reader that goes in and stays keeps nodes from coming back, and with refused memory
 * makes removal do without.  The first byte says how far apart the addresses are, up to the whole address
 * space.
 *
 * Built by clang only, with AddressSanitizer, from the sources and not from the library's objects, so that
 * all of it is instrumented.  By hand: index_fuzz DIR keeps what it finds interesting in DIR.
 */
#include "foreign/epoch.h"
#include "heap/unmanaged.h"
#include "os/thread.h"
#include "unit/index_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What os/ expects of the rooms above; nothing here has a thread block. */
__thread struct grey_tls_ grey_tls_;
void thread_poll(struct thread *self) { MODEL_CHECK(self == NULL); }

static struct index ranges;
static struct model model;
static struct epoch_reader *reader;
static bool inside;

struct command {
    uint8_t what, times;
    uint16_t a, b;
};

static void step_inside(bool wanted)
{
    if (wanted && !inside)
        epoch_enter(reader);
    if (!wanted && inside)
        epoch_leave(reader);
    inside = wanted;
}

/* One range after the other, each some units long, with gaps or without. */
static void insert_many(const struct command *command, unsigned shift, bool refuse)
{
    uintptr_t unit = (uintptr_t)1 << shift, start = command->a * unit;
    for (unsigned i = 0; i <= command->times; i++) {
        uintptr_t end = start + (1 + command->b % 8) * unit - (command->b >> 8 & 1);
        if (end <= start)
            return;
        os_fail_mapping(refuse ? 1 : 0, refuse ? ENOMEM : 0);
        int result = model_insert(&model, &ranges, start, end, command->b);
        MODEL_CHECK(result != ENOMEM || refuse || model.count == MODEL_MOST);
        uintptr_t next = start + (1 + (command->b >> 4) % 16) * unit;
        if (next <= start)
            return;
        start = next;
    }
}

/* By number, so that it meets ranges that are there. */
static void remove_many(const struct command *command, bool refuse)
{
    for (unsigned i = 0; i <= command->times && model.count != 0; i++) {
        size_t victim = ((size_t)command->a + (size_t)i * command->b) % model.count;
        os_fail_mapping(refuse ? 1 : 0, refuse ? ENOMEM : 0);
        MODEL_CHECK(model_remove(&model, &ranges, model.range[victim].start));
    }
}

static void run(const struct command *command, unsigned shift)
{
    uintptr_t a = (uintptr_t)command->a << shift, b = (uintptr_t)command->b << shift;
    bool refuse = command->what & 0x80;
    switch (command->what & 7) {
    case 0:
    case 1:
        insert_many(command, shift, refuse);
        break;
    case 2:
    case 3:
        remove_many(command, refuse);
        break;
    case 4: /* from here to there */
        os_fail_mapping(refuse ? 1 : 0, refuse ? ENOMEM : 0);
        if (a != b)
            model_insert(&model, &ranges, a < b ? a : b, a < b ? b : a, command->times);
        break;
    case 5:
        model_remove(&model, &ranges, a + command->times);
        break;
    case 6:
        step_inside(command->times & 1);
        break;
    default:
        model_look(&model, &ranges, a + command->times);
        model_look(&model, &ranges, a - command->times);
        if (model.count != 0)
            model_look_around(&model, &ranges, command->b % model.count);
    }
    os_fail_mapping(0, 0);
    index_check(&ranges);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    unsigned shift = data[0] % 49; /* 16 bits above it: the whole address space */
    os_memory_init();
    MODEL_CHECK(epoch_init() == 0);
    index_init(&ranges);
    model.count = 0;
    reader = epoch_reader_new();
    MODEL_CHECK(reader != NULL);
    for (size_t at = 1; at + sizeof(struct command) <= size; at += sizeof(struct command)) {
        struct command command;
        memcpy(&command, data + at, sizeof(command));
        run(&command, shift);
    }
    model_look_everywhere(&model, &ranges);
    step_inside(false);
    index_clear(&ranges);
    epoch_shutdown();
    persistent_shutdown();
    MODEL_CHECK(os_mapped(OS_FOREIGN) == 0);
    return 0;
}

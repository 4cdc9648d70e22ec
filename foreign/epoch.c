/* foreign/epoch.c -- see epoch.h.
 *
 * Why what is retired outlives everyone who may hold it: ck_epoch counts epochs, and only the writer's
 * polls advance the count.  A reader who enters shows that he is inside (an exchange, which no later load
 * passes) and then which epoch he found.  The writer unlinks first and puts the entry on the list of the
 * present epoch e afterwards; the list is emptied when the count has gone on to e+1 and then everyone who
 * is inside was seen in e+1 as well.  Whoever was inside while the entry could be reached had found e or
 * less, so he has left; whoever found e+1 entered after the store that unlinked it.
 *
 * A poll looks at every reader, so only one retirement in POLL_EVERY polls.  If it finds nobody inside, it
 * gives back everything.
 *
 * ck_epoch can't forget a record, so a reader is given to the next thread instead, and its memory is
 * persistent.  It is written in assembly, which ThreadSanitizer doesn't see through: under it leaving is a
 * release and giving back an acquire of the same place.  That says no more than is true: of what a reader
 * who is still inside has read, nothing is released, so a node that is reused too early is still found.
 */
#include "foreign/epoch.h"

#include "heap/unmanaged.h"

#include <errno.h>

enum { POLL_EVERY = 64 };

struct epoch_reader {
    ck_epoch_record_t record;
    bool used; /* between new and give_back */
};

static ck_epoch_t epoch;
static ck_epoch_record_t writer; /* its lists of what was retired; the writer's lock */
static unsigned retired;         /* since the last poll; the writer's lock */

#if OS_TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define SEEN_LEAVING() __tsan_acquire(&epoch)
#define LEAVING() __tsan_release(&epoch)
#else
#define SEEN_LEAVING() ((void)0)
#define LEAVING() ((void)0)
#endif

CK_STACK_CONTAINER(struct ck_epoch_entry, stack_entry, entry_of)
CK_STACK_CONTAINER(struct ck_epoch_record, record_next, record_of)
CK_CC_CONTAINER(ck_epoch_record_t, struct epoch_reader, record, reader_of)

/* ---- readers ----------------------------------------------------------------------------------------- */

struct epoch_reader *epoch_reader_new(void)
{
    ck_epoch_record_t *record = ck_epoch_recycle(&epoch, NULL);
    struct epoch_reader *reader;
    if (record != NULL) {
        reader = reader_of(record);
    } else {
        reader = persistent_alloc(sizeof(*reader), _Alignof(struct epoch_reader), OS_FOREIGN);
        if (reader == NULL)
            return NULL;
        ck_epoch_register(&epoch, &reader->record, NULL);
    }
    reader->used = true;
    return reader;
}

void epoch_reader_give_back(struct epoch_reader *reader)
{
    ASSERT(reader->used && reader->record.active == 0);
    reader->used = false;
    LEAVING();
    ck_epoch_unregister(&reader->record);
}

void epoch_enter(struct epoch_reader *reader)
{
    ASSERT(reader->used && reader->record.active == 0);
    ck_epoch_begin(&reader->record, NULL);
}

void epoch_leave(struct epoch_reader *reader)
{
    ASSERT(reader->record.active == 1);
    LEAVING();
    ck_epoch_end(&reader->record, NULL);
}

/* ---- the writer -------------------------------------------------------------------------------------- */

void epoch_poll(void)
{
    ck_stack_t free = CK_STACK_INITIALIZER;
    ck_stack_entry_t *cursor, *next;
    retired = 0;
    ck_epoch_poll_deferred(&writer, &free);
    SEEN_LEAVING();
    CK_STACK_FOREACH_SAFE(&free, cursor, next)
    {
        struct ck_epoch_entry *entry = entry_of(cursor);
        entry->function(entry);
    }
}

void epoch_retire(ck_epoch_entry_t *entry, void (*fn)(ck_epoch_entry_t *entry))
{
    ck_epoch_call(&writer, entry, fn);
    if (++retired >= POLL_EVERY)
        epoch_poll();
}

/* ---- start, end, fork -------------------------------------------------------------------------------- */

int epoch_init(void)
{
    retired = 0;
    ck_epoch_init(&epoch);
    ck_epoch_register(&epoch, &writer, NULL);
    return 0;
}

void epoch_shutdown(void)
{
    SEEN_LEAVING();
    ck_epoch_reclaim(&writer);
}

void epoch_fork_child(void)
{
    ck_stack_entry_t *cursor;
    CK_STACK_FOREACH(&epoch.records, cursor)
    {
        ck_epoch_record_t *record = record_of(cursor);
        struct epoch_reader *reader = reader_of(record);
        if (record == &writer || !reader->used)
            continue;
        reader->used = false;
        ck_epoch_unregister(record);
    }
    epoch_shutdown();
}

/* pin/internal.h -- between the files of pin/ only. */
#ifndef GREY_PIN_INTERNAL_H
#define GREY_PIN_INTERNAL_H

#include "heap/slots.h"
#include "pin/pin.h"

/* ---- what an address is ------------------------------------------------------------------------------ */

enum pin_kind {
    PIN_OBJECT,
    PIN_REGION,
    PIN_ARENA,
    PIN_NOTHING /* static memory, or memory that Grey knows nothing of: never freed by Grey (PN-5) */
};
struct pin_target {
    enum pin_kind kind;
    uintptr_t base;  /* PIN_OBJECT */
    uint64_t region; /* PIN_REGION: its handle */
};
/* Of what the caller holds.  In a section. */
void pin_look(struct thread *self, uintptr_t p, struct pin_target *out);

/* ---- roots ------------------------------------------------------------------------------------------- */

/* region: 0, the word may lead to an object; PIN_NO_REGION, to nothing; else the region with this handle. */
struct pin_root {
    _Atomic uintptr_t word;
    _Atomic uint64_t region;
};
#define PIN_NO_REGION UINT64_MAX /* no table has so many records */

static inline void pin_root_set(struct pin_root *root, uintptr_t word, uint64_t region)
{
    atomic_store_explicit(&root->region, region, memory_order_relaxed);
    /* release: pairs with pin_root_mark and grey_held */
    atomic_store_explicit(&root->word, word, memory_order_release);
}
static inline void pin_root_clear(struct pin_root *root)
{
    atomic_store_explicit(&root->word, 0, memory_order_release);
    atomic_store_explicit(&root->region, 0, memory_order_relaxed);
}
void pin_root_mark(struct tracer *tracer, struct pin_root *root);
void pin_root_visit(struct pin_root *root, void (*fn)(uintptr_t word, void *arg), void *arg);

/* ---- handles.c --------------------------------------------------------------------------------------- */

int handles_init(void);
void handles_shutdown(void);
void handles_fork_child(void);
void handles_each_root(void (*fn)(uintptr_t word, void *arg), void *arg);

/* ---- objects.c --------------------------------------------------------------------------------------- */

int objects_init(void);
void objects_shutdown(void);
void objects_fork_child(void);
/* In a section, or the collector.  The object is held, or pinned.  0, ENOMEM. */
int object_pin(uintptr_t base);
void object_unpin(uintptr_t base);
size_t object_pins(uintptr_t base);
/* Lock-free; anywhere. */
bool object_is_pinned(uintptr_t base);

#endif

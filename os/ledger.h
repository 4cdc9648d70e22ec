/* os/ledger.h -- debug builds' memory of what state each range of addresses is in (OS-3).
 *
 * The state machine of os.h cannot be seen in the kernel: Prepared and Ready look the same there.  So a
 * caller that uses memory which it gave up, or gives up a neighbour's, would go unnoticed until the data
 * is missing.  The ledger writes down each range and its state, and dies at the first transition that
 * OS-2 does not have.  Release builds have no ledger: the functions are empty there.
 */
#ifndef GREY_OS_LEDGER_H
#define GREY_OS_LEDGER_H

#include "os/os.h"

/* Bits, so that a check can accept several. */
enum ledger_state { LEDGER_RESERVED = 1, LEDGER_PREPARED = 2, LEDGER_READY = 4, LEDGER_ANY = 7 };

#ifdef GREY_ASSERTS
/* None -> state, for a range that the kernel just gave us. */
void ledger_begin(const void *start, size_t size, enum ledger_state state, enum os_class class,
                  const char *what);
/* Dies unless all of the range is ours and in one of the states. */
void ledger_check(const void *start, size_t size, unsigned states, const char *what);
/* The same, and then the range is in state `to`.  OS_CLASSES: keep the class. */
void ledger_move(const void *start, size_t size, unsigned states, enum ledger_state to, enum os_class class,
                 const char *what);
/* -> None.  Dies unless base and size are those of ledger_begin (OS-13) and the amounts are exact. */
void ledger_end(const void *start, size_t size, unsigned states, enum os_class class, size_t mapped,
                size_t ready, const char *what);
/* Dies unless the range holds exactly so many bytes in this state. */
void ledger_expect(const void *start, size_t size, enum ledger_state state, size_t bytes, const char *what);
void ledger_expect_class(const void *start, size_t size, enum os_class class, const char *what);
/* The truth that os_mapped_total and os_mapped_ready must agree with. */
void ledger_totals(size_t *mapped, size_t *ready);
#else
static inline void ledger_begin(const void *start, size_t size, enum ledger_state state, enum os_class class,
                                const char *what)
{
    (void)start, (void)size, (void)state, (void)class, (void)what;
}
static inline void ledger_check(const void *start, size_t size, unsigned states, const char *what)
{
    (void)start, (void)size, (void)states, (void)what;
}
static inline void ledger_move(const void *start, size_t size, unsigned states, enum ledger_state to,
                               enum os_class class, const char *what)
{
    (void)start, (void)size, (void)states, (void)to, (void)class, (void)what;
}
static inline void ledger_end(const void *start, size_t size, unsigned states, enum os_class class,
                              size_t mapped, size_t ready, const char *what)
{
    (void)start, (void)size, (void)states, (void)class, (void)mapped, (void)ready, (void)what;
}
static inline void ledger_expect(const void *start, size_t size, enum ledger_state state, size_t bytes,
                                 const char *what)
{
    (void)start, (void)size, (void)state, (void)bytes, (void)what;
}
static inline void ledger_expect_class(const void *start, size_t size, enum os_class class, const char *what)
{
    (void)start, (void)size, (void)class, (void)what;
}
#endif

#endif

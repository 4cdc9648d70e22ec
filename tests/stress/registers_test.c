/* tests/stress/registers_test.c -- a pointer in the one place that only the handler can see (MK-10, BA-6).
 *
 * Each case loads the pointer to an object from a root straight into one register (general, or the highest
 * lane of a vector register), or below the stack pointer into the red zone, or into a callee-saved register
 * of a frame that calls on; erases the root; and waits for some cycles to pass.  The loops are assembly, so
 * no compiler puts a second copy anywhere.  Another thread runs the cycles and allocates in between.
 *
 * ThreadSanitizer delivers signals at its own calls only, of which an assembly loop makes none: the cases
 * that wait for a signal are left out there.
 */
#include "support_stress.h"

enum { CYCLES = 3, LANES = 8 };

/* Erased by plain stores of NULL, which need no barrier.  One cell for each lane of a vector register. */
GREY_ROOT(struct node *[LANES], cell);
static _Atomic uint32_t go, done; /* the cycles may begin; they are over */

/* ---- the ways to hold it ------------------------------------------------------------------------------- */

/* void *hold_<r>(void *volatile *from, const _Atomic uint32_t *done): the registers that carry the arguments
 * are moved away, so that each of them can be tested too. */
#define HOLD_GENERAL(r)                                                                                      \
    void *hold_##r(struct node *volatile *from, _Atomic uint32_t *until);                                    \
    __asm__(".text\n.type hold_" #r ", @function\nhold_" #r ":\n"                                            \
            "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"                             \
            "push %rsi\n"                                                                                    \
            "mov (%rdi), %rax\nmovq $0, (%rdi)\n"                                                            \
            "mov %rax, %" #r "\n" HOLD_CLEAR_##r "1: pause\n" HOLD_TEST_##r                                  \
            "je 1b\n"                                                                                        \
            "mov %" #r ", %rax\n"                                                                            \
            "pop %rsi\npop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n"                    \
            ".size hold_" #r ", .-hold_" #r "\n")
/* The flag's address is on the stack; the register that reads it is not the one under test. */
#define VIA_RCX "mov (%rsp), %rcx\ncmpl $0, (%rcx)\n"
#define VIA_RDX "mov (%rsp), %rdx\ncmpl $0, (%rdx)\n"
#define NO_RAX "xor %eax, %eax\n"
#define HOLD_CLEAR_rax ""
#define HOLD_CLEAR_rcx NO_RAX
#define HOLD_CLEAR_rdx NO_RAX
#define HOLD_CLEAR_rsi NO_RAX
#define HOLD_CLEAR_rdi NO_RAX
#define HOLD_CLEAR_rbx NO_RAX
#define HOLD_CLEAR_rbp NO_RAX
#define HOLD_CLEAR_r8 NO_RAX
#define HOLD_CLEAR_r9 NO_RAX
#define HOLD_CLEAR_r10 NO_RAX
#define HOLD_CLEAR_r11 NO_RAX
#define HOLD_CLEAR_r12 NO_RAX
#define HOLD_CLEAR_r13 NO_RAX
#define HOLD_CLEAR_r14 NO_RAX
#define HOLD_CLEAR_r15 NO_RAX
#define HOLD_TEST_rax VIA_RCX
#define HOLD_TEST_rcx VIA_RDX
#define HOLD_TEST_rdx VIA_RCX
#define HOLD_TEST_rsi VIA_RCX
#define HOLD_TEST_rdi VIA_RCX
#define HOLD_TEST_rbx VIA_RCX
#define HOLD_TEST_rbp VIA_RCX
#define HOLD_TEST_r8 VIA_RCX
#define HOLD_TEST_r9 VIA_RCX
#define HOLD_TEST_r10 VIA_RCX
#define HOLD_TEST_r11 VIA_RCX
#define HOLD_TEST_r12 VIA_RCX
#define HOLD_TEST_r13 VIA_RCX
#define HOLD_TEST_r14 VIA_RCX
#define HOLD_TEST_r15 VIA_RCX
#define GENERAL(X)                                                                                           \
    X(rax) X(rbx) X(rcx) X(rdx) X(rsi) X(rdi) X(rbp) X(r8) X(r9) X(r10) X(r11) X(r12) X(r13) X(r14) X(r15)
#define DECLARE(r) HOLD_GENERAL(r);
GENERAL(DECLARE)
#undef DECLARE

/* All lanes are loaded and erased; the caller put the pointer into the cell of the lane that it wants. */
#define HOLD_VECTOR(r, load, wide)                                                                           \
    void *hold_##r(struct node *volatile *from, _Atomic uint32_t *until);                                    \
    __asm__(".text\n.type hold_" #r ", @function\nhold_" #r ":\n"                                            \
            "lea -64(%rsp), %rdx\n"                                                                          \
            "vpxor %xmm0, %xmm0, %xmm0\n" load " (%rdi), %" #r "\n"                                          \
            "xor %eax, %eax\nmov $8, %ecx\n2: movq $0, -8(%rdi,%rcx,8)\ndec %ecx\njnz 2b\n"                  \
            "1: pause\ncmpl $0, (%rsi)\nje 1b\n" load " %" #r ", (%rdx)\n"                                   \
            "xor %eax, %eax\nmov $" wide ", %ecx\n"                                                          \
            "3: or -8(%rdx,%rcx,8), %rax\ndec %ecx\njnz 3b\n"                                                \
            "ret\n.size hold_" #r ", .-hold_" #r "\n")
HOLD_VECTOR(xmm1, "vmovups", "2");
HOLD_VECTOR(xmm15, "vmovups", "2");
HOLD_VECTOR(ymm2, "vmovups", "4");
HOLD_VECTOR(ymm14, "vmovups", "4");
HOLD_VECTOR(zmm3, "vmovups", "8");
HOLD_VECTOR(zmm16, "vmovups", "8");
HOLD_VECTOR(zmm31, "vmovups", "8");

/* The 128 bytes below the stack pointer belong to a leaf function. */
#define HOLD_RED_ZONE(name, offset)                                                                          \
    void *name(struct node *volatile *from, _Atomic uint32_t *until);                                        \
    __asm__(".text\n.type " #name ", @function\n" #name ":\n"                                                \
            "mov (%rdi), %rax\nmovq $0, (%rdi)\nmov %rax, " offset "(%rsp)\nxor %eax, %eax\n"                \
            "1: pause\ncmpl $0, (%rsi)\nje 1b\n"                                                             \
            "mov " offset "(%rsp), %rax\nret\n.size " #name ", .-" #name "\n")
HOLD_RED_ZONE(hold_red_zone_first, "-8");
HOLD_RED_ZONE(hold_red_zone_last, "-128");

/* void *keep_<r>(from, void (*wait)(void)): in a callee-saved register while wait runs. */
#define KEEP(r)                                                                                              \
    void *keep_##r(struct node *volatile *from, void (*wait)(void));                                         \
    __asm__(".text\n.type keep_" #r ", @function\nkeep_" #r ":\n"                                            \
            "push %" #r "\nmov (%rdi), %" #r "\nmovq $0, (%rdi)\ncall *%rsi\n"                               \
            "mov %" #r ", %rax\npop %" #r "\nret\n.size keep_" #r ", .-keep_" #r "\n")
KEEP(rbx);
KEEP(rbp);
KEEP(r12);
KEEP(r13);
KEEP(r14);
KEEP(r15);

/* ---- the cycles ---------------------------------------------------------------------------------------- */

static void *run_cycles(void *unused)
{
    (void)unused;
    while (atomic_load(&go) == 0)
        grey_safepoint();
    for (int i = 0; i < CYCLES; i++) {
        grey_collect();
        for (int k = 0; k < 100; k++)
            grey_keep_alive(node_new_typed(0));
    }
    atomic_store(&done, 1);
    return NULL;
}

/* Its address leaves this function in the cell only. */
__attribute__((noinline)) static uint64_t put_into_cell(unsigned lane)
{
    struct node *node = node_new_typed(lane);
    grey_store(&cell[lane], node);
    return node->serial;
}

static pthread_t begin(unsigned lane, uint64_t *serial)
{
    pthread_t thread;
    atomic_store(&go, 0);
    atomic_store(&done, 0);
    assert_int_equal(grey_thread_create(&thread, NULL, run_cycles, NULL), 0);
    *serial = put_into_cell(lane);
    stress_wipe_stack();
    return thread;
}

static void end(const char *name, struct node *node, uint64_t serial, pthread_t thread)
{
    STRESS_CHECK(node != NULL, "%s lost its value", name);
    STRESS_CHECK(atomic_load(&done), "%s came back too early", name);
    /* The cell is in this thread's span: freed, it would be empty, or this thread's next. */
    STRESS_CHECK(grey_base(node) == node, "%s holds %p, which is no object any more", name, (void *)node);
    for (int i = 0; i < 100; i++)
        STRESS_CHECK(node_new_typed(0) != node, "%s holds %p, which was given out again", name, (void *)node);
    node_check(node);
    STRESS_CHECK(node->serial == serial, "%s leads to another object", name);
    assert_int_equal(grey_thread_join(thread, NULL), 0);
}

__attribute__((noinline)) static void hold(const char *name, unsigned lane,
                                           void *(*how)(struct node *volatile *, _Atomic uint32_t *))
{
    uint64_t serial;
    pthread_t thread = begin(lane, &serial);
    atomic_store(&go, 1);
    struct node *node = how(cell, &done);
    end(name, node, serial, thread);
}

static void test_general_registers(void **state)
{
    (void)state;
#if STRESS_TSAN
    skip();
#endif
#define CASE(r) hold(#r, 0, hold_##r);
    GENERAL(CASE)
#undef CASE
}

static void test_vector_registers(void **state)
{
    (void)state;
#if STRESS_TSAN
    skip();
#endif
    if (!__builtin_cpu_supports("avx"))
        skip();
    hold("xmm1", 1, hold_xmm1);
    hold("xmm15", 1, hold_xmm15);
    hold("ymm2", 3, hold_ymm2);
    hold("ymm14", 3, hold_ymm14);
    if (__builtin_cpu_supports("avx512f")) {
        hold("zmm3", 7, hold_zmm3);
        hold("zmm16", 7, hold_zmm16);
        hold("zmm31", 7, hold_zmm31);
    }
}

static void test_red_zone(void **state)
{
    (void)state;
#if STRESS_TSAN
    skip();
#endif
    hold("the red zone's first word", 0, hold_red_zone_first);
    hold("the red zone's last word", 0, hold_red_zone_last);
}

/* ---- callee-saved registers of a caller, whatever the thread does meanwhile ---------------------------- */

static void wait_spinning(void)
{
    atomic_store(&go, 1);
    while (atomic_load_explicit(&done, memory_order_acquire) == 0)
        ;
}
static void wait_polling(void)
{
    atomic_store(&go, 1);
    while (atomic_load(&done) == 0)
        grey_safepoint();
}
static void wait_allocating(void)
{
    atomic_store(&go, 1);
    while (atomic_load(&done) == 0)
        grey_alloc_leaf(700);
}
static int wait_blocked(void *unused)
{
    (void)unused;
    atomic_store(&go, 1);
    while (atomic_load(&done) == 0)
        ;
    return 0;
}
static void wait_in_call(void) { grey_blocking_call(wait_blocked, NULL); }
static void wait_in_region(void)
{
    grey_blocking_begin();
    wait_blocked(NULL);
    grey_blocking_end();
}

__attribute__((noinline)) static void
keep(const char *name, void *(*how)(struct node *volatile *, void (*)(void)), void (*wait)(void))
{
    uint64_t serial;
    pthread_t thread = begin(0, &serial);
    struct node *node = how(&cell[0], wait);
    end(name, node, serial, thread);
}

static void keep_in_all(void (*wait)(void))
{
    keep("rbx", keep_rbx, wait);
    keep("rbp", keep_rbp, wait);
    keep("r12", keep_r12, wait);
    keep("r13", keep_r13, wait);
    keep("r14", keep_r14, wait);
    keep("r15", keep_r15, wait);
}

static void test_callers_registers(void **state)
{
    (void)state;
    keep_in_all(wait_spinning);
    keep_in_all(wait_polling);
    keep_in_all(wait_allocating);
    keep_in_all(wait_in_call);
    keep_in_all(wait_in_region);
}

int main(void)
{
    stress_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_general_registers), cmocka_unit_test(test_vector_registers),
        cmocka_unit_test(test_red_zone), cmocka_unit_test(test_callers_registers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* mutator/capture.S -- long mutator_capture(long (*fn)(void *arg, char *sp), void *arg)
 *
 * Puts the callee-saved registers on the stack and calls fn with the stack pointer below them, so that a
 * scan from there upward sees every register that a caller may hold a pointer in: the others are saved
 * by whoever makes a call (System V ABI; all vector registers are caller-saved).  Not setjmp, which
 * mangles one of them (MK-10).
 */
#if defined(__x86_64__)
    .text
    .globl  mutator_capture
    .hidden mutator_capture
    .type   mutator_capture, @function
mutator_capture:
    .cfi_startproc
    endbr64
    pushq   %rbp
    .cfi_adjust_cfa_offset 8
    pushq   %rbx
    .cfi_adjust_cfa_offset 8
    pushq   %r12
    .cfi_adjust_cfa_offset 8
    pushq   %r13
    .cfi_adjust_cfa_offset 8
    pushq   %r14
    .cfi_adjust_cfa_offset 8
    pushq   %r15
    .cfi_adjust_cfa_offset 8
    subq    $8, %rsp
    .cfi_adjust_cfa_offset 8
    movq    %rdi, %rax
    movq    %rsi, %rdi
    movq    %rsp, %rsi
    call    *%rax
    addq    $8, %rsp
    .cfi_adjust_cfa_offset -8
    popq    %r15
    .cfi_adjust_cfa_offset -8
    popq    %r14
    .cfi_adjust_cfa_offset -8
    popq    %r13
    .cfi_adjust_cfa_offset -8
    popq    %r12
    .cfi_adjust_cfa_offset -8
    popq    %rbx
    .cfi_adjust_cfa_offset -8
    popq    %rbp
    .cfi_adjust_cfa_offset -8
    ret
    .cfi_endproc
    .size   mutator_capture, .-mutator_capture

/* void grey_blocking_begin(void): blocking_begin with the caller's registers as they are (blocking.c). */
    .globl  grey_blocking_begin
    .type   grey_blocking_begin, @function
grey_blocking_begin:
    .cfi_startproc
    endbr64
    leaq    blocking_begin(%rip), %rdi
    xorl    %esi, %esi
    jmp     mutator_capture
    .cfi_endproc
    .size   grey_blocking_begin, .-grey_blocking_begin
#else
#error "grey: no register capture for this processor"
#endif
    .section .note.GNU-stack,"",@progbits

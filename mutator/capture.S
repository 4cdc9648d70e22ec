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

/* void *created_entry(void *record): created_run(record, sp) with no pointer of other threads left.  clone gives a
 * thread its creator's registers, and glibc's start_thread saves the callee-saved ones on the new stack;
 * created_run has that scanned up to sp only.  And glibc uses the stacks of threads that ended again, so the
 * gaps in the first frames, which may be there for hours, would hold what those left: 4 KiB are cleared. */
    .globl  created_entry
    .hidden created_entry
    .type   created_entry, @function
created_entry:
    .cfi_startproc
    endbr64
    pushq   %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_offset %rbp, -16
    pushq   %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_offset %rbx, -24
    pushq   %r12
    .cfi_adjust_cfa_offset 8
    .cfi_offset %r12, -32
    pushq   %r13
    .cfi_adjust_cfa_offset 8
    .cfi_offset %r13, -40
    pushq   %r14
    .cfi_adjust_cfa_offset 8
    .cfi_offset %r14, -48
    pushq   %r15
    .cfi_adjust_cfa_offset 8
    .cfi_offset %r15, -56
    subq    $8, %rsp
    .cfi_adjust_cfa_offset 8
    xorl    %ebp, %ebp
    xorl    %ebx, %ebx
    xorl    %r12d, %r12d
    xorl    %r13d, %r13d
    xorl    %r14d, %r14d
    xorl    %r15d, %r15d
    movq    %rdi, %rdx
    leaq    -4096(%rsp), %rdi
    xorl    %eax, %eax
    movl    $512, %ecx
    rep stosq
    movq    %rdx, %rdi
    movq    %rsp, %rsi
    call    created_run
    addq    $8, %rsp
    .cfi_adjust_cfa_offset -8
    popq    %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq    %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq    %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq    %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq    %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq    %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    ret
    .cfi_endproc
    .size   created_entry, .-created_entry
#else
#error "grey: no register capture for this processor"
#endif
    .section .note.GNU-stack,"",@progbits

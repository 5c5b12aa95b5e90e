# Runs a program of system calls, whose layout `call_program.ts` describes.
#
# It is called as bsearch(3) calls its comparison function, with the program as the key, and answers
# that the element is the key (0). It keeps rbx, rbp and r12, as the x86-64 psABI wants.

.intel_syntax noprefix

.equ COUNT, 0
.equ DONE, 8
.equ RESULT, 16
.equ FIRST, 24

# Of one call.
.equ NUMBER, 0
.equ ARGUMENTS, 8
.equ EXPECTED, 56
.equ SIZE, 64

.equ EINTR, 4

        .globl  _start
_start:
        push    rbx
        push    rbp
        push    r12
        mov     rbx, rdi
        lea     rbp, [rdi + FIRST]
        xor     r12d, r12d              # calls that went well
        jmp     next
call:
        mov     rax, [rbp + NUMBER]
        mov     rdi, [rbp + ARGUMENTS]
        mov     rsi, [rbp + ARGUMENTS + 8]
        mov     rdx, [rbp + ARGUMENTS + 16]
        mov     r10, [rbp + ARGUMENTS + 24]
        mov     r8, [rbp + ARGUMENTS + 32]
        mov     r9, [rbp + ARGUMENTS + 40]
        syscall
        cmp     rax, -EINTR
        je      call
        mov     [rbx + RESULT], rax
        cmp     rax, [rbp + EXPECTED]
        jne     leave
        add     rbp, SIZE
        inc     r12
next:
        cmp     r12, [rbx + COUNT]
        jb      call
leave:
        mov     [rbx + DONE], r12
        pop     r12
        pop     rbp
        pop     rbx
        xor     eax, eax
        ret

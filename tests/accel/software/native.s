# Executes short sequences of instructions on the processor itself and records what they leave: the oracle
# of the software CPU's tests. A static Linux program without libc; the file that its argument names is a
# page with the number of cases, then a record of 2,048 bytes for each (native.ts has the layout). Every
# case ends by a signal, if only by that of the HLT at its end; the handler writes the record and goes on
# with the next case.
.intel_syntax noprefix

.set LOAD_ADDRESS, 0x400000
.set RECORDS, 0x1000000000
.set CODE, 0x10000000
.set DATA, 0x20000000
.set STACK, 0x30000000 + 0x800000
.set WINDOW, DATA + 0xf00

.text
.globl _start
elf_header:
        .byte   0x7f, 'E', 'L', 'F', 2, 1, 1, 0
        .quad   0
        .short  2, 62
        .long   1
        .quad   _start
        .quad   program_header - elf_header
        .quad   0
        .long   0
        .short  64, 56, 1, 64, 0, 0
program_header:
        .long   1, 7
        .quad   0, LOAD_ADDRESS, LOAD_ADDRESS
        .quad   etext - LOAD_ADDRESS, etext - LOAD_ADDRESS
        .quad   0x1000

_start:
        mov     rdi, [rsp + 16]                 # argv[1]
        mov     esi, 2                          # O_RDWR
        xor     edx, edx
        mov     eax, 2                          # open
        syscall
        test    eax, eax
        js      fail
        mov     r8d, eax
        movabs  rdi, RECORDS
        mov     esi, 0x8000000
        mov     r10d, 0x11                      # MAP_SHARED | MAP_FIXED
        call    map
        mov     r8, -1
        mov     r10d, 0x32                      # MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
        mov     edi, CODE
        mov     esi, 0x2000
        call    map
        mov     edi, DATA
        mov     esi, 0x2000
        call    map
        mov     edi, STACK
        mov     esi, 0x10000
        call    map
        mov     eax, 0x2b                       # 32-bit code needs them; in 64-bit code they do nothing
        mov     ds, eax
        mov     es, eax
        mov     fs, eax
        mov     gs, eax
        lea     rdi, [rip + alternate_stack]
        xor     esi, esi
        mov     eax, 131                        # sigaltstack
        syscall
        lea     rbx, [rip + signals]
1:      movzx   edi, byte ptr [rbx]
        test    edi, edi
        jz      2f
        lea     rsi, [rip + action]
        xor     edx, edx
        mov     r10d, 8
        mov     eax, 13                         # rt_sigaction
        syscall
        inc     rbx
        jmp     1b
2:      mov     edi, 0                          # ITIMER_REAL: nothing runs for more than seconds
        lea     rsi, [rip + interval]
        xor     edx, edx
        mov     eax, 38                         # setitimer
        syscall
        movabs  rbp, RECORDS + 0x1000
        mov     [rip + record], rbp
        mov     rax, [rbp - 0x1000]
        mov     [rip + left], rax

next:
        cld
        mov     rbp, [rip + record]
        sub     qword ptr [rip + left], 1
        js      done
        mov     edi, DATA                       # both pages of data are clear but for the window
        mov     ecx, 0x400
        xor     eax, eax
        rep stosq
        mov     edi, CODE
        mov     ecx, 0x400
        rep stosq
        lea     rsi, [rbp + 256]
        mov     edi, WINDOW
        mov     ecx, 64
        rep movsq
        lea     rsi, [rbp + 160]
        mov     rdi, [rbp + 144]
        mov     ecx, 64
        rep movsb
        mov     rax, [rbp + 144]
        mov     [rip + entry], eax
        mov     ecx, 0x33                       # __USER_CS, or that of 32-bit programs
        mov     edx, 0x23
        cmp     qword ptr [rbp + 136], 0
        cmovne  ecx, edx
        mov     [rip + entry_selector], ecx
        mov     rsp, STACK + 0x8000
        push    qword ptr [rbp + 128]
        mov     rax, [rbp]
        mov     rcx, [rbp + 8]
        mov     rdx, [rbp + 16]
        mov     rbx, [rbp + 24]
        mov     rsi, [rbp + 48]
        mov     rdi, [rbp + 56]
        mov     r8, [rbp + 64]
        mov     r9, [rbp + 72]
        mov     r10, [rbp + 80]
        mov     r11, [rbp + 88]
        mov     r12, [rbp + 96]
        mov     r13, [rbp + 104]
        mov     r14, [rbp + 112]
        mov     r15, [rbp + 120]
        popfq
        mov     rsp, [rbp + 32]
        mov     rbp, [rbp + 40]
        jmp     fword ptr [rip + entry]         # 32 bits of offset: AMD's have no more

# handler(signal, info, context)
handler:
        cmp     edi, 14                         # the watchdog looks for cases that go on and on
        jne     1f
        mov     rax, [rdx + 40 + 16 * 8]        # RIP
        sub     rax, CODE
        cmp     rax, 0x2000
        jb      1f
        ret
1:      mov     rbp, [rip + record]
        mov     [rbp + 960], rdi
        lea     rsi, [rdx + 40]                 # uc_mcontext
        lea     rdi, [rbp + 768]
        mov     ecx, 23
        cld
        rep movsq
        mov     esi, WINDOW
        lea     rdi, [rbp + 1024]
        mov     ecx, 64
        rep movsq
        add     rbp, 2048
        mov     [rip + record], rbp
        mov     rsp, STACK + 0x8000
        jmp     next

# map(address, length, -, flags, fd)
map:
        mov     edx, 7
        xor     r9d, r9d
        mov     eax, 9                          # mmap
        syscall
        cmp     rax, rdi
        jne     fail
        ret
done:
        xor     edi, edi
        jmp     exit
fail:
        mov     edi, 1
exit:
        mov     eax, 231                        # exit_group
        syscall
restorer:
        mov     eax, 15                         # rt_sigreturn
        syscall

        .balign 8
entry:  .long   0
entry_selector:
        .long   0
record: .quad   0
left:   .quad   0
alternate_stack:
        .quad   STACK + 0xa000, 0, 0x6000
action: .quad   handler, 0x4c000004, restorer, 0 # SA_ONSTACK SA_NODEFER SA_RESTORER SA_SIGINFO
interval:
        .quad   2, 0, 2, 0
signals:
        .byte   4, 5, 7, 8, 11, 14, 0           # ILL TRAP BUS FPE SEGV ALRM

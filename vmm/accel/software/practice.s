# practice: a little of all that guests do, on a software CPU that has run nothing yet: afterwards V8 has
# compiled and optimized what executes instructions, serves exits and compiles what is hot. Entered in
# 64-bit mode at CPL0 with PAGES mapped for the user too, the last of them the stack's; [DONE] tells the
# host that it has been through. Built into practice_image.ts by tests/guests/build.ts.
.intel_syntax noprefix
.code64

.equ PAGE_CODE, 0x400000
.equ PAGE_DATA, 0x401000
.equ STACK_END, 0x403000
.equ USER_STACK, 0x402800

.equ GDT,       PAGE_DATA
.equ IDT,       PAGE_DATA + 0x100
.equ TSS,       PAGE_DATA + 0x500
.equ DONE,      PAGE_DATA + 0x5f0
.equ TICKS,     PAGE_DATA + 0x5f8
.equ AREA,      PAGE_DATA + 0x600               # FXSAVE's
.equ WORDS,     PAGE_DATA + 0x800
.equ COPY,      PAGE_DATA + 0xc00

.equ LAPIC,     0xfee00000
.equ NO_DEVICE, 0xd7fff000
.equ NO_PORT,   0xe8
.equ KERNEL_CODE, 0x10
.equ KERNEL_DATA, 0x18
.equ TASK,      0x20
.equ USER_DATA, 0x33
.equ USER_CODE, 0x3b
.equ VECTOR_TIMER, 0x20
.equ VECTOR_LEAVE, 0x30

.equ ROUNDS,    16                              # with all rings and exits
.equ MIXES,     80                              # of the plain instructions, in each

.globl _start
_start:
        mov     esp, STACK_END
        mov     rax, cr4
        or      eax, 0x600                      # OSFXSR, OSXMMEXCPT
        mov     cr4, rax
        mov     esi, offset gdt_template
        mov     edi, GDT
        mov     ecx, gdt_template_end - gdt_template
        rep movsb
        mov     esi, offset gates
        mov     ebx, IDT
1:      movzx   eax, word ptr [rsi]             # vector, offset in the code's page, attributes
        movzx   edx, word ptr [rsi + 2]
        mov     ecx, [rsi + 4]
        shl     eax, 4
        mov     [rbx + rax], dx
        mov     word ptr [rbx + rax + 2], KERNEL_CODE
        mov     [rbx + rax + 4], cx
        mov     dword ptr [rbx + rax + 6], PAGE_CODE >> 16
        add     esi, 8
        cmp     esi, offset gates_end
        jne     1b
        lgdt    [gdt_pointer]
        lidt    [idt_pointer]
        mov     dword ptr [TSS + 4], STACK_END  # RSP0
        mov     eax, TASK
        ltr     ax
        mov     eax, KERNEL_DATA
        mov     ss, eax
        mov     edi, LAPIC
        mov     dword ptr [rdi + 0xf0], 0x1ff   # enabled
        mov     dword ptr [rdi + 0x80], 0       # TPR
        mov     dword ptr [rdi + 0x3e0], 0xb    # the timer divides by 1
        mov     dword ptr [rdi + 0x320], 0x20000 + VECTOR_TIMER     # periodic
        mov     dword ptr [rdi + 0x380], 5000000        # 5 ms: ticks that were missed are made up for
        mov     ebp, ROUNDS
round:  sti
        call    exits
        push    USER_DATA
        push    USER_STACK
        push    0x202
        push    USER_CODE
        mov     eax, offset user
        push    rax
        iretq
user:   mov     r12d, MIXES
1:      call    mix
        dec     r12d
        jnz     1b
        int     VECTOR_LEAVE
kernel:                                         # from VECTOR_LEAVE, interrupts off
        mov     esp, STACK_END
        mov     rax, cr3
        mov     cr3, rax
        dec     ebp
        jnz     round
        mov     edi, LAPIC
        mov     dword ptr [rdi + 0x380], 0
        mov     dword ptr [DONE], 1
.globl rest
rest:   pause
        jmp     rest

exits:  mov     edx, NO_PORT                    # a user's debug console may be there: only read
        in      al, dx
        mov     al, 0x20
        out     0x20, al                        # the 8259's EOI
        mov     edi, NO_DEVICE
        mov     eax, [rdi]
        mov     [rdi], eax
        ud2
        mov     ebx, 0x404000                   # not mapped: the handler gives another address
        mov     eax, [rbx]
        invlpg  [rbx]
        mov     eax, 1
        cpuid
        bt      ecx, 24
        jnc     1f
        mov     ecx, 0x6e0                      # IA32_TSC_DEADLINE: none, and no effect in this mode
        xor     eax, eax
        xor     edx, edx
        wrmsr
1:      mov     ecx, 0x1b                       # IA32_APIC_BASE
        rdmsr
        mov     rax, dr7
        mov     eax, [TICKS]
        test    ebp, 15
        jnz     2f
        hlt                                     # until the timer's next interrupt
2:      ret

# What compilers make, and what kernels have by hand.
mix:    push    rbx
        push    r12
        mov     esi, offset WORDS
        xor     ecx, ecx
        mov     rbx, 0x9e3779b97f4a7c15
1:      lea     rdx, [rcx + rcx * 4 + 7]
        imul    rdx, rbx
        mov     rax, [rsi + rcx * 8]
        add     rax, rdx
        adc     edx, 0
        ror     rax, 13
        mov     [rsi + rcx * 8], rax
        movzx   r8d, al
        movsx   r9, dx
        xor     r8d, r9d
        shr     r8d, 2
        sar     r9, 3
        setb    r10b
        cmp     r8d, r9d
        cmovg   r8d, r9d
        inc     ecx
        and     eax, 0xff
        test    eax, 1
        jz      2f
        sub     [rsi + rcx * 8 + 0x100], r8d
        or      byte ptr [rsi + 0x1f8], 1
        neg     r8
2:      cmp     ecx, 24
        jb      1b
        call    atomics
        call    strings
        call    vectors
        mov     eax, 1000
        xor     edx, edx
        mov     r8d, 7
        div     r8d
        mul     r8d
        movsxd  rax, eax
        cqo
        idiv    r8
        not     eax
        bsf     ecx, eax
        bt      rax, 5
        sbb     ecx, ecx
        shl     eax, cl
        pushfq
        popfq
        rdtsc
        bswap   eax
        xchg    eax, edx
        mov     eax, offset 3f
        jmp     rax
3:      pop     r12
        pop     rbx
        ret

atomics:
        push    rbp
        mov     rbp, rsp
        mov     eax, 1
        lock xadd [rsi], eax
        lock inc dword ptr [rsi + 8]
        mov     rax, [rsi + 16]
        lock cmpxchg [rsi + 16], rbx
        xchg    [rsi + 24], ecx
        lock bts dword ptr [rsi + 32], 3
        leave
        ret

strings:
        cld
        push    rsi
        mov     edi, COPY
        mov     ecx, 32
        rep movsq
        mov     ecx, 64
        xor     eax, eax
        rep stosb
        mov     edi, COPY
        mov     ecx, 16
        repne scasb
        lodsb
        stosd
        pop     rsi
        ret

vectors:
        movdqu  xmm0, [rsi]
        paddq   xmm0, [rsi + 16]
        pxor    xmm1, xmm1
        pcmpeqb xmm1, xmm0
        pmovmskb eax, xmm1
        punpcklbw xmm0, xmm1
        pshufd  xmm2, xmm0, 0x1b
        movaps  [rsi + 32], xmm2
        cvtsi2sd xmm3, ecx
        mulsd   xmm3, xmm3
        addsd   xmm3, xmm3
        cvttsd2si eax, xmm3
        fld1
        fld     st(0)
        faddp
        fstp    qword ptr [rsi + 48]
        fxsave  [AREA]
        fxrstor [AREA]
        ret

timer:  push    rax
        push    rdi
        inc     dword ptr [TICKS]
        mov     edi, LAPIC
        mov     dword ptr [rdi + 0xb0], 0       # EOI
        pop     rdi
        pop     rax
        iretq

invalid:
        add     qword ptr [rsp], 2              # past UD2
        iretq

fault:  mov     ebx, offset WORDS
        mov     rax, cr2
        add     rsp, 8                          # the error code
        iretq

.balign 8
gates:  .short  6, invalid - _start, 0x8e00, 0
        .short  14, fault - _start, 0x8e00, 0
        .short  VECTOR_TIMER, timer - _start, 0x8e00, 0
        .short  VECTOR_LEAVE, kernel - _start, 0xee00, 0
gates_end:
gdt_template:
        .quad   0, 0
        .quad   0x00af9b000000ffff              # KERNEL_CODE
        .quad   0x00cf93000000ffff              # KERNEL_DATA
        .quad   0x0000890000000067 + ((TSS & 0xffffff) << 16), 0    # TASK
        .quad   0x00cff3000000ffff              # USER_DATA
        .quad   0x00affb000000ffff              # USER_CODE
gdt_template_end:
gdt_pointer:
        .short  gdt_template_end - gdt_template - 1
        .quad   GDT
idt_pointer:
        .short  0x31 * 16 - 1
        .quad   IDT

# steady: the guest of the live updates. Every CPU verifies itself over and over: general registers,
# memory, a ledger that tells whether memory and registers are of the same moment, TSC and kvmclock
# (its own and against what the other CPUs have seen), and a timer that it arms again and again by
# count and by TSC deadline: each arming gives one interrupt, not before its time. The last CPU echoes
# what is typed on COM1, by interrupt through the IOAPIC; `?` is answered by `clock N`, its kvmclock
# in ns. Whatever is wrong is said on COM1 (`FAIL CODE on CPU N`), is in CHECK, and stops the CPU.
# Prints `steady N` (CPUs), and then each CPU counts in its record (STEADY_RECORDS).
# `mode=h`: halts after each iteration until the next interrupt. `mode=i`: the same without a timer.
# `mode=p`: as h; guest time may have stood still, so that a timer may seem early.
# Built twice: steady_cpl0 works in kernel mode; steady_cpl3 (CPL3 defined) in user mode, verifying
# XMM and x87 registers, the upper halves of YMM registers where there are any, and the FS base.
.set LOUD_ERRORS, 1
.include "long_mode.inc"
.include "check.inc"
.include "kvmclock.inc"
.include "ap_start.inc"
.include "fpu.inc"

.equ LAST_TSC,          VARIABLES + 0           # the latest that any CPU has seen
.equ LAST_CLOCK,        VARIABLES + 8
.equ TICK_CYCLES,       VARIABLES + 16          # TSC cycles of at least 1 / TICK_HZ
.equ HAVE_DEADLINE,     VARIABLES + 24          # CPUID has the TSC deadline timer
.equ GO,                VARIABLES + 32          # the boot CPU is done with the preparations
.equ MAX_CPUS,          8

# A CPU's page, at GS.
.equ PAGE_GDT,          0
.equ PAGE_GDT_POINTER,  0x80
.equ PAGE_TSS,          0x100
.equ PAGE_CLOCK,        0x200                   # struct pvclock_vcpu_time_info
.equ PAGE_COUNTER,      0x300                   # what the host reads: STEADY_RECORDS
.equ PAGE_GAP,          0x308
.equ PAGE_TICKS,        0x310
.equ PAGE_CLOCK_NS,     0x318
.equ PAGE_INDEX,        0x340
.equ PAGE_LEDGER,       0x348
.equ PAGE_SUM,          0x350
.equ PAGE_HAVE_CLOCK,   0x358
.equ PAGE_ARMED,        0x360
.equ PAGE_ARMED_AT,     0x368
.equ PAGE_FS_WORD,      0x370                   # at FS
.equ PAGE_MXCSR,        0x380
.equ PAGE_X87_CONTROL,  0x388
.equ PAGE_X87_TOP,      0x390
.equ PAGE_X87_EXPECTED, 0x398
.equ PAGE_HAVE_AVX,     0x3a0
.equ PAGE_EARLY,        0x3a8                   # after how many ns a timer came that was early
.equ PAGE_BEHIND,       0x3b0                   # by how much TSC or kvmclock (ns) was behind another CPU's
.equ LEDGER_WORDS,      512
.equ FS_MAGIC,          0x5f5f5f00
.equ TICK_NS,           1000000000 / TICK_HZ
.equ TOLERANCE_NS,      100000                  # two clocks of the host, over a tick
# Cycles, or nanoseconds of kvmclock, by which two CPUs may seem to be apart. A host's processors are
# not always in step to the cycle (two guests at once have seen 7 and 8, on a host that is a guest);
# and KVM takes a snapshot of its clock when the first vCPU enters, and another when the last one does.
.equ SKEW,              100

.ifdef CPL3
.equ CHECKED_BYTES, PATTERN_BYTES_CPL3
.else
.equ CHECKED_BYTES, PATTERN_BYTES
.endif

main:
        call    find_mode
        mov     edi, CPU_PAGES
        mov     ecx, MAX_CPUS * 0x1000 / 4
        xor     eax, eax
        rep stosd
        start_checks CHECKED_BYTES
        set_gate VECTOR_TIMER, timer_interrupt
        set_gate VECTOR_PIC + 4, serial_interrupt
        mov     al, 0xff                        # the 8259s stay silent
        out     0x21, al
        out     0xa1, al
        mov     eax, 1
        cpuid
        shr     ecx, 24                         # TSC deadline
        and     ecx, 1
        mov     [HAVE_DEADLINE], ecx
        call    enable_lapic
        call    read_tsc
        mov     rbp, rax
        delay   1000000 / TICK_HZ
        call    read_tsc
        sub     rax, rbp
        mov     [TICK_CYCLES], rax
        call    wake_cpus
        mov     dword ptr [GO], 1
        jmp     start_cpu

read_tsc:
        rdtsc
        shl     rdx, 32
        or      rax, rdx
        ret

route_serial:                                   # IOAPIC pin 4: edge, the last CPU
        mov     edx, IOAPIC
        mov     eax, [CPUS]
        dec     eax
        shl     eax, 24
        mov     dword ptr [rdx], 0x10 + 4 * 2 + 1
        mov     [rdx + 0x10], eax
        mov     dword ptr [rdx], 0x10 + 4 * 2
        mov     dword ptr [rdx + 0x10], VECTOR_PIC + 4
        mov     esi, offset serial_setup
        mov     ecx, (serial_setup_end - serial_setup) / 4
1:      mov     dx, [rsi]
        mov     al, [rsi + 2]
        out     dx, al
        add     esi, 4
        loop    1b
        ret

start_ap64:
        lidt    [idt_pointer]
        lock inc qword ptr [CPUS]
1:      pause
        cmp     dword ptr [GO], 0
        je      1b

start_cpu:
        mov     eax, LAPIC
        mov     r12d, [rax + 0x20]
        shr     r12d, 24                        # R12: APIC id
        mov     r13d, r12d
        shl     r13d, 12
        lea     r14d, [r13 + LEDGERS]
        add     r13d, CPU_PAGES                 # R13: this CPU's page
        lea     esp, [r13 + 0x1000]
        mov     eax, r13d
        xor     edx, edx
        mov     ecx, 0xc0000101                 # GS_BASE
        wrmsr
        lea     eax, [r13 + PAGE_FS_WORD]
        mov     ecx, 0xc0000100                 # FS_BASE
        wrmsr
        lea     eax, [r12 + FS_MAGIC]
        mov     gs:[PAGE_FS_WORD], rax
        mov     gs:[PAGE_INDEX], r12
        mov     gs:[PAGE_LEDGER], r14
        lea     rax, [r14 + 8]                  # word i says i - LEDGER_WORDS, word 0 says 0
        mov     qword ptr [r14], 0
        mov     rcx, 1 - LEDGER_WORDS
1:      mov     [rax], rcx
        add     rax, 8
        inc     rcx
        jnz     1b
        call    load_own_gdt
        lea     edi, [r13 + PAGE_CLOCK]
        call    start_kvmclock
        mov     gs:[PAGE_HAVE_CLOCK], eax
        call    load_system_registers
        call    enable_lapic
        lea     eax, [r12 + 1]
        cmp     eax, [CPUS]
        jne     4f
        call    route_serial                    # to this CPU, now that its LAPIC takes interrupts
        mov     esi, offset steady_text
        call    polled_puts
        mov     rax, [CPUS]
        call    polled_print_decimal
        mov     al, '\n'
        call    polled_putc
4:      cmp     byte ptr [MODE], 'i'
        je      2f
        call    arm_timer
2:
.ifdef CPL3
        call    enable_avx
        mov     eax, r12d
        shl     eax, 12
        neg     eax
        add     eax, USER_STACK
        push    USER_DATA
        push    rax
        push    0x202                           # RFLAGS: IF
        push    USER_CODE
        mov     eax, offset user
        push    rax
        iretq
user:
.else
        sti
.endif
.ifdef CPL3
        mov     eax, gs:[PAGE_INDEX]
        shl     eax, 4
        call    load_fpu
        cmp     dword ptr gs:[PAGE_HAVE_AVX], 0
        je      3f
        call    load_ymm
3:
.endif
        start_counting_registers
        add     r8, gs:[PAGE_INDEX]             # no two CPUs have the same
        sub     r15, gs:[PAGE_INDEX]
        sum_registers
        mov     gs:[PAGE_SUM], rax

count:  count_iteration gs:[PAGE_COUNTER], gs:[PAGE_GAP]
        sum_registers
        cmp     rax, gs:[PAGE_SUM]
        expect_equal ERROR_REGISTERS
        check_memory CHECKED_BYTES
        call    check_ledger
        call    check_tsc
        call    check_clock
.ifdef CPL3
        mov     rax, fs:[0]
        mov     ecx, gs:[PAGE_INDEX]
        add     ecx, FS_MAGIC
        cmp     rax, rcx
        expect_equal ERROR_FS
        mov     ecx, gs:[PAGE_INDEX]
        shl     ecx, 4
        call    check_fpu
        cmp     dword ptr gs:[PAGE_HAVE_AVX], 0
        je      count
        call    check_ymm
.else
        mov     al, [MODE]
        cmp     al, 'h'
        je      1f
        cmp     al, 'p'
        je      1f
        cmp     al, 'i'
        jne     count
1:      hlt
.endif
        jmp     count

check_ledger:                                   # word n mod LEDGER_WORDS still says the n before
        mov     rax, gs:[PAGE_COUNTER]
        mov     ecx, eax
        and     ecx, LEDGER_WORDS - 1
        shl     ecx, 3
        add     rcx, gs:[PAGE_LEDGER]
        lea     rdx, [rax - LEDGER_WORDS]
        cmp     [rcx], rdx
        mov     [rcx], rax
        expect_equal ERROR_LEDGER
        ret

# RAX: now; RBX: what was at [\last] before. The later one stays there. Changes RAX, RBX, RDX.
.macro never_behind last, code
        cmp     rax, rbx
        jae     5f
        sub     rbx, rax
        cmp     rbx, SKEW
        jbe     6f
        mov     gs:[PAGE_BEHIND], rbx
        mov     eax, \code
        call    record_error
        jmp     6f
5:      mov     rdx, rax
        mov     rax, rbx
        lock cmpxchg [\last], rdx               # another CPU was quicker: let it
6:
.endm

check_tsc:
        push    rbx
        mov     rbx, [LAST_TSC]
        call    fence
        call    read_tsc
        never_behind LAST_TSC, ERROR_TSC_STEP
        pop     rbx
        ret

fence:                                          # RDTSC waits for the loads before it
.ifdef CPL3
        lfence
.else
        push    rbx
        xor     eax, eax
        cpuid                                   # the same, where LFENCE is not emulated
        pop     rbx
.endif
        ret

check_clock:
        cmp     dword ptr gs:[PAGE_HAVE_CLOCK], 0
        je      3f
        push    rbx
        mov     rbx, [LAST_CLOCK]
        call    fence
        call    read_kvmclock
        cmp     rax, gs:[PAGE_CLOCK_NS]
        jae     1f
        mov     eax, ERROR_CLOCK
        call    record_error
1:      mov     gs:[PAGE_CLOCK_NS], rax
        test    byte ptr gs:[PAGE_CLOCK + 29], 1        # PVCLOCK_TSC_STABLE_BIT
        jz      4f                              # without it the clocks are apart a little
        never_behind LAST_CLOCK, ERROR_CLOCK_STEP
4:      pop     rbx
3:      ret

arm_timer:                                      # changes RAX, RCX, RDX
        xor     eax, eax
        cmp     dword ptr gs:[PAGE_HAVE_CLOCK], 0
        je      1f
        call    read_kvmclock
1:      mov     gs:[PAGE_ARMED_AT], rax
        mov     dword ptr gs:[PAGE_ARMED], 1
        mov     eax, gs:[PAGE_TICKS]
        and     eax, [HAVE_DEADLINE]
        mov     edx, LAPIC
        jnz     2f
        mov     dword ptr [rdx + 0x320], VECTOR_TIMER           # one-shot
        mov     dword ptr [rdx + 0x380], LAPIC_HZ / TICK_HZ
        ret
2:      mov     dword ptr [rdx + 0x320], 0x40000 + VECTOR_TIMER # TSC deadline
        call    read_tsc
        add     rax, [TICK_CYCLES]
        mov     rdx, rax
        shr     rdx, 32
        mov     ecx, 0x6e0
        wrmsr
        ret

timer_interrupt:
        push    rax
        push    rcx
        push    rdx
        inc     qword ptr gs:[PAGE_TICKS]
        cmp     dword ptr gs:[PAGE_ARMED], 1
        expect_equal ERROR_TIMER_TWICE
        mov     dword ptr gs:[PAGE_ARMED], 0
        cmp     dword ptr gs:[PAGE_HAVE_CLOCK], 0
        je      1f
        cmp     byte ptr [MODE], 'p'
        je      1f
        call    read_kvmclock
        sub     rax, gs:[PAGE_ARMED_AT]
        cmp     rax, TICK_NS - TOLERANCE_NS
        jge     1f
        mov     gs:[PAGE_EARLY], rax
        mov     eax, ERROR_TIMER_EARLY
        call    record_error
1:      test    byte ptr gs:[PAGE_TICKS], 15    # not each time: no tick should take long
        jnz     2f
        call    check_system_registers
2:      call    arm_timer
end_of_interrupt:
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0xb0], 0       # EOI
        pop     rdx
        pop     rcx
        pop     rax
        iretq

serial_interrupt:
        push    rax
        push    rcx
        push    rdx
1:      mov     edx, COM1 + 5
        in      al, dx
        test    al, 1                           # LSR.DR
        jz      2f
        mov     edx, COM1
        in      al, dx
        cmp     al, '?'
        je      3f
        call    polled_putc
        jmp     1b
2:      mov     edx, COM1 + 2                   # the interrupt is edge-triggered: leave only
        in      al, dx                          # when the UART has no more to say
        test    al, 1
        jz      1b
        jmp     end_of_interrupt
3:      push    rsi
        mov     esi, offset clock_text
        call    polled_puts
        call    read_kvmclock
        call    polled_print_decimal
        mov     al, '\n'
        call    polled_putc
        pop     rsi
        jmp     1b

load_own_gdt:                                   # R13: the page; changes RAX, RCX, RSI, RDI
        mov     esi, offset gdt_template
        mov     edi, r13d
        mov     ecx, (gdt_template_end - gdt_template) / 4
        rep movsd
        mov     word ptr [r13 + PAGE_GDT_POINTER], gdt_template_end - gdt_template - 1
        mov     [r13 + PAGE_GDT_POINTER + 2], r13
.ifdef CPL3
        lea     eax, [r13 + 0x1000]
        mov     [r13 + PAGE_TSS + 4], rax       # RSP0
        mov     word ptr [r13 + PAGE_TSS + 0x66], 0x68  # I/O permission map: up to 0x3ff
        mov     byte ptr [r13 + PAGE_TSS + TSS_LIMIT], 0xff
        lea     eax, [r13 + PAGE_TSS]           # the descriptor's base, 0..23
        mov     [r13 + TSS_SELECTOR + 2], ax
        shr     eax, 16
        mov     [r13 + TSS_SELECTOR + 4], al
        lgdt    [r13 + PAGE_GDT_POINTER]
        mov     eax, TSS_SELECTOR
        ltr     ax
.else
        lgdt    [r13 + PAGE_GDT_POINTER]
.endif
        ret

.ifdef CPL3
enable_avx:                                     # where the CPU has it
        mov     eax, 1
        cpuid
        and     ecx, 0x14000000                 # XSAVE, AVX
        cmp     ecx, 0x14000000
        jne     1f
        mov     rax, cr4
        or      eax, 0x40000                    # OSXSAVE
        mov     cr4, rax
        xor     ecx, ecx
        xor     edx, edx
        mov     eax, 7                          # XCR0: x87, SSE, AVX
        xsetbv
        mov     dword ptr gs:[PAGE_HAVE_AVX], 1
1:      ret

load_ymm:                                       # the upper halves: the lower one's neighbour
        mov     eax, gs:[PAGE_INDEX]
        shl     eax, 4
.irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14
        vinsertf128 ymm\n, ymm\n, [rax + sse_words + 16 * \n + 16], 1
.endr
        ret

check_ymm:
        mov     ecx, gs:[PAGE_INDEX]
        shl     ecx, 4
.irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14
        vextractf128 xmm15, ymm\n, 1
        pcmpeqb xmm15, [rcx + sse_words + 16 * \n + 16]
        pmovmskb eax, xmm15
        cmp     eax, 0xffff
        expect_equal ERROR_YMM
.endr
        ret

define_fpu_checks gs:[PAGE_MXCSR], gs:[PAGE_X87_CONTROL], gs:[PAGE_X87_TOP], gs:[PAGE_X87_EXPECTED], 15 + MAX_CPUS
.endif

define_system_checks
define_kvmclock PAGE_CLOCK, gs:
define_ap_start

.include "loud.inc"
.include "mode.inc"

.balign 4
serial_setup:                                   # port, value
        .short  COM1 + 1, 0x00                  # IER off
        .short  COM1 + 3, 0x03                  # 8n1
        .short  COM1 + 2, 0x01                  # FIFO, interrupt at the first byte
        .short  COM1 + 4, 0x0b                  # DTR, RTS, OUT2
        .short  COM1 + 1, 0x01                  # IER: received data
serial_setup_end:
steady_text:
        .asciz  "steady "
clock_text:
        .asciz  "clock "

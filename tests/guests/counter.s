# counter: counts as fast as it can at COUNTER, keeps the longest TSC gap between two iterations
# at MAX_GAP, verifies registers and memory, and takes 100 LAPIC timer interrupts (TICKS) and 100
# PIT interrupts through the 8259 (PIT_TICKS) a second. Prints `tick N` every 100 LAPIC ticks.
# Built twice: counter_cpl0 counts in kernel mode; counter_cpl3 (CPL3 defined) counts in user
# mode and also verifies XMM and x87 registers and the FS and GS bases.
.include "txring.inc"
.include "long_mode.inc"
.include "check.inc"
.include "user_mode.inc"
.include "fpu.inc"

.equ TICKS_TO_LINE,     VARIABLES + 0
.equ MXCSR_READ,        VARIABLES + 8
.equ X87_CONTROL_READ,  VARIABLES + 12
.equ X87_TOP_READ,      VARIABLES + 16
.equ X87_TOP_EXPECTED,  VARIABLES + 20

.ifdef CPL3
.equ CHECKED_BYTES, PATTERN_BYTES_CPL3
.else
.equ CHECKED_BYTES, PATTERN_BYTES
.endif

main:
        set_gate VECTOR_TIMER, timer_interrupt
        set_gate VECTOR_PIC, pit_interrupt
        mov     dword ptr [TICKS_TO_LINE], TICK_HZ
        call    load_system_registers
        start_pic 0xfe, 0xff                    # IRQ 0 only
        mov     al, 0x34                        # PIT channel 0, rate generator
        out     0x43, al
        mov     eax, 1193182 / TICK_HZ
        out     0x40, al
        mov     al, ah
        out     0x40, al
        call    start_lapic_timer
.ifdef CPL3
        mov     ecx, 0xc0000100                 # FS_BASE
        mov     eax, offset fs_word
        xor     edx, edx
        wrmsr
        mov     ecx, 0xc0000101                 # GS_BASE
        mov     eax, offset gs_word
        wrmsr
        call    load_task_register
        mov     eax, 0x202                      # RFLAGS: IF; IOPL 0
        call    enter_user_mode
.else
        sti
.endif
        start_checks CHECKED_BYTES
.ifdef CPL3
        xor     eax, eax
        call    load_fpu
.endif

count:  count_iteration [COUNTER], [MAX_GAP]
        check_registers
        check_memory CHECKED_BYTES
.ifdef CPL3
        mov     rax, fs:[0]
        cmp     rax, [fs_word]
        expect_equal ERROR_FS
        mov     rax, gs:[0]
        cmp     rax, [gs_word]
        expect_equal ERROR_GS
        xor     ecx, ecx
        call    check_fpu
.endif
        jmp     count

timer_interrupt:
        push    rax
        push    rcx
        push    rdx
        push    rsi
        inc     qword ptr [TICKS]
        dec     dword ptr [TICKS_TO_LINE]
        jnz     1f
        mov     dword ptr [TICKS_TO_LINE], TICK_HZ
        inc     qword ptr [SECONDS]
        call    queue_tick_line
1:      cmp     dword ptr [TICKS_TO_LINE], TICK_HZ / 2
        jne     2f
        call    check_system_registers          # at another time: no tick should take long
2:      call    send_queued                     # one character a tick
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0xb0], 0       # EOI
        pop     rsi
        pop     rdx
        pop     rcx
        pop     rax
        iretq

pit_interrupt:
        push    rax
        inc     qword ptr [PIT_TICKS]
        mov     al, 0x20                        # EOI
        out     0x20, al
        pop     rax
        iretq

define_system_checks
define_transmit_queue
define_queue_tick_line

.ifdef CPL3
define_user_mode

define_fpu_checks [MXCSR_READ], [X87_CONTROL_READ], [X87_TOP_READ], [X87_TOP_EXPECTED], 15
fs_word: .ascii "FS base."
gs_word: .ascii "GS base."
.endif

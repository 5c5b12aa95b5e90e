# exits: does one thing over and over that makes KVM leave the guest, counting at COUNTER. What it
# does is the letter at MODE: from `mode=LETTER` on the command line, or written there by the host
# at any time (all but `t` and `d` look at it again every 64 exits). No letter: waits for one.
#   p  OUT to a port that nobody claims      P  the same in CPL3 (allowed by the TSS)
#   r  IN from it                            R
#   s  REP OUTSB of 16 bytes to it           S
#   m  MMIO write that nobody claims         M
#   l  MMIO read of it                       L
#   t  `jmp .`: no exits at all              T
#   h  HLT, woken 100 times a second by the LAPIC timer (TICKS)
#   d  HLT with interrupts off: never wakes
.include "long_mode.inc"
.include "user_mode.inc"

main:
        call    find_mode
        call    load_task_register
        set_gate VECTOR_TIMER, timer_interrupt
        set_gate 6, dispatch                    # UD2 is the way back from CPL3
        call    enable_lapic

dispatch:
        cli
        mov     esp, KERNEL_STACK
        movzx   ebx, byte ptr [MODE]            # RBX: the letter
        mov     esi, offset routines
1:      movzx   eax, word ptr [rsi]
        mov     ebp, [rsi + 2]
        add     esi, 6
        test    eax, eax
        jz      dispatch                        # not a letter we know
        cmp     al, bl
        je      run
        cmp     ah, bl
        jne     1b
        mov     eax, 2                          # RFLAGS: interrupts off, IOPL 0
        call    enter_user_mode
run:    jmp     rbp

routines:                                       # letter in CPL0, in CPL3, routine
        .ascii  "pP"
        .long   run_p
        .ascii  "rR"
        .long   run_r
        .ascii  "sS"
        .long   run_s
        .ascii  "mM"
        .long   run_m
        .ascii  "lL"
        .long   run_l
        .ascii  "tT"
        .long   run_t
        .ascii  "hh"
        .long   run_h
        .ascii  "dd"
        .long   run_d
        .short  0

# What stands between these is done 64 times before the letter is looked at.
.macro  storm
2:      mov     ebp, 64
1:
.endm
.macro  storm_end
        inc     qword ptr [COUNTER]
        dec     ebp
        jnz     1b
        cmp     [MODE], bl
        je      2b
        jmp     leave_routine
.endm

run_p:  mov     al, 0x5a
        storm
        out     UNCLAIMED_PORT, al
        storm_end
run_r:  storm
        in      al, UNCLAIMED_PORT
        storm_end
run_s:  mov     edx, UNCLAIMED_PORT
        storm
        mov     esi, LOAD_ADDRESS
        mov     ecx, 16
        rep outsb
        storm_end
run_m:  mov     edi, UNCLAIMED_MMIO
        mov     eax, 0x5aa5c33c
        storm
        mov     [rdi], eax
        storm_end
run_l:  mov     edi, UNCLAIMED_MMIO
        storm
        mov     eax, [rdi]
        storm_end
run_t:  jmp     run_t
run_d:  hlt
        jmp     run_d
run_h:  call    start_lapic_timer
1:      sti
        hlt
        inc     qword ptr [COUNTER]
        cmp     [MODE], bl
        je      1b
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0x380], 0      # stops the timer

leave_routine:
        test    bl, 0x20
        jnz     dispatch
        ud2

timer_interrupt:
        push    rdx
        inc     qword ptr [TICKS]
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0xb0], 0       # EOI
        pop     rdx
        iretq

define_user_mode
.include "mode.inc"

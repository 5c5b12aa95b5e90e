# From `main` (long_mode.inc) to guest_main in C, and interrupts from their vectors to guest_interrupt.
.include "long_mode.inc"
.globl outb_com1, leave

main:                                           # RDI: struct hvm_start_info
        mov     ebx, edi
        mov     edi, offset bss_start
        mov     ecx, offset bss_end
        sub     ecx, edi
        xor     eax, eax
        rep stosb
        mov     al, 0xff                        # the 8259s stay silent
        out     0x21, al
        out     0xa1, al
        call    enable_lapic
        set_gate 0x30, interrupt_0
        set_gate 0x31, interrupt_1
        set_gate 0x32, interrupt_2
        set_gate 0x33, interrupt_3
        mov     edi, ebx
        call    guest_main
        mov     edi, eax

leave:                                          # EDI: the value for isa-debug-exit
        mov     eax, edi
        jmp     leave_by_debug_exit

.macro  interrupt_stub number
interrupt_\number:
        push    rdi
        mov     edi, \number
        jmp     interrupt_common
.endm

interrupt_stub 0
interrupt_stub 1
interrupt_stub 2
interrupt_stub 3

interrupt_common:
        push    rax
        push    rcx
        push    rdx
        push    rsi
        push    r8
        push    r9
        push    r10
        push    r11
        cld
        call    guest_interrupt
        mov     eax, LAPIC
        mov     dword ptr [rax + 0xb0], 0       # EOI
        pop     r11
        pop     r10
        pop     r9
        pop     r8
        pop     rsi
        pop     rdx
        pop     rcx
        pop     rax
        pop     rdi
        iretq

# acpi: the power button, sleep, power off and reset, as ACPI tables describe them. Prints `acpi N`, N is
# 1 where the boot protocol has told of an RSDP, then takes letters on COM1: `s` sleeps in S3 and prints
# `awake` when it goes on, `o` powers off (S5), `r` resets. Each press of the button prints `button N`, N
# is what the generic event device's selector said. Other letters are echoed.
.include "long_mode.inc"

.equ GED_EVENTS,        0xfea00000
.equ SLEEP_CONTROL,     0xfea00200
.equ SLEEP_STATUS,      0xfea00201
.equ RESET_REGISTER,    0xfea00202
.equ GED_PIN,           9
.equ WAKE_STATUS,       0x80

main:
        mov     rbx, [rdi + 32]                 # hvm_start_info.rsdp_paddr
        set_gate VECTOR_PIC + GED_PIN, button
        mov     al, 0xff                        # the 8259s stay silent
        out     0x21, al
        out     0xa1, al
        call    enable_lapic
        mov     edx, IOAPIC                     # edge, to APIC id 0
        mov     dword ptr [rdx], 0x10 + 2 * GED_PIN + 1
        mov     dword ptr [rdx + 0x10], 0
        mov     dword ptr [rdx], 0x10 + 2 * GED_PIN
        mov     dword ptr [rdx + 0x10], VECTOR_PIC + GED_PIN
        mov     esi, offset greeting
        call    polled_puts
        xor     ebp, ebp
        test    rbx, rbx
        jz      1f
        mov     rax, 0x2052545020445352         # "RSD PTR "
        cmp     [rbx], rax
        jne     1f
        inc     ebp
1:      mov     eax, ebp
        call    polled_print_decimal
        call    end_line
next:   sti                                     # a button is told between letters
        mov     edx, COM1 + 5
1:      in      al, dx
        test    al, 1
        jz      1b
        cli
        mov     edx, COM1
        in      al, dx
        cmp     al, 's'
        je      sleep
        cmp     al, 'o'
        je      power_off
        cmp     al, 'r'
        je      reset
        call    polled_putc
        jmp     next

sleep:
        mov     ecx, SLEEP_STATUS               # as ACPICA does: clear, sleep, wait
        mov     byte ptr [rcx], WAKE_STATUS
        mov     ecx, SLEEP_CONTROL
        mov     byte ptr [rcx], 0x20 + (3 << 2)
        mov     ecx, SLEEP_STATUS
1:      test    byte ptr [rcx], WAKE_STATUS
        jz      1b
        mov     byte ptr [rcx], WAKE_STATUS
        test    byte ptr [rcx], WAKE_STATUS
        jnz     stuck
        mov     esi, offset awake_text
        call    polled_puts
        jmp     next
stuck:  mov     eax, 1
        jmp     leave_by_debug_exit

power_off:
        mov     ecx, SLEEP_CONTROL
        mov     byte ptr [rcx], 0x20 + (5 << 2)
1:      jmp     1b

reset:
        mov     ecx, RESET_REGISTER
        mov     byte ptr [rcx], 0x42
1:      jmp     1b

button:
        push    rax
        push    rcx
        push    rdx
        push    rsi
        mov     esi, offset button_text
        call    polled_puts
        mov     ecx, GED_EVENTS
        mov     eax, [rcx]
        call    polled_print_decimal
        call    end_line
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0xb0], 0       # EOI
        pop     rsi
        pop     rdx
        pop     rcx
        pop     rax
        iretq

end_line:
        mov     al, '\n'
        jmp     polled_putc

greeting:
        .asciz  "acpi "
button_text:
        .asciz  "button "
awake_text:
        .asciz  "awake\n"

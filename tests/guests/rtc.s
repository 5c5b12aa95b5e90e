# rtc: prints the MC146818's date and time as it reads it (`rtc: 2025-11-21 04:36:00`, BCD, between
# updates), then counts 128 periodic interrupts at 1024 Hz (IRQ 8 through both 8259s) and prints
# `rtc: irqs ok`, or after 5 seconds `rtc: irqs fail N`. Exits through isa-debug-exit, value 0 or 1.
.include "long_mode.inc"

.equ INTERRUPTS,        VARIABLES + 0
.equ WANTED,            128

main:
        set_gate VECTOR_PIC + 8, rtc_interrupt
        start_pic 0xfb, 0xfe                    # the cascade and IRQ 8
1:      mov     al, 0x0a                        # register A: update in progress?
        call    read_cmos
        test    al, 0x80
        jnz     1b
        mov     esi, offset rtc_text
        call    polled_puts
        mov     ebp, offset date_format         # register, then the character that follows
2:      mov     al, [rbp]
        call    read_cmos
        mov     bl, al
        shr     al, 4
        call    print_digit
        mov     al, bl
        and     al, 0xf
        call    print_digit
        mov     al, [rbp + 1]
        test    al, al
        jz      3f
        call    polled_putc
3:      add     ebp, 2
        cmp     ebp, offset date_format_end
        jne     2b

        mov     ax, 0x260a                      # register A: 32768 Hz base, rate 6: 1024 Hz
        call    write_cmos
        mov     ax, 0x420b                      # register B: periodic interrupt, 24 h, BCD
        call    write_cmos
        mov     al, 0x0c                        # register C: nothing pending
        call    read_cmos
        sti
        mov     ebx, 500
4:      delay   10000
        cmp     dword ptr [INTERRUPTS], WANTED
        jae     5f
        dec     ebx
        jnz     4b
5:      cli
        mov     ax, 0x020b                      # periodic interrupt off
        call    write_cmos
        mov     ebx, [INTERRUPTS]
        mov     esi, offset ok_text
        cmp     ebx, WANTED
        jae     6f
        mov     esi, offset fail_text
        call    polled_puts
        mov     eax, ebx
        call    polled_print_decimal
        mov     esi, offset newline
        call    polled_puts
        mov     eax, 1
        jmp     leave_by_debug_exit
6:      call    polled_puts
        xor     eax, eax
        jmp     leave_by_debug_exit

print_digit:
        add     al, '0'
        jmp     polled_putc

read_cmos:                                      # AL: register; gives AL
        out     0x70, al
        in      al, 0x71
        ret

write_cmos:                                     # AL: register, AH: value
        out     0x70, al
        mov     al, ah
        out     0x71, al
        ret

rtc_interrupt:
        push    rax
        inc     dword ptr [INTERRUPTS]
        mov     al, 0x0c                        # reading register C lets the next one come
        call    read_cmos
        mov     al, 0x20                        # EOI to slave and master
        out     0xa0, al
        out     0x20, al
        pop     rax
        iretq

date_format:
        .byte   0x32, 0,  9, '-',  8, '-',  7, ' ',  4, ':',  2, ':',  0, '\n'
date_format_end:
rtc_text:
        .asciz  "rtc: "
ok_text:
        .asciz  "rtc: irqs ok\n"
fail_text:
        .asciz  "rtc: irqs fail "
newline:
        .asciz  "\n"

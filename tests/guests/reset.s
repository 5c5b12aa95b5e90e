# reset: prints `boot N` and resets by the keyboard controller (or a triple fault) until N is 3,
# then exits through isa-debug-exit with value 0. N lives in RAM and must survive the reset.
.include "long_mode.inc"

main:
        inc     qword ptr [BOOTS]
        mov     esi, offset text
        call    polled_puts
        mov     rax, [BOOTS]
        call    polled_print_decimal
        mov     al, '\n'
        call    polled_putc
        cmp     qword ptr [BOOTS], 3
        jb      leave_by_reset
        mov     qword ptr [BOOTS], 0            # the next guest on this RAM counts from 1 again
        xor     eax, eax
        jmp     leave_by_debug_exit
text:   .asciz  "boot "

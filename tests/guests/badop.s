# badop: prints a line, then INT3 in CPL0. A KVM that interprets kernel mode may not know the
# instruction and leaves with KVM_EXIT_INTERNAL_ERROR (suberror 1, the bytes `cc ...` in
# internal.data); hardware delivers the exception, and the guest exits through isa-debug-exit
# with value 0x83.
.include "long_mode.inc"

main:
        mov     esi, offset text
        call    polled_puts
        int3
text:   .asciz  "badop\n"

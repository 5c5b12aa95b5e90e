# reset_vector: counts its boots, and below 3 goes back to real mode and jumps to FFFF:0000, as software
# restarts a PC by its firmware; then it exits through isa-debug-exit with value 0.
.include "elf.inc"

.code32
_start:
        inc     dword ptr [BOOTS]
        cmp     dword ptr [BOOTS], 3
        jb      leave
        mov     dword ptr [BOOTS], 0            # the next guest on this RAM counts from 1 again
        xor     eax, eax
        mov     dx, DEBUG_EXIT
        out     dx, al
        hlt
leave:  lgdt    [descriptor]
        .byte   0xea                            # jmp 8:real_mode
        .long   real_mode - elf_header
        .word   8
.code16
real_mode:                                      # CS keeps its base until it is loaded again
        mov     eax, cr0
        and     al, 0xfe
        mov     cr0, eax
        .byte   0xea                            # jmp 0xffff:0
        .word   0, 0xffff
.balign 8
gdt:    .quad   0
        .quad   0x00009b100000ffff              # 16-bit code at LOAD_ADDRESS
descriptor:
        .word   15
        .long   gdt

# hello: the shortest guest. Prints a line from 32-bit protected mode, just as PVH entered it, and
# exits through isa-debug-exit with value 0x10; without that device, by a triple fault.
.include "elf.inc"

.code32
_start:
        mov     esi, offset text
1:      mov     edx, COM1 + 5
2:      in      al, dx
        test    al, 0x20                        # LSR.THRE
        jz      2b
        mov     al, [esi]
        test    al, al
        jz      3f
        mov     edx, COM1
        out     dx, al
        inc     esi
        jmp     1b
3:      mov     eax, 0x10
        mov     edx, DEBUG_EXIT
        out     dx, eax
        lidt    [no_idt]
        ud2
no_idt: .short  0
        .long   0
text:   .asciz  "hello from denovo\n"

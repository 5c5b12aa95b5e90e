# probe: does what it is told on COM1, so that a test can try the machine's hardware. Prints
# `probe EAX EBX`, the registers with which it was entered, then reads lines, all numbers
# hexadecimal: `i PORT` reads a byte and prints it, `o PORT VALUE`, `w PORT VALUE` and
# `l PORT VALUE` write 1, 2 and 4 bytes, `g ADDRESS` reads a byte of memory and prints it,
# `p ADDRESS VALUE` writes 4 bytes of memory, `e` exits with value 0. With MULTIBOOT it is a multiboot
# kernel.
.ifdef MULTIBOOT
.include "elf32.inc"
.else
.include "elf.inc"
.endif

.equ STACK,     0x1f0000

.code32
_start:
        mov     esp, STACK
        mov     edi, eax
        mov     esi, offset greeting
1:      lodsb
        test    al, al
        jz      2f
        call    putc
        jmp     1b
2:      mov     eax, edi
        call    print_hex
        mov     al, ' '
        call    putc
        mov     eax, ebx
        call    print_line
next:   call    getc
        mov     bl, al
        cmp     bl, 'e'
        je      leave
        cmp     bl, 'a'
        jb      next                            # the end of a line
        call    number
        mov     edx, eax
        cmp     bl, 'i'
        je      input
        cmp     bl, 'g'
        je      load
        call    number
        cmp     bl, 'o'
        je      output8
        cmp     bl, 'w'
        je      output16
        cmp     bl, 'l'
        je      output32
        mov     [edx], eax                      # p
        jmp     next
output8:
        out     dx, al
        jmp     next
output16:
        out     dx, ax
        jmp     next
output32:
        out     dx, eax
        jmp     next
load:   movzx   eax, byte ptr [edx]
        call    print_line
        jmp     next
input:  xor     eax, eax
        in      al, dx
        call    print_line
        jmp     next

leave:  xor     eax, eax
        mov     edx, DEBUG_EXIT
        out     dx, eax
        lidt    [no_idt]
        ud2
no_idt: .short  0
        .long   0

number:                                         # EAX: what is typed next; ECX is lost
        xor     ecx, ecx
1:      call    getc
        cmp     al, ' '
        je      1b
2:      cmp     al, '0'
        jb      4f
        sub     al, '0'
        cmp     al, 10
        jb      3f
        sub     al, 'a' - '0' - 10
3:      movzx   eax, al
        shl     ecx, 4
        or      ecx, eax
        call    getc
        jmp     2b
4:      mov     eax, ecx
        ret

print_line:
        call    print_hex
        mov     al, '\n'
        jmp     putc

print_hex:                                      # EAX, without leading zeros
        push    eax
        shr     eax, 4
        jz      1f
        call    print_hex
1:      pop     eax
        and     al, 15
        add     al, '0'
        cmp     al, '9'
        jbe     putc
        add     al, 'a' - '0' - 10

putc:   push    edx                             # AL
        push    eax
        mov     edx, COM1 + 5
1:      in      al, dx
        test    al, 0x20                        # LSR.THRE
        jz      1b
        pop     eax
        mov     edx, COM1
        out     dx, al
        pop     edx
        ret

getc:   push    edx                             # AL
        mov     edx, COM1 + 5
1:      in      al, dx
        test    al, 1                           # LSR.DR
        jz      1b
        mov     edx, COM1
        in      al, dx
        pop     edx
        ret

greeting:
        .asciz  "probe "

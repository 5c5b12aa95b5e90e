# modes: a ROM (for `-bios`) that walks from the reset vector through real and protected to long
# mode, says in each of them where it is (`real`, `protected`, `long`), and exits through
# isa-debug-exit with value 0. Assembled for 0xfffff000, the last 4 KiB of a 64 KiB ROM that ends
# at 4 GiB; needs RAM at the addresses of the page tables.
.intel_syntax noprefix
.include "layout.inc"

.equ ROM_OFFSET, 0xf000                         # of `rom` within real mode's code segment

# Prints the text at [SI or ESI or RSI], in CS in real mode. Assembles for any mode.
.macro  define_puts name, source, text:vararg
\name:  mov     al, \text
        test    al, al
        jz      2f
        mov     ah, al
        mov     dx, COM1 + 5
1:      in      al, dx
        test    al, 0x20                        # LSR.THRE
        jz      1b
        mov     dx, COM1
        mov     al, ah
        out     dx, al
        inc     \source
        jmp     \name
2:      ret
.endm

.text
.globl _start
.code16
_start:
rom:    cli
        cld
        xor     ax, ax
        mov     ss, ax
        mov     sp, 0x7000
        mov     si, ROM_OFFSET + (real_text - rom)
        call    puts16
        data32 lgdt cs:[ROM_OFFSET + (gdt_pointer - rom)]       # data32: all 32 bits of the base
        mov     eax, 0x11                       # CR0: ET, PE
        mov     cr0, eax
        .byte   0x66, 0xea                      # jmp CODE32:protected
        .long   protected
        .short  CODE32
define_puts puts16, si, cs:[si]

.code32
protected:
        mov     eax, DATA
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     esp, KERNEL_STACK
        mov     esi, offset protected_text
        call    puts32
        mov     edi, PML4                       # PML4, PDPT, PD_LOW, PD_HIGH: 4 KiB each
        xor     eax, eax
        mov     ecx, 4 * 1024
        rep stosd
        mov     dword ptr [PML4], PDPT + 3      # present, writable
        mov     dword ptr [PDPT], PD_LOW + 3
        mov     dword ptr [PDPT + 3 * 8], PD_HIGH + 3
        mov     dword ptr [PD_LOW], 0x83        # 2 MiB pages: the first, with the stack
        mov     dword ptr [PD_HIGH + 511 * 8], 0xffe00083       # the last, with the ROM
        mov     eax, 0x20                       # CR4: PAE
        mov     cr4, eax
        mov     eax, PML4
        mov     cr3, eax
        mov     ecx, 0xc0000080                 # EFER
        rdmsr
        or      eax, 0x100                      # LME
        wrmsr
        mov     eax, 0x80000011                 # CR0: PG, ET, PE
        mov     cr0, eax
        jmp     CODE64:long
define_puts puts32, esi, [esi]

.code64
long:   mov     esi, offset long_text           # zero-extended: below 4 GiB
        call    puts64
        xor     eax, eax
        mov     edx, DEBUG_EXIT
        out     dx, eax
        lidt    [rip + no_idt]                  # no such device: triple fault
        ud2
define_puts puts64, rsi, [rsi]

.balign 8
gdt:    .quad   0                               # accessed bits set: a CPU could not set them in ROM
        .quad   0x00cf9b000000ffff              # CODE32
        .quad   0x00cf93000000ffff              # DATA
        .quad   0x00af9b000000ffff              # CODE64
gdt_pointer:
        .short  gdt_pointer - gdt - 1
        .long   gdt
no_idt: .short  0
        .quad   0
real_text:
        .asciz  "real\n"
protected_text:
        .asciz  "protected\n"
long_text:
        .asciz  "long\n"

        .org    0xff0                           # the reset vector, 16 bytes before 4 GiB
.code16
        jmp     rom
        .org    0x1000, 0

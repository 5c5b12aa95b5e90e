# memory: takes the RAM's extent from hvm_start_info's memory map, writes to the last word of low
# RAM (below 4 GiB), the first and the last of high RAM, and to 64 words before each of the ends,
# reads them all back only when all are written (so that no two may be the same memory), prints
# `memory: ok LOW_MIB HIGH_MIB` and exits through isa-debug-exit with value 0; else
# `memory: fail ADDRESS` and 1.
.include "long_mode.inc"

.equ WINDOW,    0x40000000                      # what PD_WINDOW maps
.equ LOW_END,   VARIABLES + 0
.equ HIGH_END,  VARIABLES + 8

main:
        mov     rsi, [rdi + 40]                 # memmap_paddr
        mov     ecx, [rdi + 48]                 # memmap_entries
        mov     r8, 1
        shl     r8, 32                          # R8: 4 GiB
1:      test    ecx, ecx
        jz      3f
        cmp     dword ptr [rsi + 16], 1         # type: RAM
        jne     2f
        mov     rax, [rsi]
        mov     edi, LOW_END
        cmp     rax, r8
        jb      4f
        mov     edi, HIGH_END
4:      add     rax, [rsi + 8]
        cmp     rax, [rdi]
        jbe     2f
        mov     [rdi], rax
2:      add     rsi, 24
        dec     ecx
        jmp     1b

3:      mov     ebp, offset write_word
        call    visit_all
        mov     ebp, offset check_word
        call    visit_all
        mov     esi, offset ok_text
        call    polled_puts
        mov     rax, [LOW_END]
        call    print_mib
        mov     al, ' '
        call    polled_putc
        mov     rax, [HIGH_END]
        sub     rax, r8
        ja      5f
        xor     eax, eax
5:      call    print_mib
        mov     al, '\n'
        call    polled_putc
        xor     eax, eax
        jmp     leave_by_debug_exit

print_mib:                                      # RAX: bytes, rounded up
        add     rax, 0xfffff
        shr     rax, 20
        jmp     polled_print_decimal

visit_all:                                      # RBP: what to do with each word
        mov     rdi, [LOW_END]
        call    visit_end
        cmp     qword ptr [HIGH_END], 0
        je      1f
        mov     rdi, r8
        call    visit_word
        mov     rdi, [HIGH_END]
        call    visit_end
1:      ret

visit_end:                                      # RDI: the first address behind
        mov     r9d, 64
1:      sub     rdi, 8
        call    visit_word
        dec     r9d
        jnz     1b
        ret

visit_word:                                     # RDI: physical address
        mov     rax, rdi
        and     rax, -0x200000
        or      rax, 0x83                       # 2 MiB page, present, writable
        mov     [PD_WINDOW], rax
        mov     ecx, WINDOW
        invlpg  [rcx]
        mov     ecx, edi
        and     ecx, 0x1fffff
        or      ecx, WINDOW                     # RCX: where it is visible
        mov     rax, 0x9e3779b97f4a7c15
        add     rax, rdi                        # RAX: what belongs there
        jmp     rbp

write_word:
        mov     [rcx], rax
        ret

check_word:
        cmp     [rcx], rax
        jne     1f
        ret
1:      mov     esi, offset fail_text
        call    polled_puts
        mov     rax, rdi
        call    polled_print_hex
        mov     al, '\n'
        call    polled_putc
        mov     eax, 1
        jmp     leave_by_debug_exit

ok_text:
        .asciz  "memory: ok "
fail_text:
        .asciz  "memory: fail 0x"

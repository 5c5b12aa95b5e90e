# access: one kind of device access over and over, such that one that is lost, repeated or torn is
# found: here (`FAIL` on COM1), or in what the debug console (-debugcon, port 0xe9) has received.
# What is done is the letter of `mode=LETTER`; a capital does it in CPL3. Prints `access`, and counts
# at COUNTER.
#   p  OUT of 0, 1, .. 250, 0, .. to the debug console, one an iteration
#   s  REP OUTSB of all 251 of them
#   r  three bytes out to the UART in loopback, the same three in
#   i  16 bytes by REP OUTSB and back by REP INSB
#   m  stores and loads of memory that nobody claims, some across two pages
#   c  REP MOVSD from there, REP STOSD to there
.set LOUD_ERRORS, 1
.include "long_mode.inc"
.include "user_mode.inc"

.equ PERIOD,            251                     # a prime: no buffer's size divides it
.equ BYTES,             VARIABLES + 0x100       # 0, 1, .. 255, 0, .. 15
.equ TARGET,            VARIABLES + 0x400
.equ MOVED,             16

.macro  expect_equal
        je      .Lequal\@
        call    wrong_access
.Lequal\@:
.endm

main:
        call    find_mode
        call    load_task_register
        xor     eax, eax
1:      mov     [rax + BYTES], al
        inc     eax
        cmp     eax, 256 + 16
        jne     1b
        mov     esi, offset access_text
        call    polled_puts
        movzx   ebx, byte ptr [MODE]
        mov     esi, offset routines
2:      mov     al, [rsi]
        mov     ebp, [rsi + 1]
        add     esi, 5
        xor     al, bl
        jz      3f
        cmp     al, 0x20
        jne     2b
        mov     eax, 2                          # RFLAGS: interrupts off, IOPL 0
        call    enter_user_mode
3:      jmp     rbp

routines:
        .ascii  "p"
        .long   run_p
        .ascii  "s"
        .long   run_s
        .ascii  "r"
        .long   run_r
        .ascii  "i"
        .long   run_i
        .ascii  "m"
        .long   run_m
        .ascii  "c"
        .long   run_c

run_p:  xor     eax, eax
        mov     edx, DEBUGCON
1:      out     dx, al
        inc     eax
        cmp     eax, PERIOD
        jb      2f
        xor     eax, eax
2:      inc     qword ptr [COUNTER]
        jmp     1b

run_s:  mov     edx, DEBUGCON
1:      mov     esi, BYTES
        mov     ecx, PERIOD
        rep outsb
        cmp     rsi, BYTES + PERIOD
        expect_equal
        test    rcx, rcx
        expect_equal
        inc     qword ptr [COUNTER]
        jmp     1b

loop_back:
        mov     edx, COM1 + 2
        mov     al, 7                           # FCR: FIFOs, empty
        out     dx, al
        mov     edx, COM1 + 4
        mov     al, 0x1b                        # MCR: loopback
        out     dx, al
        ret

expect_empty:                                   # no byte that came twice is left
        mov     edx, COM1 + 5
        in      al, dx
        test    al, 1                           # LSR.DR
        expect_equal
        mov     edx, COM1
        inc     qword ptr [COUNTER]
        ret

run_r:  call    loop_back
        xor     ebx, ebx
        mov     edx, COM1
1:
.irp    n, 0, 1, 2
        lea     eax, [rbx + \n]
        out     dx, al
.endr
.irp    n, 0, 1, 2
        xor     eax, eax
        in      al, dx
        lea     ecx, [rbx + \n]
        cmp     al, cl
        expect_equal
.endr
        inc     bl
        call    expect_empty
        jmp     1b

run_i:  call    loop_back
        xor     ebx, ebx
        mov     edx, COM1
1:      lea     esi, [rbx + BYTES]
        mov     ecx, 16
        rep outsb
        mov     edi, TARGET
        mov     ecx, 16
        rep insb
        cmp     rdi, TARGET + 16
        expect_equal
        mov     rax, [rbx + BYTES]
        cmp     rax, [TARGET]
        expect_equal
        mov     rax, [rbx + BYTES + 8]
        cmp     rax, [TARGET + 8]
        expect_equal
        inc     bl
        call    expect_empty
        jmp     1b

run_m:  mov     edi, UNCLAIMED_MMIO + 0xffc     # the last word of a page
        xor     ebx, ebx
1:      mov     [rdi], rbx
        mov     rax, rbx
        mov     rax, [rdi]
        cmp     rax, -1
        expect_equal
        mov     [rdi - 8], ebx
        mov     rax, rbx
        movzx   eax, word ptr [rdi - 3]
        cmp     rax, 0xffff
        expect_equal
        mov     rax, rbx
        mov     al, [rdi]
        mov     rcx, rbx
        mov     cl, 0xff
        cmp     rax, rcx
        expect_equal
        inc     rbx
        cmp     edi, UNCLAIMED_MMIO + 0xffc
        expect_equal
        inc     qword ptr [COUNTER]
        jmp     1b

run_c:  mov     edi, TARGET
        mov     ecx, MOVED + 1
        xor     eax, eax
        rep stosd
        mov     esi, UNCLAIMED_MMIO
        mov     edi, TARGET
        mov     ecx, MOVED
        rep movsd
        cmp     esi, UNCLAIMED_MMIO + MOVED * 4
        expect_equal
        cmp     rdi, TARGET + MOVED * 4
        expect_equal
        cmp     dword ptr [TARGET + MOVED * 4], 0
        expect_equal
        mov     ebx, MOVED
1:      cmp     dword ptr [TARGET - 4 + rbx * 4], -1
        expect_equal
        dec     ebx
        jnz     1b
        mov     edi, UNCLAIMED_MMIO
        mov     ecx, MOVED
        rep stosd
        test    rcx, rcx
        expect_equal
        cmp     edi, UNCLAIMED_MMIO + MOVED * 4
        expect_equal
        inc     qword ptr [COUNTER]
        jmp     run_c

wrong_access:
        mov     eax, ERROR_ACCESS
        jmp     record_error

define_user_mode
.include "loud.inc"
.include "mode.inc"
access_text:
        .asciz  "access\n"

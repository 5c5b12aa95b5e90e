# compute: does the same work over and over, and prints a letter after each batch of it, so that
# whoever sees them come knows how fast it goes. What it does is `mode=LETTER` on the command line:
#   s  COMPUTE_SMALL rounds of a loop of 34 instructions
#   m  COMPUTE_MEDIUM rounds of 2,179 instructions: 64 times 34, and three
#   l  COMPUTE_LARGE rounds of 20,708 instructions: 1,294 times 16, one after the other, and four
#   p  COMPUTE_PORTS times OUT to a port that nobody claims
# Prints `?` and halts without a letter that it knows.
.include "long_mode.inc"

.equ DATA_AREA,         0x300000                # what the instructions load and store
.equ FLAT_CODE,         0x400000                # the code of mode l
.equ FLAT_BLOCKS,       1294
.equ REPEATS,           64

# 16 instructions, of the kinds that compiled code has most of.
.macro  work    offset
        mov     rax, [rdi + \offset]
        add     rax, rbx
        lea     rcx, [rax + rax*2 + 7]
        xor     rdx, rcx
        shr     rcx, 5
        mov     [rdi + \offset + 8], rcx
        imul    rbx, rdx
        cmp     rax, rcx
        sete    r8b
        movzx   r9d, r8b
        add     r10, r9
        and     edx, 0xffffff
        sub     r11, rdx
        rol     r11, 3
        test    r11d, r11d
        cmovz   r10, rbx
.endm

.macro  batch   rounds
1:      mov     esi, \rounds
2:
.endm
.macro  batch_end
        dec     esi
        jnz     2b
        mov     al, [MODE]
        call    polled_putc
        jmp     1b
.endm

main:
        call    find_mode
        call    make_flat_code
        mov     edi, DATA_AREA
        mov     al, [MODE]
        cmp     al, 's'
        je      small
        cmp     al, 'm'
        je      medium
        cmp     al, 'l'
        je      large
        cmp     al, 'p'
        je      ports
        mov     al, '?'
        call    polled_putc
        hlt

small:  batch   COMPUTE_SMALL
        work    0
        work    64
        batch_end

medium: batch   COMPUTE_MEDIUM
        mov     ebp, REPEATS
3:      work    0
        work    64
        dec     ebp
        jnz     3b
        batch_end

large:  mov     ebp, FLAT_CODE
        batch   COMPUTE_LARGE
        call    rbp
        batch_end

ports:  batch   COMPUTE_PORTS
        out     UNCLAIMED_PORT, al
        batch_end

make_flat_code:                                 # FLAT_BLOCKS times `block`, and RET
        mov     edi, FLAT_CODE
        mov     edx, FLAT_BLOCKS
1:      mov     esi, offset block
        mov     ecx, block_end - block
        rep movsb
        dec     edx
        jnz     1b
        mov     byte ptr [rdi], 0xc3
        ret
block:  work    128
block_end:

.include "mode.inc"

# dirty: counts as counter_cpl3 does, in user mode without interrupts, and writes one word in another
# page of DIRTY_BYTES at DIRTY in every iteration. Every page's word is the number of the pass
# that wrote it, so a page that is lost or old is an error.
.include "long_mode.inc"
.include "check.inc"
.include "user_mode.inc"

.equ DIRTY_PAGE,        VARIABLES + 0           # the address that is next
.equ DIRTY_PASS,        VARIABLES + 8           # what is in every page from there on

main:
        call    load_task_register
        mov     eax, 2                          # RFLAGS: no interrupts
        call    enter_user_mode
        mov     eax, DIRTY
1:      mov     qword ptr [rax], 0
        add     eax, 4096
        cmp     eax, DIRTY + DIRTY_BYTES
        jb      1b
        mov     qword ptr [DIRTY_PAGE], DIRTY
        mov     qword ptr [DIRTY_PASS], 0
        start_checks PATTERN_BYTES

count:  count_iteration [COUNTER], [MAX_GAP]
        check_registers
        check_memory PATTERN_BYTES
        mov     rcx, [DIRTY_PAGE]
        mov     rax, [DIRTY_PASS]
        cmp     rax, [rcx]
        expect_equal ERROR_MEMORY
        inc     qword ptr [rcx]
        add     rcx, 4096
        cmp     rcx, DIRTY + DIRTY_BYTES
        jb      2f
        mov     ecx, DIRTY
        inc     qword ptr [DIRTY_PASS]
2:      mov     [DIRTY_PAGE], rcx
        jmp     count

define_user_mode

# bring_up: starts the other CPUs step by step. `mode=N` says how many CPUs there are (2 to 8). Says
# where they are, and waits for the key `k`:
#   off        nothing was sent yet
#   init       they have got INIT and wait for SIPI
#   real       all of them have come to real mode, and spin there
#   protected  the same in protected mode
#   long       the same in long mode
#   halted     all have executed CLI and HLT: only INIT wakes them
# Then, between `storm` and the key, it sends INIT and SIPI over and over, without a delay, counting
# at COUNTER: each must start every CPU once. Prints `done`; `FAIL` when a CPU does not come, or
# comes twice.
.set LOUD_ERRORS, 1
.include "long_mode.inc"

.equ OTHERS,            VARIABLES + 0           # CPUs besides this one
.equ STARTS,            VARIABLES + 8           # how often all of them together have started
.equ EXPECTED,          VARIABLES + 16
.equ STAGE,             VARIABLES + 24          # how far they may go
.equ ARRIVED,           VARIABLES + 32          # how many are there
.equ LOW_STAGE,         AP_TRAMPOLINE + 0xff0   # the same two, where real mode reaches them
.equ LOW_ARRIVED,       AP_TRAMPOLINE + 0xff8

.macro  announce text
        mov     esi, offset \text
        call    polled_puts
        call    wait_key
.endm

# Waits until all other CPUs are at a place, for half a second of the guest's own time at least.
.macro  await_all word
        mov     r10d, \word
        call    await_arrivals
.endm

main:
        call    find_mode
        movzx   eax, byte ptr [MODE]
        sub     eax, '1'
        mov     [OTHERS], eax
        call    enable_lapic
        call    copy_trampoline
        mov     dword ptr [LOW_STAGE], 0
        mov     dword ptr [LOW_ARRIVED], 0
        announce off_text
        call    send_init
        announce init_text
        call    send_sipi
        await_all LOW_ARRIVED
        announce real_text
        mov     dword ptr [LOW_STAGE], 1
        await_all ARRIVED
        announce protected_text
        mov     dword ptr [ARRIVED], 0
        mov     dword ptr [STAGE], 1
        await_all ARRIVED
        announce long_text
        mov     dword ptr [ARRIVED], 0
        mov     dword ptr [STAGE], 2            # from now on nothing holds them
        await_all ARRIVED
        announce halted_text
        mov     dword ptr [ARRIVED], 0

        mov     esi, offset storm_text
        call    polled_puts
1:      mov     eax, [OTHERS]
        add     [EXPECTED], eax
        call    send_init
        call    send_sipi
        await_all ARRIVED
        mov     dword ptr [ARRIVED], 0
        mov     eax, [STARTS]
        sub     eax, [OTHERS]                   # those of before
        cmp     eax, [EXPECTED]
        je      2f
        call    wrong
2:      inc     qword ptr [COUNTER]
        call    is_key
        jne     1b
        mov     esi, offset done_text
        call    polled_puts
3:      hlt
        jmp     3b

send_init:                                      # to all but this CPU
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0x300], 0xc4500
        ret

send_sipi:
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0x300], 0xc4600 + (AP_TRAMPOLINE >> 12)
        ret

await_arrivals:                                 # R10: the word; changes RAX, RCX
        mov     ecx, 100000000
1:      mov     eax, [r10]
        cmp     eax, [OTHERS]
        je      2f
        ja      wrong
        pause
        dec     ecx
        jnz     1b
wrong:  mov     eax, ERROR_BRING_UP
        jmp     record_error
2:      ret

wait_key:                                       # changes RAX, RDX
        call    is_key
        jne     wait_key
        ret

is_key:                                         # equal if the key `k` was typed
        mov     edx, COM1 + 5
        in      al, dx
        and     al, 1                           # LSR.DR
        xor     al, 1
        jnz     1f
        mov     edx, COM1
        in      al, dx
        cmp     al, 'k'
1:      ret

copy_trampoline:
        mov     esi, offset trampoline
        mov     edi, AP_TRAMPOLINE
        mov     ecx, offset trampoline_end - trampoline
        rep movsb
        ret

# ---- The other CPUs -----------------------------------------------------------------------------
.code16
trampoline:                                     # runs at AP_TRAMPOLINE, CS = AP_TRAMPOLINE >> 4
        cli
        cld
        mov     ax, cs
        mov     ds, ax
        lock inc dword ptr [LOW_ARRIVED - AP_TRAMPOLINE]
1:      pause
        cmp     dword ptr [LOW_STAGE - AP_TRAMPOLINE], 0
        je      1b
        lgdt    cs:[trampoline_gdt_pointer - trampoline]
        mov     eax, 0x11                       # CR0: ET, PE
        mov     cr0, eax
        .byte   0x66, 0xea                      # jmp CODE32:start_ap
        .long   start_ap
        .short  CODE32
trampoline_gdt_pointer:
        .short  gdt_template_end - gdt_template - 1
        .long   GDT
trampoline_end:

.code32
start_ap:
        mov     eax, DATA
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     esp, [LAPIC + 0x20]             # APIC id in the top byte
        shr     esp, 24 - 10
        add     esp, AP_STACKS + 0x400
        cmp     dword ptr [STAGE], 0
        jne     2f
        lock inc dword ptr [ARRIVED]
1:      pause
        cmp     dword ptr [STAGE], 0
        je      1b
2:      call    enable_long_mode
        jmp     CODE64:start_ap64

.code64
start_ap64:
        lidt    [idt_pointer]
        cmp     dword ptr [STAGE], 2
        je      2f
        lock inc dword ptr [ARRIVED]
1:      pause
        cmp     dword ptr [STAGE], 2
        jne     1b
2:      lock inc dword ptr [STARTS]
        lock inc dword ptr [ARRIVED]
3:      cli
        hlt
        jmp     3b

.include "loud.inc"
.include "mode.inc"
off_text:       .asciz  "off\n"
init_text:      .asciz  "init\n"
real_text:      .asciz  "real\n"
protected_text: .asciz  "protected\n"
long_text:      .asciz  "long\n"
halted_text:    .asciz  "halted\n"
storm_text:     .asciz  "storm\n"
done_text:      .asciz  "done\n"

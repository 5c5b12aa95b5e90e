# demo: the guest to try Denovo with. Kernel mode, interrupts on: counts, verifies itself, prints
# `tick N` every second, and answers what is typed on the console:
#   quit    ends the VM (isa-debug-exit with value 0)
#   reset   resets the machine
#   gap     says for how long the guest stood still since the last `gap`
#   other   `you said: OTHER`
# Serial input by interrupt (IRQ 4 through the IOAPIC), ticks from the LAPIC timer, time from
# kvmclock. Output is queued and leaves one character an iteration, so that a line of text does
# not look like a pause.
.include "txring.inc"
.include "long_mode.inc"
.include "check.inc"
.include "kvmclock.inc"

.equ TICKS_TO_SECOND,   VARIABLES + 0
.equ HAVE_KVMCLOCK,     VARIABLES + 4
.equ SECONDS_PASSED,    VARIABLES + 8           # SECONDS follows when the line is queued
.equ RX_IN,             VARIABLES + 16          # total characters received
.equ RX_OUT,            VARIABLES + 20          # total characters taken
.equ LINE_LENGTH,       VARIABLES + 24
.equ OWN_MAX_GAP,       VARIABLES + 32          # what `gap` tells; MAX_GAP belongs to the host
.equ RX_SIZE,           256
.equ LINE_SIZE,         120

main:
        set_gate VECTOR_TIMER, timer_interrupt
        set_gate VECTOR_PIC + 4, serial_interrupt
        mov     dword ptr [TICKS_TO_SECOND], TICK_HZ
        call    load_system_registers
        mov     edi, KVMCLOCK
        call    start_kvmclock
        mov     [HAVE_KVMCLOCK], eax
        mov     al, 0xff                        # the 8259s stay silent
        out     0x21, al
        out     0xa1, al
        mov     edx, IOAPIC                     # pin 4: edge, this CPU, VECTOR_PIC + 4
        mov     dword ptr [rdx], 0x10 + 4 * 2 + 1
        mov     dword ptr [rdx + 0x10], 0
        mov     dword ptr [rdx], 0x10 + 4 * 2
        mov     dword ptr [rdx + 0x10], VECTOR_PIC + 4
        mov     esi, offset serial_setup
        mov     ecx, (serial_setup_end - serial_setup) / 4
1:      mov     dx, [rsi]
        mov     al, [rsi + 2]
        out     dx, al
        add     esi, 4
        loop    1b
        mov     esi, offset greeting
        call    queue_puts
        call    enable_lapic
        call    start_lapic_timer
        sti
        start_checks PATTERN_BYTES

again:  count_iteration [COUNTER], [MAX_GAP]
        cmp     rcx, [OWN_MAX_GAP]
        jle     1f
        mov     [OWN_MAX_GAP], rcx
1:      check_registers
        check_memory PATTERN_BYTES
        mov     rax, [SECONDS_PASSED]
        cmp     rax, [SECONDS]
        jne     new_second
        mov     eax, [RX_OUT]
        cmp     eax, [RX_IN]
        jne     new_character
        mov     eax, [TX_OUT]
        cmp     eax, [TX_IN]
        je      again
        call    send_queued
        jmp     again

new_second:
        push    rsi
        inc     qword ptr [SECONDS]
        call    queue_tick_line
        call    check_system_registers
        pop     rsi
        jmp     again

# ---- What is typed ----------------------------------------------------------------------------
new_character:                                  # EAX: RX_OUT
        inc     dword ptr [RX_OUT]
        movzx   eax, al                         # RX_SIZE is 256
        mov     al, [rax + RX_RING]
        mov     ecx, [LINE_LENGTH]
        cmp     al, '\n'
        je      end_of_line
        cmp     al, '\r'
        je      end_of_line
        cmp     al, 0x7f                        # backspace
        je      2f
        cmp     al, 8
        je      2f
        cmp     al, ' '
        jb      again
        cmp     al, 'a'
        jb      1f
        cmp     al, 'z'
        ja      1f
        sub     al, 'a' - 'A'
1:      cmp     ecx, LINE_SIZE
        je      again
        mov     [rcx + LINE], al
        inc     dword ptr [LINE_LENGTH]
        jmp     again
2:      test    ecx, ecx
        jz      again
        dec     dword ptr [LINE_LENGTH]
        jmp     again

end_of_line:                                    # ECX: length; the line is in capitals
        test    ecx, ecx
        jz      again
        mov     byte ptr [rcx + LINE], 0
        mov     dword ptr [LINE_LENGTH], 0
        push    rsi
        mov     eax, [LINE]
        cmp     eax, 'Q' + ('U' << 8) + ('I' << 16) + ('T' << 24)
        jne     1f
        cmp     ecx, 4
        je      quit
1:      cmp     eax, 'R' + ('E' << 8) + ('S' << 16) + ('E' << 24)
        jne     2f
        cmp     word ptr [LINE + 4], 'T'        # and the 0 that ends the line
        je      leave_by_reset
2:      cmp     eax, 'G' + ('A' << 8) + ('P' << 16)
        je      say_gap
        mov     esi, offset you_said
        call    queue_puts
        mov     esi, LINE
        call    queue_puts
said:   mov     al, '\n'
        call    queue_putc
        pop     rsi
        jmp     again

say_gap:
        mov     esi, offset gap_text
        call    queue_puts
        mov     rax, [OWN_MAX_GAP]
        mov     qword ptr [OWN_MAX_GAP], 0
        mov     esi, offset cycles_text
        cmp     dword ptr [HAVE_KVMCLOCK], 0
        je      1f
        call    tsc_to_nanoseconds
        xor     edx, edx
        mov     ecx, 1000
        div     rcx
        mov     esi, offset microseconds_text
1:      push    rsi
        call    queue_print_decimal
        pop     rsi
        call    queue_puts
        jmp     said

quit:                                           # what is still queued goes out first
        call    send_queued
        mov     eax, [TX_OUT]
        cmp     eax, [TX_IN]
        jne     quit
        xor     eax, eax
        mov     edx, DEBUG_EXIT
        out     dx, eax
        mov     esi, offset halted              # no such device
        call    polled_puts
        cli
        hlt

# ---- Interrupts ---------------------------------------------------------------------------------
timer_interrupt:
        push    rax
        push    rcx
        push    rdx
        inc     qword ptr [TICKS]
        dec     dword ptr [TICKS_TO_SECOND]
        jnz     1f
        mov     dword ptr [TICKS_TO_SECOND], TICK_HZ
        inc     qword ptr [SECONDS_PASSED]
1:      cmp     dword ptr [HAVE_KVMCLOCK], 0
        je      3f
        call    read_kvmclock
        cmp     rax, [CLOCK_NS]
        jae     2f
        push    rax
        mov     eax, ERROR_CLOCK
        call    record_error
        pop     rax
2:      mov     [CLOCK_NS], rax
3:      mov     edx, LAPIC
        mov     dword ptr [rdx + 0xb0], 0       # EOI
        pop     rdx
        pop     rcx
        pop     rax
        iretq

serial_interrupt:
        push    rax
        push    rcx
        push    rdx
1:      mov     edx, COM1 + 5
        in      al, dx
        test    al, 1                           # LSR.DR
        jz      2f
        mov     edx, COM1
        in      al, dx
        mov     ecx, [RX_IN]
        mov     edx, ecx
        sub     edx, [RX_OUT]
        cmp     edx, RX_SIZE
        je      1b                              # full: dropped
        movzx   edx, cl
        mov     [rdx + RX_RING], al
        inc     ecx
        mov     [RX_IN], ecx
        jmp     1b
2:      mov     edx, COM1 + 2                   # the interrupt is edge-triggered: leave only
        in      al, dx                          # when the UART has no more to say
        test    al, 1
        jz      1b
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0xb0], 0       # EOI
        pop     rdx
        pop     rcx
        pop     rax
        iretq

define_system_checks
define_transmit_queue
define_queue_tick_line
define_kvmclock KVMCLOCK

.balign 4
serial_setup:                                   # port, value
        .short  COM1 + 1, 0x00                  # IER off
        .short  COM1 + 3, 0x80                  # LCR.DLAB
        .short  COM1 + 0, 0x01                  # 115200 baud
        .short  COM1 + 1, 0x00
        .short  COM1 + 3, 0x03                  # 8n1
        .short  COM1 + 2, 0x01                  # FIFO, interrupt at the first byte; keeps
        .short  COM1 + 4, 0x0b                  #   what was typed before. DTR, RTS, OUT2
        .short  COM1 + 1, 0x01                  # IER: received data
serial_setup_end:
greeting:
        .asciz  "denovo demo guest: type something, I echo it in capitals\n"
you_said:
        .asciz  "you said: "
gap_text:
        .asciz  "longest gap: "
microseconds_text:
        .asciz  " us"
cycles_text:
        .asciz  " cycles"
halted: .asciz  "there is no isa-debug-exit: halted\n"

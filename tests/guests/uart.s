# uart: checks the 16550A at COM1 from the guest's side, register by register, mostly in loopback
# (MCR.4), by the data sheet (National Semiconductor PC16550D). Prints `uart: ok` and exits through
# isa-debug-exit with value 0, or `uart: fail N got X want Y` (hexadecimal X and Y) and value 1.
# N is the first argument of the `check` that failed. With `nodelta` on the command line it leaves
# out what QEMU's 16550 does not do: delta bits and modem interrupts in loopback (checks 50 to 59).
.include "long_mode.inc"

# Offsets from COM1.
.equ RBR, 0                                     # read:  receiver buffer
.equ THR, 0                                     # write: transmitter holding
.equ DLL, 0                                     # with LCR.DLAB: divisor latch
.equ DLM, 1
.equ IER, 1
.equ IIR, 2                                     # read
.equ FCR, 2                                     # write
.equ LCR, 3
.equ MCR, 4
.equ LSR, 5
.equ MSR, 6
.equ SCR, 7
.equ LOOP, 0x18                                 # MCR: loopback; OUT2, which gates the IRQ

.equ IRQ_COUNT, VARIABLES + 0                   # serial interrupts taken
.equ IRQ_IIR,   VARIABLES + 4                   # what IIR said in the last one
.equ IRQ_DATA,  VARIABLES + 8                   # what RBR held in it

.macro  put register, value
        mov     edx, COM1 + \register
        mov     al, \value
        out     dx, al
.endm

.macro  get register
        mov     edx, COM1 + \register
        in      al, dx
.endm

# Compares AL with what it should be.
.macro  check number, want
        mov     cl, \want
        cmp     al, cl
        mov     ebx, \number
        jne     fail
.endm

.macro  check_register number, register, want
        get     \register
        check   \number, \want
.endm

.macro  set_divisor divisor
        put     LCR, 0x83
        put     DLL, \divisor
        put     DLM, 0
        put     LCR, 0x03
.endm

main:
        mov     rbp, [rdi + 24]                 # the command line, for has_nodelta

        # ---- After reset ----
        check_register 1, LSR, 0x60             # transmitter empty, nothing received, no errors
        check_register 2, IER, 0x00
        check_register 3, IIR, 0x01             # no interrupt, FIFOs off
        check_register 4, LCR, 0x00

        # ---- Read-write registers ----
        xor     esi, esi
1:      put     SCR, sil                        # scratch: any byte
        check_register 10, SCR, sil
        inc     sil
        jnz     1b
        put     LCR, 0x7f
        check_register 11, LCR, 0x7f
        put     LCR, 0x03
        check_register 12, LCR, 0x03
        put     IER, 0xff
        check_register 13, IER, 0x0f            # four interrupts, the rest reads 0
        put     IER, 0x00
        check_register 14, IER, 0x00
        put     MCR, 0xff
        check_register 15, MCR, 0x1f            # DTR, RTS, OUT1, OUT2, loop
        put     MCR, 0x00
        check_register 16, MCR, 0x00

        # ---- Divisor latch: two registers behind RBR and IER ----
        put     LCR, 0x83
        put     DLL, 0x5a
        put     DLM, 0x03
        check_register 20, DLL, 0x5a
        check_register 21, DLM, 0x03
        check_register 22, LCR, 0x83
        put     LCR, 0x03
        check_register 23, IER, 0x00            # not what went to DLM
        put     IER, 0x04
        put     LCR, 0x83
        check_register 24, DLM, 0x03            # not what went to IER
        check_register 25, DLL, 0x5a
        put     LCR, 0x03
        check_register 26, IER, 0x04
        put     IER, 0x00
        set_divisor 1                           # 115200 baud

        # ---- FIFO identification ----
        put     FCR, 0x01
        check_register 30, IIR, 0xc1            # a 16550A with its FIFOs on
        put     FCR, 0x00
        check_register 31, IIR, 0x01
        put     FCR, 0xc0                       # bit 0 must be set, else the others do nothing
        check_register 32, IIR, 0x01

        # ---- Bytes through the loop, no FIFO ----
        put     MCR, LOOP
        xor     esi, esi
1:      put     THR, sil
        call    wait_received
        check_register 40, LSR, 0x61            # received, transmitter empty
        check_register 41, RBR, sil
        check_register 42, LSR, 0x60
        inc     sil
        jnz     1b

        # ---- Bytes through the loop, sixteen at a time ----
        put     FCR, 0x07                       # on, both reset
        xor     esi, esi
1:      call    send_16
        check_register 43, LSR, 0x61
        sub     sil, 16
        mov     edi, 16
2:      check_register 44, RBR, sil
        inc     sil
        dec     edi
        jnz     2b
        check_register 45, LSR, 0x60
        test    sil, sil
        jnz     1b

        # ---- FCR clears the receiver's FIFO ----
        put     THR, 0x11
        call    wait_received
        put     FCR, 0x03                       # reset the receiver
        check_register 46, LSR, 0x60
        put     THR, 0x22
        call    wait_received
        put     FCR, 0x00                       # turning the FIFOs off clears them as well
        check_register 47, LSR, 0x60

        # ---- Modem lines: MCR's outputs are MSR's inputs ----
        xor     esi, esi
1:      mov     al, sil
        or      al, 0x10
        put     MCR, al
        mov     al, [rsi + modem_lines]
        mov     dil, al
        get     MSR
        and     al, 0xf0
        check   48, dil
        inc     esi
        cmp     esi, 16
        jne     1b

        call    has_nodelta
        jz      no_delta
        put     MCR, 0x10                       # all four low
        get     MSR                             # reading clears the delta bits
        check_register 50, MSR, 0x00
        put     MCR, 0x1f                       # all four rise: for RI only a fall counts
        check_register 51, MSR, 0xfb
        check_register 52, MSR, 0xf0
        put     MCR, 0x10                       # all four fall
        check_register 53, MSR, 0x0f
        check_register 54, MSR, 0x00
        put     IER, 0x08                       # modem status interrupt
        check_register 55, IIR, 0x01
        put     MCR, 0x12                       # RTS, that is CTS
        check_register 56, IIR, 0x00
        check_register 57, MSR, 0x11
        check_register 58, IIR, 0x01            # reading MSR was the acknowledgement
        put     IER, 0x00
no_delta:
        put     MCR, LOOP
        get     MSR

        # ---- IIR: transmitter empty ----
        put     IER, 0x02
        check_register 60, IIR, 0x02
        check_register 61, IIR, 0x01            # reading it was the acknowledgement
        put     IER, 0x00
        put     IER, 0x02                       # enabling it again brings it back
        check_register 62, IIR, 0x02
        put     THR, 0x33
        call    wait_received
        check_register 63, IIR, 0x02            # and so does a byte that has left
        check_register 64, RBR, 0x33
        put     IER, 0x00

        # ---- IIR: received data, line status, and which comes first ----
        put     IER, 0x01
        check_register 65, IIR, 0x01
        put     THR, 0x44
        call    wait_received
        check_register 66, IIR, 0x04
        check_register 67, IIR, 0x04            # until the byte is read
        check_register 68, RBR, 0x44
        check_register 69, IIR, 0x01
        put     IER, 0x07
        put     THR, 0x55
        call    wait_received
        put     THR, 0x66                       # overrun
        call    wait_transmitted_unread
        check_register 70, IIR, 0x06            # line status
        check_register 71, LSR, 0x63            # OE, DR; reading acknowledges
        check_register 72, IIR, 0x04            # then received data
        check_register 73, RBR, 0x66            # the later byte took the earlier one's place
        check_register 74, IIR, 0x02            # then the transmitter
        check_register 75, IIR, 0x01
        check_register 76, LSR, 0x60
        put     IER, 0x00

        # ---- Overrun with FIFO: the seventeenth byte is lost, the sixteen stay ----
        put     FCR, 0x07
        mov     esi, 0x80
        call    send_16
        put     THR, 0xee
        call    wait_transmitted_unread
        check_register 77, LSR, 0x63
        mov     esi, 0x80
1:      check_register 78, RBR, sil
        inc     esi
        cmp     esi, 0x90
        jne     1b
        check_register 79, LSR, 0x60

        # ---- Receiver FIFO: interrupt at 1, 4, 8, 14 bytes ----
        set_divisor 255                         # 451 baud: the timeout is far
        put     IER, 0x01
        xor     esi, esi
1:      mov     al, [rsi + trigger_levels]
        mov     dil, al                         # RDI: how many bytes
        mov     al, sil
        shl     al, 6
        or      al, 0x07
        put     FCR, al
        check_register 80, IIR, 0xc1
2:      dec     dil
        jz      3f
        put     THR, dil
        call    wait_transmitted
        check_register 81, IIR, 0xc1            # one less than the level is not enough
        jmp     2b
3:      put     THR, 0x77
        call    wait_transmitted
        check_register 82, IIR, 0xc4
        get     RBR                             # below the level again
        check_register 83, IIR, 0xc1
        inc     esi
        cmp     esi, 4
        jne     1b

        # ---- Receiver FIFO: fewer bytes than that, and nothing more for four characters' time --
        set_divisor 1
        put     FCR, 0xc7                       # 14 bytes
        put     THR, 0x88
        mov     esi, 100                        # a second at most
1:      delay   10000
        get     IIR
        cmp     al, 0xcc
        je      2f
        dec     esi
        jnz     1b
2:      check   84, 0xcc                        # character timeout
        check_register 85, LSR, 0x61
        check_register 86, IIR, 0xcc            # until the byte is read
        check_register 87, RBR, 0x88
        check_register 88, IIR, 0xc1
        put     FCR, 0x00
        put     IER, 0x00

        # ---- Break: holds the line, has no effect on the transmitter logic, hence on the loop --
        put     LCR, 0x43
        check_register 90, LCR, 0x43
        put     THR, 0x99
        call    wait_received
        check_register 91, LSR, 0x61
        check_register 92, RBR, 0x99
        put     LCR, 0x03

        # ---- Interrupts arrive: IRQ 4 through the 8259 ----
        set_gate VECTOR_PIC + 4, serial_interrupt
        start_pic 0xef, 0xff
        sti
        delay   10000
        mov     al, [IRQ_COUNT]
        check   100, 0                          # none is enabled
        put     IER, 0x02
        delay   10000
        mov     al, [IRQ_COUNT]
        check   101, 1
        mov     al, [IRQ_IIR]
        check   102, 0x02
        put     IER, 0x01
        delay   10000
        mov     al, [IRQ_COUNT]
        check   103, 1
        put     THR, 0xaa
        delay   10000
        mov     al, [IRQ_COUNT]
        check   104, 2
        mov     al, [IRQ_IIR]
        check   105, 0x04
        mov     al, [IRQ_DATA]
        check   106, 0xaa
        put     THR, 0xbb
        delay   10000
        mov     al, [IRQ_COUNT]
        check   107, 3
        mov     al, [IRQ_DATA]
        check   108, 0xbb
        cli
        put     IER, 0x00

        put     MCR, 0x00
        mov     esi, offset ok_text
        call    polled_puts
        xor     eax, eax
        jmp     leave_by_debug_exit

fail:                                           # EBX: number, AL: got, CL: want
        cli
        mov     r8b, al
        mov     r9b, cl
        put     IER, 0x00
        put     LCR, 0x03
        put     FCR, 0x00
        put     MCR, 0x00                       # out of the loop
        mov     esi, offset fail_text
        call    polled_puts
        mov     eax, ebx
        call    polled_print_decimal
        mov     esi, offset got_text
        call    polled_puts
        movzx   eax, r8b
        call    polled_print_hex
        mov     esi, offset want_text
        call    polled_puts
        movzx   eax, r9b
        call    polled_print_hex
        mov     al, '\n'
        call    polled_putc
        mov     eax, 1
        jmp     leave_by_debug_exit

send_16:                                        # SIL and the fifteen that follow; advances SIL
        mov     edi, 16
1:      put     THR, sil
        inc     sil
        dec     edi
        jnz     1b
        # falls through
wait_transmitted:                               # until LSR.TEMT: all bytes went round the loop
        mov     ecx, 10000
1:      get     LSR
        test    al, 0x40
        jnz     2f
        loop    1b
2:      ret

wait_received:                                  # until LSR.DR and LSR.TEMT
        mov     ecx, 10000
1:      get     LSR
        and     al, 0x41
        cmp     al, 0x41
        je      2f
        loop    1b
2:      ret

wait_transmitted_unread:                        # the same without reading LSR, which would
        delay   10000                           # acknowledge the errors: two characters' time
        ret                                     # many times over

has_nodelta:                                    # RBP: command line; ZF: it says `nodelta`
        test    rbp, rbp
        jz      2f
        mov     rax, [nodelta_text]
        shl     rax, 8                          # seven letters
1:      cmp     byte ptr [rbp], 0
        je      2f
        mov     rcx, [rbp]
        shl     rcx, 8
        inc     rbp
        cmp     rcx, rax
        jne     1b
        ret
2:      or      al, 1                           # ZF clear
        ret

serial_interrupt:
        push    rax
        push    rdx
        inc     dword ptr [IRQ_COUNT]
        get     IIR
        mov     [IRQ_IIR], al
        cmp     al, 0x04
        jne     1f
        get     RBR
        mov     [IRQ_DATA], al
1:      mov     al, 0x20                        # EOI
        out     0x20, al
        pop     rdx
        pop     rax
        iretq

modem_lines:                                    # MCR's OUT2 OUT1 RTS DTR as DCD RI DSR CTS
.irp    mcr, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        .byte   ((\mcr & 1) << 5) + ((\mcr & 2) << 3) + ((\mcr & 0xc) << 4)
.endr
trigger_levels:
        .byte   1, 4, 8, 14
nodelta_text:
        .ascii  "nodelta "
ok_text:
        .asciz  "uart: ok\n"
fail_text:
        .asciz  "uart: fail "
got_text:
        .asciz  " got "
want_text:
        .asciz  " want "

# pending: brings one interrupt after the other to the point where it is pending, says its name, and
# waits for the key `k`; then lets it in, and expects it exactly once (`FAIL` on COM1 otherwise).
#   timer     the LAPIC timer has fired by count, interrupts are off
#   fired     it has been taken, and the timer was not armed again: nothing may come
#   deadline  the same two by TSC deadline
#   rested
#   service   the timer has fired again while its interrupt is in service
#   tpr       an IPI waits behind the task priority
#   typed     IRQ 4 is in the LAPIC, interrupts are off (after `type` a character must be typed)
#   pic       the RTC's IRQ 8 is in the second 8259, interrupts are off
#   masked    the same, masked there
#   nmi       an NMI is in service (after `inject` the host must inject one)
# Prints `done` at the end.
.set LOUD_ERRORS, 1
.include "long_mode.inc"

.equ TIMERS,            VARIABLES + 0           # interrupts taken
.equ IPIS,              VARIABLES + 8
.equ SERIALS,           VARIABLES + 16
.equ RTCS,              VARIABLES + 24
.equ NMIS,              VARIABLES + 32
.equ IN_HANDLER,        VARIABLES + 40          # what the timer's handler shall do besides
.equ VECTOR_IPI,        0x31

# Says that something is pending, waits for the key.
.macro  announce text
        mov     esi, offset \text
        call    polled_puts
        call    wait_key
.endm

# Lets interrupts in for a while.
.macro  let_in
        sti
        mov     ecx, 20000
.Lwait\@:
        loop    .Lwait\@
        cli
.endm

.macro  expect count, number
        cmp     qword ptr [\count], \number
        je      .Lexpected\@
        mov     eax, ERROR_PENDING
        call    record_error
.Lexpected\@:
.endm

# Waits until a vector is requested in the LAPIC; 0x20..0x3f only.
.macro  await_request vector
.Lpoll\@:
        mov     edx, LAPIC
        mov     eax, [rdx + 0x210]
        test    eax, 1 << (\vector - 0x20)
        jz      .Lpoll\@
.endm

main:
        set_gate VECTOR_TIMER, timer_interrupt
        set_gate VECTOR_IPI, ipi_interrupt
        set_gate VECTOR_PIC + 4, serial_interrupt
        set_gate VECTOR_PIC + 8, rtc_interrupt
        set_gate 2, nmi_interrupt
        start_pic 0xfb, 0xfe                    # the cascade and IRQ 8

        call    fire_by_count
        announce timer_text
        let_in
        expect  TIMERS, 1
        announce fired_text
        let_in
        expect  TIMERS, 1

        call    fire_by_deadline
        announce deadline_text
        let_in
        expect  TIMERS, 2
        announce rested_text
        let_in
        expect  TIMERS, 2

        mov     dword ptr [IN_HANDLER], 1
        call    fire_by_count
        let_in
        expect  TIMERS, 4

        mov     edx, LAPIC
        mov     dword ptr [rdx + 0x80], 0xf0    # TPR
        sti
        mov     dword ptr [rdx + 0x300], 0x44000 + VECTOR_IPI   # to itself
        announce tpr_text
        expect  IPIS, 0
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0x80], 0
        let_in
        expect  IPIS, 1

        mov     edx, IOAPIC                     # pin 4: edge, CPU 0, VECTOR_PIC + 4
        mov     dword ptr [rdx], 0x10 + 4 * 2 + 1
        mov     dword ptr [rdx + 0x10], 0
        mov     dword ptr [rdx], 0x10 + 4 * 2
        mov     dword ptr [rdx + 0x10], VECTOR_PIC + 4
        mov     edx, COM1 + 4
        mov     al, 0x0b                        # MCR: DTR, RTS, OUT2
        out     dx, al
        mov     edx, COM1 + 1
        mov     al, 1                           # IER: received data
        out     dx, al
        mov     esi, offset type_text
        call    polled_puts
        await_request VECTOR_PIC + 4
        announce typed_text
        let_in
        expect  SERIALS, 1
        mov     edx, COM1 + 1
        xor     eax, eax
        out     dx, al

        call    fire_rtc
        announce pic_text
        let_in
        expect  RTCS, 1
        mov     al, 0xff
        out     0xa1, al
        call    fire_rtc
        announce masked_text
        let_in
        expect  RTCS, 1
        mov     al, 0xfe
        out     0xa1, al
        let_in
        expect  RTCS, 2

        mov     esi, offset inject_text
        call    polled_puts
1:      cmp     dword ptr [NMIS], 0
        je      1b
        mov     ecx, 20000
2:      loop    2b
        expect  NMIS, 2

        expect  TIMERS, 4
        mov     esi, offset done_text
        call    polled_puts
3:      hlt
        jmp     3b

wait_key:                                       # changes RAX, RDX
        mov     edx, COM1 + 5
        in      al, dx
        test    al, 1                           # LSR.DR
        jz      wait_key
        mov     edx, COM1
        in      al, dx
        cmp     al, 'k'
        jne     wait_key
        ret

fire_by_count:                                  # the timer, 1 ms from now; waits until it has fired
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0x320], VECTOR_TIMER
        mov     dword ptr [rdx + 0x380], LAPIC_HZ / 1000
        await_request VECTOR_TIMER
        ret

fire_by_deadline:                               # the same, where there are TSC deadlines
        mov     eax, 1
        cpuid
        bt      ecx, 24
        jnc     fire_by_count
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0x320], 0x40000 + VECTOR_TIMER
        rdtsc
        add     eax, 1000000
        adc     edx, 0
        mov     ecx, 0x6e0
        wrmsr
        await_request VECTOR_TIMER
        ret

fire_rtc:                                       # its periodic interrupt; waits for it in the 8259
        mov     ax, 0x260a                      # register A: 1024 Hz
        call    write_cmos
        mov     ax, 0x420b                      # register B: periodic interrupt, 24 h
        call    write_cmos
1:      mov     al, 0x0a                        # OCW3: read the request register
        out     0xa0, al
        in      al, 0xa0
        test    al, 1
        jz      1b
        ret

write_cmos:                                     # AL: register, AH: value
        out     0x70, al
        mov     al, ah
        out     0x71, al
        ret

.macro  end_of_interrupt
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0xb0], 0
.endm

timer_interrupt:
        push    rax
        push    rdx
        push    rsi
        inc     qword ptr [TIMERS]
        cmp     dword ptr [IN_HANDLER], 0
        je      1f
        mov     dword ptr [IN_HANDLER], 0
        call    fire_by_count
        announce service_text
1:      end_of_interrupt
        pop     rsi
        pop     rdx
        pop     rax
        iretq

ipi_interrupt:
        push    rdx
        inc     qword ptr [IPIS]
        end_of_interrupt
        pop     rdx
        iretq

serial_interrupt:
        push    rdx
        inc     qword ptr [SERIALS]
        end_of_interrupt
        pop     rdx
        iretq

rtc_interrupt:
        push    rax
        inc     qword ptr [RTCS]
        mov     ax, 0x020b                      # register B: no more of them
        call    write_cmos
        mov     al, 0x0c                        # register C: taken
        out     0x70, al
        in      al, 0x71
        mov     al, 0x20                        # EOI to both
        out     0xa0, al
        out     0x20, al
        pop     rax
        iretq

nmi_interrupt:
        push    rax
        push    rdx
        push    rsi
        inc     qword ptr [NMIS]
        cmp     qword ptr [NMIS], 1
        jne     1f
        announce nmi_text
        expect  NMIS, 1
1:      pop     rsi
        pop     rdx
        pop     rax
        iretq

.include "loud.inc"

timer_text:     .asciz  "timer\n"
fired_text:     .asciz  "fired\n"
deadline_text:  .asciz  "deadline\n"
rested_text:    .asciz  "rested\n"
service_text:   .asciz  "service\n"
tpr_text:       .asciz  "tpr\n"
type_text:      .asciz  "type\n"
typed_text:     .asciz  "typed\n"
pic_text:       .asciz  "pic\n"
masked_text:    .asciz  "masked\n"
inject_text:    .asciz  "inject\n"
nmi_text:       .asciz  "nmi\n"
done_text:      .asciz  "done\n"

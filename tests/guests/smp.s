# smp: wakes every other CPU (INIT, SIPI, SIPI to all but itself), prints `cpus N`, and then every
# CPU counts in its own record at CPU_RECORDS + APIC id * CPU_RECORD_SIZE: counter and longest TSC
# gap. All verify their registers and the same memory; the first error of any CPU is in CHECK.
# Works with 1 to 64 CPUs (APIC ids 0 to 63).
.include "long_mode.inc"
.include "check.inc"
.include "ap_start.inc"

main:
        call    enable_lapic
        start_checks PATTERN_BYTES              # the others only read what this writes
        call    wake_cpus
        mov     esi, offset cpus_text
        call    polled_puts
        mov     rax, [CPUS]
        call    polled_print_decimal
        mov     al, '\n'
        call    polled_putc

start_counting:                                 # every CPU: GS base = its record
        mov     eax, LAPIC
        mov     eax, [rax + 0x20]
        shr     eax, 24                         # APIC id
        imul    eax, eax, CPU_RECORD_SIZE
        add     eax, CPU_RECORDS
        xor     edx, edx
        mov     ecx, 0xc0000101                 # GS_BASE
        wrmsr
        mov     qword ptr gs:[0], 0
        mov     qword ptr gs:[8], 0
        start_counting_registers
count:  count_iteration gs:[0], gs:[8]
        check_registers
        check_memory PATTERN_BYTES
        jmp     count

# ---- The other CPUs -----------------------------------------------------------------------------
define_ap_start

start_ap64:
        lidt    [idt_pointer]
        lock inc qword ptr [CPUS]
        jmp     start_counting

cpus_text:
        .asciz  "cpus "

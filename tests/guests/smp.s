# smp: wakes every other CPU (INIT, SIPI, SIPI to all but itself), prints `cpus N`, and then every
# CPU counts in its own record at CPU_RECORDS + APIC id * CPU_RECORD_SIZE: counter and longest TSC
# gap. All verify their registers and the same memory; the first error of any CPU is in CHECK.
# Works with 1 to 64 CPUs (APIC ids 0 to 63).
.include "long_mode.inc"
.include "check.inc"

main:
        call    enable_lapic
        start_checks PATTERN_BYTES              # the others only read what this writes
        mov     esi, offset trampoline
        mov     edi, AP_TRAMPOLINE
        mov     ecx, offset trampoline_end - trampoline
        rep movsb
        mov     qword ptr [CPUS], 1
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0x300], 0xc4500        # ICR: INIT, all but self
        delay   10000
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0x300], 0xc4600 + (AP_TRAMPOLINE >> 12)
        delay   200
        mov     edx, LAPIC
        mov     dword ptr [rdx + 0x300], 0xc4600 + (AP_TRAMPOLINE >> 12)
1:      mov     r8, [CPUS]                      # until nobody came for 100 ms
        delay   100000
        cmp     r8, [CPUS]
        jne     1b
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
.code16
trampoline:                                     # runs at AP_TRAMPOLINE, CS = AP_TRAMPOLINE >> 4
        cli
        cld
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
        call    enable_long_mode
        jmp     CODE64:start_ap64

.code64
start_ap64:
        lidt    [idt_pointer]
        lock inc qword ptr [CPUS]
        jmp     start_counting

cpus_text:
        .asciz  "cpus "

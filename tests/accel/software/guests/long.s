# Long mode as QEMU has it too: paging's faults, gates, stacks, system calls, far transfers.
.include "long.inc"

tests:
  call pages
  call addresses
  call transfers
  call interrupts
  call system_calls
  call registers
  call compatibility
  call double_faults
  call stepping
  ret

pages:
  try 1, "movl ABSENT_PAGE + 8, %eax"
  try 2, "movl %eax, ABSENT_PAGE + 16"
  try 3, "movl %eax, READ_ONLY_PAGE"
  try 4, "movl %eax, SYSTEM_READ_ONLY_PAGE"
  try 5, "movl NO_CODE_PAGE, %eax; movq $NO_CODE_PAGE, %rax; jmp *%rax"
  try 8, "movl 0xa00000, %eax"
  try 9, "movq $0x7fffffffe000, %rax; movl (%rax), %eax"
  try 10, "movw %ax, READ_ONLY_PAGE - 1"
  try 11, "movw ABSENT_PAGE - 1, %ax"
  try 12, "movq $ABSENT_PAGE, %rax; jmp *%rax"
  user 1, "movl ABSENT_PAGE, %eax"
  user 2, "movl %eax, READ_ONLY_PAGE"
  user 3, "movl SYSTEM_PAGE, %eax"
  user 4, "movl %eax, SYSTEM_PAGE"
  user 5, "movq $NO_CODE_PAGE, %rax; jmp *%rax"
  user 7, "movq $SYSTEM_PAGE, %rax; jmp *%rax"
  user 8, "movl ALIAS, %eax"
  # Without WP the supervisor writes where it can read; dirty and accessed bits are set.
  movq %cr0, %rax
  andl $~0x10000, %eax
  movq %rax, %cr0
  try 13, "movl %eax, SYSTEM_READ_ONLY_PAGE; movl %eax, READ_ONLY_PAGE"
  movq %cr0, %rax
  orl $0x10000, %eax
  movq %rax, %cr0
  log "PT + 0x101 * 8"
  log "PT + 0x103 * 8"
  log "PT + 0x106 * 8"
  try 14, "movl PLAIN_PAGE, %eax"
  log "PT + 0x106 * 8"
  try 15, "movl %eax, PLAIN_PAGE"
  log "PT + 0x106 * 8"
  # SMEP and SMAP; the handler switches them off.
  try 16, "movq $1f + ALIAS, %rax; jmp *%rax; 1: movq %cr4, %rax; orl $0x100000, %eax; movq %rax, %cr4; movq $2f, %rax; jmp *%rax; 2: nop"
  try 17, "movq %cr4, %rax; orl $0x200000, %eax; movq %rax, %cr4; movl scratch, %eax"
  try 18, "movq %cr4, %rax; orl $0x200000, %eax; movq %rax, %cr4; movl %eax, scratch"
  try 19, "movq %cr4, %rax; orl $0x200000, %eax; movq %rax, %cr4; stac; movl scratch, %ebx; clac; movl scratch, %eax"
  try 20, "movq %cr4, %rax; orl $0x200000, %eax; movq %rax, %cr4; movl scratch + ALIAS, %eax; andl $~0x200000, %eax; movq %cr4, %rax; andl $~0x200000, %eax; movq %rax, %cr4"
  # A changed entry counts after INVLPG.
  try 22, "movl PLAIN_PAGE, %eax; movl $0x101007, PT + 0x106 * 8; movl $0x77, READ_ONLY_PAGE + 0; "
  try 23, "invlpg PLAIN_PAGE; movl $0x55, PLAIN_PAGE; movl $0x106007, PT + 0x106 * 8; invlpg PLAIN_PAGE; movl READ_ONLY_PAGE, %eax; log %rax"
  ret

addresses:
  try 1, "movq $0x800000000000, %rax; movl (%rax), %ebx"
  try 2, "movq $0x7ffffffffffe, %rax; movl %ebx, (%rax)"
  try 3, "movq $0x800000000000, %rsp; pushq %rax"
  try 7, "movq $0x1000000000000, %rax; lgdt (%rax)"
  try 9, "movl $0xc0000101, %ecx; movl $scratch - 8, %eax; xorl %edx, %edx; wrmsr; movl $0x1234, %gs:8; movl scratch, %eax; log %rax"
  try 10, "movl $0xc0000102, %ecx; movl $0x5678, %eax; xorl %edx, %edx; wrmsr; swapgs; movl $0xc0000101, %ecx; rdmsr; log %rax; swapgs"
  user 1, "swapgs"
  user 2, "movl $0xc0000100, %ecx; rdmsr"
  try 11, "rdfsbase %rax"
  movq %cr4, %rax
  orl $0x10000, %eax
  movq %rax, %cr4
  user 3, "movq $0x12345678, %rax; wrfsbase %rax; rdfsbase %rbx; log %rbx"
  ret

transfers:
  try 1, "ljmp *far_same; 1:"
  try 2, "lcall *far_gate; log $0x22"
  try 3, "ljmp *far_32; "
  try 5, "ljmp *far_absent"
  try 6, "ljmp *far_bad_gate"
  try 7, "ljmp *far_tss"
  try 8, "pushq $CODE; pushq $1f; lretq; 1: log $0x33"
  try 10, "pushq $DATA; pushq $STACK - 0x800; pushq $2; pushq $CODE; pushq $1f; iretq; 1: log %rsp"
  try 11, "pushq $0; pushq $STACK - 0x800; pushq $2; pushq $CODE; pushq $1f; iretq; 1: movl %ss, %eax; log %rax; log %rsp"
  try 12, "pushq $3; pushq $USER_STACK; pushq $2; pushq $USER_CODE; pushq $1f; iretq; 1:"
  try 15, "pushq $0x4002; popfq; pushq $DATA; pushq $STACK; pushq $2; pushq $CODE; pushq $1f; iretq; 1:"
  try 16, "xorl %eax, %eax; movl %eax, %ss; movl %ss, %eax; log %rax"
  try 18, "pushq $USER_DATA; pushq $USER_STACK; pushq $USER_CODE; pushq $1f; lretq; 1: log %rsp; movl %cs, %eax; log %rax; int $0x30"
  user 1, "lcall *far_gate_user; log $0x44; log %rsp"
  user 2, "lcall *far_gate"
  user 3, "pushq $USER_CODE; pushq $1f; lretq; 1: log $0x55"
  user 4, "xorl %eax, %eax; movl %eax, %ss"
  user 5, "movl $LDT | 4, %eax; movl %eax, %ds"
  try 19, "movl $LDT, %eax; lldt %ax; movl $7, %eax; movl %eax, %ds; sldt %eax; log %rax; str %eax; log %rax"
  try 21, "movl $TSS16, %eax; ltr %ax"
  try 22, "lar tss_selector, %eax; log %rax; lsl tss_selector, %eax; log %rax; movl $GATE, %ecx; lar %ecx, %eax; log %rax"
  ret

interrupts:
  try 1, "int $0x30"
  try 2, "int $0x32"
  try 4, "int $0x34"
  try 5, "int $0x35"
  try 9, "pushq $1; int $0x31"
  try 10, "subq $8, %rsp; int3"
  user 1, "int $0x30"
  user 2, "int $0x32"
  user 5, "pushq %rax; ud2"
  user 6, "cli"
  user 7, "hlt"
  user 8, "inb $0x80, %al"
  user 9, "sti; cli; pushfq; log (%rsp); inb $0x80, %al; log $0x99", 0x3000
  try 11, "xorl %ecx, %ecx; divq %rcx"
  ret

system_calls:
  user 1, "xorl %ebx, %ebx; syscall"
  user 2, "movl $1, %ebx; syscall; log $0x66; movl %cs, %eax; log %rax; movl %ss, %eax; log %rax; pushfq; log (%rsp)", 0x200
  user 3, "movl $2, %ebx; movl $1f, %ecx; syscall; 1: .code32; movl %cs, %eax; int $0x31; .code64"
  user 4, "sysretq"
  user 5, "sysenter"
  user 6, "movl $1, %ebx; syscall; nop; nop", 0x100
  write_msr 0xc0000080, 0xd00
  user 7, "syscall"
  try 1, "sysretq"
  write_msr 0xc0000080, 0xd01
  compat 1, "xorl %ebx, %ebx; syscall"
  compat 2, "movl $2, %ebx; syscall; movl %cs, %eax; int $0x31", 0x200
  ret

registers:
  try 2, "movq $5, %rax; movq %rax, %cr8; movq %cr8, %rbx; log %rbx"
  try 6, "movq %cr3, %rax; log %rax; movq %rax, %cr3; movq %cr0, %rax; log %rax"
  try 7, "smsw %rax; log %rax; sgdt PLAIN_PAGE; log PLAIN_PAGE; log PLAIN_PAGE + 2; sidt PLAIN_PAGE; log PLAIN_PAGE; log PLAIN_PAGE + 2"
  try 8, "movl $0xc0000080, %ecx; rdmsr; log %rax"
  user 1, "movq %cr8, %rax"
  user 2, "smsw %rax; log %rax"
  movq %cr4, %rax
  orl $0x800, %eax
  movq %rax, %cr4
  user 3, "smsw %rax"
  user 4, "sgdt scratch"
  user 5, "str %eax"
  user 6, "sldt %eax"
  try 9, "smsw %eax; str %eax"
  movq %cr4, %rax
  orl $4, %eax
  movq %rax, %cr4
  user 7, "rdtsc"
  user 8, "rdtscp"
  try 10, "movl $0xc0000103, %ecx; movl $0x4321, %eax; xorl %edx, %edx; wrmsr; rdtscp; log %rcx"
  ret

compatibility:
  compat 1, "movl %cs, %eax; movl $0x12345, %esi"
  compat 2, "pushl $0x1111; lcall $GATE_USER + 3, $0; popl %eax"
  compat 3, "ljmp $USER_CODE, $1f; 1: .code64; movq $0x123456789, %rax; shrq $4, %rax; int $0x31; .code32"
  compat 4, "ljmp $CODE, $0"
  compat 5, "movl ABSENT_PAGE, %eax"
  compat 6, "int $0x32"
  compat 7, "movl $-4, %eax; movl (%eax), %ebx"
  compat 8, "incl %eax; .byte 0x0f, 0x01, 0xf8"
  try 1, "pushq $CODE32; pushq $1f; lretq; 1: .code32; movl %cs, %eax; ljmp $CODE, $2f; 2: .code64; log %rax"
  try 2, "pushq $CODE32; pushq $1f; lretq; 1: .code32; pushl $2; pushl $CODE; pushl $2f; iretl; 2: .code64; log %rsp"
  try 3, "pushq $CODE32; pushq $1f; lretq; 1: .code32; int $0x31; .code64"
  ret

double_faults:
  try 1, "movq $ABSENT_PAGE + 0x800, %rsp; pushq %rax"
  try 2, "movq $0x800000000000, %rsp; ud2"
  movq $ABSENT_PAGE + 0x800, %rax
  movq %rax, tss + 4
  user 1, "ud2"
  user 2, "movl ABSENT_PAGE, %eax"
  movq $0x800000000000, %rax
  movq %rax, tss + 4
  user 3, "ud2"
  user 4, "movl ABSENT_PAGE, %eax"
  movq $0x66000, %rax
  movq %rax, tss + 4
  ret

stepping:
  try 1, "pushq $0x102; popfq; nop"
  user 1, "nop; nop", 0x100
  user 2, "pushq $2; popfq; nop", 0x100
  try 2, "movq $1f, %rax; movq %rax, %dr2; movl $0x420, %eax; movq %rax, %dr7; nop; 1: nop"
  try 3, "movq $scratch, %rax; movq %rax, %dr1; movl $0xd00408, %eax; movq %rax, %dr7; movl scratch, %ebx; movl %eax, scratch + 4; nop; movl %eax, scratch + 2; nop"
  try 4, "movq $scratch, %rax; movq %rax, %dr0; movl $0xb0402, %eax; movq %rax, %dr7; movl scratch + 8, %ebx; movb scratch + 7, %bl; nop"
  try 5, "movq $1 << 32, %rax; movq %rax, %dr7"
  try 6, "pushq $0x102; popfq; movl $DATA, %eax; movl %eax, %ss; nop; nop"
  ret

.balign 8
far_same: .long back
  .word CODE
far_gate: .long 0x1234
  .word GATE
far_gate_user: .long 0x1234
  .word GATE_USER + 3
far_32: .long to_32
  .word CODE32
far_absent: .long back
  .word CODE_ABSENT
far_bad_gate: .long 0
  .word GATE_BAD
far_tss: .long 0
  .word TSS
tss_selector: .word TSS

.code32
to_32:
  movl $0x3232, scratch
  ljmp $CODE, $from_32
.code64
from_32:
  log scratch
  jmp back

reset_vector

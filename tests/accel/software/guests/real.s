# Real mode as QEMU has it too.
.include "real.inc"

tests:
  call interrupts
  call transfers
  call flags
  call system
  call big
  ret

interrupts:
  try 1, "int $0x21"
  try 2, "int3"
  try 3, "movb $0x7f, %al; incb %al; into"
  try 4, "xorw %cx, %cx; divw %cx"
  try 5, "movw $11, %ax; bound %ax, bounds - AT"
  try 6, ".byte 0x0f, 0x0b"
  try 7, "pushw $0x3302; popfw; int $0x22"
  try 8, "pushw $0x102; popfw; nop; nop"
  try 9, "sti; nop; pushfw; popw %ax; andl $0xffff, %eax; log %eax; cli"
  try 10, "lidtl short_pointer - AT; int $0x22; "
  lidtl vectors_pointer - AT
  try 11, ".byte 0xf0, 0x90"
  ret

transfers:
  try 1, "lcall *far_code - AT; log $0x11"
  try 2, "lcall $0x1000, $far_target - AT; log $0x22"
  try 3, "pushw $1; pushw $2; lcall $0x1000, $far_target4 - AT; movzwl %sp, %eax; log %eax"
  try 4, "ljmp $0xf00, $1f - AT + 0x1000; 1: movl %cs, %eax; log %eax; ljmp $0x1000, $2f - AT; 2:"
  try 5, "pushw $0x246; pushw $0x1000; pushw $1f - AT; iretw; 1: pushfw; popw %ax; movzwl %ax, %eax; log %eax"
  try 6, "pushl $0x200246; pushl $0x1000; pushl $1f - AT; iretl; 1: pushfl; popl %eax; log %eax"
  try 7, "les far_data - AT, %ax; movzwl %ax, %eax; log %eax; movl %es, %eax; log %eax"
  try 8, "lss far_data - AT, %bx; movl %ss, %eax; movw $0x1000, %cx; movw %cx, %ss; log %eax"
  try 9, "pushw %cs; pushw $1f - AT; lretw; 1: log $0x33"
  try 10, "pushl $0x1000; pushl $1f - AT; lretl; 1: log $0x44"
  try 11, "pushw $0x2222; popw %ds; movl %ds, %eax; log %eax; pushw %ds; popw %fs; movl %fs, %eax; log %eax"
  ret

flags:
  try 1, "pushl $0x247fd7 - 0x100; popfl; pushfl; popl %eax; log %eax"
  try 2, "pushw $0x7ed7; popfw; pushfl; popl %eax; log %eax"
  try 3, "pushl $0x30002; popfl; pushfl; popl %eax; log %eax"
  ret

system:
  try 1, "smsw %eax; log %eax; movl %cr0, %eax; log %eax"
  try 2, "sldt %ax"
  try 3, "str %ax"
  try 4, "lldt %ax"
  try 5, "ltr %ax"
  try 6, "verr %ax"
  try 7, "lar %ax, %bx"
  try 8, "lsl %ax, %bx"
  try 9, "arpl %ax, %bx"
  try 10, "sysenter"
  try 11, "syscall"
  try 12, "sgdtl scratch - AT; movl scratch - AT, %eax; log %eax; movl scratch + 2 - AT, %eax; log %eax"
  try 13, "sidtl scratch - AT; movl scratch - AT, %eax; log %eax"
  try 14, "lgdtw gdt_pointer - AT; sgdtl scratch - AT; movl scratch + 2 - AT, %eax; log %eax"
  try 15, "movl %cr4, %eax; log %eax; movl $0x10, %ecx; rdmsr; movl $0x277, %ecx; rdmsr; log %eax"
  try 16, "clts; wbinvd; invlpg 0; movl $0x1234, %eax; movl %eax, %cr2; movl %cr2, %ebx; log %ebx"
  try 17, "movl %dr7, %eax; log %eax; movl %dr6, %eax; log %eax"
  ret

# Segments with limits of 4 GiB, loaded in protected mode and kept; and LMSW as the way there.
big:
  lgdtl gdt_pointer - AT
  try 1, "movl %cr0, %eax; orl $1, %eax; movl %eax, %cr0; movw $0x10, %bx; movw %bx, %fs; andl $~1, %eax; movl %eax, %cr0; movl $0x180000, %ebx; movl $0x12345678, %fs:(%ebx); movl %fs:(%ebx), %eax; log %eax"
  try 2, "xorw %bx, %bx; movw %bx, %fs; movl $0x180000, %ebx; movl %fs:(%ebx), %eax; log %eax"
  try 3, "smsw %ax; orw $1, %ax; lmsw %ax; ljmp $8, $1f - AT; 1: movw $0x18, %ax; movw %ax, %ds; movw scratch - AT, %bx; movl %cr0, %eax; andl $~1, %eax; movl %eax, %cr0; ljmp $0x1000, $2f - AT; 2: movw $0x1000, %ax; movw %ax, %ds; log $0x66"
  ret

reset_vector

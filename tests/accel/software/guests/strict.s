# Protected mode as the SDM has it and QEMU does not: limits and rights of accesses, reserved bits.
.include "protected.inc"

tests:
  call accesses
  call registers
  call others
  ret

accesses:
  try 1, "movl $READ_ONLY, %eax; movl %eax, %ds; movl %ds:0, %ebx; log $1; movl %ebx, %ds:0"
  try 2, "movl $3, %eax; movl %eax, %ds; log $1; movl %ds:0, %eax"
  try 3, "movl $SMALL, %eax; movl %eax, %ds; movb %ds:0xff, %al; movl %ds:0xfc, %eax; log $1; movw %ds:0xff, %ax"
  try 4, "movl $SMALL, %eax; movl %eax, %es; movl %eax, %es:0xfc; log $1; movl %eax, %es:0xfd"
  try 5, "movl $DOWN, %eax; movl %eax, %ds; movl %ds:0x1000, %eax; log $1; movl %ds:0xfff, %eax"
  try 6, "movl $DOWN, %eax; movl %eax, %ds; movl %ds:0xfffffffc, %eax; log $1; movl %ds:0xfffffffd, %eax"
  user 7, "movl $SMALL3, %eax; movl %eax, %ss; popl %eax"
  user 8, "movl $SMALL3, %eax; movl %eax, %ss; movl $0x100, %esp; popw %ax"
  user 9, "movl $SMALL3, %eax; movl %eax, %ss; movl $2, %esp; pushl %eax"
  try 10, "movl $READ_ONLY, %eax; movl %eax, %es; xorl %edi, %edi; movl $4, %ecx; rep stosb"
  try 11, "movl %cs:scratch, %eax; log $1; movl %eax, %cs:scratch"
  user 12, "movl %cs:scratch, %eax; log $1; movl %eax, %cs:scratch"
  try 13, "ljmp $EXECUTE_ONLY, $1f; 1: log $1; movl %cs:scratch, %eax"
  try 14, "movl $SMALL, %eax; movl %eax, %ds; movl $0xf8, %esi; movl $DATA, %eax; movl %eax, %es; movl $0x69000, %edi; movl $16, %ecx; rep movsb"
  log %esi
  log %ecx
  try 15, "movl $SMALL, %eax; movl %eax, %ds; movl $2047, %eax; btl %eax, %ds:0; log $1; movl $2048, %eax; btl %eax, %ds:0"
  try 16, "movl $SMALL, %eax; movl %eax, %ds; lgdtl %ds:0xfb"
  virtual 17, "movw (0xffff), %ax"
  virtual 18, "movb (0xffff), %al; movl (0xfffd), %eax"
  ret

registers:
  try 1, "movl $0x80000000, %eax; movl %eax, %cr0"
  try 2, "movl $0x20000011, %eax; movl %eax, %cr0"
  try 3, "movl $-1, %eax; movl %eax, %cr4"
  try 4, "xorl %eax, %eax; ltr %ax"
  try 5, "movl $0x1ff, %ecx; rdmsr"
  try 6, "movl $0x277, %ecx; movl $2, %eax; wrmsr"
  try 7, "movl $0xc0000080, %ecx; movl $0x8000, %eax; xorl %edx, %edx; wrmsr"
  try 8, "movl $0xc0000082, %ecx; movl $0x10000, %edx; wrmsr"
  try 9, "movl $0x200, %ecx; movl $0x106, %eax; xorl %edx, %edx; wrmsr"
  try 10, "movl $0x1b0, %ecx; wrmsr"
  try 11, "movl $0xfe, %ecx; rdmsr; log %eax; wrmsr"
  try 12, "xorl %ecx, %ecx; xgetbv"
  try 13, "movl $0x400000, %eax; movl %eax, %cr4"
  # XCR0 has x87, and SSE with it.
  try 21, "movl $0x40000, %eax; movl %eax, %cr4; xorl %ecx, %ecx; xgetbv; log %eax; movl $3, %eax; xsetbv; xgetbv; log %eax"
  try 22, "xorl %ecx, %ecx; xorl %edx, %edx; movl $2, %eax; xsetbv"
  try 23, "xorl %ecx, %ecx; movl $7, %eax; xsetbv"
  try 24, "movl $1, %ecx; movl $3, %eax; xsetbv"
  try 25, "movl $1, %ecx; xgetbv"
  user 26, "xorl %ecx, %ecx; xgetbv; log %eax; xsetbv"
  try 27, "xorl %eax, %eax; movl %eax, %cr4; movl $1, %eax; cpuid; andl $0x8000000, %ecx; log %ecx"
  try 14, "movl $0x20000, %eax; movl %eax, %cr4"
  try 15, "movl %cr0, %eax; log %eax; orl $0x1ff8ffc0, %eax; movl %eax, %cr0; movl %cr0, %eax; log %eax"
  try 16, "movl $0x277, %ecx; rdmsr; log %eax; log %edx"
  try 17, ".byte 0x0f, 0x20, 0xc8"
  try 18, "movl $0x2400, %eax; movl %eax, %dr7; movl %dr0, %eax"
  try 19, "movl $0x12345678, %eax; movl %eax, %dr3; movl %dr3, %ebx; log %ebx; movl $-1, %eax; movl %eax, %dr6; movl %dr6, %ebx; log %ebx"
  try 20, "rdpmc"
  ret

others:
  # What the new task faults on, it faults on in its own registers.
  movl $task2, tss2 + 0x20
  movw $ABSENT, tss2 + 0x54
  try 1, "lcall $TSS2, $0"
  call home
  movw $DATA, tss2 + 0x54
  try 2, ".byte 0xf1"
  movl %dr6, %eax
  log %eax
  try 3, "pushl $0x102; popfl; .byte 0xf1; nop"
  try 4, "movl $1f, %eax; movl %eax, %dr0; movl $0x401, %eax; movl %eax, %dr7; movl %ss, %ebx; movl %ebx, %ss; 1: nop; nop"
  # RF lasts for all of a string instruction.
  try 6, "movl $3, %ecx; movl $scratch, %edi; movl $1f, %eax; movl %eax, %dr0; movl $0x401, %eax; movl %eax, %dr7; pushl $0x10002; pushl $CODE; pushl $1f; iretl; 1: rep stosb; jmp 1b"
  log %ecx
  try 5, "movl %ss, %eax; pushl $0x102; popfl; movl %eax, %ss; .byte 0xf1; nop"
  ret

reset_vector

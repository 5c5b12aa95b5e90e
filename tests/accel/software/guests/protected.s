# Protected mode as QEMU has it too: segments, gates, privilege, tasks, virtual-8086 mode, debugging.
.include "protected.inc"

tests:
  call segments
  call verifying
  call jumps
  call privileged
  call interrupts
  call levels
  call ports
  call tasks
  call virtual8086
  call stepping
  ret

segments:
  try 2, "movl $EXECUTE_ONLY, %eax; movl %eax, %ds"
  try 3, "movl $CONFORMING, %eax; movl %eax, %es; movl %es:log_at, %eax"
  try 4, "movl $ABSENT, %eax; movl %eax, %fs"
  try 5, "movl $ABSENT, %eax; movl %eax, %ss"
  try 6, "movl $SYSTEM, %eax; movl %eax, %gs"
  try 7, "movl $0x1000, %eax; movl %eax, %ds"
  try 8, "xorl %eax, %eax; movl %eax, %ss"
  try 10, "movl $USER_DATA, %eax; movl %eax, %ss"
  try 11, "movl $READ_ONLY, %eax; movl %eax, %ss"
  try 17, "movl $4 | 0, %eax; movl %eax, %ds; movl %ds:0, %eax"
  try 18, "movl $0x14, %eax; movl %eax, %ds"
  try 19, "movw %ds, %ax; pushl %ds; popl %fs; pushw %ds; popw %gs"
  try 20, "movl $DATA1, %eax; movl %eax, %ds; movl $DATA1 | 2, %eax; movl %eax, %ds"
  try 21, "lfs far_data, %ecx; log %ecx; movl %fs:0, %eax; les far_bad, %ecx"
  try 24, "movl $EXECUTE_ONLY, %eax; movl %eax, %gs"
  ret

.macro verify selector
  movl $0x5555, %ebx
  movl $\selector, %eax
  lar %eax, %ebx
  call log_zero
  movl $0x6666, %ebx
  lsl %eax, %ebx
  call log_zero
  movl $0x7777, %ebx
  verr %ax
  call log_zero
  verw %ax
  call log_zero
.endm

verify_all:
  verify 0
  verify CODE
  verify DATA
  verify USER_CODE
  verify USER_DATA
  verify TSS
  verify LDT
  verify READ_ONLY
  verify EXECUTE_ONLY
  verify CONFORMING
  verify ABSENT
  verify SMALL
  verify CALL32
  verify TSS2
  verify TASK_GATE
  verify TSS3
  verify SYSTEM
  verify DATA1
  verify DATA1 + 3
  verify 0x14
  verify 0x0c
  verify 0x1000
  ret

verifying:
  log $0xaaa1
  call verify_all
  user 1, "call verify_all"
  movl $0x10, %ebx
  movl $0x23, %ecx
  arpl %cx, %bx
  call log_zero
  arpl %cx, %bx
  call log_zero
  ret

jumps:
  try 1, "ljmp $0, $1f; 1:"
  try 2, "ljmp $CODE, $1f; 1: log $0x11"
  try 3, "ljmp $DATA, $1f; 1:"
  try 4, "ljmp $USER_CODE, $1f; 1:"
  try 5, "ljmp $CODE + 3, $1f; 1:"
  try 6, "ljmp $CODE_ABSENT, $1f; 1:"
  try 7, "ljmp $CONFORMING, $1f; 1: movl %cs, %eax; log %eax; ljmp $CODE, $2f; 2:"
  try 8, "ljmp $SYSTEM, $0"
  try 9, "ljmp $CALL_JUMP, $0x9999"
  try 10, "pushl $11; pushl $22; lcall $CALL_SAME, $0x1234; log $0x22; addl $8, %esp"
  try 11, "lcall $CALL_ABSENT, $0"
  try 12, "lcall $CALL16, $0"
  try 13, "ljmp $0x1000, $0"
  try 14, "lcall $CODE, $far_return; log $0x33"
  try 15, "pushl $0; pushl $1f; lret; 1:"
  try 16, "pushl $DATA; pushl $1f; lret; 1:"
  try 17, "pushl $CODE; pushl $1f; lret $0; 1: log $0x44"
  try 18, "ljmp $CODE16, $in_code16 - _start"
  try 19, "ljmp $CODE16, $0; "
  try 20, "pushl $USER_CODE; pushl $1f; lret; 1:"
  try 21, "pushl $DATA; pushl $0x68000; pushl $USER_CODE; pushl $1f; lret; 1:"
  try 22, "ljmp $SMALL, $0"
  try 23, "ljmp $CALL_LDT, $0"
  ret

privileged:
  user 1, "cli"
  user 2, "sti"
  user 3, "hlt"
  user 4, "movl %cr0, %eax"
  user 5, "movl %eax, %cr3"
  user 6, "clts"
  user 7, "lgdt gdt_pointer"
  user 8, "lldt %ax"
  user 9, "ltr %ax"
  user 10, "invlpg 0"
  user 11, "wbinvd"
  user 12, "movl $0x10, %ecx; rdmsr"
  user 13, "wrmsr"
  user 14, "movl %dr7, %eax"
  user 15, "lmsw %ax"
  user 16, "smsw %eax; log %eax; sgdt scratch; str %eax; log %eax; sldt %eax; log %eax"
  user 17, "cli; sti; pushfl; andl $0x3200, (%esp); log (%esp)", 3
  user 18, "pushl $0x3202 | ID; popfl; pushfl; log (%esp)", 0
  user 19, "pushl $0x7202; popfl; pushfl; log (%esp)", 3
  try 20, "pushl $0x247fd7; popfl; pushfl; log (%esp); "
  try 23, "movl %cr0, %eax; orl $0x8, %eax; movl %eax, %cr0; clts; movl %cr0, %eax; log %eax"
  try 25, "movl $0xf, %eax; lmsw %ax; smsw %eax; log %eax; xorl %eax, %eax; lmsw %ax; smsw %eax; log %eax"
  try 26, "lldt scratch"
  try 27, "movl $DATA, %eax; lldt %ax"
  try 28, "movl $LDT + 4, %eax; lldt %ax"
  try 29, "movl $TSS, %eax; ltr %ax"
  try 31, "movl $0x1000, %eax; ltr %ax"
  try 32, "movl $8, %eax; movl %eax, %cr4; movl %dr4, %eax"
  try 33, "xorl %eax, %eax; movl %eax, %cr4; movl %dr4, %eax; log %eax; movl %dr6, %eax; log %eax; movl %dr7, %eax; log %eax"
  try 37, ".byte 0x0f, 0x0b"
  try 38, "int3"
  try 39, "movl $0x7fffffff, %eax; incl %eax; into"
  try 40, "movl $5, %eax; bound %eax, bounds; movl $11, %eax; bound %eax, bounds"
  try 41, "xorl %ecx, %ecx; divl %ecx"
  ret

interrupts:
  try 1, "int $0x31"
  try 2, "int $0x33"
  try 3, "int $0x3e"
  try 4, "int $0x41"
  try 5, "int $0x34"
  try 6, "int $0x35"
  try 7, "int $0x36"
  try 8, "int $0x37"
  user 1, "int $0x0d"
  user 2, "int $0x31"
  user 3, "int $0x33"
  user 4, "int3"
  user 5, ".byte 0x0f, 0x0b"
  user 6, "int $0x41"
  user 7, "int $0x34"
  user 8, "int $0x38"
  # Faults while a fault is delivered: the IDT ends before #GP.
  lidt idt_short
  try 20, "movl $0x1000, %eax; movl %eax, %ds"
  lidt idt_pointer
  # The stack of level 0 is not what it must be; a task tells of it.
  lidt idt_ts_pointer
  movl $task_ts, tss2 + 0x20
  movl $USER_DATA, tss + 8
  user 20, ".byte 0x0f, 0x0b"
  movl $ABSENT, tss + 8
  user 21, ".byte 0x0f, 0x0b"
  movl $0, tss + 8
  user 22, ".byte 0x0f, 0x0b"
  movl $0x1000, tss + 8
  user 23, ".byte 0x0f, 0x0b"
  lidt idt_pointer
  clts
  ret

levels:
  user 1, "pushl $0xaaaa; pushl $0xbbbb; lcall $CALL32 + 3, $0; log $0x55; log %esp"
  user 2, "ljmp $CALL32 + 3, $0"
  user 3, "lcall $CALL_SAME, $0"
  user 4, "lcall $CODE, $far_return"
  user 5, "lcall $CONFORMING, $far_return; log $0x66"
  user 6, "movl $DATA, %eax; movl %eax, %ds"
  user 7, "movl $USER_DATA - 3, %eax; movl %eax, %ds; log $0x77"
  user 8, "movl $DATA, %eax; movl %eax, %ss"
  user 9, "pushw $0xaaaa; pushw $0xbbbb; lcall $CALL16 + 3, $0; log $0x88; log %esp"
  user 10, "pushl $0; pushl $2; pushl $USER_CODE; pushl $1f; iretl; 1: log $0x99"
  user 11, "pushl $2; pushl $CODE; pushl $1f; iretl; 1: "
  user 12, "pushl $0x3202; pushl $USER_CODE; pushl $1f; iretl; 1: pushfl; log (%esp)"
  user 13, "lcall $CALL_LDT + 3, $0"
  # Segments that a return to level 3 may not keep.
  log $0xd0
  movl $.Lkept, resume
  movl %esp, resume_esp
  movl $DATA, %eax
  movl %eax, %ds
  movl $USER_DATA, %eax
  movl %eax, %es
  movl $CONFORMING, %eax
  movl %eax, %fs
  movl $DATA1, %eax
  movl %eax, %gs
  pushl $USER_DATA
  pushl $0x68000
  pushl $2
  pushl $USER_CODE
  pushl $1f
  iretl
1:
  movl %ds, %eax
  log %eax
  movl %es, %eax
  log %eax
  movl %fs, %eax
  log %eax
  movl %gs, %eax
  log %eax
  int $0x30
.Lkept:
  movl %ss:resume_esp, %esp
  call restore
  # Returns that fail.
  try 1, "pushl $USER_DATA; pushl $0x68000; pushl $2; pushl $USER_CODE; pushl $0; pushl $0; iretl"
  try 2, "pushl $DATA; pushl $0x68000; pushl $2; pushl $USER_CODE; pushl $1f; iretl; 1:"
  try 3, "pushl $0; pushl $0x68000; pushl $2; pushl $USER_CODE; pushl $1f; iretl; 1:"
  try 4, "pushl $ABSENT + 3; pushl $0x68000; pushl $2; pushl $USER_CODE; pushl $1f; iretl; 1:"
  try 5, "pushl $2; pushl $CODE_ABSENT; pushl $1f; iretl; 1:"
  try 6, "pushl $2; pushl $DATA; pushl $1f; iretl; 1:"
  try 7, "pushl $0x242; pushl $CODE; pushl $1f; iretl; 1: pushfl; log (%esp)"
  ret

ports:
  user 1, "inb $0x80, %al; log $0x80"
  user 2, "inb $0x81, %al"
  user 3, "inw $0x80, %ax"
  user 4, "inl $0x83, %eax"
  user 5, "inb $0x81, %al; log $0x81", 3
  user 6, "movl $0x2000, %edx; inb %dx, %al"
  movw $0x60, tss + 0x66
  user 7, "outb %al, $0x80"
  movw $0x68, tss + 0x66
  ret

tasks:
  movl $task2, tss2 + 0x20
  try 1, "lcall $TSS2, $0x1234; log $0xca11; pushfl; log (%esp); str %eax; log %eax; movl %cr0, %eax; log %eax"
  movl $task2, tss2 + 0x20
  try 2, "lcall $TASK_GATE, $0; log $0xca12"
  movl $task2, tss2 + 0x20
  try 3, "int $0x32; log $0xca13"
  movl $task2_jump, tss2 + 0x20
  try 4, "ljmp $TSS2, $0; log $0xca14; str %eax; log %eax"
  try 5, "ljmp $TSS, $0"
  try 6, "lcall $TSS3, $0; log $0xca16"
  user 1, "lcall $TASK_GATE + 3, $0; log $0xca17"
  user 2, "lcall $TSS2 + 3, $0; log $0xca18"
  try 7, "movl $0x4000, %ebx; pushl %ebx; popfl; iretl"
  try 8, "ljmp $TSS_BAD, $0"
  movl $task_error, tss2 + 0x20
  try 11, "int $0x37; log $0xca19"
  # A task gate for an exception with an error code.
  try 12, "movl $ABSENT, %eax; lidt idt_tasks; movl %eax, %fs"
  lidt idt_pointer
  clts
  ret

virtual8086:
  virtual 1, "movw $0x77, scratch - _start; movw %cs, %ax"
  virtual 2, "cli; sti; pushf; popf; mov %ds, %ax; mov %ax, %es; movw %es:(0), %bx"
  virtual 3, "cli", 0
  virtual 4, "sti", 0
  virtual 5, "pushf", 0
  virtual 6, "popf", 0
  virtual 7, "int $0x31", 0
  virtual 8, "int3", 0
  virtual 9, "iret", 0
  virtual 10, "lar %ax, %bx"
  virtual 11, "hlt"
  virtual 12, "mov %cr0, %eax"
  virtual 14, "ljmp $0x1000, $1f - _start; 1: nop"
  virtual 15, "pushw $0x3202; pushw $0x1000; pushw $1f - _start; iret; 1: pushf; popf"
  virtual 16, "int $0x31"
  virtual 17, "in $0x80, %al; in $0x81, %al"
  virtual 18, "lcall $0x1000, $1f - _start; jmp 2f; 1: lret; 2: nop"
  virtual 19, "int $0x34"
  virtual 20, ".byte 0x0f, 0x0b"
  virtual 21, "sldt %ax"
  try 1, "movl $task_vm - _start, tss_vm + 0x20; ljmp $TSS_VM, $0"
  call home
  ret

stepping:
  try 1, "pushl $0x102; popfl; nop"
  try 2, "pushl $0x102; popfl; pushl $2; popfl; nop"
  try 3, "movl $1f, %eax; movl %eax, %dr0; movl $0x401, %eax; movl %eax, %dr7; nop; 1: nop"
  try 4, "movl $scratch, %eax; movl %eax, %dr1; movl $0xd0404, %eax; shll $4, %eax; movl $0x00d00404, %eax; movl %eax, %dr7; movl %eax, scratch; nop"
  try 6, "pushl $0x102; popfl; movw %ss, %ax; movw %ax, %ss; nop; nop"
  try 7, "pushl $0x102; popfl; int $0x31"
  try 9, "movl $3, %ecx; movl $scratch, %edi; cld; pushl $0x102; popfl; rep stosb"
  log %ecx
  try 10, "movl $1, %ecx; movl $scratch, %edi; pushl $0x102; popfl; repne scasb"
  log %ecx
  movl %dr6, %eax
  log %eax
  ret

reset_vector

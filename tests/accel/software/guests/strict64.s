# Long mode as the SDM has it and QEMU does not: reserved bits, canonical addresses, error codes.
.include "long.inc"

tests:
  call pages
  call addresses
  call transfers
  call interrupts
  call system_calls
  call registers
  call more
  ret

pages:
  try 6, "movl BAD_PAGE, %eax"
  try 7, "movl 0x800000, %eax"
  user 6, "movl %eax, BAD_PAGE"
  # NX is a reserved bit while EFER.NXE is off.
  write_msr 0xc0000080, 0x501
  try 21, "movl NO_CODE_PAGE, %eax"
  write_msr 0xc0000080, 0xd01
  ret

addresses:
  try 4, "movq $0x8000000000000000, %rbp; movl (%rbp), %eax"
  try 5, "movq $0xffff7fffffffffff, %rax; jmp *%rax"
  try 6, "movq $0x800000000000, %rax; pushq %rax; ret"
  try 8, "movl $0xc0000100, %ecx; xorl %eax, %eax; movl $0x8000, %edx; wrmsr"
  ret

transfers:
  try 4, "ljmp *far_both"
  try 9, "pushq $CODE; movq $0x800000000000, %rax; pushq %rax; lretq"
  try 13, "pushq $USER_DATA; pushq $USER_STACK; pushq $2; pushq $USER_CODE; movq $0x800000000000, %rax; pushq %rax; iretq"
  try 14, "pushq $DATA; pushq $STACK; pushq $2; pushq $CODE_BOTH; pushq $1f; iretq; 1:"
  try 17, "movl $3, %eax; movl %eax, %ss"
  try 20, "movl $LDT_BAD, %eax; lldt %ax"
  ret

interrupts:
  try 3, "int $0x33"
  try 6, "int $0x36"
  try 7, "int $0x37"
  try 8, "int $0x38"
  user 3, "int $0x0d"
  user 4, "int $0x33"
  ret

system_calls:
  compat 3, "sysenter"
  compat 4, "sysexit"
  ret

registers:
  try 1, "movq $16, %rax; movq %rax, %cr8"
  try 3, "movq %cr4, %rax; andl $~0x20, %eax; movq %rax, %cr4"
  try 4, "movq %cr4, %rax; orl $0x1000, %eax; movq %rax, %cr4"
  try 5, "movq $-1, %rax; movq %rax, %cr4"
  ret

more:
  try 1, "int $0x32"
  try 2, "movl $0xc0000080, %ecx; movl $0x400, %eax; xorl %edx, %edx; wrmsr"
  try 3, "movq %cr0, %rax; andl $0x7fffffff, %eax; movq %rax, %cr0"
  try 4, "movq $1 << 40, %rax; movq %rax, %cr3"
  try 5, "movq %cr0, %rax; btsq $32, %rax; movq %rax, %cr0"
  try 6, "movl $TSS16, %ecx; movl $0x99, %eax; lar %ecx, %eax; log %rax; movl $LDT, %ecx; lar %ecx, %eax; log %rax"
  try 7, "movq %cr4, %rax; orl $0x20000, %eax; movq %rax, %cr4; movq %cr3, %rax; orq $5, %rax; movq %rax, %cr3; movq %cr3, %rbx; log %rbx; btsq $63, %rax; movq %rax, %cr3; movq %cr3, %rbx; log %rbx"
  try 8, "movq %cr3, %rax; andq $~0xfff, %rax; movq %rax, %cr3; movl $1, %eax; invpcid scratch, %rax; movl $4, %eax; invpcid scratch, %rax"
  try 9, "movq %cr4, %rax; andl $~0x20000, %eax; movq %rax, %cr4; movl $1, %ecx; movl %ecx, scratch; movl $1, %eax; invpcid scratch, %rax"
  try 10, "movl $0x1d9, %ecx; movl $3, %eax; xorl %edx, %edx; wrmsr; rdmsr; log %rax; movl $4, %eax; wrmsr"
  try 11, "movl $0x140, %ecx; movl $1, %eax; xorl %edx, %edx; wrmsr; xorl %eax, %eax; cpuid; log %rax"
  user 1, "xorl %eax, %eax; cpuid"
  try 12, "movl $0x140, %ecx; xorl %eax, %eax; xorl %edx, %edx; wrmsr"
  user 2, "xorl %eax, %eax; cpuid; log %rax; movl $0x40000000, %eax; cpuid; log %rbx; movl $0x20, %eax; cpuid; log %rax"
  try 13, "movl $0xc0010015, %ecx; movl $0x1000148, %eax; xorl %edx, %edx; wrmsr; rdmsr; log %rax; movl $2, %eax; wrmsr"
  try 14, "movl $0x401, %ecx; rdmsr; log %rax; movl $1, %eax; wrmsr"
  try 15, "movl $0x400, %ecx; rdmsr; log %rax; movl $0x480, %ecx; rdmsr"
  try 16, "movl $0x17b, %ecx; rdmsr"
  user 3, "movq $0x8000000000000000, %rax; movq %rax, %rsp; pushq %rax"
  try 18, "movl $1, %eax; vmcall; log %rax; movl $77, %eax; vmmcall; log %rax"
  user 6, "vmcall; log %rax"
  # With AC and AM, level 3 may not misalign.
  movq %cr0, %rax
  orl $0x40000, %eax
  movq %rax, %cr0
  user 4, "movl scratch + 1, %eax", 0x40000
  user 5, "movl scratch + 4, %eax; movw scratch + 2, %ax; log $0x5", 0x40000
  try 17, "pushq $0x40002; popfq; movl scratch + 1, %eax"
  ret

.balign 8

reset_vector

# Real mode as the SDM has it and QEMU does not: limits.
.include "real.inc"

tests:
  try 1, "movw 0xffff, %ax"
  try 2, "movl %eax, 0xfffd"
  try 3, "movl $0x10000, %ebx; movb (%ebx), %al"
  try 4, "movw $0xffff, %si; lodsw"
  try 5, "lcall $0x1000, $far_target - AT; ljmpl $0x1000, $0x10000"
  try 6, "pushl $0x10000; retl"
  try 7, "movl $0x10000, %eax; jmp *%eax"
  try 8, "movw $0xffff, %bx; lgdtl (%bx)"
  try 9, "movl $0x80000000, %eax; movl %eax, %cr0"
  try 10, "movl $0x40000000, %ecx; rdmsr"
  ret

reset_vector

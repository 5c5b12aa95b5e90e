# triple: a triple fault with its first two instructions (KVM_EXIT_SHUTDOWN).
.include "elf.inc"

.code32
_start:
        lidt    [no_idt]
        ud2
no_idt: .short  0
        .long   0

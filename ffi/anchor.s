# Keeps a guest running while the process that has made its VM executes another program.
#
# It is called with the mailbox, whose layout `anchor.ts` describes, and returns the id of a process
# that it has cloned, or an errno below 0. That process shares the caller's memory, to which KVM ties
# the VM, but neither its descriptors nor its signal handlers, and so outlives the caller's execve. Its
# first thread, the leader, keeps the time; it makes a thread for each vCPU, which enters the guest when
# it is ordered to. Nothing in here uses a stack but for return addresses and signal frames, or the C
# library at all.

.intel_syntax noprefix

# Of the mailbox.
.equ VCPUS, 12
.equ PID, 24
.equ EXPIRED, 28
.equ DEADLINE, 32
.equ MASK_ALL, 48
.equ MASK_VCPU, 56
.equ MASK_BEFORE, 64
.equ LEADER, 128

# Of one thread's line.
.equ ORDER, 0
.equ PHASE, 4
.equ DONE, 8
.equ TID, 12
.equ RESULT, 16
.equ PROGRAM, 24
.equ FD, 32
.equ RUN_PAGE, 40
.equ STACK, 48
.equ LINE, 64

.equ IDLE, 0
.equ RUN, 1
.equ CALLS, 2

.equ STOPPED, 0
.equ RUNNING, 1
.equ EXITED, 2
.equ FAILED, 3

# Of a program, as in call_program.s.
.equ COUNT, 0
.equ WENT_WELL, 8
.equ LAST_RESULT, 16
.equ FIRST, 24
.equ ARGUMENTS, 8
.equ EXPECTED, 56
.equ SIZE, 64

.equ SYS_RT_SIGPROCMASK, 14
.equ SYS_RT_SIGRETURN, 15
.equ SYS_IOCTL, 16
.equ SYS_CLONE, 56
.equ SYS_FUTEX, 202
.equ SYS_EXIT_GROUP, 231
.equ SYS_TGKILL, 234

.equ SIG_SETMASK, 2
.equ KICK, 40
.equ KVM_RUN, 0xae80
.equ IMMEDIATE_EXIT, 1
.equ FUTEX_WAIT, 0
.equ FUTEX_WAKE, 1
.equ FUTEX_WAIT_BITSET, 9
# CLONE_VM, and SIGCHLD for its end
.equ PROCESS, 0x100 | 17
# CLONE_VM, _FS, _FILES, _SIGHAND, _THREAD, _SYSVSEM, _PARENT_SETTID
.equ THREAD, 0x150f00
.equ EINTR, 4
.equ EAGAIN, 11
.equ ETIMEDOUT, 110

        .globl  _start
_start:
        jmp     start
        .org    8
# The kick signal's handler: the signal only has to interrupt.
handler:
        ret
        .org    16
restorer:
        mov     eax, SYS_RT_SIGRETURN
        syscall

start:
        push    rbx
        push    r12
        push    r13
        mov     rbx, rdi
        # The new process begins without signals; what would be handled is not its own.
        lea     rsi, [rbx + MASK_ALL]
        lea     rdx, [rbx + MASK_BEFORE]
        call    set_mask
        mov     eax, SYS_CLONE
        mov     edi, PROCESS
        mov     rsi, [rbx + LEADER + STACK]
        xor     edx, edx
        xor     r10d, r10d
        xor     r8d, r8d
        syscall
        test    rax, rax
        jz      leader
        mov     r12, rax
        lea     rsi, [rbx + MASK_BEFORE]
        xor     edx, edx
        call    set_mask
        mov     rax, r12
        pop     r13
        pop     r12
        pop     rbx
        ret

set_mask:
        mov     eax, SYS_RT_SIGPROCMASK
        mov     edi, SIG_SETMASK
        mov     r10d, 8
        syscall
        ret

leader:
        lea     rbp, [rbx + LEADER]
        # What it has to do first, of which nothing may fail.
        call    make_calls
        cmp     r12, [r14 + COUNT]
        jne     give_up
        xor     r15d, r15d
        lea     r12, [rbp + LINE]
next_thread:
        cmp     r15d, [rbx + VCPUS]
        jae     all_there
        mov     eax, SYS_CLONE
        mov     edi, THREAD
        mov     rsi, [r12 + STACK]
        lea     rdx, [r12 + TID]
        xor     r10d, r10d
        xor     r8d, r8d
        syscall
        test    rax, rax
        jz      vcpu
        js      give_up
        add     r12, LINE
        inc     r15d
        jmp     next_thread
all_there:
        call    tell_done
        lea     r15, [rbx + DEADLINE]
lead:
        cmp     dword ptr [rbp + ORDER], CALLS
        jne     watch
        call    make_calls
        call    tell_done
        jmp     lead
watch:
        mov     eax, SYS_FUTEX
        mov     rdi, rbp
        mov     esi, FUTEX_WAIT_BITSET
        xor     edx, edx
        mov     r10, r15
        xor     r8d, r8d
        mov     r9d, -1
        syscall
        cmp     rax, -ETIMEDOUT
        jne     lead
        # Nobody has come for the guest: it stands still from now on.
        xor     r15d, r15d
        mov     dword ptr [rbx + EXPIRED], 1
        xor     r13d, r13d
        lea     r12, [rbp + LINE]
stop_next:
        cmp     r13d, [rbx + VCPUS]
        jae     lead
        mov     rax, [r12 + RUN_PAGE]
        mov     byte ptr [rax + IMMEDIATE_EXIT], 1
        mov     eax, RUN
        xor     edx, edx
        lock cmpxchg [r12 + ORDER], edx
        mov     eax, SYS_TGKILL
        mov     edi, [rbx + PID]
        mov     esi, [r12 + TID]
        mov     edx, KICK
        syscall
        add     r12, LINE
        inc     r13d
        jmp     stop_next

vcpu:
        mov     rbp, r12
        lea     rsi, [rbx + MASK_VCPU]
        xor     edx, edx
        call    set_mask
await:
        mov     eax, [rbp + ORDER]
        cmp     eax, RUN
        je      run
        cmp     eax, CALLS
        jne     sleep
        call    make_calls
        call    tell_done
        jmp     await
sleep:
        mov     eax, SYS_FUTEX
        mov     rdi, rbp
        mov     esi, FUTEX_WAIT
        xor     edx, edx
        xor     r10d, r10d
        syscall
        jmp     await
run:
        # Said first, and looked at afterwards: whoever revokes the order does it the other way round.
        mov     eax, RUNNING
        xchg    [rbp + PHASE], eax
        jmp     still
enter:
        mov     eax, SYS_IOCTL
        mov     rdi, [rbp + FD]
        mov     esi, KVM_RUN
        xor     edx, edx
        syscall
        mov     [rbp + RESULT], rax
        cmp     rax, -EINTR
        je      still
        cmp     rax, -EAGAIN
        je      still
        mov     ecx, EXITED
        test    rax, rax
        jz      came_out
        mov     ecx, FAILED
came_out:
        mov     eax, RUN
        xor     edx, edx
        lock cmpxchg [rbp + ORDER], edx
        jmp     say_phase
still:
        cmp     dword ptr [rbp + ORDER], RUN
        je      enter
        mov     ecx, STOPPED
say_phase:
        xchg    [rbp + PHASE], ecx
        lea     rdi, [rbp + PHASE]
        call    wake
        jmp     await

# Makes the calls of the line's program, up to the first that returns what it should not: r14 is the
# program then, r12 how many went well.
make_calls:
        mov     r14, [rbp + PROGRAM]
        lea     r13, [r14 + FIRST]
        xor     r12d, r12d
        jmp     next_call
call:
        mov     rax, [r13]
        mov     rdi, [r13 + ARGUMENTS]
        mov     rsi, [r13 + ARGUMENTS + 8]
        mov     rdx, [r13 + ARGUMENTS + 16]
        mov     r10, [r13 + ARGUMENTS + 24]
        mov     r8, [r13 + ARGUMENTS + 32]
        mov     r9, [r13 + ARGUMENTS + 40]
        syscall
        mov     [r14 + LAST_RESULT], rax
        cmp     rax, [r13 + EXPECTED]
        jne     made
        add     r13, SIZE
        inc     r12
next_call:
        cmp     r12, [r14 + COUNT]
        jb      call
made:
        mov     [r14 + WENT_WELL], r12
        ret

# The program has been run, and the order is done with.
tell_done:
        mov     eax, CALLS
        xor     edx, edx
        lock cmpxchg [rbp + ORDER], edx
        mov     eax, 1
        xchg    [rbp + DONE], eax
        lea     rdi, [rbp + DONE]
wake:
        mov     eax, SYS_FUTEX
        mov     esi, FUTEX_WAKE
        mov     edx, 1
        syscall
        ret

give_up:
        mov     edi, 1
        mov     eax, SYS_EXIT_GROUP
        syscall

/* exits: what a C program gets from KVM with the guest program of the same name.
 *
 *     exits KERNEL MODE MILLISECONDS      prints exits per second
 *
 * The same ioctls as Denovo: an in-kernel irqchip and PIT, 64 MiB of memfd, PVH entry, then KVM_RUN
 * and a look at the run page for every exit. Nobody claims the port or the address.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MEMORY (64 << 20)
#define LOAD_ADDRESS 0x100000
#define START_INFO 0x6000 /* struct hvm_start_info: u32 magic at 0, u64 cmdline_paddr at 24 */
#define COMMAND_LINE 0x7000
#define COUNTER 0x200000

static volatile uint32_t sink;

static int try(int result, const char *what) {
    if (result < 0) err(1, "%s", what);
    return result;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void set_cpuid(int kvm, int vcpu) {
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + 256 * sizeof cpuid->entries[0]);
    cpuid->nent = 256;
    try(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
    try(ioctl(vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
    free(cpuid);
}

static void enter_by_pvh(int vcpu, uint64_t entry) {
    struct kvm_sregs sregs;
    struct kvm_regs regs = { .rip = entry, .rbx = START_INFO, .rflags = 2 };
    try(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    struct kvm_segment data = {
        .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1,
    };
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.cs = data;
    sregs.cs.selector = 8;
    sregs.cs.type = 11;
    sregs.cr0 |= 1;
    try(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
    try(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void handle(struct kvm_run *run) {
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        for (uint32_t i = 0; i < run->io.count * run->io.size; i++)
            if (run->io.direction == KVM_EXIT_IO_OUT) sink = data[i];
            else data[i] = 0xff;
        break;
    case KVM_EXIT_MMIO:
        if (run->mmio.is_write) sink = run->mmio.data[0];
        else memset(run->mmio.data, 0xff, run->mmio.len);
        break;
    default:
        errx(1, "unexpected exit %u", run->exit_reason);
    }
}

int main(int argc, char **argv) {
    if (argc != 4) errx(1, "usage: exits KERNEL MODE MILLISECONDS");
    int kvm = try(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    int vm = try(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    struct kvm_pit_config pit = { 0 };
    try(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
    try(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
    try(ioctl(vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");

    int memfd = try(memfd_create("exits", MFD_CLOEXEC), "memfd_create");
    try(ftruncate(memfd, MEMORY), "ftruncate");
    uint8_t *memory = mmap(0, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    if (memory == MAP_FAILED) err(1, "mmap");
    struct kvm_userspace_memory_region region = {
        .memory_size = MEMORY, .userspace_addr = (uintptr_t)memory,
    };
    try(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");

    int file = try(open(argv[1], O_RDONLY), argv[1]);
    try(read(file, memory + LOAD_ADDRESS, 1 << 20), "read");
    uint64_t entry = *(uint64_t *)(memory + LOAD_ADDRESS + 24); /* e_entry */
    *(uint32_t *)(memory + START_INFO) = 0x336ec578;
    *(uint64_t *)(memory + START_INFO + 24) = COMMAND_LINE;
    snprintf((char *)memory + COMMAND_LINE, 64, "mode=%s", argv[2]);

    int vcpu = try(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    int size = try(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    struct kvm_run *run = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED) err(1, "mmap");
    set_cpuid(kvm, vcpu);
    enter_by_pvh(vcpu, entry);

    volatile uint64_t *counter = (uint64_t *)(memory + COUNTER);
    double start = 0, end = 0;
    uint64_t before = 0;
    for (unsigned n = 0;; n++) {
        try(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
        handle(run);
        if (start == 0 && *counter >= 1000) {
            start = now();
            before = *counter;
        }
        if (n % 256 == 0 && start != 0 && (end = now()) - start >= atof(argv[3])) break;
    }
    printf("%.0f\n", (*counter - before) / (end - start) * 1e3);
    return 0;
}

/**
 * The VM ioctls: memory slots, interrupt controllers, clocks.
 *
 * @module
 */
import type { OwnedFd } from "../fd.ts";
import { ioctlBuffer, ioctlValue, KVM } from "./ioctl.ts";
import { OwnedFd as Fd } from "../fd.ts";
import {
  kvmEnableCap,
  kvmIoeventfd,
  kvmIrqLevel,
  kvmIrqRoutingEntry,
  kvmPitConfig,
  kvmUserspaceMemoryRegion,
} from "./structs.ts";

/** KVM_MEM_READONLY: guest writes exit as MMIO. */
const MEM_READONLY = 2;
/** KVM_PIT_SPEAKER_DUMMY: the kernel answers port 0x61 too. */
const PIT_SPEAKER_DUMMY = 1;

/** KVM_IOEVENTFD_FLAG_DATAMATCH: only one value does. */
const IOEVENTFD_DATAMATCH = 1;
/** KVM_IOEVENTFD_FLAG_DEASSIGN: no longer. */
const IOEVENTFD_DEASSIGN = 4;

/**
 * Signals an eventfd instead of an exit when the guest writes to an address, whatever and however much;
 * or takes that back.
 *
 * @param vm descriptor of the VM
 * @throws {OsError} EEXIST if that is so already, ENOENT if it is not
 */
export function setIoeventfd(vm: number, address: number, fd: number, isConnected: boolean): void {
  const flags = isConnected ? 0 : IOEVENTFD_DEASSIGN;
  // A length of 0 is any, and needs no look at the guest's instruction.
  const { bytes } = kvmIoeventfd.alloc({ addr: BigInt(address), len: 0, fd, flags });
  ioctlBuffer(vm, KVM.IOEVENTFD, bytes);
}
/** KVM_IRQ_ROUTING_IRQCHIP: a line leads to a pin of a chip. */
const ROUTING_IRQCHIP = 1;
/** KVM_IRQCHIP_IOAPIC */
const IRQCHIP_IOAPIC = 2;

/** A VM. Its ioctls work only in the process image that made it. */
export class KvmVm implements Disposable {
  /** The VM's descriptor. */
  readonly fd: OwnedFd;
  readonly #irq = kvmIrqLevel.alloc();

  /** Takes over a VM's descriptor. */
  constructor(fd: OwnedFd) {
    this.fd = fd;
  }

  /** Switches a {@linkcode Capability} of the VM on, with its first argument. */
  enableCapability(capability: number, argument: bigint): void {
    const { bytes, view } = kvmEnableCap.alloc({ cap: capability });
    view.args.put(0, argument);
    ioctlBuffer(this.fd.fd, KVM.ENABLE_CAP, bytes);
  }

  /** Makes a vCPU; returns its descriptor. */
  createVcpu(id: number): OwnedFd {
    return new Fd(ioctlValue(this.fd.fd, KVM.CREATE_VCPU, id));
  }

  /** Makes a memory slot over host memory. `size` 0 deletes the slot. */
  setMemoryRegion(
    slot: number,
    guestAddress: number,
    size: number,
    hostAddress: number,
    readonly = false,
  ): void {
    const region = kvmUserspaceMemoryRegion.alloc({
      slot,
      flags: readonly ? MEM_READONLY : 0,
      guest_phys_addr: BigInt(guestAddress),
      memory_size: BigInt(size),
      userspace_addr: BigInt(hostAddress),
    });
    ioctlBuffer(this.fd.fd, KVM.SET_USER_MEMORY_REGION, region.bytes);
  }

  /** Where Intel's KVM keeps its real-mode TSS: three pages below 4 GiB that hold no RAM. */
  setTssAddress(address: number): void {
    ioctlValue(this.fd.fd, KVM.SET_TSS_ADDR, address);
  }

  /** Where Intel's KVM keeps its identity page table: one page below the TSS. */
  setIdentityMapAddress(address: number): void {
    ioctlBuffer(this.fd.fd, KVM.SET_IDENTITY_MAP_ADDR, new BigUint64Array([BigInt(address)]));
  }

  /** Makes the in-kernel PIC, IOAPIC and, per vCPU, LAPIC. Before the first vCPU. */
  createIrqchip(): void {
    ioctlValue(this.fd.fd, KVM.CREATE_IRQCHIP);
  }

  /** Connects the interrupt lines 0 to `pins` - 1 to the in-kernel IOAPIC, and to nothing else. */
  routeToIoapic(pins: number): void {
    const head = 8;
    const table = new Uint8Array(head + pins * kvmIrqRoutingEntry.size);
    new DataView(table.buffer).setUint32(0, pins, true);
    for (let pin = 0; pin < pins; pin++) {
      const entry = kvmIrqRoutingEntry.view(table.buffer, head + pin * kvmIrqRoutingEntry.size);
      Object.assign(entry, { gsi: pin, type: ROUTING_IRQCHIP, irqchip: IRQCHIP_IOAPIC, pin });
    }
    ioctlBuffer(this.fd.fd, KVM.SET_GSI_ROUTING, table);
  }

  /** Makes the in-kernel 8254 PIT. */
  createPit(): void {
    ioctlBuffer(
      this.fd.fd,
      KVM.CREATE_PIT2,
      kvmPitConfig.alloc({ flags: PIT_SPEAKER_DUMMY }).bytes,
    );
  }

  /** Drives an interrupt line (GSI) of the in-kernel chips. */
  setIrqLine(gsi: number, level: boolean): void {
    this.#irq.view.irq = gsi;
    this.#irq.view.level = level ? 1 : 0;
    ioctlBuffer(this.fd.fd, KVM.IRQ_LINE, this.#irq.bytes);
  }

  /** Signals an eventfd instead of an exit when the guest writes 4 bytes of this value to memory. */
  addIoeventfd(address: number, value: number, fd: number): void {
    const { bytes } = kvmIoeventfd.alloc({
      datamatch: BigInt(value),
      addr: BigInt(address),
      len: 4,
      fd,
      flags: IOEVENTFD_DATAMATCH,
    });
    ioctlBuffer(this.fd.fd, KVM.IOEVENTFD, bytes);
  }

  /** Fills `state` by a KVM_GET_* ioctl of {@linkcode KVM}, or sets it by a KVM_SET_* one. */
  transfer(request: number, state: ArrayBufferView<ArrayBuffer>): void {
    ioctlBuffer(this.fd.fd, request, state);
  }

  /** Closes the VM's descriptor. */
  close(): void {
    this.fd.close();
  }

  /** Closes the VM's descriptor at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * A VM of KVM with its in-kernel chips, whose guest does one access to a chip after the other: what
 * the software's chips are compared with.
 *
 * @module
 */
import assert from "node:assert/strict";
import { KVM } from "../../../../ffi/kvm/ioctl.ts";
import { Exit, exitName } from "../../../../ffi/kvm/run.ts";
import { kvmIrqchip, kvmRegs, kvmSregs, lapicRegisters } from "../../../../ffi/kvm/structs.ts";
import { KvmSystem } from "../../../../ffi/kvm/system.ts";
import { KvmVcpu, runVcpu } from "../../../../ffi/kvm/vcpu.ts";
import { KvmVm } from "../../../../ffi/kvm/vm.ts";
import { KvmAcceleratorVcpu } from "../../../../vmm/accel/kvm/vcpu.ts";
import { mapAnonymous, type MappedRegion } from "../../../../ffi/memory.ts";
import type { ArrayView } from "../../../../ffi/struct.ts";

/** One thing that the guest or, for a line, the host does. */
export type Access =
  | { kind: "out"; port: number; value: number }
  | { kind: "in"; port: number }
  | { kind: "write"; address: number; value: number }
  | { kind: "read"; address: number }
  | { kind: "line"; gsi: number; level: boolean }
  /** The guest lets one interrupt in; of the 8259A's only, because not every KVM keeps the ISR. */
  | { kind: "window" }
  /** The vector with the highest priority goes from IRR to ISR, if it is above the PPR. */
  | { kind: "accept" };

/** What an access gave: a byte, a word, a vector; undefined where it gives nothing. */
export type Result = number | undefined;

const MEMORY = 0x10_0000;
/** CPUID leaf 1, ECX. */
const CPUID_TSC_DEADLINE = 1 << 24;
const GDT = 0x500;
const STUBS = 0x4000;
const IDT = 0x6000;
const STACK = 0x8000;
const CODE = 0x1_0000;
const RESULTS = 0x8_0000;
const STUB_SIZE = 16;
/** A port that no chip answers: the guest calls the host. */
const CALL = 0x7e;
const CALL_END = 0xff;
const CALL_HIGH = 0x20;
const CALL_NOTHING = 0x40;
const CALL_ACCEPT = 0x41;
const CODE_SELECTOR = 8;
const DATA_SELECTOR = 16;

/** A VM with one vCPU that runs in flat 32-bit protected mode, and others that do not run. */
export class KvmMachine implements Disposable {
  readonly vm: KvmVm;
  readonly vcpus: readonly KvmVcpu[];
  /** Whether the vCPUs' CPUID has the LAPIC timer's TSC deadline mode. */
  readonly tscDeadline: boolean;
  readonly #kvm = new KvmSystem();
  readonly #memory: MappedRegion;

  constructor(vcpus = 1) {
    this.vm = new KvmVm(this.#kvm.createVm());
    this.vm.createIrqchip();
    this.vm.createPit();
    const cpuid = this.#kvm.supportedCpuid();
    const features = cpuid.find((leaf) => leaf.function === 1)?.ecx ?? 0;
    this.tscDeadline = (features & CPUID_TSC_DEADLINE) !== 0;
    this.vcpus = Array.from({ length: vcpus }, (_, id) => {
      const vcpu = new KvmVcpu(this.vm.createVcpu(id), this.#kvm.vcpuMmapSize());
      vcpu.setCpuid(cpuid);
      return vcpu;
    });
    this.#memory = mapAnonymous(MEMORY);
    this.vm.setMemoryRegion(0, 0, MEMORY, this.#memory.address);
    this.#writeTables();
    this.#setRegisters();
  }

  /** The vCPU that runs, as the VMM has it. */
  get vcpu(): KvmAcceleratorVcpu {
    return new KvmAcceleratorVcpu(this.vcpus[0], this.#kvm);
  }

  /** Where the guest stores what its accesses give. */
  get results(): number {
    return RESULTS;
  }

  /** Puts the accesses where the guest begins. */
  load(accesses: readonly Access[]): void {
    this.#memory.write(CODE, encode(accesses));
  }

  /** Lets the guest run to its next exit; returns the KVM_EXIT_* number. */
  enter(): number {
    assert.equal(runVcpu(this.vcpus[0].fd.fd), 0);
    return this.vcpus[0].run.exitReason;
  }

  /** Does all accesses; returns what each gave. */
  run(accesses: readonly Access[]): Result[] {
    this.load(accesses);
    const { run } = this.vcpus[0];
    const accepted: number[] = [];
    for (;;) {
      assert.equal(exitName(this.enter()), exitName(Exit.IO));
      assert.equal(run.ioPort, CALL);
      const call = run.ioGet(0, 1);
      if (call === CALL_END) break;
      if (call === CALL_NOTHING) continue;
      if (call === CALL_ACCEPT) accepted.push(this.#accept());
      else this.vm.setIrqLine(call & 0x1f, (call & CALL_HIGH) !== 0);
    }
    return this.#results(accesses, accepted);
  }

  /** Copies guest memory. */
  read(gpa: number, length: number): Uint8Array<ArrayBuffer> {
    return this.#memory.read(gpa, length);
  }

  /** KVM_GET_IRQCHIP. */
  irqchip(chip_id: number): Uint8Array<ArrayBuffer> {
    const { bytes } = kvmIrqchip.alloc({ chip_id });
    this.vm.transfer(KVM.GET_IRQCHIP, bytes);
    return bytes;
  }

  /** KVM_GET_LAPIC. */
  lapic(vcpu = 0): Uint8Array<ArrayBuffer> {
    const page = new Uint8Array(1024);
    this.vcpus[vcpu].transfer(KVM.GET_LAPIC, page);
    return page;
  }

  /** KVM_SET_LAPIC. */
  setLapic(page: Uint8Array<ArrayBuffer>, vcpu = 0): void {
    this.vcpus[vcpu].transfer(KVM.SET_LAPIC, page);
  }

  [Symbol.dispose](): void {
    for (const vcpu of this.vcpus) vcpu.close();
    this.vm.close();
    this.#memory.close();
    this.#kvm[Symbol.dispose]();
  }

  /** GDT with flat segments; an IDT whose 256 gates lead to stubs that store their vectors. */
  #writeTables(): void {
    const gdt = new BigUint64Array([0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn]);
    this.#memory.write(GDT, new Uint8Array(gdt.buffer));
    const idt = new DataView(new ArrayBuffer(256 * 8));
    for (let vector = 0; vector < 256; vector++) {
      const stub = STUBS + STUB_SIZE * vector;
      idt.setUint32(8 * vector, CODE_SELECTOR << 16 | stub, true);
      // Present, DPL 0, 32-bit interrupt gate.
      idt.setUint32(8 * vector + 4, 0x8e00, true);
      this.#memory.write(
        stub,
        Uint8Array.of(
          ...[0xb0, vector], // mov al, vector
          0xaa, // stosb
          0x58, // pop eax: EIP
          ...[0x83, 0xc4, 0x08], // add esp, 8: CS, EFLAGS
          ...[0xff, 0xe0], // jmp eax
        ),
      );
    }
    this.#memory.write(IDT, new Uint8Array(idt.buffer));
  }

  #setRegisters(): void {
    const [vcpu] = this.vcpus;
    const sregs = kvmSregs.alloc();
    vcpu.transfer(KVM.GET_SREGS, sregs.bytes);
    const { view } = sregs;
    const flat = { base: 0n, limit: 0xffff_ffff, present: 1, dpl: 0, db: 1, s: 1, l: 0, g: 1 };
    Object.assign(view.cs, flat, { selector: CODE_SELECTOR, type: 11 });
    for (const segment of [view.ds, view.es, view.ss, view.fs, view.gs]) {
      Object.assign(segment, flat, { selector: DATA_SELECTOR, type: 3 });
    }
    Object.assign(view.gdt, { base: BigInt(GDT), limit: 23 });
    Object.assign(view.idt, { base: BigInt(IDT), limit: 256 * 8 - 1 });
    view.cr0 = 0x11n; // PE, ET
    vcpu.transfer(KVM.SET_SREGS, sregs.bytes);
    const regs = kvmRegs.alloc({
      rip: BigInt(CODE),
      rsp: BigInt(STACK),
      rdi: BigInt(RESULTS),
      rflags: 2n,
    });
    vcpu.transfer(KVM.SET_REGS, regs.bytes);
  }

  #accept(): number {
    const page = this.lapic();
    const { irr, isr, tpr } = lapicRegisters.view(page.buffer);
    const vector = highest(irr);
    const inService = highest(isr);
    if (vector >> 4 <= Math.max(tpr >> 4, inService >> 4)) return -1;
    irr.put(vector >> 5, irr.at(vector >> 5) & ~(1 << (vector & 31)));
    isr.put(vector >> 5, isr.at(vector >> 5) | 1 << (vector & 31));
    this.setLapic(page);
    return vector;
  }

  #results(accesses: readonly Access[], accepted: number[]): Result[] {
    const regs = kvmRegs.alloc();
    this.vcpus[0].transfer(KVM.GET_REGS, regs.bytes);
    const bytes = this.#memory.read(RESULTS, Number(regs.view.rdi) - RESULTS);
    const data = new DataView(bytes.buffer);
    let at = 0;
    const results = accesses.map(({ kind }): Result => {
      switch (kind) {
        case "in":
          return data.getUint8(at++);
        case "window":
          // A window stores how many bytes it stored, so that one without an interrupt shows.
          return data.getUint8(at++) === 0 ? -1 : data.getUint8(at++);
        case "accept":
          return accepted.shift();
        case "read":
          at += 4;
          return data.getUint32(at - 4, true);
      }
    });
    assert.equal(at, bytes.length);
    return results;
  }
}

function highest(bits: ArrayView<number>): number {
  for (let vector = 255; vector >= 0; vector--) {
    if ((bits.at(vector >> 5) >>> (vector & 31)) & 1) return vector;
  }
  return -1;
}

function word(value: number): number[] {
  return [value & 0xff, value >>> 8 & 0xff, value >>> 16 & 0xff, value >>> 24];
}

/** 32-bit code that does the accesses, results going to [EDI]. */
function encode(accesses: readonly Access[]): Uint8Array<ArrayBuffer> {
  const code: number[] = [];
  const setPort = (port: number) => code.push(0x66, 0xba, port & 0xff, port >> 8); // mov dx, port
  const out = (port: number, value: number) => {
    setPort(port);
    code.push(0xb0, value, 0xee); // mov al, value; out dx, al
  };
  for (const access of accesses) {
    switch (access.kind) {
      case "out":
        out(access.port, access.value);
        break;
      case "in":
        setPort(access.port);
        code.push(0xec, 0xaa); // in al, dx; stosb
        break;
      case "write":
        code.push(0xb8, ...word(access.value)); // mov eax, value
        code.push(0xa3, ...word(access.address)); // mov [address], eax
        break;
      case "read":
        code.push(0xa1, ...word(access.address), 0xab); // mov eax, [address]; stosd
        break;
      case "line":
        out(CALL, access.gsi | (access.level ? CALL_HIGH : 0));
        break;
      case "accept":
        out(CALL, CALL_ACCEPT);
        break;
      case "window":
        // A call of the host is a moment at which KVM looks for interrupts, on all its kinds.
        code.push(0xc6, 0x07, 0x01, 0x47, 0x89, 0xfb); // mov byte [edi], 1; inc edi; mov ebx, edi
        code.push(0xfb); // sti
        out(CALL, CALL_NOTHING);
        code.push(0x90, 0x90, 0xfa); // nop; nop; cli
        code.push(0x39, 0xfb, 0x75, 0x04); // cmp ebx, edi; jne over the next
        code.push(0xc6, 0x47, 0xff, 0x00); // mov byte [edi - 1], 0
        break;
    }
  }
  out(CALL, CALL_END);
  return Uint8Array.from(code);
}

/**
 * What runs the guest's instructions: the interface of an accelerator, as the rest of the VMM sees it.
 *
 * KVM's structs (linux/kvm.h) are the language: exits are read out of a kvm_run page, state goes in and
 * out as kvm_regs, kvm_sregs and so on. What an accelerator does behind them is its own; nothing above
 * this interface knows an ioctl, or whether a VM or a vCPU has a descriptor.
 *
 * ```text
 * Accelerator          what this host offers                          main thread
 *   AcceleratorVm      memory slots, interrupt chips, clock           main thread
 *     AcceleratorVcpu  state in and out, kick                         any thread, while it is parked
 *     VcpuRunner       enters the guest                               the vCPU's own thread
 *     InterruptLines   drives lines of the chips                      one on each thread
 * ```
 *
 * @module
 */
import type { CpuidEntry } from "../../ffi/kvm/cpuid.ts";
import type { OsError } from "../../ffi/errno.ts";
import type { RunPage } from "../../ffi/kvm/run.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import type { MappedRegion } from "../../ffi/memory.ts";
import type { CpuStart } from "../boot/cpu_start.ts";
import type { MemorySlot } from "./memory_slot.ts";
import type { SoftwareRunnerDescription, SoftwareVmDescription } from "./software/description.ts";

/** The accelerators by QEMU's names for them (`-accel`). */
export const acceleratorNames = ["kvm", "tcg"] as const;

/** One of {@linkcode acceleratorNames}. */
export type AcceleratorName = typeof acceleratorNames[number];

/** The parts of a vCPU's state, each one struct of the kernel ABI, in the order of writing. */
export const vcpuParts = [
  "mp_state",
  "regs",
  "sregs",
  "xsave",
  "xcrs",
  "debugregs",
  "lapic",
  "msrs",
  "vcpu_events",
] as const;

/** Name of one part of a vCPU's state. */
export type VcpuPart = typeof vcpuParts[number];

/** What is moved of a vCPU's state: its parts, and by how much its TSC is ahead of the host's, a u64. */
export type MovedPart = VcpuPart | "tsc_offset";

/** Parts with the buffers that they go into or come from, in the order in which they are moved. */
export type VcpuTransfer = readonly (readonly [MovedPart, Uint8Array<ArrayBuffer>])[];

/** The part at which a transfer has ended, and why. */
export interface TransferFailure {
  readonly part: MovedPart;
  readonly error: OsError;
}

/** Moves what it was prepared for, up to what fails, if anything does. The vCPU is parked. */
export type PreparedTransfer = () => TransferFailure | undefined;

/**
 * The parts of a VM's state: struct kvm_irqchip, whose `chip_id` says which chip, kvm_pit_state2 and
 * kvm_clock_data.
 */
export type VmPart = "irqchip" | "pit" | "clock";

/** What can be saved of a vCPU on this host. */
export interface VcpuStateLayout {
  /** Bytes of XSAVE state. */
  readonly xsaveSize: number;
  /** The MSRs that can be read, the TSC deadline last. */
  readonly msrs: Uint32Array;
  /** Whether the guest's TSC can be kept at its distance from the host's. */
  readonly tscOffset: boolean;
}

/** What tells a vCPU from others: its APIC id and its CPUID leaves. */
export interface CpuIdentity {
  readonly apicId: number;
  readonly cpuid: readonly CpuidEntry[];
}

/** What a VM is made of. */
export interface VmOptions {
  /** Whether to make the PIT. */
  readonly pit: boolean;
  /** Whether interrupt lines reach the PICs; without, the IOAPIC alone has them. */
  readonly pic: boolean;
  /** One entry a vCPU. */
  readonly cpus: readonly CpuIdentity[];
}

/** What this host can run guests with. */
export interface Accelerator extends Disposable {
  readonly name: AcceleratorName;
  /** Its name in messages. */
  readonly title: string;
  /** How many vCPUs a VM may have. */
  readonly maxVcpus: number;
  /** Whether the LAPIC timer has its TSC deadline mode, which CPUID need not say. */
  readonly tscDeadline: boolean;
  /** Whether guest RAM has to be files: each vCPU's thread maps it once more. */
  readonly mapsFiles: boolean;
  /** The CPUID leaves that it can give a guest. */
  supportedCpuid(): CpuidEntry[];
  /** Makes a VM with its chips and vCPUs, without memory. @throws {OsError} if it cannot */
  createVm(options: VmOptions): AcceleratorVm;
}

/** A program that vCPUs run before there is a guest, which makes them faster. */
export interface Practice {
  /** How many vCPUs can run it. */
  readonly vcpus: number;
  /** Milliseconds after which it is enough, done or not. */
  readonly limitMs: number;
  /** What its memory holds at first. @param gpa where that will be @param vcpus how many run it */
  image(gpa: number, vcpus: number): Uint8Array<ArrayBuffer>;
  /** Where a vCPU starts. */
  start(gpa: number, vcpu: number): CpuStart;
  /** Whether a vCPU has been through, as its memory tells. */
  isDone(memory: MappedRegion, vcpu: number): boolean;
}

/** A VM: chips and vCPUs, and the memory that it is given. */
export interface AcceleratorVm extends Disposable {
  readonly vcpus: readonly AcceleratorVcpu[];
  /** The chips' lines, on the thread that made the VM. */
  readonly interrupts: InterruptLines;
  /** Plain data from which another thread opens the lines. */
  readonly interruptsDescription: InterruptsDescription;
  /** Descriptors of no use to a successor, whose closing takes long: it is left for after a pause. */
  readonly remains: readonly OwnedFd[];
  /** What its vCPUs get faster by; undefined where they are as fast as they get. */
  readonly practice: Practice | undefined;
  /** What can be saved of its vCPUs; none of them runs. */
  stateLayout(): VcpuStateLayout;
  /** Shows host memory to the guest. */
  setMemory(slot: MemorySlot): void;
  /** Takes a memory slot away. */
  removeMemory(slot: MemorySlot): void;
  /**
   * Fills the accelerator's page tables for memory that the guest has been shown; all vCPUs are parked.
   *
   * @param gpa guest physical address, a multiple of 4096
   * @param size bytes, a multiple of 4096
   * @returns whether the accelerator offers that
   * @throws {OsError}
   */
  prefault(gpa: number, size: number): boolean;
  /** Where there is no need of the vCPU's thread for it, lets a doorbell be rung without. */
  connectDoorbell(doorbell: DoorbellAddress): void;
  /** Reads a part of the state. @throws {OsError} */
  read(part: VmPart, into: Uint8Array<ArrayBuffer>): void;
  /** Writes a part of the state. @throws {OsError} if it makes no sense */
  write(part: VmPart, from: Uint8Array<ArrayBuffer>): void;
  /** Closes VM and vCPUs. No thread may be inside one. */
  close(): void;
}

/** A write of 4 bytes that is not carried out but told to somebody. */
export interface DoorbellAddress {
  /** Guest physical address. */
  readonly address: number;
  /** The only value that rings. */
  readonly value: number;
  /** An eventfd. */
  readonly fd: number;
}

/** Where a debugger wants a vCPU to stop: before an instruction, or after an access to memory. */
export interface DebugPoint {
  readonly on: "execute" | "write" | "access";
  /** Linear address, a multiple of `length`. */
  readonly address: bigint;
  /** 1, 2, 4 or 8 bytes; 1 for an instruction. */
  readonly length: number;
}

/** What a debugger wants of a vCPU: exits KVM_EXIT_DEBUG are what it gets. */
export interface DebugControl {
  /** Stop after one instruction, without letting an interrupt in where that can be had. */
  readonly singleStep: boolean;
  /** At most {@linkcode MAX_DEBUG_POINTS}; bit `i` of an exit's DR6 is the point at index `i`. */
  readonly points: readonly DebugPoint[];
}

/** How many a processor has: DR0 to DR3. */
export const MAX_DEBUG_POINTS = 4;

/** A vCPU. All but the kick is for a vCPU that is parked, and for any thread. */
export interface AcceleratorVcpu {
  /** Why the guest stopped; shared with the vCPU's thread. */
  readonly run: RunPage;
  /** Frequency of the guest's TSC. */
  readonly tscKhz: number;
  /** Plain data from which the vCPU's thread makes its {@linkcode VcpuRunner}. */
  readonly description: RunnerDescription;
  /** Reads a part of the state; for `msrs`, returns how many were read. @throws {OsError} */
  read(part: VcpuPart, into: Uint8Array<ArrayBuffer>): number;
  /** Writes a part of the state; for `msrs`, returns how many were taken. @throws {OsError} */
  write(part: VcpuPart, from: Uint8Array<ArrayBuffer>): number;
  /** Prepares reading parts of the state, for a pause: what the buffers hold may change, no more. */
  prepareRead(transfer: VcpuTransfer): PreparedTransfer;
  /** The same for writing them. */
  prepareWrite(transfer: VcpuTransfer): PreparedTransfer;
  /** Brings an interrupt of the LAPIC timer that has fallen due into the state. */
  settleTimer(): void;
  /** Tells the guest that it was paused, so that its watchdogs hold still. */
  noteKvmclockPause(): void;
  /** Injects an NMI. */
  nmi(): void;
  /** Gives a debugger what it wants of the vCPU, or with undefined nothing. @throws {OsError} */
  debug(control: DebugControl | undefined): void;
  /** Guest physical address behind a linear one; undefined where nothing is mapped. */
  translate(linear: bigint): bigint | undefined;
  /** Lets the runner enter the guest again after a `halt`. */
  allow(): void;
  /** Makes the runner return, now and whenever it enters, until it is allowed again. */
  halt(threadId: number): void;
  /** Makes the runner return, once. */
  interrupt(threadId: number): void;
}

/** A vCPU as its own thread has it. */
export interface VcpuRunner {
  readonly run: RunPage;
  /**
   * Enters the guest.
   *
   * @returns a `RunResult`: EXIT with the reason in the run page; INTERRUPTED by `halt` or `interrupt`;
   *   AGAIN when an application processor was woken by INIT
   * @throws {OsError}
   */
  enter(): number;
}

/** What devices have of an accelerator on one thread: its chips' input lines, and messages past them. */
export interface InterruptLines {
  /** Drives a line (GSI). */
  setLine(gsi: number, level: boolean): void;
  /** Sends a message of 32 bits to the local APICs' addresses: an interrupt. */
  sendMsi(address: number, data: number): void;
  /** A device has written guest RAM, which may be code: before the guest can know of it. */
  ramWritten(): void;
  /**
   * Where there is no need of the vCPU's thread for it, lets any write to an address ring a doorbell.
   *
   * @param fd an eventfd
   * @throws {OsError}
   */
  connectDoorbell(address: number, fd: number): void;
  /** Takes that back. @throws {OsError} if it is not connected */
  disconnectDoorbell(address: number, fd: number): void;
}

/** What a vCPU's thread is told of its vCPU. */
export type RunnerDescription = KvmRunnerDescription | SoftwareRunnerDescription;

/** What a thread is told of the interrupt chips. */
export type InterruptsDescription = KvmInterruptsDescription | SoftwareVmDescription;

/** A vCPU in KVM. */
export interface KvmRunnerDescription {
  readonly accelerator: "kvm";
  /** The vCPU's descriptor. */
  readonly fd: number;
  /** Where its kvm_run page is mapped, and how many bytes. */
  readonly runAddress: number;
  readonly runSize: number;
}

/** KVM's interrupt chips. */
export interface KvmInterruptsDescription {
  readonly accelerator: "kvm";
  /** The VM's descriptor. */
  readonly vmFd: number;
}

/** The side of an accelerator that other threads than the main one use. */
export interface AcceleratorThread {
  /**
   * Makes a vCPU's runner, on its thread.
   *
   * @param serve serves the exit that the run page tells of; for a runner that does not have to leave
   *   the guest for it
   */
  openRunner(description: RunnerDescription, serve: () => void): VcpuRunner;
  /** Opens the interrupt chips' lines on this thread. */
  openInterrupts(description: InterruptsDescription): InterruptLines;
}

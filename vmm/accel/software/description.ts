/**
 * What the threads of a software VM share: chips, memory slots, pages of state, words to wake by.
 *
 * @module
 */
import { viewMemory } from "../../../ffi/memory.ts";
import type { MemorySlot } from "../memory_slot.ts";
import { ATTENTION, cpuState, RAM_ADDRESS, SHARED_SIZE } from "./cpu_state.ts";

/** Plain data from which any thread uses a software VM. */
export interface SoftwareVmDescription {
  readonly accelerator: "tcg";
  /** The chips' state. */
  readonly chips: SharedArrayBuffer;
  /** The {@linkcode SlotTable}. */
  readonly slots: SharedArrayBuffer;
  /** The {@linkcode Wakes}. */
  readonly wakes: SharedArrayBuffer;
  /** What the CPUs tell each other, pages that all of them map; none where there is one CPU. */
  readonly commonFd: number | undefined;
  /** Where each vCPU's shared pages are mapped in this process. */
  readonly pages: readonly number[];
  /** Whether there are 8259s. */
  readonly pic: boolean;
  /** Whether there is a PIT. */
  readonly pit: boolean;
  /** The host's TSC frequency. */
  readonly tscKhz: number;
}

/** Plain data from which a vCPU's thread makes its runner. */
export interface SoftwareRunnerDescription {
  readonly accelerator: "tcg";
  readonly vm: SoftwareVmDescription;
  readonly index: number;
  /** The vCPU's shared pages. */
  readonly pagesFd: number;
  /** The CPU. */
  readonly module: WebAssembly.Module;
  /** struct kvm_cpuid2. */
  readonly cpuid: Uint8Array<ArrayBuffer>;
  readonly features: LapicFeatures;
}

/** What a vCPU's CPUID says of its local APIC. */
export interface LapicFeatures {
  readonly x2apic: boolean;
  readonly tscDeadline: boolean;
  readonly physicalBits: number;
}

/** KVM's number of memory slots for users is 509; ours is the CPU's number of regions. */
export const MAX_SLOTS = 32;
const GENERATION = 0;
const FIRST_SLOT = 1;
const SLOT_WORDS = 6;
const PAGE = 4096;

/** A slot as threads see it. */
export interface SharedSlot extends Omit<MemorySlot, "file"> {
  /** The file and where in it; the memory is mapped from there. */
  readonly fd: number;
  readonly offset: number;
  /** Where it is in a vCPU's WebAssembly memory. */
  readonly place: number;
}

/** The memory slots, for all threads: changed by the main thread while every vCPU is parked. */
export class SlotTable {
  readonly #words: Float64Array<SharedArrayBuffer>;

  /** @param buffer of {@linkcode slotTableSize} bytes, zeros at first */
  constructor(buffer: SharedArrayBuffer) {
    this.#words = new Float64Array(buffer);
  }

  /** Changes with every change. */
  get generation(): number {
    return this.#words[GENERATION];
  }

  /** Sets a slot, or takes it away. */
  set(slot: number, value: MemorySlot | undefined): void {
    const words = [0, 0, 0, 0, 0, 0];
    if (value) {
      const { gpa, size, address, file, readonly } = value;
      words.splice(0, 6, gpa, size, address, file!.fd.fd, file!.offset, readonly ? 1 : 0);
    }
    this.#words.set(words, FIRST_SLOT + slot * SLOT_WORDS);
    this.#words[GENERATION]++;
  }

  /** All slots, one after another in the vCPUs' memory. */
  all(): SharedSlot[] {
    const slots: SharedSlot[] = [];
    let place = RAM_ADDRESS;
    for (let slot = 0; slot < MAX_SLOTS; slot++) {
      const at = FIRST_SLOT + slot * SLOT_WORDS;
      const [gpa, size, address, fd, offset, readonly] = this.#words.subarray(at, at + SLOT_WORDS);
      if (size === 0) continue;
      slots.push({ slot, gpa, size, address, fd, offset, readonly: readonly !== 0, place });
      place += Math.ceil(size / PAGE) * PAGE;
    }
    return slots;
  }
}

/** Bytes of a {@linkcode SlotTable}. */
export const slotTableSize: number = (FIRST_SLOT + MAX_SLOTS * SLOT_WORDS) * 8;

// A cache line for each vCPU.
const WAKE_LINE = 16;
/** Counts what a halted vCPU has to wake up for. */
const WAKE = 0;
/** The state was changed by another thread. */
const CHANGED = 1;
/** `interrupt` wants the runner to return. */
const LEAVE = 2;

/** Bytes of {@linkcode Wakes}. */
export function wakesSize(vcpus: number): number {
  return vcpus * WAKE_LINE * 4;
}

/** How threads make a vCPU look up, and how a halted one sleeps. */
export class Wakes {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #attention: readonly Int32Array<ArrayBuffer>[];

  /** @param description the VM */
  constructor({ wakes, pages }: Pick<SoftwareVmDescription, "wakes" | "pages">) {
    this.#words = new Int32Array(wakes);
    this.#attention = pages.map((page) => {
      const { buffer, byteOffset } = viewMemory(page, SHARED_SIZE);
      return new Int32Array(buffer, byteOffset + cpuState.offsets.attention, 1);
    });
  }

  /** Makes a vCPU look at its chips and its orders before its next instruction. */
  kick(vcpu: number): void {
    Atomics.or(this.#attention[vcpu], 0, ATTENTION.kick | ATTENTION.interrupt);
    Atomics.add(this.#words, vcpu * WAKE_LINE + WAKE, 1);
    Atomics.notify(this.#words, vcpu * WAKE_LINE + WAKE);
  }

  /** Makes all other vCPUs forget what they know of memory, before their next block of code. */
  flushOthers(vcpu: number): void {
    this.#attention.forEach((words, other) => {
      if (other !== vcpu) Atomics.or(words, 0, ATTENTION.flush);
    });
  }

  /** Makes all vCPUs compare what they have decoded: a device has written memory. */
  compareCode(): void {
    for (const words of this.#attention) Atomics.or(words, 0, ATTENTION.code);
  }

  /** The vCPU looks up. */
  attend(vcpu: number): void {
    Atomics.and(this.#attention[vcpu], 0, ~ATTENTION.kick);
  }

  /** What to give `sleep`; taken before looking whether there is something to do. */
  count(vcpu: number): number {
    return Atomics.load(this.#words, vcpu * WAKE_LINE + WAKE);
  }

  /** Sleeps unless the vCPU was kicked since `count`, at most so many milliseconds. */
  sleep(vcpu: number, count: number, ms: number): void {
    Atomics.wait(this.#words, vcpu * WAKE_LINE + WAKE, count, ms);
  }

  /** Says that another thread has changed the vCPU's state. */
  noteChange(vcpu: number): void {
    Atomics.store(this.#words, vcpu * WAKE_LINE + CHANGED, 1);
  }

  /** Whether the state was changed since the last call. */
  takeChange(vcpu: number): boolean {
    return Atomics.exchange(this.#words, vcpu * WAKE_LINE + CHANGED, 0) !== 0;
  }

  /** Makes the runner return, once. */
  leave(vcpu: number): void {
    Atomics.store(this.#words, vcpu * WAKE_LINE + LEAVE, 1);
    this.kick(vcpu);
  }

  /** Whether the runner is to return. */
  takeLeave(vcpu: number): boolean {
    return Atomics.exchange(this.#words, vcpu * WAKE_LINE + LEAVE, 0) !== 0;
  }
}

/**
 * How interrupt messages find their local APICs, and what a LAPIC does with one.
 *
 * Any thread sends. A receiver's registers belong to its vCPU's thread; what others change of them
 * they change by Atomics: they set bits in IRR and TMR, or leave an event, and kick the vCPU.
 *
 * @module
 */
import {
  ApicBase,
  Command,
  Delivery,
  LapicError,
  lapicWords,
  Register,
  Svr,
  vectorWord,
  Word,
} from "./lapic_registers.ts";
import { LapicEvent } from "./state.ts";

/** Destinations that mean all (SDM volume 3, 12.6.2.1, 12.12.9). */
const BROADCAST = 0xff;
const X2APIC_BROADCAST = 0xffff_ffff;
/** The sender of what no local APIC sends. */
export const NO_SOURCE = -1;
/** The destination format register's models, which are its high 4 bits (12.6.2.2). */
const FLAT = 0xf;
const CLUSTER = 0;
/** Vectors below this one cannot be sent (12.5.2). */
const FIRST_VECTOR = 16;

/** All local APICs of a machine. */
export class ApicBus {
  readonly #lapics: readonly Int32Array[];
  readonly #kick: (vcpu: number) => void;

  /**
   * @param buffer the chips' state
   * @param vcpus number of vCPUs
   * @param kick makes a vCPU look at its LAPIC, whichever thread it is called on
   */
  constructor(buffer: ArrayBufferLike, vcpus: number, kick: (vcpu: number) => void) {
    this.#lapics = Array.from({ length: vcpus }, (_, index) => lapicWords(buffer, index));
    this.#kick = kick;
  }

  /**
   * Sends an interrupt message.
   *
   * @param command laid out like the ICR's low word (SDM volume 3, 12.6.1)
   * @param destination 8 bits; 32 from a sender in x2APIC mode
   * @param source index of the vCPU that sends, or {@linkcode NO_SOURCE}
   * @returns how many LAPICs have accepted it
   */
  send(command: number, destination: number, source: number): number {
    let mode = (command & Command.MODE) >> Command.MODE_SHIFT;
    const isBroadcast = (command & Command.LOGICAL) === 0 && destination === BROADCAST;
    // Lowest priority with a physical broadcast goes to all (as KVM has it; 12.6.2.1 excludes it).
    if (mode === Delivery.LOWEST_PRIORITY && isBroadcast) mode = Delivery.FIXED;
    if (mode === Delivery.LOWEST_PRIORITY) return this.#sendToOne(command, destination, source);
    let accepted = 0;
    for (let index = 0; index < this.#lapics.length; index++) {
      if (!this.#isTarget(index, command, destination, source)) continue;
      if (this.accept(index, mode, command)) accepted++;
    }
    return accepted;
  }

  /** Of those that are addressed and enabled the vector chooses one, so that all get their share. */
  #sendToOne(command: number, destination: number, source: number): number {
    let candidates = 0;
    for (let index = 0; index < this.#lapics.length; index++) {
      if (this.#isCandidate(index, command, destination, source)) candidates++;
    }
    if (candidates === 0) return 0;
    let left = (command & Command.VECTOR) % candidates;
    for (let index = 0; index < this.#lapics.length; index++) {
      if (!this.#isCandidate(index, command, destination, source)) continue;
      if (left-- === 0) return this.accept(index, Delivery.FIXED, command) ? 1 : 0;
    }
    return 0;
  }

  #isCandidate(index: number, command: number, destination: number, source: number): boolean {
    return (this.#lapics[index][Register.SVR >> 2] & Svr.ENABLE) !== 0 &&
      this.#isTarget(index, command, destination, source);
  }

  #isTarget(index: number, command: number, destination: number, source: number): boolean {
    const words = this.#lapics[index];
    const base = Atomics.load(words, Word.BASE_LOW);
    if ((base & ApicBase.ENABLE) === 0) return false;
    switch (command & Command.SHORTHAND) {
      case Command.SELF:
        return index === source;
      case Command.ALL:
        return true;
      case Command.ALL_BUT_SELF:
        return index !== source;
    }
    const isX2apic = (base & ApicBase.X2APIC) !== 0;
    // What devices send has 8 bits of destination, of which all ones reach every LAPIC.
    if (destination === BROADCAST && source === NO_SOURCE) return true;
    if (destination === (isX2apic ? X2APIC_BROADCAST : BROADCAST)) return true;
    return command & Command.LOGICAL
      ? matchesLogical(words, destination, isX2apic)
      : matchesPhysical(words, destination);
  }

  /**
   * Gives a message to one LAPIC.
   *
   * @param index the vCPU
   * @param mode a {@linkcode Delivery}
   * @param command vector, trigger mode and level, laid out like the ICR's low word
   * @returns whether it has accepted it
   */
  accept(index: number, mode: number, command: number): boolean {
    switch (mode) {
      case Delivery.FIXED:
      case Delivery.LOWEST_PRIORITY:
        return this.#acceptFixed(index, command);
      case Delivery.NMI:
        this.#raise(index, LapicEvent.NMI);
        return true;
      case Delivery.INIT:
        // The level de-assert (12.6.1) only synchronizes arbitration ids, which there are none of.
        if (command & Command.LEVEL && !(command & Command.ASSERT)) return false;
        Atomics.and(this.#lapics[index], Word.EVENTS, ~LapicEvent.SIPI);
        this.#raise(index, LapicEvent.INIT);
        return true;
      case Delivery.STARTUP:
        Atomics.store(this.#lapics[index], Word.SIPI_VECTOR, command & Command.VECTOR);
        this.#raise(index, LapicEvent.SIPI);
        return true;
      // There is no system management mode to enter, so its interrupt ends here.
      case Delivery.SMI:
        return true;
    }
    return false;
  }

  /** Leaves an event for a vCPU: a {@linkcode LapicEvent}. */
  #raise(index: number, event: number): void {
    Atomics.or(this.#lapics[index], Word.EVENTS, event);
    this.#kick(index);
  }

  #acceptFixed(index: number, command: number): boolean {
    const words = this.#lapics[index];
    if (command & Command.LEVEL && !(command & Command.ASSERT)) return false;
    if (!isEnabled(words)) return false;
    const vector = command & Command.VECTOR;
    if (vector < FIRST_VECTOR) {
      this.error(index, LapicError.RECEIVE_VECTOR);
      return false;
    }
    const bit = 1 << (vector & 31);
    const tmr = vectorWord(Register.TMR, vector);
    // TMR first: who sees the request must see how it was triggered.
    if (command & Command.LEVEL) Atomics.or(words, tmr, bit);
    else Atomics.and(words, tmr, ~bit);
    Atomics.or(words, vectorWord(Register.IRR, vector), bit);
    this.#kick(index);
    return true;
  }

  /** Notes an error of a LAPIC: a {@linkcode LapicError}; the first of its kind interrupts. */
  error(index: number, error: number): void {
    const words = this.#lapics[index];
    if (Atomics.or(words, Word.ERRORS, error) & error) return;
    const entry = words[Register.LVT_ERROR >> 2];
    if (entry & Command.MASK || (entry & Command.VECTOR) < FIRST_VECTOR) return;
    this.accept(index, Delivery.FIXED, (entry & Command.VECTOR) | Command.ASSERT);
  }

  /** Kicks a vCPU whose LAPIC has something for it. */
  kick(index: number): void {
    this.#kick(index);
  }

  /** Delivers a non-maskable interrupt to a vCPU, as KVM_NMI does. */
  nmi(index: number): void {
    this.#raise(index, LapicEvent.NMI);
  }

  /**
   * INTR of the 8259A has risen: LINT0 of every LAPIC.
   *
   * One whose entry is ExtINT looks for itself when it is kicked; KVM's also lets an NMI through,
   * which kernels use as a watchdog.
   */
  lint0(): void {
    for (let index = 0; index < this.#lapics.length; index++) {
      const words = this.#lapics[index];
      if (acceptsExtint(words)) this.#kick(index);
      else if (words[Word.BASE_LOW] & ApicBase.ENABLE) this.local(index, Register.LVT_LINT0);
    }
  }

  /** Delivers what an entry of a LAPIC's local vector table says, unless it is masked. */
  local(index: number, register: number): void {
    const entry = this.#lapics[index][register >> 2];
    if (entry & Command.MASK) return;
    const mode = (entry & Command.MODE) >> Command.MODE_SHIFT;
    this.accept(index, mode, (entry & (Command.VECTOR | Command.LEVEL)) | Command.ASSERT);
  }
}

/** Whether a LAPIC takes interrupts: both switches are on (SDM volume 3, 12.4.3). */
function isEnabled(words: Int32Array): boolean {
  return (Atomics.load(words, Word.BASE_LOW) & ApicBase.ENABLE) !== 0 &&
    (words[Register.SVR >> 2] & Svr.ENABLE) !== 0;
}

/** Whether interrupts of the 8259A reach the vCPU: by LINT0, or around a LAPIC that is off. */
export function acceptsExtint(words: Int32Array): boolean {
  if ((words[Word.BASE_LOW] & ApicBase.ENABLE) === 0) return true;
  const entry = words[Register.LVT_LINT0 >> 2];
  return (entry & Command.MASK) === 0 &&
    (entry & Command.MODE) >> Command.MODE_SHIFT === Delivery.EXTINT;
}

/** The state keeps the id in its high 8 bits in both modes, as KVM's does. */
function matchesPhysical(words: Int32Array, destination: number): boolean {
  return destination === words[Register.ID >> 2] >>> 24;
}

/** Logical destinations: 12.6.2.2, and 12.12.10.2 for x2APIC mode. */
function matchesLogical(words: Int32Array, destination: number, isX2apic: boolean): boolean {
  const logical = words[Register.LDR >> 2] >>> (isX2apic ? 0 : 24);
  if (isX2apic) {
    return logical >>> 16 === destination >>> 16 && (logical & destination & 0xffff) !== 0;
  }
  switch (words[Register.DFR >> 2] >>> 28) {
    case FLAT:
      return (logical & destination) !== 0;
    case CLUSTER:
      return logical >>> 4 === destination >>> 4 && (logical & destination & 0xf) !== 0;
  }
  return false;
}

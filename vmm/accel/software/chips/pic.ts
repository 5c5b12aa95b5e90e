/**
 * The pair of 8259A interrupt controllers of a PC/AT, cascaded through input 2 of the master, with
 * the edge/level registers of the 82371SB (ports 0x4d0, 0x4d1).
 *
 * Names are those of Intel's 8259A data sheet: ICW and OCW are the command words, IRR, ISR and IMR
 * the registers. State is KVM's; where KVM differs from the data sheet (the poll command sets ISR,
 * the special mask mode lets lower levels through) the data sheet is followed.
 *
 * All calls come with the chipset's lock held.
 *
 * @module
 */
import { kvmPicState } from "../../../../ffi/kvm/structs.ts";
import type { View } from "../../../../ffi/struct.ts";
import { chipsetState } from "./state.ts";

type Pic = View<typeof kvmPicState.fields>;

const CASCADE = 2;
const SPURIOUS = 7;
const LEVELS = 8;
/** Inputs that may be level-triggered: not 0, 1, 2; not 8, 13 (82371SB data sheet, ELCR). */
const ELCR_MASK = [0xf8, 0xde];

const ICW1 = { INIT: 0x10, IC4: 0x01 } as const;
const ICW4 = { SFNM: 0x10, AEOI: 0x02 } as const;
const OCW3 = { SELECT: 0x08, ESMM: 0x40, SMM: 0x20, POLL: 0x04, RR: 0x02, RIS: 0x01 } as const;
/** OCW2's R, SL and EOI bits, from bit 5 on. */
const Ocw2 = {
  ROTATE_AEOI_CLEAR: 0,
  EOI: 1,
  NOP: 2,
  SPECIFIC_EOI: 3,
  ROTATE_AEOI_SET: 4,
  ROTATE_EOI: 5,
  SET_PRIORITY: 6,
  ROTATE_SPECIFIC_EOI: 7,
} as const;
/** `init_state`: which initialization word the odd port takes next. */
const Init = { DONE: 0, ICW2: 1, ICW3: 2, ICW4: 3 } as const;

/** What the pair tells its surroundings. */
export interface PicLines {
  /** INTR has risen: a CPU should look. */
  interrupt(): void;
  /** Input `irq`, 0 to 15, is no longer in service. */
  ended(irq: number): void;
  /** Input `irq`, 0 to 15, is no longer masked. */
  unmasked(irq: number): void;
}

/** Master and slave over shared state. */
export class PicPair {
  readonly #pics: readonly [Pic, Pic];
  readonly #bytes: readonly Uint8Array[];
  readonly #chipset: View<typeof chipsetState.fields>;
  readonly #lines: PicLines;

  /**
   * @param buffer where a {@linkcode chipsetState} begins
   */
  constructor(buffer: ArrayBufferLike, lines: PicLines) {
    this.#chipset = chipsetState.view(buffer);
    const offset = (chip: number) => chipsetState.offsets.pic + chip * kvmPicState.size;
    this.#pics = [kvmPicState.view(buffer, offset(0)), kvmPicState.view(buffer, offset(1))];
    this.#bytes = [0, 1].map((chip) => new Uint8Array(buffer, offset(chip), kvmPicState.size));
    this.#lines = lines;
  }

  /** Power-on: all registers zero, as KVM leaves a pair that no firmware has set up. */
  reset(): void {
    this.#pics.forEach((pic, chip) => {
      this.#bytes[chip].fill(0);
      pic.elcr_mask = ELCR_MASK[chip];
    });
    this.#chipset.pic_output = 0;
  }

  /** Copies master (0) or slave (1) as KVM_GET_IRQCHIP does. */
  save(chip: number, into: Uint8Array): void {
    into.set(this.#bytes[chip]);
  }

  /** Takes over master (0) or slave (1) as KVM_SET_IRQCHIP does. */
  load(chip: number, from: Uint8Array): void {
    this.#bytes[chip].set(from.subarray(0, kvmPicState.size));
    this.#pics[chip].elcr_mask = ELCR_MASK[chip];
    this.#pics[chip].priority_add &= LEVELS - 1;
    this.update();
  }

  /** Drives input `irq`, 0 to 15. */
  setInput(irq: number, level: boolean): void {
    setInput(this.#pics[irq >> 3], irq & 7, level);
    this.update();
  }

  /** Reads a port: 0 and 1 of chip 0 (master) or 1 (slave). */
  read(chip: number, port: number): number {
    const pic = this.#pics[chip];
    if (pic.poll) return this.#poll(chip);
    if (port === 1) return pic.imr;
    return pic.read_reg_select ? pic.isr : pic.irr;
  }

  /** Writes a port: 0 and 1 of chip 0 (master) or 1 (slave). */
  write(chip: number, port: number, value: number): void {
    const pic = this.#pics[chip];
    if (port === 0 && value & ICW1.INIT) return this.#initialize(chip, value);
    if (port === 1 && pic.init_state !== Init.DONE) return this.#goOnInitializing(pic, value);
    if (port === 1) this.#writeImr(chip, value);
    else if (value & OCW3.SELECT) writeOcw3(pic, value);
    else this.#writeOcw2(chip, value);
    this.update();
  }

  /** Reads the edge/level register of chip 0 or 1; a set bit is a level-triggered input. */
  readElcr(chip: number): number {
    return this.#pics[chip].elcr;
  }

  /** Writes the edge/level register of chip 0 or 1. */
  writeElcr(chip: number, value: number): void {
    const pic = this.#pics[chip];
    pic.elcr = value & pic.elcr_mask;
  }

  /**
   * The CPU's interrupt acknowledge cycle.
   *
   * @returns the vector; that of input 7 if what asked is gone by now
   */
  acknowledge(): number {
    const [master, slave] = this.#pics;
    const input = pending(master, true);
    if (input === undefined) return master.irq_base + SPURIOUS;
    this.#accept(0, input);
    let vector = master.irq_base + input;
    if (input === CASCADE) {
      const inner = pending(slave, false);
      if (inner !== undefined) this.#accept(1, inner);
      vector = slave.irq_base + (inner ?? SPURIOUS);
    }
    this.update();
    return vector & 0xff;
  }

  /** Drives the slave's output into the master, and the master's to the CPUs. */
  update(): void {
    const [master, slave] = this.#pics;
    if (pending(slave, false) !== undefined) {
      // A pulse, because the slave's output falls between two of its interrupts.
      setInput(master, CASCADE, true);
      setInput(master, CASCADE, false);
    }
    this.#driveOutput();
  }

  #driveOutput(): void {
    const output = pending(this.#pics[0], true) !== undefined;
    const rises = output && this.#chipset.pic_output === 0;
    this.#chipset.pic_output = output ? 1 : 0;
    if (rises) this.#lines.interrupt();
  }

  /**
   * ICW1 (data sheet, "Initialization Command Words"): requests by edge are forgotten. What is in
   * service ends, as on KVM, if the same input has requested again.
   */
  #initialize(chip: number, value: number): void {
    const pic = this.#pics[chip];
    const edges = pic.irr & ~pic.elcr;
    pic.init4 = value & ICW1.IC4;
    pic.last_irr = 0;
    pic.irr &= pic.elcr;
    pic.imr = 0;
    pic.priority_add = 0;
    pic.special_mask = 0;
    pic.read_reg_select = 0;
    if (!pic.init4) {
      pic.special_fully_nested_mode = 0;
      pic.auto_eoi = 0;
    }
    pic.init_state = Init.ICW2;
    for (let input = 0; input < LEVELS; input++) {
      if ((edges >> input) & 1) this.#endOfInterrupt(chip, input, false);
    }
    this.#driveOutput();
  }

  /** ICW2 to ICW4. */
  #goOnInitializing(pic: Pic, value: number): void {
    switch (pic.init_state) {
      case Init.ICW2:
        pic.irq_base = value & 0xf8;
        pic.init_state = Init.ICW3;
        break;
      case Init.ICW3:
        pic.init_state = pic.init4 ? Init.ICW4 : Init.DONE;
        break;
      default:
        pic.special_fully_nested_mode = value & ICW4.SFNM ? 1 : 0;
        pic.auto_eoi = value & ICW4.AEOI ? 1 : 0;
        pic.init_state = Init.DONE;
    }
    this.#driveOutput();
  }

  #writeImr(chip: number, value: number): void {
    const pic = this.#pics[chip];
    const opened = pic.imr & ~value;
    pic.imr = value;
    for (let input = 0; input < LEVELS; input++) {
      if ((opened >> input) & 1) this.#lines.unmasked(chip * LEVELS + input);
    }
  }

  /** Data sheet, "Poll Command": the read takes the place of the acknowledge cycle. */
  #poll(chip: number): number {
    const pic = this.#pics[chip];
    pic.poll = 0;
    const input = pending(pic, chip === 0);
    if (input === undefined) return 0;
    this.#accept(chip, input);
    // The slave's output falls, and with it the request that the master had of it.
    if (chip === 1) this.#pics[0].irr &= ~(1 << CASCADE);
    this.update();
    return 0x80 | input;
  }

  /** One chip's part of an acknowledge cycle. */
  #accept(chip: number, input: number): void {
    const pic = this.#pics[chip];
    const mask = 1 << input;
    if ((pic.elcr & mask) === 0) pic.irr &= ~mask;
    pic.isr |= mask;
    if (pic.auto_eoi) this.#endOfInterrupt(chip, input, pic.rotate_on_auto_eoi !== 0);
  }

  #endOfInterrupt(chip: number, input: number, rotates: boolean): void {
    const pic = this.#pics[chip];
    if (rotates) pic.priority_add = (input + 1) & 7;
    if (((pic.isr >> input) & 1) === 0) return;
    pic.isr &= ~(1 << input);
    this.#lines.ended(chip * LEVELS + input);
  }

  #writeOcw2(chip: number, value: number): void {
    const pic = this.#pics[chip];
    const command = value >> 5;
    switch (command) {
      case Ocw2.ROTATE_AEOI_CLEAR:
      case Ocw2.ROTATE_AEOI_SET:
        pic.rotate_on_auto_eoi = command === Ocw2.ROTATE_AEOI_SET ? 1 : 0;
        break;
      case Ocw2.EOI:
      case Ocw2.ROTATE_EOI: {
        // In special mask mode an unspecific command passes over what is masked.
        const place = priority(pic, pic.special_mask ? pic.isr & ~pic.imr : pic.isr);
        if (place === LEVELS) break;
        const input = (place + pic.priority_add) & 7;
        this.#endOfInterrupt(chip, input, command === Ocw2.ROTATE_EOI);
        break;
      }
      case Ocw2.SPECIFIC_EOI:
      case Ocw2.ROTATE_SPECIFIC_EOI:
        this.#endOfInterrupt(chip, value & 7, command === Ocw2.ROTATE_SPECIFIC_EOI);
        break;
      case Ocw2.SET_PRIORITY:
        pic.priority_add = (value + 1) & 7;
        break;
    }
  }
}

function setInput(pic: Pic, input: number, level: boolean): void {
  const mask = 1 << input;
  const edge = (pic.elcr & mask) === 0;
  if (level && (!edge || (pic.last_irr & mask) === 0)) pic.irr |= mask;
  else if (!level && !edge) pic.irr &= ~mask;
  if (level) pic.last_irr |= mask;
  else pic.last_irr &= ~mask;
}

/** The place of the most urgent of `inputs` in the order of priorities, 8 for none. */
function priority(pic: Pic, inputs: number): number {
  for (let place = 0; place < LEVELS; place++) {
    if ((inputs >> ((place + pic.priority_add) & 7)) & 1) return place;
  }
  return LEVELS;
}

/** The input that interrupts now, if one is more urgent than what is in service. */
function pending(pic: Pic, isMaster: boolean): number | undefined {
  const place = priority(pic, pic.irr & ~pic.imr);
  if (place === LEVELS) return undefined;
  let inService = pic.isr;
  // Special fully nested mode: the slave may interrupt again while one of its own is in service.
  if (isMaster && pic.special_fully_nested_mode) inService &= ~(1 << CASCADE);
  // Special mask mode: only the masked levels are held off, not those below them.
  if (pic.special_mask) inService &= ~pic.imr;
  if (place >= priority(pic, inService)) return undefined;
  return (place + pic.priority_add) & 7;
}

function writeOcw3(pic: Pic, value: number): void {
  if (value & OCW3.POLL) pic.poll = 1;
  if (value & OCW3.RR) pic.read_reg_select = value & OCW3.RIS;
  if (value & OCW3.ESMM) pic.special_mask = value & OCW3.SMM ? 1 : 0;
}

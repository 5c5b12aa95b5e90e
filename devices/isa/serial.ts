/**
 * `isa-serial`: a National PC16550D UART at an ISA address.
 *
 * Register and section numbers are those of the PC16550D data sheet (National, June 1995). The line
 * is infinitely fast: a byte written to THR is with the host before the next instruction. Only a
 * host that takes no bytes makes the transmitter wait, which the guest sees in LSR. The divisor
 * decides nothing but how long the receiver FIFO's character timeout is.
 *
 * @module
 */
import { struct, u16, u8, type View } from "../../ffi/struct.ts";
import { ByteFifo, byteFifo } from "./byte_fifo.ts";
import {
  type CharacterSink,
  defineDevice,
  type Device,
  type DeviceContext,
  type DeviceType,
  type Interrupt,
  type Properties,
} from "../device.ts";
import { nullSink } from "../chardev/sink.ts";
import { ByteDevice, isaIrq, isaPort } from "./isa.ts";
import { FIFO_SIZE, Receiver, receiverState } from "./serial_receiver.ts";
import { FCR, IER, IIR, IIR_FIFOS, LCR, LSR, MCR, MSR, TRIGGERS } from "./serial_registers.ts";
import { CharacterTimeout, characterTimeout } from "./serial_timeout.ts";

/** A break holds the line low through the stop bit as well: both errors are true of it. */
const BREAK_ERRORS = LSR.BI | LSR.FE;
/** 9600 baud: the latch survives a reset on the chip (table I) and has no defined first value. */
const POWER_ON_DIVISOR = 12;
/** What PCs have agreed on for COM1 to COM4. */
const PORTS = [
  { iobase: 0x3f8, irq: 4 },
  { iobase: 0x2f8, irq: 3 },
  { iobase: 0x3e8, irq: 4 },
  { iobase: 0x2e8, irq: 3 },
];

const state = struct("isa-serial", {
  ier: u8,
  fcr: u8,
  lcr: u8,
  mcr: u8,
  scr: u8,
  /** The low half of MSR until it is read. */
  modemDeltas: u8,
  /** THR has become empty and neither IIR nor THR was touched since. */
  thrInterrupt: u8,
  irqLevel: u8,
  divisor: u16,
  receiver: receiverState,
  /**
   * Bytes that the host has not taken. All 16 places serve in 16450 mode too: guests that write
   * without looking at LSR, as early boot code does, then outlive a short stall of the host.
   */
  transmitter: byteFifo(FIFO_SIZE),
  timeout: characterTimeout,
});

class Serial extends ByteDevice implements Device {
  readonly #state: View<typeof state.fields>;
  readonly #interrupt: Interrupt;
  readonly #chardev: CharacterSink;
  readonly #receiver: Receiver;
  readonly #transmitter: ByteFifo;
  readonly #timeout: CharacterTimeout;
  readonly #byte = new Uint8Array(1);

  constructor(view: View<typeof state.fields>, context: DeviceContext) {
    super();
    this.#state = view;
    [this.#interrupt] = context.interrupts;
    this.#chardev = context.chardev ?? nullSink;
    this.#receiver = new Receiver(view.receiver);
    this.#transmitter = new ByteFifo(view.transmitter);
    this.#timeout = new CharacterTimeout(view.timeout, context, context.timers[0]);
  }

  protected readByte(_range: number, offset: number): number {
    const s = this.#state;
    switch (offset) {
      case 0:
        return s.lcr & LCR.DLAB ? s.divisor & 0xff : this.#readRbr();
      case 1:
        return s.lcr & LCR.DLAB ? s.divisor >> 8 : s.ier;
      case 2:
        return this.#readIir();
      case 3:
        return s.lcr;
      case 4:
        return s.mcr;
      case 5:
        return this.#readLsr();
      case 6:
        return this.#readMsr();
      case 7:
        return s.scr;
      default:
        return 0xff;
    }
  }

  protected writeByte(_range: number, offset: number, value: number): void {
    const s = this.#state;
    switch (offset) {
      case 0:
        if (s.lcr & LCR.DLAB) s.divisor = (s.divisor & 0xff00) | value;
        else this.#writeThr(value);
        break;
      case 1:
        if (s.lcr & LCR.DLAB) s.divisor = (s.divisor & 0xff) | (value << 8);
        else this.#writeIer(value & 0x0f);
        break;
      case 2:
        this.#writeFcr(value);
        break;
      case 3:
        this.#writeLcr(value);
        break;
      case 4:
        this.#writeMcr(value & MCR.ALL);
        break;
      case 7:
        s.scr = value;
        break;
    }
  }

  reset(): void {
    const s = this.#state;
    s.ier =
      s.fcr =
      s.lcr =
      s.mcr =
      s.scr =
      s.modemDeltas =
      s.thrInterrupt =
        0;
    s.divisor = POWER_ON_DIVISOR;
    this.#receiver.reset();
    this.#timeout.stop();
    this.#transmitter.clear();
    this.#driveIrq();
    this.#chardev.acceptInput();
  }

  inputRoom(): number {
    if (this.#state.mcr & MCR.LOOP) return 0;
    return Math.max(this.#capacity() - this.#receiver.length, 0);
  }

  input(data: Uint8Array): void {
    if (this.#state.mcr & MCR.LOOP) return;
    // Whatever the mode, 16 places exist: no byte from the host is lost to a change of the mode
    // between inputRoom() and here.
    for (const byte of data) this.#receive(byte, 0, FIFO_SIZE);
    this.#received();
  }

  inputBreak(): void {
    if (this.#state.mcr & MCR.LOOP) return;
    this.#receive(0, BREAK_ERRORS, FIFO_SIZE);
    this.#received();
  }

  writable(): void {
    if (this.#transmitter.length === 0) return;
    this.#transmitter.drainTo(this.#chardev);
    if (this.#transmitter.length === 0) this.#state.thrInterrupt = 1;
    this.#driveIrq();
  }

  timer(_index: number, nowNs: bigint): void {
    this.#timeout.timer(nowNs);
    this.#driveIrq();
  }

  restored(): void {
    const s = this.#state;
    s.ier &= 0x0f;
    s.fcr &= s.fcr & FCR.ENABLE ? FCR.KEPT : 0;
    s.mcr &= MCR.ALL;
    s.modemDeltas &= MSR.DELTAS;
    s.thrInterrupt &= 1;
    this.#receiver.normalise();
    this.#transmitter.normalise();
    this.#timeout.restored();
    s.irqLevel = Number(this.#interruptId() !== IIR.NONE);
    this.#interrupt.set(s.irqLevel === 1);
  }

  #readRbr(): number {
    const byte = this.#receiver.shift();
    this.#timeout.stop();
    if (this.#waitsBelowTrigger()) this.#startTimeout();
    this.#driveIrq();
    // Once per emptied FIFO, not once per byte: each call may wake the I/O thread.
    if (this.#receiver.length === 0) this.#chardev.acceptInput();
    return byte;
  }

  #readIir(): number {
    const id = this.#interruptId();
    if (id === IIR.THRE) {
      this.#state.thrInterrupt = 0;
      this.#driveIrq();
    }
    return id | (this.#state.fcr & FCR.ENABLE ? IIR_FIFOS : 0);
  }

  #readLsr(): number {
    const s = this.#state;
    const errors = this.#receiver.lineErrors;
    let lsr = errors;
    if (this.#receiver.length > 0) lsr |= LSR.DR;
    if (this.#transmitter.length === 0) lsr |= LSR.THRE | LSR.TEMT;
    if (s.fcr & FCR.ENABLE && this.#receiver.hasErrors) lsr |= LSR.FIFO;
    if (errors) {
      this.#receiver.forgetErrors();
      this.#driveIrq();
    }
    return lsr;
  }

  #readMsr(): number {
    const s = this.#state;
    const msr = this.#modemLines(s.mcr) | s.modemDeltas;
    if (s.modemDeltas) {
      s.modemDeltas = 0;
      this.#driveIrq();
    }
    return msr;
  }

  #writeThr(byte: number): void {
    const s = this.#state;
    // Low before high again: the interrupt controller needs an edge for the next THRE interrupt.
    s.thrInterrupt = 0;
    if (s.irqLevel) this.#driveIrq();
    if (s.mcr & MCR.LOOP) this.#loopBack(byte);
    else this.#transmit(byte);
    if (this.#transmitter.length === 0) s.thrInterrupt = 1;
    if (s.ier) this.#driveIrq();
  }

  #loopBack(byte: number): void {
    this.#receive(byte, 0, this.#capacity());
    this.#received();
  }

  #transmit(byte: number): void {
    const chardev = this.#chardev;
    if (this.#transmitter.length === 0) {
      this.#byte[0] = byte;
      if (chardev.write(this.#byte) === 1) return;
    } else if (this.#transmitter.room === 0) {
      this.#transmitter.drainTo(chardev);
    }
    // A byte written to a full transmitter, against LSR, is lost as on the chip.
    this.#transmitter.push(byte);
  }

  #writeIer(value: number): void {
    const s = this.#state;
    const enabled = value & ~s.ier;
    s.ier = value;
    if (enabled & IER.THRE && this.#transmitter.length === 0) s.thrInterrupt = 1;
    this.#ensureTimeout();
    this.#driveIrq();
  }

  #writeFcr(value: number): void {
    const s = this.#state;
    const on = value & FCR.ENABLE;
    const modeChange = on !== (s.fcr & FCR.ENABLE);
    // 8.5: without bit 0 the other bits are not programmed; a change of bit 0 clears both FIFOs.
    s.fcr = on ? value & FCR.KEPT : 0;
    if (modeChange || (on && value & FCR.CLEAR_TRANSMITTER)) {
      if (this.#transmitter.length > 0) s.thrInterrupt = 1;
      this.#transmitter.clear();
    }
    if (modeChange || (on && value & FCR.CLEAR_RECEIVER)) {
      this.#receiver.clear();
      this.#timeout.stop();
      this.#chardev.acceptInput();
    }
    this.#ensureTimeout();
    this.#driveIrq();
  }

  #writeLcr(value: number): void {
    const s = this.#state;
    const breakStarts = value & ~s.lcr & LCR.BREAK;
    s.lcr = value;
    // 8.1 bit 6 acts on SOUT alone, and 8.8 bit 4 takes SOUT out of the loop.
    if (breakStarts && !(s.mcr & MCR.LOOP)) this.#chardev.sendBreak();
  }

  #writeMcr(value: number): void {
    const s = this.#state;
    const before = this.#modemLines(s.mcr);
    const after = this.#modemLines(value);
    // RI counts when it ends (TERI), the other three whenever they change.
    s.modemDeltas |= (((before ^ after) & ~MSR.RI) | (before & ~after & MSR.RI)) >> 4;
    const loopEnds = s.mcr & ~value & MCR.LOOP;
    s.mcr = value;
    this.#driveIrq();
    if (loopEnds) this.#chardev.acceptInput();
  }

  /** MSR's upper half: our own outputs in loopback (8.8), else a peer that is always ready. */
  #modemLines(mcr: number): number {
    if (!(mcr & MCR.LOOP)) return MSR.DCD | MSR.DSR | MSR.CTS;
    return (mcr & MCR.DTR ? MSR.DSR : 0) | (mcr & MCR.RTS ? MSR.CTS : 0) |
      (mcr & MCR.OUT1 ? MSR.RI : 0) | (mcr & MCR.OUT2 ? MSR.DCD : 0);
  }

  /** Bytes that the receiver holds in its present mode. */
  #capacity(): number {
    return this.#state.fcr & FCR.ENABLE ? FIFO_SIZE : 1;
  }

  #receive(byte: number, errors: number, capacity: number): void {
    this.#receiver.receive(byte, errors, capacity, (this.#state.fcr & FCR.ENABLE) !== 0);
  }

  /** After bytes came: a timeout that has not come yet counts from the latest of them. */
  #received(): void {
    if (this.#waitsBelowTrigger() && !this.#timeout.due) this.#startTimeout();
    this.#driveIrq();
  }

  /** Whether there are bytes that only the timeout reports; a guest that polls needs none. */
  #waitsBelowTrigger(): boolean {
    const { ier, fcr } = this.#state;
    if (!(fcr & FCR.ENABLE && ier & IER.RDA)) return false;
    const { length } = this.#receiver;
    return length > 0 && length < TRIGGERS[fcr >> 6];
  }

  #startTimeout(): void {
    this.#timeout.start(this.#state.divisor, this.#state.lcr);
  }

  /** After a mode change: bytes that have become the timeout's to report. */
  #ensureTimeout(): void {
    if (this.#timeout.idle && this.#waitsBelowTrigger()) this.#startTimeout();
  }

  #interruptId(): number {
    const { ier, fcr, thrInterrupt, modemDeltas } = this.#state;
    if (ier & IER.RLS && this.#receiver.lineErrors) return IIR.RLS;
    if (ier & IER.RDA && this.#receiver.length > 0) {
      const trigger = fcr & FCR.ENABLE ? TRIGGERS[fcr >> 6] : 1;
      if (this.#receiver.length >= trigger) return IIR.RDA;
      if (this.#timeout.due) return IIR.TIMEOUT;
    }
    if (ier & IER.THRE && thrInterrupt) return IIR.THRE;
    if (ier & IER.MS && modemDeltas) return IIR.MS;
    return IIR.NONE;
  }

  /** OUT2 does not gate the line, as in QEMU. */
  #driveIrq(): void {
    const level = Number(this.#interruptId() !== IIR.NONE);
    if (level === this.#state.irqLevel) return;
    this.#state.irqLevel = level;
    this.#interrupt.set(level === 1);
  }
}

/** The address and interrupt that `index` stands for. */
function port(properties: Properties): typeof PORTS[number] {
  const found = PORTS[Number(properties.index ?? 0)];
  if (!found) throw new RangeError("Max. supported number of ISA serial ports is 4");
  return found;
}

/** The `isa-serial` device type. */
export const isaSerial: DeviceType = defineDevice({
  name: "isa-serial",
  help: "16550A serial port",
  user: true,
  properties: {
    chardev: { type: "chardev", help: "ID of a chardev to use as a backend" },
    index: { type: "uint32", help: "COM port, 0 to 3, that gives iobase and irq (default: 0)" },
    iobase: { type: "uint32", help: "first of its 8 I/O ports" },
    irq: { type: "uint32", help: "interrupt, 0 to 15" },
  },
  version: 1,
  state,
  ranges: (properties) => [{
    space: "pio",
    base: isaPort("iobase", properties.iobase ?? port(properties).iobase, 8),
    size: 8,
    name: "serial",
  }],
  irqs: (properties) => [isaIrq("irq", properties.irq ?? port(properties).irq)],
  timers: 1,
  create: (view, context) => new Serial(view, context),
});

/**
 * `isa-serial`: a National PC16550D UART at an ISA address.
 *
 * Register and section numbers are those of the PC16550D data sheet (National, June 1995). The line
 * is infinitely fast: a byte written to THR is with the host before the next instruction, and the
 * character timeout of the receiver FIFO, four character times on a real line, is over at once.
 * Only a host that takes no bytes makes the transmitter wait, which the guest sees in LSR.
 *
 * @module
 */
import { struct, u16, u8, type View } from "../ffi/struct.ts";
import { ByteFifo, byteFifo } from "./byte_fifo.ts";
import {
  defineDevice,
  type Device,
  type DeviceContext,
  type DeviceType,
  type PropertyValue,
} from "./device.ts";
import { ByteDevice, isaIrq, isaPort } from "./isa.ts";

/** IER bits (8.7): receiver data, transmitter holding register empty, line status, modem status. */
const IER = { RDA: 0x01, THRE: 0x02, RLS: 0x04, MS: 0x08 } as const;
/** Interrupt identification (8.6, table IV), highest priority first. */
const IIR = { RLS: 0x06, RDA: 0x04, TIMEOUT: 0x0c, THRE: 0x02, MS: 0x00, NONE: 0x01 } as const;
/** IIR bits that say the FIFOs are on. */
const IIR_FIFOS = 0xc0;
/** FCR bits (8.5); trigger level in the two highest. */
const FCR = { ENABLE: 0x01, CLEAR_RECEIVER: 0x02, CLEAR_TRANSMITTER: 0x04, KEPT: 0xc9 } as const;
/** LCR bits (8.1). */
const LCR = { BREAK: 0x40, DLAB: 0x80 } as const;
/** MCR bits (8.8). */
const MCR = { DTR: 0x01, RTS: 0x02, OUT1: 0x04, OUT2: 0x08, LOOP: 0x10, ALL: 0x1f } as const;
/** LSR bits (8.4). */
const LSR = { DR: 0x01, OE: 0x02, FE: 0x08, BI: 0x10, THRE: 0x20, TEMT: 0x40, FIFO: 0x80 } as const;
const LSR_ERRORS = 0x1e;
/** MSR bits (8.9); each delta is its line shifted right by four. */
const MSR = { CTS: 0x10, DSR: 0x20, RI: 0x40, DCD: 0x80, DELTAS: 0x0f } as const;

/** Receiver FIFO trigger levels in bytes, by FCR bits 7 and 6. */
const TRIGGERS = [1, 4, 8, 14];
const FIFO_SIZE = 16;
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
  /** OE, PE, FE and BI as LSR shows them until it is read. */
  lineErrors: u8,
  /** The low half of MSR until it is read. */
  modemDeltas: u8,
  /** THR has become empty and neither IIR nor THR was touched since. */
  thrInterrupt: u8,
  irqLevel: u8,
  divisor: u16,
  receiver: byteFifo(FIFO_SIZE),
  /** The LSR errors of each byte in `receiver`. */
  receiverErrors: byteFifo(FIFO_SIZE),
  /**
   * Bytes that the host has not taken. All 16 places serve in 16450 mode too: guests that write
   * without looking at LSR, as early boot code does, then outlive a short stall of the host.
   */
  transmitter: byteFifo(FIFO_SIZE),
});

class Serial extends ByteDevice implements Device {
  readonly #state: View<typeof state.fields>;
  readonly #context: DeviceContext;
  readonly #receiver: ByteFifo;
  readonly #errors: ByteFifo;
  readonly #transmitter: ByteFifo;
  readonly #byte = new Uint8Array(1);

  constructor(view: View<typeof state.fields>, context: DeviceContext) {
    super();
    this.#state = view;
    this.#context = context;
    this.#receiver = new ByteFifo(view.receiver);
    this.#errors = new ByteFifo(view.receiverErrors);
    this.#transmitter = new ByteFifo(view.transmitter);
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
      s.lineErrors =
      s.modemDeltas =
      s.thrInterrupt =
        0;
    s.divisor = POWER_ON_DIVISOR;
    this.#clearReceiver();
    this.#transmitter.clear();
    this.#driveIrq();
    this.#context.chardev.acceptInput();
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
    this.#driveIrq();
  }

  inputBreak(): void {
    if (this.#state.mcr & MCR.LOOP) return;
    this.#receive(0, BREAK_ERRORS, FIFO_SIZE);
    this.#driveIrq();
  }

  writable(): void {
    if (this.#transmitter.length === 0) return;
    this.#transmitter.drainTo(this.#context.chardev);
    if (this.#transmitter.length === 0) this.#state.thrInterrupt = 1;
    this.#driveIrq();
  }

  restored(): void {
    const s = this.#state;
    s.ier &= 0x0f;
    s.fcr &= s.fcr & FCR.ENABLE ? FCR.KEPT : 0;
    s.mcr &= MCR.ALL;
    s.lineErrors &= LSR_ERRORS;
    s.modemDeltas &= MSR.DELTAS;
    s.thrInterrupt &= 1;
    this.#receiver.normalise();
    this.#errors.normalise();
    this.#transmitter.normalise();
    if (this.#errors.length !== this.#receiver.length) {
      this.#errors.clear();
      for (let i = 0; i < this.#receiver.length; i++) this.#errors.push(0);
    }
    s.irqLevel = Number(this.#interruptId() !== IIR.NONE);
    this.#context.setIrq(s.irqLevel === 1);
  }

  #readRbr(): number {
    const byte = this.#receiver.shift();
    this.#errors.shift();
    this.#exposeErrors();
    this.#driveIrq();
    // Once per emptied FIFO, not once per byte: each call may wake the I/O thread.
    if (this.#receiver.length === 0) this.#context.chardev.acceptInput();
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
    let lsr = s.lineErrors;
    if (this.#receiver.length > 0) lsr |= LSR.DR;
    if (this.#transmitter.length === 0) lsr |= LSR.THRE | LSR.TEMT;
    if (s.fcr & FCR.ENABLE && this.#errorsQueued()) lsr |= LSR.FIFO;
    if (s.lineErrors) {
      s.lineErrors = 0;
      this.#errors.put(0, 0);
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
    if (s.mcr & MCR.LOOP) this.#receive(byte, 0, this.#capacity());
    else this.#transmit(byte);
    if (this.#transmitter.length === 0) s.thrInterrupt = 1;
    if (s.ier) this.#driveIrq();
  }

  #transmit(byte: number): void {
    const { chardev } = this.#context;
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
      this.#clearReceiver();
      this.#context.chardev.acceptInput();
    }
    this.#driveIrq();
  }

  #writeLcr(value: number): void {
    const s = this.#state;
    const breakStarts = value & ~s.lcr & LCR.BREAK;
    s.lcr = value;
    if (!breakStarts) return;
    if (s.mcr & MCR.LOOP) {
      this.#receive(0, BREAK_ERRORS, this.#capacity());
      this.#driveIrq();
    } else {
      this.#context.chardev.sendBreak();
    }
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
    if (loopEnds) this.#context.chardev.acceptInput();
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
    if (this.#receiver.length >= capacity) {
      this.#state.lineErrors |= LSR.OE;
      // 8.4 bit 1: a full FIFO keeps what it has, RBR alone is overwritten.
      if (this.#state.fcr & FCR.ENABLE) return;
      this.#receiver.put(this.#receiver.length - 1, byte);
      this.#errors.put(this.#receiver.length - 1, errors);
    } else {
      this.#receiver.push(byte);
      this.#errors.push(errors);
    }
    if (this.#receiver.length === 1) this.#exposeErrors();
  }

  /** Errors show in LSR when their byte comes to the top of the FIFO (8.4). */
  #exposeErrors(): void {
    if (this.#receiver.length > 0) this.#state.lineErrors |= this.#errors.at(0) & LSR_ERRORS;
  }

  #errorsQueued(): boolean {
    for (let i = 0; i < this.#receiver.length; i++) if (this.#errors.at(i)) return true;
    return false;
  }

  #clearReceiver(): void {
    this.#receiver.clear();
    this.#errors.clear();
  }

  #interruptId(): number {
    const { ier, fcr, lineErrors, thrInterrupt, modemDeltas } = this.#state;
    if (ier & IER.RLS && lineErrors) return IIR.RLS;
    if (ier & IER.RDA && this.#receiver.length > 0) {
      const trigger = fcr & FCR.ENABLE ? TRIGGERS[fcr >> 6] : 1;
      return this.#receiver.length >= trigger ? IIR.RDA : IIR.TIMEOUT;
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
    this.#context.setIrq(level === 1);
  }
}

/** The address and interrupt that `index` stands for. */
function port(properties: Readonly<Record<string, PropertyValue>>): typeof PORTS[number] {
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
  create: (view, context) => new Serial(view, context),
});

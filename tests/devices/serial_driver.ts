/**
 * The PC16550D as a guest's driver knows it: registers and bits by Linux's names (serial_reg.h) without the
 * prefix. They are written down apart from the device's own, so that a wrong one there shows.
 *
 * @module
 */

import { isaSerial } from "../../devices/isa/serial.ts";
import { deviceTest, type Rig } from "./fake_context.ts";

export const THR = 0, RBR = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6;
export const SCR = 7;
/** Divisor latch, low and high, while LCR_DLAB is set. */
export const DLL = 0, DLM = 1;

export const IER_RDI = 0x01, IER_THRI = 0x02, IER_RLSI = 0x04, IER_MSI = 0x08;
export const IER_ALL = IER_RDI | IER_THRI | IER_RLSI | IER_MSI;

export const IIR_MSI = 0x00, IIR_NO_INT = 0x01, IIR_THRI = 0x02, IIR_RDI = 0x04, IIR_RLSI = 0x06;
export const IIR_RX_TIMEOUT = 0x0c;
/** Set in IIR while the FIFOs are on. */
export const IIR_FIFOS = 0xc0;

export const FCR_ENABLE_FIFO = 0x01, FCR_CLEAR_RCVR = 0x02, FCR_CLEAR_XMIT = 0x04;
export const FCR_TRIGGER_4 = 0x40, FCR_TRIGGER_8 = 0x80, FCR_TRIGGER_14 = 0xc0;

/** Eight data bits, no parity, one stop bit. */
export const LCR_8N1 = 0x03;
export const LCR_PARITY = 0x08, LCR_EPAR = 0x10, LCR_SBC = 0x40, LCR_DLAB = 0x80;

export const MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10;
export const MCR_ALL = 0x1f;

export const LSR_DR = 0x01, LSR_OE = 0x02, LSR_FE = 0x08, LSR_BI = 0x10, LSR_THRE = 0x20;
export const LSR_FIFOE = 0x80;
/** THR is empty, and the shift register behind it (TEMT). */
export const LSR_IDLE = LSR_THRE | 0x40;

export const MSR_DCTS = 0x01, MSR_DDSR = 0x02, MSR_TERI = 0x04, MSR_DDCD = 0x08;
export const MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80;
export const MSR_LINES = MSR_CTS | MSR_DSR | MSR_RI | MSR_DCD;
/** The lines that a host which is always there holds. */
export const MSR_HOST = MSR_CTS | MSR_DSR | MSR_DCD;

/** A test of the UART, run in every way a device can be run. */
export const serialTest = (name: string, run: (rig: Rig) => void) =>
  deviceTest(name, isaSerial, run);

/** Text as the bytes on the line. */
export const bytes = (text: string) => [...text].map((char) => char.charCodeAt(0));

/** All bytes that have been received. */
export function readAll(rig: Rig): number[] {
  const read: number[] = [];
  while (rig.read(LSR) & LSR_DR) read.push(rig.read(RBR));
  return read;
}

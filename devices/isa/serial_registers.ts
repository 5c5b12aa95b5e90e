/**
 * The PC16550D's register bits and times, by the sections of its data sheet (National, June 1995).
 *
 * @module
 */

/** IER bits (8.7): receiver data, transmitter holding register empty, line status, modem status. */
export const IER = { RDA: 0x01, THRE: 0x02, RLS: 0x04, MS: 0x08 } as const;

/** Interrupt identification (8.6, table IV), highest priority first. */
export const IIR = {
  RLS: 0x06,
  RDA: 0x04,
  TIMEOUT: 0x0c,
  THRE: 0x02,
  MS: 0x00,
  NONE: 0x01,
} as const;

/** IIR bits that say the FIFOs are on. */
export const IIR_FIFOS = 0xc0;

/** FCR bits (8.5); trigger level in the two highest. */
export const FCR = {
  ENABLE: 0x01,
  CLEAR_RECEIVER: 0x02,
  CLEAR_TRANSMITTER: 0x04,
  KEPT: 0xc9,
} as const;

/** Receiver FIFO trigger levels in bytes, by FCR bits 7 and 6. */
export const TRIGGERS: readonly number[] = [1, 4, 8, 14];

/** LCR bits (8.1); the two lowest say how many data bits there are above five. */
export const LCR = {
  DATA_BITS: 0x03,
  STOP_BITS: 0x04,
  PARITY: 0x08,
  BREAK: 0x40,
  DLAB: 0x80,
} as const;

/** MCR bits (8.8). */
export const MCR = {
  DTR: 0x01,
  RTS: 0x02,
  OUT1: 0x04,
  OUT2: 0x08,
  LOOP: 0x10,
  ALL: 0x1f,
} as const;

/** LSR bits (8.4). */
export const LSR = {
  DR: 0x01,
  OE: 0x02,
  FE: 0x08,
  BI: 0x10,
  THRE: 0x20,
  TEMT: 0x40,
  FIFO: 0x80,
} as const;

/** LSR bits that belong to received bytes: OE, PE, FE and BI. */
export const LSR_ERRORS = 0x1e;

/** MSR bits (8.9); each delta is its line shifted right by four. */
export const MSR = { CTS: 0x10, DSR: 0x20, RI: 0x40, DCD: 0x80, DELTAS: 0x0f } as const;

/** Crystal of a PC's serial ports in Hz (8.3); a bit takes 16 × divisor of its periods. */
const CLOCK_HZ = 1_843_200n;

/**
 * Nanoseconds that one character takes on the line: start bit, data, parity and stop bits.
 *
 * @param divisor the divisor latch; 0, with which the chip does not run, counts as 1
 * @param lcr the line control register
 */
export function characterNs(divisor: number, lcr: number): bigint {
  const dataBits = 5 + (lcr & LCR.DATA_BITS);
  const parityBits = lcr & LCR.PARITY ? 1 : 0;
  // 8.1 bit 2: one and a half stop bits for five data bits, two for more.
  const halfStopBits = lcr & LCR.STOP_BITS ? (dataBits === 5 ? 3 : 4) : 2;
  const halfBits = 2 * (1 + dataBits + parityBits) + halfStopBits;
  return BigInt(halfBits * 8 * (divisor || 1)) * 1_000_000_000n / CLOCK_HZ;
}

/**
 * What one x87, MMX or SSE instruction starts from and leaves, as a record that the processor itself
 * (`fpu_native.ts`) and the software CPU (`fpu_software.ts`) both take and overwrite.
 */
import { bytes, struct, u64 } from "../../../ffi/struct.ts";

/** A record; FXSAVE wants its image on 16 bytes. */
export const record = struct("record", {
  /** As FXSAVE64 stores it. */
  fxsave: bytes(512),
  /** The operand in memory. */
  memory: bytes(64),
  rax: u64,
  rcx: u64,
  rdx: u64,
  rflags: u64,
  /** 1 if the instruction raised an exception. */
  fault: u64,
  reserved: bytes(24),
});

/** Bytes of a record. */
export const RECORD_SIZE = 640;

/** Offsets in the FXSAVE image. */
export const FCW = 0, FSW = 2, FTW = 4, MXCSR = 24, ST = 32, XMM = 160;

/** A deterministic source of operands. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 1;
  }

  /** 32 random bits (xorshift32). */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor((this.next() / 2 ** 32) * limit);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)];
  }

  bits64(): bigint {
    return BigInt(this.next()) << 32n | BigInt(this.next());
  }
}

/** Significands that rounding, carries and borrows are likely to go wrong with. */
function significand(random: Random, bits: number): bigint {
  const all = (1n << BigInt(bits)) - 1n;
  const value = random.bits64() & all;
  switch (random.below(6)) {
    case 0:
      return 0n;
    case 1:
      return all - BigInt(random.below(3));
    case 2:
      return BigInt(random.below(4));
    case 3:
      return (1n << BigInt(random.below(bits))) & all;
    case 4:
      return (all << BigInt(random.below(bits))) & all;
    default:
      return value;
  }
}

/** An IEEE number: special ones, the ends of the range, those near 1, and any. */
function ieee(random: Random, exponentBits: number, fractionBits: number): bigint {
  const top = (1 << exponentBits) - 1;
  const bias = top >> 1;
  let exponent: number;
  switch (random.below(8)) {
    case 0:
      exponent = 0;
      break;
    case 1:
      exponent = top;
      break;
    case 2:
      exponent = 1 + random.below(3);
      break;
    case 3:
      exponent = top - 1 - random.below(3);
      break;
    case 4:
      exponent = random.below(top + 1);
      break;
    case 5:
      exponent = bias + random.below(70);
      break;
    default:
      exponent = bias - 4 + random.below(8);
  }
  const sign = BigInt(random.below(2));
  const fraction = significand(random, fractionBits);
  return ((sign << BigInt(exponentBits)) | BigInt(exponent)) << BigInt(fractionBits) | fraction;
}

export const single = (random: Random): number => Number(ieee(random, 8, 23));
export const double = (random: Random): bigint => ieee(random, 11, 52);

/** Ten bytes of the extended format; one in sixteen is an encoding that is no number. */
export function extended(random: Random): Uint8Array<ArrayBuffer> {
  const value = ieee(random, 15, 63);
  const out = new Uint8Array(10);
  const view = new DataView(out.buffer);
  const exponent = Number(value >> 63n);
  let fraction = value & (2n ** 63n - 1n);
  const integerBit = (exponent & 0x7fff) !== 0;
  if (random.below(16) === 0 ? !integerBit : integerBit) fraction |= 2n ** 63n;
  view.setBigUint64(0, fraction, true);
  view.setUint16(8, exponent, true);
  return out;
}

/** Whole numbers, small ones and the ends of their range more often than others. */
export function integer(random: Random, bits: number): bigint {
  const any = BigInt.asUintN(bits, random.bits64());
  switch (random.below(5)) {
    case 0:
      return BigInt.asUintN(bits, BigInt(random.below(9) - 4));
    case 1:
      return BigInt.asUintN(bits, (1n << BigInt(bits - 1)) + BigInt(random.below(5) - 2));
    case 2:
      return any >> BigInt(random.below(bits));
    default:
      return any;
  }
}

/** Fills memory with numbers of one kind. */
export function fill(random: Random, out: Uint8Array<ArrayBuffer>): void {
  const view = new DataView(out.buffer, out.byteOffset, out.length);
  const kind = random.below(6);
  for (let at = 0; at + 8 <= out.length; at += 8) {
    if (kind < 2) {
      view.setUint32(at, single(random), true);
      view.setUint32(at + 4, single(random), true);
    } else if (kind < 4) {
      view.setBigUint64(at, double(random), true);
    } else {
      const bits = random.pick([8, 16, 32, 64]);
      for (let i = 0; i < 64; i += bits) {
        const value = integer(random, bits);
        for (let byte = 0; byte < bits / 8; byte++) {
          out[at + i / 8 + byte] = Number(value >> BigInt(8 * byte) & 0xffn);
        }
      }
    }
  }
}

/** A record as text. */
export function describeRecord(bytes: Uint8Array<ArrayBuffer>): string {
  const view = record.view(bytes.buffer, bytes.byteOffset);
  const hex = (at: number, length: number) => bytes.slice(at, at + length).reverse().toHex();
  return [
    ...[
      `fcw ${hex(FCW, 2)}`,
      `fsw ${hex(FSW, 2)}`,
      `tags ${hex(FTW, 1)}`,
      `mxcsr ${hex(MXCSR, 4)}`,
    ],
    ...[`fop ${hex(6, 2)}`, `fip ${hex(8, 8)}`, `fdp ${hex(16, 8)}`],
    ...[0, 1, 2, 3, 4, 5, 6, 7].map((i) => `st${i} ${hex(ST + 16 * i, 10)}`),
    ...[0, 1, 2].map((i) => `xmm${i} ${hex(XMM + 16 * i, 16)}`),
    ...[`memory ${hex(512, 16)}`, `rax ${view.rax}`, `rcx ${view.rcx}`, `rdx ${view.rdx}`],
    ...[`flags ${view.rflags.toString(16)}`, `fault ${view.fault}`],
  ].join("\n");
}

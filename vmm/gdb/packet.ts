/**
 * Packets of gdb's Remote Serial Protocol (GDB manual, appendix E): `$data#checksum`, acknowledged by
 * `+` or asked for again by `-`; a byte 0x03 between packets interrupts.
 *
 * @module
 */
import { toBytes } from "../monitor/latin1.ts";

/** Longest packet that is taken, bytes: `PacketSize` in the reply to `qSupported`. */
export const MAX_PACKET = 0x4000;

const DOLLAR = 0x24;
const HASH = 0x23;
const ESCAPE = 0x7d;
const ESCAPE_XOR = 0x20;
const PLUS = 0x2b;
const MINUS = 0x2d;
const INTERRUPT = 0x03;
const CHECKSUM_DIGITS = 2;

/** What comes in. */
export type Incoming =
  | { readonly kind: "packet"; readonly data: Uint8Array }
  | { readonly kind: "interrupt" | "again" | "broken" };

/** Cuts a stream of bytes into packets. */
export class PacketReader {
  #packet: number[] | undefined;
  #checksum = "";
  #inChecksum = false;

  /**
   * Takes bytes.
   *
   * @throws {Error} if a packet is longer than {@linkcode MAX_PACKET}
   */
  *read(bytes: Uint8Array): Generator<Incoming> {
    for (const byte of bytes) {
      const incoming = this.#packet ? this.#goOn(this.#packet, byte) : this.#begin(byte);
      if (incoming) yield incoming;
    }
  }

  #begin(byte: number): Incoming | undefined {
    switch (byte) {
      case DOLLAR:
        this.#packet = [];
        return undefined;
      case INTERRUPT:
        return { kind: "interrupt" };
      case MINUS:
        return { kind: "again" };
    }
    // An acknowledgement (`+`), or noise.
    return undefined;
  }

  #goOn(packet: number[], byte: number): Incoming | undefined {
    if (this.#inChecksum) return this.#end(packet, byte);
    if (byte === HASH) this.#inChecksum = true;
    else if (byte === DOLLAR) packet.length = 0;
    else packet.push(byte);
    if (packet.length > MAX_PACKET) {
      throw new Error(`A packet of gdb's is longer than ${MAX_PACKET} bytes`);
    }
    return undefined;
  }

  #end(packet: number[], digit: number): Incoming | undefined {
    this.#checksum += String.fromCharCode(digit);
    if (this.#checksum.length < CHECKSUM_DIGITS) return undefined;
    const expected = this.#checksum.toLowerCase();
    this.#packet = undefined;
    this.#checksum = "";
    this.#inChecksum = false;
    if (hex(sum(packet), CHECKSUM_DIGITS) !== expected) return { kind: "broken" };
    return { kind: "packet", data: unescape(packet) };
  }
}

/** Bytes of a packet with this data; bytes that mean something in the protocol are escaped. */
export function encodePacket(data: string | Uint8Array): Uint8Array<ArrayBuffer> {
  const raw = typeof data === "string" ? toBytes(data) : data;
  const escaped: number[] = [];
  for (const byte of raw) {
    // `*` begins a run length.
    if (byte === DOLLAR || byte === HASH || byte === ESCAPE || byte === 0x2a) {
      escaped.push(ESCAPE, byte ^ ESCAPE_XOR);
    } else escaped.push(byte);
  }
  return Uint8Array.from([DOLLAR, ...escaped, HASH, ...toBytes(hex(sum(escaped), 2))]);
}

/** The acknowledgement of a packet, and of one whose checksum is wrong. */
export const ACKNOWLEDGE: Uint8Array<ArrayBuffer> = Uint8Array.of(PLUS);
export const REJECT: Uint8Array<ArrayBuffer> = Uint8Array.of(MINUS);

function sum(bytes: readonly number[]): number {
  return bytes.reduce((total, byte) => (total + byte) & 0xff, 0);
}

function unescape(bytes: readonly number[]): Uint8Array {
  const data: number[] = [];
  for (let i = 0; i < bytes.length; i++) {
    data.push(bytes[i] === ESCAPE ? (bytes[++i] ?? 0) ^ ESCAPE_XOR : bytes[i]);
  }
  return Uint8Array.from(data);
}

/** A number in hexadecimal, with zeros in front. */
export function hex(value: number | bigint, digits = 1): string {
  return value.toString(16).padStart(digits, "0");
}

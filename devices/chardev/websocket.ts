/**
 * WebSocket frames (RFC 6455) around a console's bytes, as a server.
 *
 * @module
 */
import type { DecodedInput } from "./telnet.ts";

const FIN = 0x80;
const MASKED = 0x80;
const RESERVED = 0x70;
const OPCODE = 0x0f;
const Opcode = { CONTINUATION: 0, TEXT: 1, BINARY: 2, CLOSE: 8, PING: 9, PONG: 10 } as const;
const CONTROL = 8;
/** The most bytes of a control frame, and of a frame whose length is one byte. */
export const SHORT_PAYLOAD = 125;
/** Length bytes that say that 2 or 8 bytes of length follow. */
const LENGTH_16 = 126, LENGTH_64 = 127;
/** Close status: the peer does not speak the protocol. */
const PROTOCOL_ERROR = 1002;

/** Puts up to {@linkcode SHORT_PAYLOAD} bytes into a frame. */
export function websocketFrame(
  payload: Uint8Array,
  opcode: number = Opcode.BINARY,
): Uint8Array<ArrayBuffer> {
  return Uint8Array.of(FIN | opcode, payload.length, ...payload);
}

/** The length of a frame's head, from its second byte. */
function headLength(second: number): number {
  const length = second & ~MASKED;
  return 2 + (length === LENGTH_16 ? 2 : length === LENGTH_64 ? 8 : 0) + 4;
}

/** Takes the data out of a client's frames. Text is taken as well: it is what people type by hand. */
export class WebSocketDecoder {
  /** The head of a frame, as far as it has come. */
  #head: number[] = [];
  /** Bytes of the frame that are still to come; only with a whole head. */
  #remaining = 0n;
  /** Bytes of the frame so far, which the mask goes by. */
  #position = 0;
  /** Payload of a control frame. */
  #control: number[] = [];
  #ended = false;

  /** Decodes some bytes. */
  decode(bytes: Uint8Array, out: DecodedInput): void {
    let at = 0;
    while (at < bytes.length && !this.#ended) {
      if (this.#isInHead) at = this.#takeHead(bytes, at, out);
      else at = this.#takePayload(bytes, at, out);
    }
  }

  /** In plain text where it is. */
  save(): string {
    const [head, control] = [this.#head, this.#control].map((part) =>
      Uint8Array.from(part).toHex()
    );
    return [head, this.#remaining, this.#position, control].join(",");
  }

  /** Goes on from what `save()` gave; from anything else as if nothing had come. */
  restore(text: string): void {
    const [, head, remaining, position, control] =
      /^((?:[0-9a-f]{2}){0,14}),([0-9]{1,20}),([0-3]),((?:[0-9a-f]{2}){0,125})$/.exec(text) ?? [];
    if (head === undefined) return;
    this.#head = [...Uint8Array.fromHex(head)];
    this.#remaining = BigInt(remaining);
    this.#position = Number(position);
    this.#control = [...Uint8Array.fromHex(control)];
  }

  get #isInHead(): boolean {
    return this.#head.length < 2 || this.#head.length < headLength(this.#head[1]);
  }

  get #opcode(): number {
    return this.#head[0] & OPCODE;
  }

  #takeHead(bytes: Uint8Array, at: number, out: DecodedInput): number {
    this.#head.push(bytes[at]);
    if (this.#isInHead) return at + 1;
    const [first, second] = this.#head;
    const length = second & ~MASKED;
    const wide = this.#head.slice(2, -4).reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
    this.#remaining = length < LENGTH_16 ? BigInt(length) : wide;
    this.#position = 0;
    const known = Object.values<number>(Opcode).includes(this.#opcode);
    const isLongControl = this.#opcode >= CONTROL && (length > SHORT_PAYLOAD || !(first & FIN));
    if (!known || first & RESERVED || !(second & MASKED) || isLongControl) this.#refuse(out);
    else if (this.#remaining === 0n) this.#finishFrame(out);
    return at + 1;
  }

  #takePayload(bytes: Uint8Array, at: number, out: DecodedInput): number {
    const rest = bytes.length - at;
    const length = this.#remaining < BigInt(rest) ? Number(this.#remaining) : rest;
    const mask = this.#head.slice(-4);
    const part = bytes.slice(at, at + length).map((byte, i) =>
      byte ^ mask[(this.#position + i) & 3]
    );
    this.#position = (this.#position + length) & 3;
    this.#remaining -= BigInt(length);
    if (this.#opcode >= CONTROL) this.#control.push(...part);
    else out.data(part);
    if (this.#remaining === 0n) this.#finishFrame(out);
    return at + length;
  }

  #finishFrame(out: DecodedInput): void {
    const opcode = this.#opcode;
    const payload = Uint8Array.from(this.#control);
    this.#head = [];
    this.#control = [];
    if (opcode === Opcode.PING) out.answer(websocketFrame(payload, Opcode.PONG));
    else if (opcode === Opcode.CLOSE) this.#end(payload.subarray(0, 2), out);
  }

  #refuse(out: DecodedInput): void {
    this.#end(Uint8Array.of(PROTOCOL_ERROR >> 8, PROTOCOL_ERROR & 0xff), out);
  }

  #end(status: Uint8Array, out: DecodedInput): void {
    this.#ended = true;
    out.answer(websocketFrame(status, Opcode.CLOSE));
    out.end();
  }
}

/**
 * The telnet protocol (RFC 854) around a console's bytes: what the server asks of a client so that
 * every key is sent at once, and its commands taken out of what the client sends.
 *
 * @module
 */

const IAC = 255;
const DONT = 254;
const DO = 253;
const WILL = 251;
const SB = 250;
const BREAK = 243;
const SE = 240;
/** Options: binary transmission, echo, suppress go-ahead (RFC 856 to 858). */
const BINARY = 0, ECHO = 1, SUPPRESS_GO_AHEAD = 3;

/** What is said to a peer at first: the same as QEMU says. */
export const telnetGreeting: Uint8Array<ArrayBuffer> = Uint8Array.of(
  ...[IAC, WILL, ECHO],
  ...[IAC, WILL, SUPPRESS_GO_AHEAD],
  ...[IAC, WILL, BINARY],
  ...[IAC, DO, BINARY],
);

/** Doubles the byte that would begin a command. */
export function escapeTelnet(data: Uint8Array): Uint8Array<ArrayBuffer> {
  return Uint8Array.from([...data].flatMap((byte) => byte === IAC ? [IAC, IAC] : [byte]));
}

/** Where the decoder is in a command. */
const State = { DATA: 0, COMMAND: 1, OPTION: 2, SUBNEGOTIATION: 3, SUBNEGOTIATION_IAC: 4 } as const;

/** What comes out of a decoder, in order. */
export interface DecodedInput {
  /** The peer's bytes. */
  data(bytes: Uint8Array): void;
  /** A break condition. */
  break(): void;
  /** The peer has said something that has to be answered, at once. */
  answer(bytes: Uint8Array<ArrayBuffer>): void;
  /** The peer ends the connection, or does not speak the protocol: nothing more comes. */
  end(): void;
}

/** Takes commands out of a client's bytes; options are not negotiated any further. */
export class TelnetDecoder {
  #state: number = State.DATA;

  /** Decodes some bytes. */
  decode(bytes: Uint8Array, out: DecodedInput): void {
    const data: number[] = [];
    for (const byte of bytes) {
      if (this.#state === State.DATA && byte !== IAC) data.push(byte);
      else if (this.#state === State.COMMAND && byte === BREAK) {
        if (data.length > 0) out.data(Uint8Array.from(data.splice(0)));
        out.break();
        this.#state = State.DATA;
      } else {
        if (this.#state === State.COMMAND && byte === IAC) data.push(IAC);
        this.#state = this.#next(byte);
      }
    }
    if (data.length > 0) out.data(Uint8Array.from(data));
  }

  /** In plain text where it is. */
  save(): string {
    return `${this.#state}`;
  }

  /** Goes on from what `save()` gave. */
  restore(text: string): void {
    const state = Number(text);
    this.#state = Object.values<number>(State).includes(state) ? state : State.DATA;
  }

  #next(byte: number): number {
    switch (this.#state) {
      case State.COMMAND:
        if (byte === SB) return State.SUBNEGOTIATION;
        return byte >= WILL && byte <= DONT ? State.OPTION : State.DATA;
      case State.SUBNEGOTIATION:
        return byte === IAC ? State.SUBNEGOTIATION_IAC : State.SUBNEGOTIATION;
      case State.SUBNEGOTIATION_IAC:
        return byte === SE ? State.DATA : State.SUBNEGOTIATION;
      case State.OPTION:
        return State.DATA;
      default:
        return State.COMMAND;
    }
  }
}

/**
 * What the lab's host and the agent inside say to each other: frames over one connection for each
 * command. A frame is a kind (1 byte), a length (4 bytes, little endian) and as many bytes.
 *
 *     host                              agent
 *       ── RUN, a Request as JSON ──────▶
 *       ── INPUT … INPUT_END ───────────▶   bytes for the command's stdin
 *       ◀── STDOUT, STDERR … ────────────   as they come
 *       ◀── ALIVE ───────────────────────   every few seconds, so that silence means trouble
 *       ◀── EXIT, an Outcome as JSON ────   the end
 *
 * Whoever closes the connection before EXIT ends the command and its process group.
 *
 * @module
 */

/** The kinds of frames. */
export const Kind = {
  RUN: 1,
  INPUT: 2,
  INPUT_END: 3,
  STDOUT: 4,
  STDERR: 5,
  ALIVE: 6,
  EXIT: 7,
} as const;

/** A frame. */
export interface Frame {
  readonly kind: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** A command to run. */
export interface Request {
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
}

/** How it ended: its exit status, or why there is none. */
export interface Outcome {
  readonly code: number;
  readonly error?: string;
}

/** Milliseconds between two ALIVE frames. */
export const ALIVE_INTERVAL_MS = 5_000;
/** No frame is longer than this, in bytes. */
export const MAX_LENGTH = 1 << 20;
const HEAD = 5;

/** The bytes of a frame. @throws {RangeError} if there is too much data for one */
export function encodeFrame(kind: number, data = new Uint8Array()): Uint8Array<ArrayBuffer> {
  if (data.length > MAX_LENGTH) throw new RangeError(`A frame of ${data.length} bytes is too long`);
  const bytes = new Uint8Array(HEAD + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, kind);
  view.setUint32(1, data.length, true);
  bytes.set(data, HEAD);
  return bytes;
}

/** The bytes of a frame that carries an object. */
export function encodeObject(kind: number, value: Request | Outcome): Uint8Array<ArrayBuffer> {
  return encodeFrame(kind, new TextEncoder().encode(JSON.stringify(value)));
}

/**
 * The frames of a stream of bytes, up to its end.
 *
 * @throws {Error} if a frame is cut short or says that it is longer than any
 */
export async function* readFrames(
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<Frame, void, void> {
  let rest = new Uint8Array();
  for await (const chunk of source) {
    const bytes = new Uint8Array(rest.length + chunk.length);
    bytes.set(rest);
    bytes.set(chunk, rest.length);
    const view = new DataView(bytes.buffer);
    let at = 0;
    while (bytes.length - at >= HEAD) {
      const length = view.getUint32(at + 1, true);
      if (length > MAX_LENGTH) throw new Error(`A frame says that it has ${length} bytes`);
      if (bytes.length - at < HEAD + length) break;
      const end = at + HEAD + length;
      yield { kind: view.getUint8(at), data: bytes.slice(at + HEAD, end) };
      at = end;
    }
    rest = bytes.slice(at);
  }
  if (rest.length > 0) throw new Error("The connection ended within a frame");
}

/** Writes whole frames, one after another, for several who write at once. */
export class FrameWriter {
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;

  constructor(stream: WritableStream<Uint8Array>) {
    this.#writer = stream.getWriter();
  }

  /** Writes the bytes of a frame; ends when there is room for more. */
  async write(frame: Uint8Array): Promise<void> {
    await this.#writer.write(frame);
  }

  /** Writes all that a stream gives, in frames of one kind. */
  async pump(kind: number, source: ReadableStream<Uint8Array>): Promise<void> {
    for await (const chunk of source) {
      for (let at = 0; at < chunk.length; at += MAX_LENGTH) {
        await this.write(encodeFrame(kind, chunk.slice(at, at + MAX_LENGTH)));
      }
    }
  }
}

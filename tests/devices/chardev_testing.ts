/** What the tests of character backends share: a frontend that records, and ways to wait. */
import type { CharacterEvent, CharacterFrontend } from "../../devices/chardev/backend.ts";
import type { ChardevHost } from "../../devices/chardev/open.ts";
import { pollFd, POLLIN, readFd, writeFd } from "../../ffi/fd.ts";

/** A frontend that keeps what it is given. */
export class Recorder implements CharacterFrontend {
  /** How many bytes it takes. */
  room = Infinity;
  readonly bytes: number[] = [];
  readonly events: CharacterEvent[] = [];
  writableCalls = 0;
  roomCalls = 0;
  /** Called by `writable()`. */
  onWritable = () => {};

  /** The input so far as text. */
  get text(): string {
    return new TextDecoder().decode(Uint8Array.from(this.bytes));
  }

  inputRoom(): number {
    this.roomCalls++;
    return this.room;
  }

  input(data: Uint8Array): void {
    if (data.length > this.room) throw new Error("More input than there is room for");
    this.room -= data.length;
    this.bytes.push(...data);
  }

  event(event: CharacterEvent): void {
    this.events.push(event);
  }

  writable(): void {
    this.writableCalls++;
    this.onWritable();
  }
}

/** A host that records what it is told. */
export class RecordingHost implements ChardevHost {
  readonly notices: string[] = [];
  quits = 0;

  notice(text: string): void {
    this.notices.push(text);
  }

  quit(): void {
    this.quits++;
  }
}

/** Waits until `condition` holds; a test that waits in vain fails after a minute. */
export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; !condition(); i++) {
    if (i === 60_000) throw new Error(`Waited in vain for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** The bytes of a text. */
export function encode(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

/** Writes a text, which must fit, to a descriptor. */
export function say(fd: number, text: string): void {
  const data = encode(text);
  if (writeFd(fd, data) !== data.length) throw new Error(`'${text}' does not fit`);
}

/** Reads `length` bytes as text, waiting for them on this thread. */
export function hear(fd: number, length: number): string {
  const buffer = new Uint8Array(length);
  for (let done = 0; done < length;) {
    pollFd(fd, POLLIN, 60_000);
    const n = readFd(fd, buffer.subarray(done));
    if (n <= 0) throw new Error(`Only ${done} of ${length} bytes came`);
    done += n;
  }
  return new TextDecoder().decode(buffer);
}

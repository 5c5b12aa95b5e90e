/**
 * What a successor answers on the main channel: a byte, and after {@linkcode Answer.ERROR} a text to
 * the end of the channel.
 *
 * @module
 */
import { setTimeouts } from "../../ffi/socket.ts";
import type { Channel } from "../channel/channel.ts";

/** The answers. */
export const Answer = {
  /** Everything is ready, the state may come. */
  READY: 0x52,
  /** The guest is here. */
  DONE: 0x44,
  /** The guest is not taken; the reason follows. */
  ERROR: 0x45,
} as const;

/** The longest error text that is read. */
const MAX_ERROR = 4096;
/** Milliseconds for the rest of an error text, which comes with the answer. */
const TEXT_LIMIT_MS = 100;

/** Reads the successor's answer. @throws {Error} with its reason, or because it is gone */
export function readAnswer(channel: Channel, expected: number): void {
  const [answer] = channel.source(1);
  if (answer === expected) return;
  if (answer === undefined) throw new Error("The new VMM has closed the migration channel");
  if (answer !== Answer.ERROR) throw new Error(`The new VMM answered 0x${answer.toString(16)}`);
  // The guest stands still meanwhile: a peer that never ends its text must not keep it waiting.
  setTimeouts(channel.fd.fd, TEXT_LIMIT_MS);
  const text = new TextDecoder().decode(channel.rest(MAX_ERROR));
  throw new Error(text || "The new VMM refused");
}

/** Tells the old VMM why its guest is not taken. If it is gone, the reason goes to our own user. */
export function refuse(channel: Channel, error: Error): void {
  answerIfThere(channel, Answer.ERROR, ...new TextEncoder().encode(error.message));
}

/** Tells the old VMM that its guest is here. If it is gone, the guest is ours all the same. */
export function answerDone(channel: Channel): void {
  answerIfThere(channel, Answer.DONE);
}

function answerIfThere(channel: Channel, ...bytes: number[]): void {
  try {
    channel.sink(Uint8Array.from(bytes));
  } catch {
    // Nobody is there to be told.
  }
}

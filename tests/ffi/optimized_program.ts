/**
 * Calls what is hot so often that V8 compiles it for good.
 *
 * @module
 */
import { drainEvent, makeEventfd, monotonicNow, signalEventfd } from "../../ffi/event.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { addressOf } from "../../ffi/memory.ts";
import { readTsc } from "../../ffi/tsc.ts";

const ROUNDS = 100_000;

const counter = new Uint32Array(2);
using event = makeEventfd();
const bytes = new Uint8Array(64);
const vector = new IoVector();
vector.push(Number(addressOf(bytes)), bytes.length);
const into = new Uint8Array(64);

for (let round = 0; round < ROUNDS; round++) {
  readTsc(counter);
  monotonicNow();
  signalEventfd(event.fd);
  drainEvent(event.fd);
  vector.copyOut(into);
}

/**
 * A mutex in shared memory, for device state that several threads touch (Drepper, "Futexes Are
 * Tricky", mutex 2: 0 free, 1 taken, 2 taken with waiters).
 *
 * @module
 */

/** Takes the mutex at `words[index]`, waiting for it if need be. */
export function lock(words: Int32Array<SharedArrayBuffer>, index: number): void {
  if (Atomics.compareExchange(words, index, 0, 1) === 0) return;
  while (Atomics.exchange(words, index, 2) !== 0) Atomics.wait(words, index, 2);
}

/** Frees the mutex and wakes one waiter. */
export function unlock(words: Int32Array<SharedArrayBuffer>, index: number): void {
  if (Atomics.exchange(words, index, 0) === 2) Atomics.notify(words, index, 1);
}

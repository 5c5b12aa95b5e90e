/**
 * Character devices on their way to a successor: a value for the state of each, and its descriptors.
 *
 * @module
 */
import type { ChardevState, KeptChardev } from "../devices/chardev/backend.ts";
import { describeKey, type HandedValue, type Inheritance } from "./inheritance.ts";

/** What a backend's state is handed over as; the id is the backend's. */
export const CHARDEV_STATE = "chardev";
/** What its descriptors are handed over as; the name in the backend follows. */
export const CHARDEV_FD = "chardev/";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** What a predecessor left of a backend. @throws {Error} if its state makes no sense */
export function takeKept(
  inheritance: Inheritance | undefined,
  id: string,
): KeptChardev | undefined {
  const data = inheritance?.takeValue(CHARDEV_STATE, id);
  if (!data) return undefined;
  const state = decodeState(id, data);
  return { state, fds: inheritance!.takeFds(CHARDEV_FD, id) };
}

/** Closes what a predecessor left of backends that there are none of here. */
export function closeUnused(inheritance: Inheritance): void {
  for (const { name, id, data } of inheritance.values) {
    if (name !== CHARDEV_STATE) continue;
    decodeState(id, data);
    inheritance.takeValue(CHARDEV_STATE, id);
    for (const fd of inheritance.takeFds(CHARDEV_FD, id).values()) fd.close();
  }
  for (const { name, id } of inheritance.fds) {
    if (!name.startsWith(CHARDEV_FD)) continue;
    throw new Error(`Character device ${describeKey(id, "")} has file descriptors but no state`);
  }
}

/** A backend's state as it is handed over. */
export function encodeState(id: string, state: ChardevState): HandedValue {
  return { name: CHARDEV_STATE, id, data: encoder.encode(JSON.stringify(state)) };
}

/** A backend's state as it was handed over. @throws {Error} if the bytes are none */
export function decodeState(id: string, data: Uint8Array): ChardevState {
  const what = `State of character device ${describeKey(id, "")}`;
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(data));
  } catch {
    throw new Error(`${what} is not JSON`);
  }
  const plain = typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.values(value).every((v) => ["string", "number", "boolean"].includes(typeof v));
  if (!plain) throw new Error(`${what} is not a plain object`);
  return value as ChardevState;
}

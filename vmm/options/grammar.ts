/**
 * QEMU's two grammars of option arguments, as lists of keys and values that mean nothing yet.
 *
 * Both read `key=value,key=value`; a doubled comma stands for a comma in a value, and where an
 * option has an *implied key*, the first value may stand without it (`-device loader,…`). They
 * differ in what a word without `=` is: *QemuOpts* takes `foo` as `foo=on` and `nofoo` as
 * `foo=off`, *keyval* refuses it; and keyval's keys are paths: `addr.type=unix`.
 *
 * @module
 */
import { OptionError } from "./error.ts";

/** A parsed but unchecked argument: text on the command line, or JSON. */
export interface RawOptions {
  /** Keys and values in the order given; of equal keys the last one counts. */
  readonly entries: ReadonlyMap<string, unknown>;
  /** Whether values have JSON's types; if not, all are strings to be converted. */
  readonly json: boolean;
  /** Whether `help` or `?` was asked for. */
  readonly help: boolean;
}

/** One `key=value`, or a word without `=`. */
interface Item {
  readonly key?: string;
  readonly value: string;
}

/** Splits at single commas; of `a,,b` remains `a,b`. A key ends at the first `=`. */
function splitItems(text: string): Item[] {
  const items: Item[] = [];
  let rest = text;
  while (rest !== "") {
    const key = /^([^=,]*)=/.exec(rest)?.[1];
    if (key !== undefined) rest = rest.slice(key.length + 1);
    const raw = /^(?:[^,]|,,)*/.exec(rest)![0];
    const value = raw.replaceAll(",,", ",");
    items.push(key === undefined ? { value } : { key, value });
    rest = rest.slice(raw.length + 1);
  }
  return items;
}

const isHelp = (word: string) => word === "help" || word === "?";

/** The entry that a word without `=` means in QemuOpts. */
function flag(word: string): [key: string, value: string] {
  return word.startsWith("no") ? [word.slice(2), "off"] : [word, "on"];
}

/**
 * Reads QemuOpts: `null,id=a,mux=on`.
 *
 * @param text the option's argument
 * @param impliedKey the key of a first value without one
 */
export function parseOpts(text: string, impliedKey?: string): RawOptions {
  const entries = new Map<string, unknown>();
  let help = false;
  splitItems(text).forEach(({ key, value }, index) => {
    if (key !== undefined) entries.set(key, value);
    else if (isHelp(value)) help = true;
    else if (index === 0 && impliedKey !== undefined) entries.set(impliedKey, value);
    else entries.set(...flag(value));
  });
  return { entries, json: false, help };
}

/**
 * Reads an argument that is either a JSON object or QemuOpts, as `-object` and `-device` take.
 *
 * @throws OptionError if it starts like JSON and is none
 */
export function parseJsonOrOpts(text: string, impliedKey: string): RawOptions {
  return text.startsWith("{") ? fromJson(parseJson(text)) : parseOpts(text, impliedKey);
}

/** A JSON object as options, from text or from a QMP command. */
export function fromJson(object: Readonly<Record<string, unknown>>): RawOptions {
  return { entries: new Map(Object.entries(object)), json: true, help: false };
}

/** A JSON object. @throws OptionError if the text is none */
export function parseJson(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new OptionError(`JSON parse error, ${(error as Error).message}`);
  }
}

/** What keyval text means: text, or nested objects and lists of it. */
export type Keyval = string | Keyval[] | KeyvalObject;

/** Values by key. */
export interface KeyvalObject {
  /** The value of a key. */
  [key: string]: Keyval;
}

/** One step of a dotted key: a name or a list index. */
const KEY_STEP = /^(?:[A-Za-z][A-Za-z0-9_-]*|[0-9]+)$/;

function keyPath(key: string): string[] {
  const path = key.split(".");
  if (!path.every((step) => KEY_STEP.test(step)) || /^[0-9]/.test(key)) {
    throw new OptionError(`Invalid parameter '${key}'`);
  }
  return path;
}

/** Objects without a prototype, so that no key that a user types can mean anything. */
const emptyObject = (): KeyvalObject => Object.create(null);

const isObject = (value: Keyval | undefined): value is KeyvalObject =>
  typeof value === "object" && !Array.isArray(value);

/** Puts a value at its path; an object and a plain value cannot have the same key. */
function place(root: KeyvalObject, path: readonly string[], value: string): void {
  let object = root;
  path.forEach((step, depth) => {
    const last = depth === path.length - 1;
    const found = object[step];
    if (found !== undefined && isObject(found) === last) {
      throw new OptionError(
        `Parameters '${path.slice(0, depth + 1).join(".")}.*' used inconsistently`,
      );
    }
    if (last) object[step] = value;
    else object = (found ?? (object[step] = emptyObject())) as KeyvalObject;
  });
}

/** Turns objects whose keys are all numbers into lists, from the leaves up. */
function listify(object: KeyvalObject, prefix: string): Keyval {
  for (const [key, value] of Object.entries(object)) {
    if (isObject(value)) object[key] = listify(value, `${prefix}${key}.`);
  }
  const keys = Object.keys(object);
  const indices = keys.filter((key) => /^[0-9]/.test(key)).length;
  if (indices === 0) return object;
  if (indices < keys.length) {
    throw new OptionError(`Parameters '${prefix}*' used inconsistently`);
  }
  return keys.map((_, index) => {
    const value = object[String(index)];
    if (value === undefined) throw new OptionError(`Parameter '${prefix}${index}' missing`);
    return value;
  });
}

/**
 * Reads keyval: `channel-type=cpr,addr.transport=socket,addr.type=unix,addr.path=x`.
 *
 * @param text the option's argument
 * @param impliedKey the key of a first value without one
 * @returns nested objects and lists of strings, made from dotted keys; objects have no prototype
 * @throws OptionError on a word without `=`, a malformed key, or keys that contradict each other
 */
export function parseKeyval(text: string, impliedKey?: string): KeyvalObject {
  return parseKeyvalHelp(text, impliedKey).values;
}

/** {@linkcode parseKeyval}, which also tells whether `help` was asked for. */
export function parseKeyvalHelp(
  text: string,
  impliedKey?: string,
): { values: KeyvalObject; help: boolean } {
  const values = emptyObject();
  let help = false;
  splitItems(text).forEach(({ key, value }, index) => {
    if (key !== undefined) place(values, keyPath(key), value);
    else if (isHelp(value)) help = true;
    else if (index === 0 && impliedKey !== undefined && value !== "") values[impliedKey] = value;
    else if (value === "") throw new OptionError(`Invalid parameter ''`);
    else throw new OptionError(`Expected '=' after parameter '${value}'`);
  });
  return { values: listify(values, "") as KeyvalObject, help };
}

/**
 * `-m`, and how it goes together with the machine's memory backend.
 *
 * @module
 */
import { defaultConfig } from "../config.ts";
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { parseKeyval, parseOpts } from "./grammar.ts";
import { readOptions } from "./schema.ts";
import { parseSize } from "./values.ts";

const MIB = 2 ** 20;

/** What QEMU's `-numa` can be about. */
const NUMA_TYPES = ["node", "dist", "cpu", "hmat-lb", "hmat-cache"];

/** QEMU rounds the size of RAM up to this. */
const GRANULE = 8192;

/** Reads the size of RAM; a number without a suffix is in MiB. */
function readMemory(text: string): number {
  const size = parseSize(text) * (/^(\d+|0x[0-9a-f]+)$/i.test(text) ? MIB : 1);
  const rounded = Math.ceil(size / GRANULE) * GRANULE;
  if (!Number.isSafeInteger(rounded)) throw new OptionError("ram size too large");
  return rounded || defaultConfig().memory;
}

/**
 * Checks the room for memory that is plugged in later: there is none to plug, so it stays empty.
 *
 * @throws OptionError in QEMU's words
 */
function checkHotplug(slots: number, maxmem: string | undefined, bytes: number): void {
  if (maxmem === undefined) {
    if (slots > 0) throw new OptionError("slots specified but no max-size");
    return;
  }
  const most = readMemory(maxmem);
  const hex = (value: number) => `0x${value.toString(16)}`;
  const fail = (reason: string) => {
    throw new OptionError(`invalid value of maxmem: ${reason}`);
  };
  if (most < bytes) {
    fail(
      `maximum memory size (${hex(most)}) must be at least the initial memory size (${hex(bytes)})`,
    );
  }
  if (most === bytes && slots > 0) {
    fail(
      `memory slots were specified but maximum memory size (${
        hex(most)
      }) is equal to the initial memory size (${hex(bytes)})`,
    );
  }
}

/** `-m [size=]SIZE[,slots=N][,maxmem=SIZE]`; 0 is the default size. */
export function memory(text: string, draft: Draft): void {
  const { size, slots = 0, maxmem } = readOptions(parseOpts(text, "size"), {
    size: "string",
    slots: "uint64",
    maxmem: "string",
  });
  if (size === undefined) {
    checkHotplug(slots, maxmem, draft.config.memory);
    if (maxmem !== undefined) return;
    throw new OptionError("missing 'size' option value");
  }
  const bytes = readMemory(size);
  checkHotplug(slots, maxmem, bytes);
  draft.memory = bytes;
  draft.config.memory = bytes;
  // Only once all options are read is the backend known, and whether this is the last -m.
  draft.later("check", () => {
    const backend = findBackend(draft);
    if (draft.memory === bytes && backend && backend.size !== bytes) {
      throw new OptionError("Machine memory size does not match the size of the memory backend");
    }
  });
}

/** `-numa`, of which there is nothing. @throws OptionError in QEMU's words */
export function numa(text: string): void {
  const { type, ...rest } = parseKeyval(text, "type");
  if (type === undefined) throw new OptionError("Parameter 'type' is missing");
  if (!NUMA_TYPES.includes(String(type))) {
    throw new OptionError(`Parameter 'type' does not accept value '${type}'`);
  }
  const { memdev } = rest;
  throw new OptionError(
    "NUMA is not supported by this machine-type: all CPUs and all memory are one node" +
      (memdev === undefined ? "" : `, whose memory is -machine memory-backend=${memdev}`),
  );
}

/** `-mem-path FILE` */
export function memPath(text: string, draft: Draft): void {
  draft.config.memPath = text;
  draft.later("check", () => {
    if (draft.config.machine.memoryBackend === undefined) return;
    throw new OptionError("'-mem-path' can't be used together with '-machine memory-backend'");
  });
}

function findBackend({ config }: Draft) {
  return config.objects.find(({ id }) => id === config.machine.memoryBackend);
}

/**
 * Finds the machine's memory backend and takes over its size where `-m` did not give one.
 *
 * @throws OptionError if there is no such backend
 */
export function resolveMemory(draft: Draft): void {
  const { config } = draft;
  const id = config.machine.memoryBackend;
  if (id === undefined) return;
  const backend = findBackend(draft);
  if (!backend) {
    throw new OptionError(`-machine memory-backend=${id}: Memory backend '${id}' not found`, true);
  }
  if (draft.memory === undefined) config.memory = backend.size;
}

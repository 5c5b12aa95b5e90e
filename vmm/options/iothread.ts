/**
 * The object `iothread`: a thread that works for the devices which name it.
 *
 * @module
 */
import type { IoThreadConfig } from "../config.ts";
import { OptionError } from "./error.ts";
import type { RawOptions } from "./grammar.ts";
import { objectProperties, type ObjectType } from "./object_type.ts";
import { readOptions } from "./schema.ts";

/** QEMU's default. */
const POLL_MAX_NS = 32768;
/** QEMU's default, and the most that it takes. */
const POOL_MAX = 64;

function read(options: RawOptions): IoThreadConfig {
  const values = readOptions(
    options,
    {
      ...objectProperties,
      "aio-max-batch": "uint64",
      "poll-grow": "uint64",
      "poll-max-ns": "uint64",
      "poll-shrink": "uint64",
      "poll-weight": "uint64",
      "thread-pool-max": "uint64",
      "thread-pool-min": "uint64",
    } as const,
  );
  const poolMax = values["thread-pool-max"] ?? POOL_MAX;
  if (poolMax === 0 || (values["thread-pool-min"] ?? 0) > poolMax) {
    throw new OptionError("bad thread-pool-min/thread-pool-max values");
  }
  return {
    qomType: "iothread",
    id: String(values.id),
    aioMaxBatch: values["aio-max-batch"] ?? 0,
    pollGrow: values["poll-grow"] ?? 0,
    pollMaxNs: values["poll-max-ns"] ?? POLL_MAX_NS,
    pollShrink: values["poll-shrink"] ?? 0,
    pollWeight: values["poll-weight"] ?? 0,
  };
}

/** The type of objects. */
export const iothreadType: ObjectType = {
  name: "iothread",
  properties: [
    { name: "aio-max-batch", type: "int", help: "told by query-iothreads" },
    { name: "poll-grow", type: "int", help: "told by query-iothreads" },
    { name: "poll-max-ns", type: "int", help: "told by query-iothreads" },
    { name: "poll-shrink", type: "int", help: "told by query-iothreads" },
    { name: "poll-weight", type: "int", help: "told by query-iothreads" },
    { name: "thread-pool-max", type: "int", help: "without effect" },
    { name: "thread-pool-min", type: "int", help: "without effect" },
  ],
  read,
};

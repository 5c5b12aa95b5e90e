/**
 * Objects that are sources of random numbers: `rng-random`, which reads a file, and `rng-builtin`.
 *
 * @module
 */
import type { RngConfig } from "../config.ts";
import type { RawOptions } from "./grammar.ts";
import { objectProperties, type ObjectType } from "./object_type.ts";
import { readOptions } from "./schema.ts";

/** QEMU's default. */
const RANDOM_FILE = "/dev/urandom";

function readBuiltin(options: RawOptions): RngConfig {
  const { id } = readOptions(options, objectProperties);
  return { qomType: "rng-builtin", id: String(id) };
}

function readRandom(options: RawOptions): RngConfig {
  const schema = { ...objectProperties, filename: "string" } as const;
  const { id, filename = RANDOM_FILE } = readOptions(options, schema);
  return { qomType: "rng-random", id: String(id), filename };
}

/** The sources, as types of objects. */
export const rngTypes: readonly ObjectType[] = [
  { name: "rng-builtin", properties: [], read: readBuiltin },
  {
    name: "rng-random",
    properties: [{ name: "filename", type: "string", help: "file to read from" }],
    read: readRandom,
  },
];

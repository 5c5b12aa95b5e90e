/**
 * What a type of objects is to `-object` and `object-add`.
 *
 * @module
 */
import type { ObjectConfig } from "../config.ts";
import type { RawOptions } from "./grammar.ts";
import type { PropertyLine } from "./property_help.ts";
import type { Schema } from "./schema.ts";

/** A type of objects. */
export interface ObjectType {
  /** What the user types as `qom-type`. */
  readonly name: string;
  /** Its properties beside {@linkcode objectProperties}, for the help. */
  readonly properties: readonly PropertyLine[];
  /** Reads an object that has an id. @throws {OptionError} in QEMU's words */
  read(options: RawOptions): ObjectConfig;
}

/** What every object has. */
export const objectProperties = { "qom-type": "string", id: "id" } as const satisfies Schema;

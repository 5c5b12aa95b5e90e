/**
 * `-object`: things that devices and the machine refer to by their ids.
 *
 * @module
 */
import type { ObjectConfig, RngConfig } from "../config.ts";
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { fromJson, parseJsonOrOpts, type RawOptions } from "./grammar.ts";
import { iothreadType } from "./iothread.ts";
import { memoryBackendTypes } from "./memory_backend.ts";
import type { ObjectType } from "./object_type.ts";
import { propertyHelp } from "./property_help.ts";
import { rngTypes } from "./rng.ts";
import { throttleGroupType } from "./throttle_group.ts";

/** All types, in the order of `-object help`. */
const objectTypes: readonly ObjectType[] = [
  iothreadType,
  ...memoryBackendTypes,
  ...rngTypes,
  throttleGroupType,
];

const missing = (name: string) => new OptionError(`Parameter '${name}' is missing`);

function typeOf(options: RawOptions): ObjectType {
  const name = options.entries.get("qom-type");
  if (name === undefined) throw missing("qom-type");
  const type = objectTypes.find((type) => type.name === name);
  if (!type) {
    const names = objectTypes.map((type) => type.name).join(", ");
    throw new OptionError(
      `Parameter 'qom-type' does not accept value '${name}': there are ${names}`,
    );
  }
  return type;
}

/**
 * Reads an object: `memory-backend-memfd,id=ram0,size=1G`, JSON text, or `object-add`'s arguments.
 *
 * @throws OptionError in QEMU's words
 */
export function parseObject(
  input: string | Readonly<Record<string, unknown>>,
): ObjectConfig {
  const options = typeof input === "string" ? parseJsonOrOpts(input, "qom-type") : fromJson(input);
  const type = typeOf(options);
  if (!options.entries.has("id")) throw missing("id");
  return type.read(options);
}

/** The help that `-object help` or `-object TYPE,help` asks for, if the text does. */
export function objectHelp(text: string): string | undefined {
  const options = parseJsonOrOpts(text, "qom-type");
  if (!options.help) return undefined;
  if (options.entries.has("qom-type")) {
    const { name, properties } = typeOf(options);
    return propertyHelp(name, properties);
  }
  return ["List of user creatable objects:", ...objectTypes.map(({ name }) => `  ${name}`)]
    .join("\n");
}

/** Whether an object is a source of random numbers. */
export function isRng(config: ObjectConfig): config is RngConfig {
  return config.qomType === "rng-random" || config.qomType === "rng-builtin";
}

/** `-object` */
export function object(text: string, draft: Draft): void {
  const config = parseObject(text);
  const { objects, rngs, iothreads, throttleGroups } = draft.config;
  if ([...objects, ...rngs, ...iothreads, ...throttleGroups].some(({ id }) => id === config.id)) {
    throw new OptionError(`Duplicate ID '${config.id}' for object`);
  }
  if (isRng(config)) draft.config.rngs = [...rngs, config];
  else if (config.qomType === "iothread") draft.config.iothreads = [...iothreads, config];
  else if (config.qomType === "throttle-group") {
    draft.config.throttleGroups = [...throttleGroups, config];
  } else draft.config.objects = [...objects, config];
}

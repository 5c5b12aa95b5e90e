/**
 * `-blockdev` and `blockdev-add`.
 *
 * @module
 */
import type { BlockNodeCommon, BlockNodeConfig } from "../../devices/block/config.ts";
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { parseJson, parseKeyval, parseKeyvalHelp } from "./grammar.ts";
import { compact, readValue, type Schema, type Values } from "./schema.ts";
import { throttleHint } from "./throttle.ts";

const common = {
  driver: "string",
  "node-name": "string",
  "read-only": "bool",
  "auto-read-only": "bool",
  "cache.direct": "bool",
  "cache.no-flush": "bool",
  discard: ["ignore", "unmap"],
  "detect-zeroes": ["off", "on", "unmap"],
} as const satisfies Schema;

const file = {
  filename: "string",
  locking: ["auto", "on", "off"],
  aio: ["threads", "native", "io_uring"],
  cpr: "bool",
} as const satisfies Schema;

const nullCo = { size: "uint64", "read-zeroes": "bool" } as const satisfies Schema;

const raw = { offset: "uint64", size: "uint64" } as const satisfies Schema;

const throttle = { "throttle-group": "string" } as const satisfies Schema;

/** What each driver is told besides. */
const DRIVERS = { file, host_device: file, "null-co": nullCo, raw, qcow2: {}, throttle } as const;
/** Parameters that are nodes. */
const PARTS: Readonly<Record<string, RegExp>> = {
  raw: /^file(\.|$)/,
  qcow2: /^(file|backing)(\.|$)/,
  throttle: /^file(\.|$)/,
};

const own = { ...file, ...nullCo, ...raw, ...throttle } as const;
type Parameters = Values<typeof common & typeof own>;

/** Bytes of a `null-co` node about whose size nothing is said. */
const NULL_SIZE = 1 << 30;
/** The longest name of a node, in characters. */
const MAX_NAME = 31;
/** How deep nodes may be within one another. */
const MAX_DEPTH = 16;

/** Parameters by their dotted names, and where they come from. */
interface Parsed {
  readonly entries: ReadonlyMap<string, unknown>;
  /** Whether values have JSON's types. */
  readonly json: boolean;
  /** Makes the error for a parameter that a driver does not have. */
  readonly unknown: (name: string, driver: string) => OptionError;
}

/** What a node gets from the one that it is written in. */
type Inherited = Partial<Pick<BlockNodeCommon, "readOnly" | "autoReadOnly" | "cache" | "discard">>;

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Objects within objects by their dotted names. */
function flatten(object: Record<string, unknown>, prefix = "", depth = 0): [string, unknown][] {
  return Object.entries(object).flatMap(([name, value]): [string, unknown][] => {
    const key = prefix + name;
    return isObject(value) && depth < MAX_DEPTH
      ? flatten(value, `${key}.`, depth + 1)
      : [[key, value]];
  });
}

function missing(name: string): OptionError {
  return new OptionError(`Parameter '${name}' is missing`);
}

function isDriver(name: string): name is keyof typeof DRIVERS {
  return Object.hasOwn(DRIVERS, name);
}

/** Reads a node's own parameters. @throws OptionError in QEMU's words */
function readParameters({ entries, json, unknown }: Parsed, prefix: string): Parameters & {
  readonly driver: keyof typeof DRIVERS;
} {
  const name = `${prefix}driver`;
  if (!entries.has(name)) throw missing(name);
  const driver = String(readValue(name, "string", entries.get(name), json));
  if (!isDriver(driver)) {
    throw new OptionError(`Parameter '${name}' does not accept value '${driver}'`);
  }
  const schema: Schema = { ...common, ...DRIVERS[driver] };
  const values: Record<string, unknown> = {};
  for (const [key, value] of entries) {
    if (!key.startsWith(prefix)) continue;
    const parameter = key.slice(prefix.length);
    if (PARTS[driver]?.test(parameter)) continue;
    if (!Object.hasOwn(schema, parameter)) throw unknown(key, driver);
    values[parameter] = readValue(key, schema[parameter], value, json);
  }
  return { ...values, driver } as ReturnType<typeof readParameters>;
}

/**
 * Checks a node's name: a letter, then letters, digits, `-`, `.`, `_`, 31 characters at most.
 *
 * @throws OptionError in QEMU's words
 */
export function checkNodeName(name: string): string {
  if (/^[A-Za-z][A-Za-z0-9._-]*$/.test(name) && name.length <= MAX_NAME) return name;
  throw new OptionError(
    name.length > MAX_NAME ? "Node name too long" : `Invalid node-name: '${name}'`,
  );
}

/** What all nodes have. @throws OptionError if it contradicts itself */
function readCommon(values: Parameters, nodeName: string, inherited: Inherited): BlockNodeCommon {
  const discard = values.discard ?? inherited.discard ?? "ignore";
  const detectZeroes = values["detect-zeroes"] ?? "off";
  if (detectZeroes === "unmap" && discard !== "unmap") {
    throw new OptionError(
      "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
    );
  }
  return {
    nodeName,
    readOnly: values["read-only"] ?? inherited.readOnly ?? false,
    autoReadOnly: values["auto-read-only"] ?? inherited.autoReadOnly ?? false,
    cache: {
      direct: values["cache.direct"] ?? inherited.cache?.direct ?? false,
      noFlush: values["cache.no-flush"] ?? inherited.cache?.noFlush ?? false,
    },
    discard,
    detectZeroes,
  };
}

/** Refuses a kind of requests that needs what was not asked for. @throws OptionError */
export function checkAio(aio: string | undefined, direct: boolean): void {
  if (aio === "native" && !direct) {
    throw new OptionError(
      "aio=native was specified, but it requires cache.direct=on, which was not specified.",
    );
  }
}

/** A node and those that are written in it, each after the one that it is made of. */
function readNode(
  parsed: Parsed,
  prefix: string,
  implied: string | undefined,
  inherited: Inherited,
): BlockNodeConfig[] {
  const values = readParameters(parsed, prefix);
  const given = values["node-name"];
  const nodeName = given === undefined ? implied : checkNodeName(given);
  if (nodeName === undefined) {
    throw new OptionError("'node-name' must be specified for the root node");
  }
  const node = readCommon(values, nodeName, inherited);
  switch (values.driver) {
    case "raw":
      return readRaw(parsed, prefix, node, values);
    case "qcow2":
      return readQcow2(parsed, prefix, node);
    case "throttle":
      return readThrottle(parsed, prefix, node, values);
    case "null-co": {
      const { size = NULL_SIZE, "read-zeroes": readZeroes = false } = values;
      return [{ driver: values.driver, ...node, size, readZeroes }];
    }
    default: {
      const { driver, filename, locking = "auto", aio = "threads", cpr } = values;
      if (filename === undefined) throw missing(`${prefix}filename`);
      checkAio(aio, node.cache.direct);
      return [compact({ driver, ...node, filename, locking, aio, cpr })];
    }
  }
}

function readRaw(
  parsed: Parsed,
  prefix: string,
  node: BlockNodeCommon,
  { offset = 0, size }: Parameters,
): BlockNodeConfig[] {
  const { nodes, name } = readPart(parsed, prefix, "file", node);
  const part = { offset, ...size !== undefined && { size } };
  return [...nodes, { driver: "raw", ...node, ...part, file: name }];
}

function readThrottle(
  parsed: Parsed,
  prefix: string,
  node: BlockNodeCommon,
  { "throttle-group": group }: Parameters,
): BlockNodeConfig[] {
  if (group === undefined) throw new OptionError("Please specify a throttle group");
  const { nodes, name } = readPart(parsed, prefix, "file", node);
  return [...nodes, { driver: "throttle", ...node, group, file: name }];
}

function readQcow2(parsed: Parsed, prefix: string, node: BlockNodeCommon): BlockNodeConfig[] {
  const file = readPart(parsed, prefix, "file", node);
  const image = { driver: "qcow2" as const, ...node, file: file.name };
  const key = `${prefix}backing`;
  const backing = parsed.entries.get(key);
  // QMP's null, which has no other form in options than the empty name.
  if (backing === null || (backing === "" && !parsed.json)) {
    return [...file.nodes, { ...image, backing: null }];
  }
  if (![...parsed.entries.keys()].some((name) => name === key || name.startsWith(`${key}.`))) {
    return [...file.nodes, image];
  }
  const behind = readPart(parsed, prefix, "backing", { ...node, readOnly: true });
  return [...file.nodes, ...behind.nodes, { ...image, backing: behind.name }];
}

/** A node that another is made of: the name of one, or one that is written in it. */
function readPart(
  parsed: Parsed,
  prefix: string,
  parameter: "file" | "backing",
  node: BlockNodeCommon,
): { readonly nodes: BlockNodeConfig[]; readonly name: string } {
  const key = `${prefix}${parameter}`;
  const reference = parsed.entries.get(key);
  if (reference !== undefined) {
    return { nodes: [], name: String(readValue(key, "string", reference, parsed.json)) };
  }
  if (![...parsed.entries.keys()].some((name) => name.startsWith(`${key}.`))) throw missing(key);
  // What is written within it gets its settings, and does as it says about discarding.
  const inherited: Inherited = { ...node, discard: "unmap" };
  const implied = `#${node.nodeName.replace(/^#/, "")}.${parameter}`;
  const nodes = readNode(parsed, `${key}.`, implied, inherited);
  return { nodes, name: nodes.at(-1)!.nodeName };
}

/**
 * Reads a block node: `driver=file,filename=disk.img,node-name=disk`, JSON text, or `blockdev-add`'s
 * arguments.
 *
 * @returns the node, after those that are written in it, which it is made of
 * @throws OptionError in QEMU's words
 */
export function parseBlockdev(
  input: string | Readonly<Record<string, unknown>>,
): BlockNodeConfig[] {
  const json = typeof input !== "string" || input.startsWith("{");
  const object = typeof input !== "string"
    ? input
    : json
    ? parseJson(input)
    : parseKeyval(input, "driver");
  const unknown = (name: string) => new OptionError(`Parameter '${name}' is unexpected`);
  return readNode({ entries: new Map(flatten(object)), json, unknown }, "", undefined, {});
}

/**
 * Reads what `-drive` says of a node.
 *
 * @param entries parameters by their dotted names
 * @param root the name of the node that is the drive, unless the parameters have one
 * @throws OptionError in QEMU's words
 */
export function readDriveNodes(
  entries: ReadonlyMap<string, string>,
  root: string,
): BlockNodeConfig[] {
  const unknown = (name: string, driver: string) =>
    new OptionError(
      `Block format '${driver}' does not support the option '${name}'${throttleHint(name)}`,
    );
  return readNode({ entries, json: false, unknown }, "", root, {});
}

/** The help that `-blockdev help` asks for, if the text does. */
export function blockdevHelp(text: string): string | undefined {
  if (text.startsWith("{") || !parseKeyvalHelp(text, "driver").help) return undefined;
  return ["Available block drivers:", ...Object.keys(DRIVERS)].join("\n");
}

/** `-blockdev` */
export function blockdev(text: string, draft: Draft): void {
  addNodes(draft, parseBlockdev(text));
}

/** Adds nodes. @throws OptionError if there is one of that name */
export function addNodes({ config }: Draft, nodes: readonly BlockNodeConfig[]): void {
  for (const { nodeName } of nodes) {
    if (config.blockdevs.some((other) => other.nodeName === nodeName)) {
      throw new OptionError(`Duplicate nodes with node-name='${nodeName}'`);
    }
  }
  config.blockdevs = [...config.blockdevs, ...nodes];
}

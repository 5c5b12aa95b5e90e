/**
 * `-drive`: a block node of raw data and, with `if=virtio`, the device that uses it, in one option.
 *
 * @module
 */
import type { BlockNodeConfig, DriveConfig, ErrorAction } from "../../devices/block/config.ts";
import { addNodes, readDriveNodes } from "./blockdev.ts";
import { parseDevice } from "./device.ts";
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { parseOpts } from "./grammar.ts";
import { compact } from "./schema.ts";
import { takeThrottle } from "./throttle.ts";
import { parseBool, parseId, parseUint } from "./values.ts";

/** `cache=`: what it stands for (qemu(1)). */
const CACHE_MODES: Readonly<Record<string, Readonly<Record<string, "on" | "off">>>> = {
  writeback: { "cache.direct": "off", "cache.no-flush": "off", "cache.writeback": "on" },
  none: { "cache.direct": "on", "cache.no-flush": "off", "cache.writeback": "on" },
  off: { "cache.direct": "on", "cache.no-flush": "off", "cache.writeback": "on" },
  unsafe: { "cache.direct": "off", "cache.no-flush": "on", "cache.writeback": "on" },
  writethrough: { "cache.direct": "off", "cache.no-flush": "off", "cache.writeback": "off" },
  directsync: { "cache.direct": "on", "cache.no-flush": "off", "cache.writeback": "off" },
};

const INTERFACES = ["none", "virtio"];
/** Interfaces of other machines. */
const OTHER_INTERFACES = ["ide", "scsi", "floppy", "pflash", "mtd", "sd", "xen"];
const DRIVERS = ["raw", "qcow2", "file", "host_device", "null-co", "throttle"];
/** Those that are made of a file. */
const FORMATS = ["raw", "qcow2"];
/** Formats of images that QEMU knows and that have to be converted. */
const OTHER_FORMATS = ["qcow", "qed", "vdi", "vhdx", "vmdk", "vpc", "luks", "parallels"];
/** Parameters of an image that are its file's. */
const FILE_PARAMETERS = ["aio", "cpr", "locking"];
const NO_FILE =
  "Must specify either driver or file: say file=FILE,format=raw or file=FILE,format=qcow2";
const WRITE_ACTIONS: readonly ErrorAction[] = ["ignore", "enospc", "stop", "report"];
const READ_ACTIONS: readonly ErrorAction[] = ["ignore", "stop", "report"];

/** Parameters that are read here and not handed to the node. */
class Parameters {
  readonly #entries: Map<string, string>;

  constructor(text: string) {
    const { entries, help } = parseOpts(text);
    if (help) throw new OptionError(NO_FILE);
    this.#entries = new Map([...entries].map(([name, value]) => [name, String(value)]));
  }

  /** Takes a parameter out. */
  take(name: string): string | undefined {
    const value = this.#entries.get(name);
    this.#entries.delete(name);
    return value;
  }

  /** Puts one in, unless it is there. */
  setDefault(name: string, value: string): void {
    if (!this.#entries.has(name)) this.#entries.set(name, value);
  }

  get rest(): ReadonlyMap<string, string> {
    return this.#entries;
  }
}

/** `-drive` */
export function drive(text: string, draft: Draft): void {
  const parameters = new Parameters(text);
  const kind = takeInterface(parameters);
  const id = takeId(parameters, kind, draft);
  refuseLayers(parameters);
  const media = takeMedia(parameters);
  const common = takeDrive(parameters, id);
  const nodes = readNodes(parameters, id, media);
  if (nodes) addNodes(draft, nodes);
  const added: DriveConfig = compact({ ...common, nodeName: nodes?.at(-1)?.nodeName });
  const { config } = draft;
  config.drives = [...config.drives, added];
  if (kind === "virtio") {
    const device = parseDevice({ driver: "virtio-blk-device", drive: id }, draft.types);
    config.devices = [...config.devices, device];
    draft.later("check", () => draft.useDrive(id));
  }
}

/** QEMU's microvm takes `none` unless it is told. */
function takeInterface(parameters: Parameters): string {
  const kind = parameters.take("if") ?? "none";
  if (OTHER_INTERFACES.includes(kind)) {
    throw new OptionError(`machine type does not support if=${kind}: if=virtio is a disk`);
  }
  if (!INTERFACES.includes(kind)) throw new OptionError(`unsupported bus type '${kind}'`);
  return kind;
}

/** The drive's id: one that was given, or the interface and a number. */
function takeId(parameters: Parameters, kind: string, { config: { drives } }: Draft): string {
  const index = parameters.take("index");
  const number = index === undefined ? undefined : parseUint("index", index, 32);
  const given = parameters.take("id");
  if (given !== undefined) {
    const id = parseId(given);
    if (!drives.some((other) => other.id === id)) return id;
    throw new OptionError(`Duplicate ID '${id}' for drive`);
  }
  const isTaken = (n: number) => drives.some((other) => other.id === `${kind}${n}`);
  if (number !== undefined && isTaken(number)) {
    throw new OptionError(`drive with bus=0, unit=${number} (index=${number}) exists`);
  }
  let free = 0;
  while (isTaken(free)) free++;
  return `${kind}${number ?? free}`;
}

function refuseLayers(parameters: Parameters): void {
  for (const name of ["snapshot", "copy-on-read"]) {
    const value = parameters.take(name);
    if (value === undefined || !parseBool(name, value)) continue;
    throw new OptionError(`Parameter '${name}' does not accept value 'on': images have no layers`);
  }
}

function takeMedia(parameters: Parameters): string {
  const media = parameters.take("media") ?? "disk";
  if (media === "disk" || media === "cdrom") return media;
  throw new OptionError(`'${media}' invalid media`);
}

/** How the node is used. */
function takeDrive(parameters: Parameters, id: string): DriveConfig {
  const mode = parameters.take("cache");
  if (mode !== undefined) {
    if (!Object.hasOwn(CACHE_MODES, mode)) throw new OptionError("invalid cache option");
    for (const [name, value] of Object.entries(CACHE_MODES[mode])) {
      parameters.setDefault(name, value);
    }
  }
  const writeback = parameters.take("cache.writeback") ?? "on";
  return compact({
    id,
    writeError: takeAction(parameters, "werror", "write", WRITE_ACTIONS),
    readError: takeAction(parameters, "rerror", "read", READ_ACTIONS),
    writeCache: parseBool("cache.writeback", writeback),
    throttle: takeThrottle((name) => parameters.take(name), id),
  });
}

function takeAction(
  parameters: Parameters,
  name: string,
  what: string,
  actions: readonly ErrorAction[],
): ErrorAction | undefined {
  const text = parameters.take(name);
  const action = actions.find((one) => one === text);
  if (text !== undefined && action === undefined) {
    throw new OptionError(`'${text}' invalid ${what} error action`);
  }
  return action;
}

/** The driver that was asked for. @throws OptionError unless it is one that there is */
function takeDriver(parameters: Parameters): string | undefined {
  const format = parameters.take("format");
  const driver = parameters.take("driver") ?? format;
  if (driver === undefined) return undefined;
  if (DRIVERS.includes(driver)) return driver;
  throw new OptionError(
    OTHER_FORMATS.includes(driver)
      ? `Format '${driver}' is not supported: 'qemu-img convert -O raw' makes a raw image of it`
      : `Unknown driver '${driver}'`,
  );
}

function isFormat(driver: string): boolean {
  return FORMATS.includes(driver);
}

/** The nodes of the image; none for a drive without a medium. */
function readNodes(
  parameters: Parameters,
  id: string,
  media: string,
): BlockNodeConfig[] | undefined {
  const filename = parameters.take("file") ?? parameters.take("file.filename");
  const given = takeDriver(parameters);
  if (given === undefined && filename === undefined && parameters.rest.size === 0) return undefined;
  const driver = given ?? "raw";
  if (isFormat(driver) && filename === undefined) {
    throw new OptionError(NO_FILE);
  }
  const alias = parameters.take("readonly");
  if (alias !== undefined && parameters.rest.has("read-only")) {
    throw new OptionError("'read-only' and its alias 'readonly' can't be used at the same time");
  }
  parameters.setDefault("read-only", alias ?? (media === "cdrom" ? "on" : "off"));
  parameters.setDefault("auto-read-only", "on");
  const entries = new Map<string, string>([["driver", driver]]);
  for (const [name, value] of parameters.rest) {
    const ofFile = isFormat(driver) && FILE_PARAMETERS.includes(name);
    entries.set(ofFile ? `file.${name}` : name, value);
  }
  const eitherDriver = isFormat(driver) && !entries.has("file.driver");
  if (eitherDriver) entries.set("file.driver", "file");
  if (filename !== undefined) {
    entries.set(isFormat(driver) ? "file.filename" : "filename", filename);
  }
  const nodes = readDriveNodes(entries, `#${id}`);
  // After what else is wrong: with the format added it would come to light anyhow.
  if (given === undefined) {
    throw new OptionError(
      `Image format was not specified for '${filename}': it is not guessed, add format=raw or ` +
        "format=qcow2",
    );
  }
  return nodes.map((node) =>
    node.driver === "file" && eitherDriver ? { ...node, eitherDriver } : node
  );
}

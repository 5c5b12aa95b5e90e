/**
 * `-netdev`.
 *
 * @module
 */
import {
  type HostForward,
  MAX_TAP_QUEUES,
  type NetAddress,
  type NetdevConfig,
} from "../../devices/net/config.ts";
import { OptionError } from "./error.ts";
import { fromJson, type KeyvalObject, parseKeyvalHelp, type RawOptions } from "./grammar.ts";
import { refuseOthers } from "./lacking.ts";
import { compact, readOptions, type Schema, type Values } from "./schema.ts";
import { parseEnum, parseInteger } from "./values.ts";

const common = {
  ...{ type: "string", id: "id", cpr: "bool" },
  "throttle-group": "string",
} as const satisfies Schema;
const ADDRESS_TYPES = ["inet", "unix", "fd"] as const;

/** An address's parameters, below its own name. */
const address = <const Name extends string>(name: Name) =>
  ({
    [`${name}.type`]: "string",
    [`${name}.host`]: "string",
    [`${name}.port`]: "string",
    [`${name}.path`]: "string",
    [`${name}.str`]: "string",
  }) as Record<`${Name}.${"type" | "host" | "port" | "path" | "str"}`, "string">;

const tap = {
  ...common,
  ifname: "string",
  fd: "string",
  fds: "string",
  script: "string",
  downscript: "string",
  vnet_hdr: "bool",
  vhost: "bool",
  vhostforce: "bool",
  vhostfd: "string",
  vhostfds: "string",
  queues: "uint32",
} as const satisfies Schema;
const stream = {
  ...common,
  ...address("addr"),
  server: "bool",
  "reconnect-ms": "uint32",
} as const satisfies Schema;
const dgram = { ...common, ...address("local"), ...address("remote") } as const satisfies Schema;
const user = { ...common, hostfwd: "string" } as const satisfies Schema;

type Read<S extends Schema> = Values<S>;
type Common = Read<typeof common>;

/** Reads the parameters of each kind. */
const kinds: Readonly<Record<NetdevConfig["type"], (options: RawOptions) => NetdevConfig>> = {
  tap: (options) => buildTap(readOptions(options, tap)),
  stream: (options) => buildStream(readOptions(options, stream)),
  dgram: (options) => buildDgram(readOptions(options, dgram)),
  user: (options) => buildUser(readOptions(options, user)),
};

/** Backends of QEMU's that there are not, and what does the same. */
const instead: Readonly<Record<string, string>> = {
  bridge: "say tap, and put its interface into the bridge by ip(8)",
  passt: "say user, which runs passt",
  socket: "say stream or dgram",
};

/** The help that `-netdev help` asks for, if the text does. */
export function netdevHelp(text: string): string | undefined {
  if (text.startsWith("{") || !parseKeyvalHelp(text, "type").help) return undefined;
  return ["Available netdev backend types:", ...Object.keys(kinds)].join("\n");
}

/**
 * Reads `-netdev`'s argument: `tap,id=n0,ifname=tap0`, or JSON.
 *
 * @throws OptionError in QEMU's words
 */
export function parseNetdev(text: string): NetdevConfig {
  const options = text.startsWith("{") ? fromJsonText(text) : fromKeyval(text);
  const { entries } = options;
  const type = entries.get("type");
  if (type === undefined) throw missing("type");
  if (entries.get("id") === undefined) throw missing("id");
  const known = Object.keys(kinds) as NetdevConfig["type"][];
  const reason = Object.hasOwn(instead, String(type)) ? instead[String(type)] : undefined;
  if (reason !== undefined) refuseOthers("type", String(type), { taken: known, reason });
  return compact(kinds[parseEnum("type", String(type), known)](options));
}

function fromJsonText(text: string): RawOptions {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new OptionError(`JSON parse error, ${(error as Error).message}`);
  }
  return fromJson(flatten(value as Record<string, unknown>));
}

function fromKeyval(text: string): RawOptions {
  const values: KeyvalObject = parseKeyvalHelp(text, "type").values;
  return { entries: new Map(Object.entries(flatten(values))), json: false, help: false };
}

/** Addresses within the object by their dotted names. */
function flatten(object: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(object).flatMap(([name, value]) =>
      typeof value === "object" && value !== null && !Array.isArray(value)
        ? Object.entries(value).map(([key, inner]) => [`${name}.${key}`, inner])
        : [[name, value]]
    ),
  );
}

function missing(name: string): OptionError {
  return new OptionError(`Parameter '${name}' is missing`);
}

function commonOf({ id, cpr, "throttle-group": throttleGroup }: Common) {
  return { id: id!, cpr, throttleGroup };
}

function descriptor(name: string, text: string): number {
  const fd = parseInteger(name, text);
  if (fd < 0) throw new OptionError(`Parameter '${name}' expects a file descriptor, not '${text}'`);
  return fd;
}

function buildTap(values: Read<typeof tap>): NetdevConfig {
  const { ifname, fd, fds, script, downscript, vnet_hdr: vnetHdr, queues } = values;
  const { vhostfd, vhostfds } = values;
  const others = [ifname, script, downscript, vnetHdr, queues];
  if (fd !== undefined && [fds, vhostfds, ...others].some((one) => one !== undefined)) {
    throw new OptionError(
      "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds=" +
        " are invalid with fd=",
    );
  }
  if (fds !== undefined && [vhostfd, ...others].some((one) => one !== undefined)) {
    throw new OptionError(
      "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid with fds=",
    );
  }
  const reason = "no script is run: set the interface up by ip(8), and say no";
  for (const [name, value = "no"] of [["script", script], ["downscript", downscript]] as const) {
    refuseOthers(name, value, { taken: ["no", ""], reason });
  }
  const all = fds?.split(":").map((one) => descriptor("fds", one));
  const count = all?.length ?? queues ?? 1;
  if (count < 1 || count > MAX_TAP_QUEUES) {
    throw new OptionError(
      `you must specify 1 to ${MAX_TAP_QUEUES} queues of a tap, not ${count}`,
    );
  }
  return {
    type: "tap",
    ...commonOf(values),
    ifname,
    fd: fd === undefined ? undefined : descriptor("fd", fd),
    fds: all,
    queues,
    vnetHdr,
    ...readVhost(values, count),
  };
}

/** Whether the kernel serves the queues, and by which descriptors. @throws OptionError in QEMU's words */
function readVhost(values: Read<typeof tap>, queues: number) {
  const { vhost, vhostforce, vhostfd, vhostfds } = values;
  const texts = vhostfds?.split(":") ?? (vhostfd === undefined ? undefined : [vhostfd]);
  if (!(vhost ?? (vhostforce || texts !== undefined))) {
    if (texts) throw new OptionError("vhostfd(s)= is not valid without vhost");
    return {};
  }
  if (texts && texts.length !== queues) {
    throw new OptionError(`expected ${queues} socket fds, got ${texts.length}`);
  }
  const name = vhostfds === undefined ? "vhostfd" : "vhostfds";
  return { vhost: true, vhostfds: texts?.map((text) => descriptor(name, text)) };
}

type AddressName = "addr" | "local" | "remote";
type AddressValues = Partial<
  Record<`${AddressName}.${"type" | "host" | "port" | "path" | "str"}`, string>
>;

/** An address, or undefined if nothing is said of it. @throws OptionError if it makes no sense */
function readAddress(values: AddressValues, name: AddressName): NetAddress | undefined {
  const part = (key: "type" | "host" | "port" | "path" | "str") => values[`${name}.${key}`];
  const given = Object.keys(values).some((key) => key.startsWith(`${name}.`));
  if (!given) return undefined;
  const required = (key: "type" | "host" | "port" | "path" | "str") => {
    const value = part(key);
    if (value === undefined) throw missing(`${name}.${key}`);
    return value;
  };
  switch (parseEnum(`${name}.type`, required("type"), ADDRESS_TYPES)) {
    case "inet":
      return { type: "inet", host: required("host"), port: readPort(required("port")) };
    case "unix":
      return { type: "unix", path: required("path") };
    case "fd":
      return { type: "fd", fd: descriptor(`${name}.str`, required("str")) };
  }
}

function readPort(text: string): number {
  const port = parseInteger("port", text);
  if (port >= 0 && port <= 0xffff) return port;
  throw new OptionError(`Parameter 'port' expects a port number, not '${text}'`);
}

function buildStream(values: Read<typeof stream>): NetdevConfig {
  const addr = readAddress(values, "addr");
  if (!addr) throw missing("addr");
  const { server = false, "reconnect-ms": reconnect = 0 } = values;
  if (server && reconnect > 0) {
    throw new OptionError(
      "'reconnect-ms' option is incompatible with socket in server listen mode",
    );
  }
  // What setTimeout can count.
  if (reconnect > 0x7fff_ffff) {
    throw new OptionError("Parameter 'reconnect-ms' expects at most 24 days");
  }
  const reconnectMs = reconnect === 0 ? undefined : reconnect;
  return { type: "stream", ...commonOf(values), addr, server, reconnectMs };
}

function buildDgram(values: Read<typeof dgram>): NetdevConfig {
  const local = readAddress(values, "local");
  const remote = readAddress(values, "remote");
  if (!local) {
    throw new OptionError("dgram requires local= parameter: where frames come to");
  }
  if (local.type === "fd") {
    if (remote) throw new OptionError("don't set remote= with local.type=fd");
    return { type: "dgram", ...commonOf(values), local };
  }
  if (!remote) throw new OptionError("dgram requires remote= parameter");
  if (remote.type !== local.type) {
    throw new OptionError("'remote' and 'local' must be of the same type");
  }
  if (remote.type === "inet" && /^(22[4-9]|23\d)\.|^ff/i.test(remote.host)) {
    throw new OptionError(
      `Parameter 'remote.host' does not accept value '${remote.host}': multicast`,
    );
  }
  return { type: "dgram", ...commonOf(values), local, remote };
}

/** `tcp:HOST:PORT-GUEST:PORT`, of which the guest's address is always the same. */
const FORWARD = /^(tcp|udp)?:([^:]*):(\d+)-([^:]*):(\d+)$/;

function buildUser(values: Read<typeof user>): NetdevConfig {
  const texts = values.hostfwd === undefined ? [] : [values.hostfwd];
  const hostfwd = texts.map((text): HostForward => {
    const [, protocol = "tcp", host, hostPort, , guestPort] = FORWARD.exec(text) ?? [];
    if (guestPort === undefined) {
      throw new OptionError(
        `Invalid host forwarding rule '${text}' (expected tcp:HOST:PORT-GUEST:PORT)`,
      );
    }
    return {
      protocol: protocol as HostForward["protocol"],
      host,
      hostPort: readPort(hostPort),
      guestPort: readPort(guestPort),
    };
  });
  return { type: "user", ...commonOf(values), hostfwd };
}

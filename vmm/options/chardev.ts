/**
 * `-chardev`, and the short forms that `-serial`, `-monitor`, `-qmp` and `-debugcon` take.
 *
 * @module
 */
import type {
  ChardevCommon,
  ChardevConfig,
  SocketConfig,
  SocketEndpoint,
} from "../../devices/chardev/config.ts";
import { OptionError } from "./error.ts";
import { parseOpts, type RawOptions } from "./grammar.ts";
import { compact, readOptions, type Schema, type Values } from "./schema.ts";
import { parseId, parseInteger } from "./values.ts";

/** Parameters of all backends together: QEMU has one list for them, too. */
const schema = {
  backend: "string",
  id: "id",
  mux: "bool",
  logfile: "string",
  logappend: "bool",
  cpr: "bool",
  path: "string",
  append: "bool",
  signal: "bool",
  host: "string",
  port: "string",
  server: "bool",
  wait: "bool",
  telnet: "bool",
  tn3270: "bool",
  websocket: "bool",
  reconnect: "uint32",
  "reconnect-ms": "uint32",
  fd: "uint32",
} as const satisfies Schema;

type Parameters = Values<typeof schema>;

/** What says how a socket is used. */
export type SocketParameters = Pick<
  Parameters,
  "telnet" | "tn3270" | "websocket" | "server" | "fd" | "reconnect" | "reconnect-ms"
>;

/** Parameters that every backend takes. */
const COMMON = ["backend", "id", "mux", "logfile", "logappend", "cpr"];

/** Parameters that each backend takes besides. */
const BACKENDS: Readonly<Record<ChardevConfig["backend"], readonly string[]>> = {
  null: [],
  stdio: ["signal"],
  file: ["path", "append"],
  pipe: ["path"],
  pty: ["path"],
  socket: [
    "path",
    "host",
    "port",
    "server",
    "wait",
    "telnet",
    "tn3270",
    "websocket",
    "reconnect",
    "reconnect-ms",
    "fd",
  ],
  fd: ["fd"],
};

/** The help that `-chardev help` asks for, if the text does. */
export function chardevHelp(text: string): string | undefined {
  if (!parseOpts(text, "backend").help) return undefined;
  return ["Available chardev backend types: ", ...Object.keys(BACKENDS).map((name) => `  ${name}`)]
    .join("\n");
}

function parsePort(text: string): number {
  const port = parseInteger("port", text);
  if (port < 0 || port > 65535) {
    throw new OptionError(`Parameter 'port' expects a port number, not '${text}'`);
  }
  return port;
}

/** Undefined for a socket that is given as a descriptor. */
function endpoint({ path, host, port, fd }: Parameters): SocketEndpoint | undefined {
  if ([path, host, fd].filter((one) => one !== undefined).length > 1) {
    throw new OptionError("None or one of 'path', 'fd' or 'host' option required.");
  }
  if (fd !== undefined) return undefined;
  if (path) return { family: "unix", path };
  if (port === undefined) {
    throw new OptionError(
      host === undefined ? "chardev: socket: no path given" : "chardev: socket: no port given",
    );
  }
  return { family: "tcp", host: host ?? "", port: parsePort(port) };
}

/** How bytes travel. @throws OptionError if that cannot be */
export function protocolOf(values: SocketParameters): SocketConfig["protocol"] {
  const { telnet, tn3270, websocket, server, fd } = values;
  if (tn3270) throw new OptionError("'tn3270' option is not supported: there is no such terminal");
  if (!telnet && !websocket) return undefined;
  if (telnet && websocket) {
    throw new OptionError("'telnet' and 'websocket' cannot be used together");
  }
  if (websocket && !server) throw new OptionError("Websocket client is not implemented");
  if (fd !== undefined) {
    throw new OptionError("'telnet' and 'websocket' are incompatible with 'fd' address type");
  }
  return telnet ? "telnet" : "websocket";
}

function requirePath(backend: string, values: Parameters, what: string): string {
  if (!values.path) throw new OptionError(`chardev: ${backend}: no ${what} given`);
  return values.path;
}

/** In milliseconds. @throws OptionError if two options say it, or the socket cannot do it */
export function reconnectTime(values: SocketParameters): number | undefined {
  const { reconnect, "reconnect-ms": ms, server, fd } = values;
  if (reconnect !== undefined && ms !== undefined) {
    throw new OptionError("'reconnect' and 'reconnect-ms' are mutually exclusive");
  }
  const name = reconnect === undefined ? "reconnect-ms" : "reconnect";
  const time = reconnect === undefined ? ms : reconnect * 1000;
  if (time === undefined) return undefined;
  if (server) {
    throw new OptionError(`'${name}' option is incompatible with socket in server listen mode`);
  }
  if (fd !== undefined) {
    throw new OptionError(`'${name}' option is incompatible with 'fd' address type`);
  }
  // What setTimeout can count.
  if (time > 0x7fff_ffff) throw new OptionError(`Parameter '${name}' expects at most 24 days`);
  return time === 0 ? undefined : time;
}

function buildSocket(common: ChardevCommon, values: Parameters): ChardevConfig {
  const protocol = protocolOf(values);
  const { server = false, wait, fd } = values;
  if (!server && wait !== undefined) {
    throw new OptionError("'wait' option is incompatible with socket in client connect mode");
  }
  const reconnectMs = reconnectTime(values);
  const address = endpoint(values);
  if (fd !== undefined) return { backend: "fd", ...common, fd, wait: wait ?? server };
  return {
    backend: "socket",
    ...common,
    ...address!,
    server,
    wait: wait ?? server,
    protocol,
    reconnectMs,
  };
}

function build(id: string, values: Parameters): ChardevConfig {
  const { mux, logfile, logappend, cpr } = values;
  const common = { id, mux, logfile, logappend, cpr };
  const backend = values.backend as ChardevConfig["backend"];
  switch (backend) {
    case "null":
      return { backend, ...common };
    case "stdio":
      return { backend, ...common, signal: values.signal ?? true };
    case "file":
      return {
        backend,
        ...common,
        path: requirePath(backend, values, "filename"),
        append: values.append ?? false,
      };
    case "pipe":
      return { backend, ...common, path: requirePath(backend, values, "device path") };
    case "pty":
      return { backend, ...common, path: values.path };
    case "socket":
      return buildSocket(common, values);
    case "fd":
      if (values.fd === undefined) throw new OptionError("chardev: fd: no file descriptor given");
      return { backend, ...common, fd: values.fd };
  }
}

function fromOptions(options: RawOptions): ChardevConfig {
  const id = options.entries.get("id");
  if (id === undefined) throw new OptionError("chardev: no id specified");
  const label = parseId(String(id));
  const backend = options.entries.get("backend");
  if (backend === undefined) throw new OptionError(`chardev: "${label}" missing backend`);
  if (typeof backend !== "string" || !Object.hasOwn(BACKENDS, backend)) {
    throw new OptionError(`'${backend}' is not a valid char driver name`);
  }
  const allowed = [...COMMON, ...BACKENDS[backend as ChardevConfig["backend"]]];
  const values = readOptions(options, schema);
  const stray = Object.keys(values).find((name) => !allowed.includes(name));
  if (stray !== undefined) throw new OptionError(`Invalid parameter '${stray}'`);
  return compact(build(label, values));
}

/**
 * Reads `-chardev`'s argument: `socket,id=a,path=/run/a,server=on,wait=off`.
 *
 * @throws OptionError in QEMU's words
 */
export function parseChardev(text: string): ChardevConfig {
  return fromOptions(parseOpts(text, "backend"));
}

/** `HOST:PORT`, `:PORT` or `[IPv6]:PORT`, then options. */
const TCP = /^(?:\[([^\]]*)\]|([^:,]*)):([^,]+)(?:,(.*))?$/s;

/** Text as one QemuOpts value. */
const escape = (value: string) => value.replaceAll(",", ",,");

/** `-chardev` words for a short form's words. */
function expand(text: string): string | undefined {
  if (text === "null" || text === "pty" || text === "stdio") return text;
  // A console in a window: there are no windows.
  if (/^vc(:|$)/.test(text)) return "null";
  const [, kind, rest] = /^(file|pipe|unix|tcp|telnet|websocket):(.*)$/s.exec(text) ?? [];
  switch (kind) {
    case "file":
    case "pipe":
      return `${kind},path=${escape(rest)}`;
    case "unix":
      // Commas stay single: what follows the path are options.
      return `socket,path=${rest}`;
    case "tcp":
    case "telnet":
    case "websocket": {
      const [, ipv6, host, port, options] = TCP.exec(rest) ?? [];
      if (port === undefined) {
        throw new OptionError(`address '${rest}' does not have the form HOST:PORT`);
      }
      const name = escape(ipv6 ?? host);
      const protocol = kind === "tcp" ? "" : `,${kind}=on`;
      return `socket,host=${name},port=${port}${protocol}${
        options === undefined ? "" : `,${options}`
      }`;
    }
  }
  return undefined;
}

/**
 * Reads a short form: `stdio`, `mon:stdio`, `null`, `pty`, `file:PATH`, `pipe:PATH`,
 * `unix:PATH,server=on`, `tcp:HOST:PORT,server=on`, `vc`.
 *
 * `mon:` makes the backend one that a monitor shares; its terminal then passes C-c on to the guest.
 *
 * @param text the short form
 * @param id the new backend's id
 * @throws OptionError in QEMU's words
 */
export function parseShortChardev(text: string, id: string): ChardevConfig {
  const shared = text.startsWith("mon:");
  const short = shared ? text.slice("mon:".length) : text;
  const long = expand(short);
  if (long === undefined) throw new OptionError(`'${short}' is not a valid char driver`);
  const options = parseOpts(long, "backend");
  const entries = new Map([...options.entries, ["id", id]]);
  if (shared) entries.set("mux", "on");
  if (short === "stdio" && shared) entries.set("signal", "off");
  return fromOptions({ ...options, entries });
}

/** Id of the character device on which gdb is waited for. */
export const GDB_CHARDEV = "gdb";

/**
 * Reads what `-gdb` and `gdbserver` take: a short form in which a socket listens, and nobody waits for
 * its client, unless it says otherwise.
 *
 * @throws OptionError in QEMU's words
 */
export function parseGdbDevice(text: string): ChardevConfig {
  const listens = /^(tcp|unix):/.test(text) && !/,server\b/.test(text);
  return parseShortChardev(listens ? `${text},server=on,wait=off` : text, GDB_CHARDEV);
}

/**
 * What a character backend is told on the command line (`-chardev`, `-serial`, `-monitor`, …).
 *
 * @module
 */

/** What all backends have in common. */
export interface ChardevCommon {
  /** The backend's id, `label` in `query-chardev`. */
  readonly id: string;
  /** Several frontends share the backend, with C-a c to switch between them. */
  readonly mux?: boolean;
  /** The key that begins a multiplexer's commands, as a byte; C-a (1) unless given. */
  readonly escape?: number;
  /** A file that gets a copy of all output. */
  readonly logfile?: string;
  /** Append to the log file instead of emptying it. */
  readonly logappend?: boolean;
  /** Whether open descriptors stay open over CPR (on unless given). */
  readonly cpr?: boolean;
}

/** Drops all output. */
export interface NullConfig extends ChardevCommon {
  /** The kind of backend. */
  readonly backend: "null";
}

/** The process's stdin and stdout. */
export interface StdioConfig extends ChardevCommon {
  /** The kind of backend. */
  readonly backend: "stdio";
  /** Whether C-c, C-\ and C-z send signals to the VMM rather than bytes to the guest. */
  readonly signal: boolean;
}

/** Output into a file. */
export interface FileConfig extends ChardevCommon {
  /** The kind of backend. */
  readonly backend: "file";
  /** The file, which is made if it does not exist. */
  readonly path: string;
  /** Append to the file instead of emptying it. */
  readonly append: boolean;
}

/** A pair of FIFOs `path.in` and `path.out`, or one FIFO `path` for both directions. */
export interface PipeConfig extends ChardevCommon {
  /** The kind of backend. */
  readonly backend: "pipe";
  /** The FIFOs, which must exist, or the part of their names that they share. */
  readonly path: string;
}

/** A new pseudo-terminal. */
export interface PtyConfig extends ChardevCommon {
  /** The kind of backend. */
  readonly backend: "pty";
  /** A symbolic link to make to the slave. */
  readonly path?: string;
}

/** Where a socket backend listens or connects to. */
export type SocketEndpoint =
  | { readonly family: "unix"; readonly path: string }
  /** An empty host stands for all of this host's IPv4 addresses when listening. */
  | { readonly family: "tcp"; readonly host: string; readonly port: number };

/** One connection at a time over a socket. */
export type SocketConfig = ChardevCommon & SocketEndpoint & {
  readonly backend: "socket";
  /** Listens instead of connecting. */
  readonly server: boolean;
  /** As a server: the machine does not start before a client is there. */
  readonly wait: boolean;
  /** How bytes travel, if not as they are. */
  readonly protocol?: "telnet" | "websocket";
  /** As a client: connect again so many ms after a failure, or after the server hung up; 0 is never. */
  readonly reconnectMs?: number;
};

/** A socket that was opened by whoever started the VMM: connected, or listening. */
export interface FdConfig extends ChardevCommon {
  /** The kind of backend. */
  readonly backend: "fd";
  /** The descriptor's number in this process. */
  readonly fd: number;
  /** If it listens: the machine does not start before a client is there. */
  readonly wait?: boolean;
}

/** A backend's configuration. */
export type ChardevConfig =
  | NullConfig
  | StdioConfig
  | FileConfig
  | PipeConfig
  | PtyConfig
  | SocketConfig
  | FdConfig;

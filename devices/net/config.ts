/**
 * What a network backend is told on the command line (`-netdev`).
 *
 * @module
 */

/** What all of them have in common. */
export interface NetdevCommon {
  /** Unique among network backends. */
  readonly id: string;
  /** Whether open descriptors stay open over CPR (on unless given). */
  readonly cpr?: boolean;
  /** The throttle group that its frames count in. */
  readonly throttleGroup?: string;
}

/** A place that sockets are bound or connected to. */
export type NetAddress =
  /** TCP or UDP. */
  | {
    /** The family. */
    readonly type: "inet";
    /** A name, or a literal. */
    readonly host: string;
    /** The port. */
    readonly port: number;
  }
  /** A UNIX socket's file. */
  | {
    /** The family. */
    readonly type: "unix";
    /** The file. */
    readonly path: string;
  }
  /** A descriptor that the VMM was started with. */
  | {
    /** None: it is a descriptor. */
    readonly type: "fd";
    /** The descriptor. */
    readonly fd: number;
  };

/** An interface of the host. */
export interface TapConfig extends NetdevCommon {
  /** QEMU's name of the kind. */
  readonly type: "tap";
  /** The interface, which is made if it does not exist; the kernel names it unless given. */
  readonly ifname?: string;
  /** A tap's descriptor that the VMM was started with. */
  readonly fd?: number;
  /** The same of several queues. */
  readonly fds?: readonly number[];
  /** How many queues of the interface are opened; one unless given. */
  readonly queues?: number;
  /** Whether packets may be such as the host has not finished; where the tap can it, unless given. */
  readonly vnetHdr?: boolean;
  /** Whether the kernel serves the card's queues (vhost-net). */
  readonly vhost?: boolean;
  /** Descriptors of /dev/vhost-net that the VMM was started with, one a queue. */
  readonly vhostfds?: readonly number[];
}

/** A connection over which frames go, each after its length. */
export interface StreamConfig extends NetdevCommon {
  /** QEMU's name of the kind. */
  readonly type: "stream";
  /** Where to. */
  readonly addr: NetAddress;
  /** Wait there for a client. */
  readonly server: boolean;
  /** Milliseconds after which a client connects again; never if undefined. */
  readonly reconnectMs?: number;
}

/** A socket with a frame in each datagram. */
export interface DgramConfig extends NetdevCommon {
  /** QEMU's name of the kind. */
  readonly type: "dgram";
  /** Where frames come from: an address of this host's. */
  readonly local: NetAddress;
  /** Where frames go to; a descriptor is connected itself. */
  readonly remote?: NetAddress;
}

/** The host's network without a privilege, by a program. */
export interface UserConfig extends NetdevCommon {
  /** QEMU's name of the kind. */
  readonly type: "user";
  /** What is passed on to the guest. */
  readonly hostfwd: readonly HostForward[];
}

/** A port of the host's that leads to one of the guest's. */
export interface HostForward {
  /** Whose port it is. */
  readonly protocol: "tcp" | "udp";
  /** An address of this host's; all of them if empty. */
  readonly host: string;
  /** The host's port. */
  readonly hostPort: number;
  /** The guest's port. */
  readonly guestPort: number;
}

/** The most queues of a tap that are used. */
export const MAX_TAP_QUEUES = 16;

/** How many queues a backend has, each for a pair of a card's. */
export function queuesOf(config: NetdevConfig): number {
  return config.type === "tap" ? config.fds?.length ?? config.queues ?? 1 : 1;
}

/** A network backend. */
export type NetdevConfig = TapConfig | StreamConfig | DgramConfig | UserConfig;

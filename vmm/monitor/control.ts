/**
 * What monitor commands need from a virtual machine, and nothing more.
 *
 * The VM implements {@linkcode MachineControl}; commands never see the VM itself, so that a test can
 * stand in for it. A method reports failure by throwing an Error whose message is the reply's `desc`
 * (a {@linkcode QmpError} where the class matters). State changes emit their own events (STOP,
 * RESUME, RESET, ...): the VM knows when they have happened, a command does not.
 *
 * @module
 */
import type { ChardevConfig } from "../../devices/chardev/config.ts";
import type { VmEventListener } from "../events.ts";
import type { RunState } from "../run_state.ts";
import type { FdRegistry } from "./fd_registry.ts";

export type { RunState };

/** Where events go. */
export interface EventSink {
  /** Sends an event, stamped with the current time, to every client that has negotiated. */
  emit(name: string, data?: Record<string, unknown>): void;
  /** Adds a listener; the function returned removes it. */
  subscribe(listener: VmEventListener): () => void;
}

/** One virtual CPU. */
export interface VcpuInfo {
  readonly index: number;
  /** Host thread id (gettid). */
  readonly threadId: number;
  /** CPU model, for example `host`. */
  readonly model: string;
  readonly topology: {
    readonly socketId: number;
    readonly dieId?: number;
    readonly coreId: number;
    readonly threadId: number;
  };
}

/** One memory backend object. */
export interface MemoryBackendInfo {
  readonly id: string;
  /** Bytes. */
  readonly size: number;
  readonly merge: boolean;
  readonly dump: boolean;
  readonly prealloc: boolean;
  readonly share: boolean;
  readonly reserve: boolean;
}

/** One host mapping that backs guest memory (`info ramblock`). */
export interface RamBlockInfo {
  readonly name: string;
  /** Bytes. */
  readonly pageSize: number;
  /** Offset in the VM's ram address space. */
  readonly offset: bigint;
  /** Bytes in use. */
  readonly used: bigint;
  /** Bytes reserved. */
  readonly total: bigint;
  /** Host virtual address. */
  readonly hostAddress: bigint;
  readonly readOnly: boolean;
}

/** A range of an address space (`info mtree`). */
export interface MemoryRegionInfo {
  readonly name: string;
  /** First address, absolute. */
  readonly start: bigint;
  /** Last address, inclusive: a region may end at 2^64 - 1. */
  readonly end: bigint;
  readonly priority: number;
  readonly kind: "container" | "i/o" | "ram" | "rom";
  /** Set if the region shows a part of another one. */
  readonly alias?: { readonly of: string; readonly start: bigint; readonly end: bigint };
  readonly children?: readonly MemoryRegionInfo[];
}

/** An address space: `memory` or `I/O`. */
export interface AddressSpaceInfo {
  readonly name: string;
  readonly root: MemoryRegionInfo;
}

/** A firmware or kernel image in guest memory (`info roms`). */
export interface RomInfo {
  readonly name: string;
  readonly address: bigint;
  /** Bytes. */
  readonly size: number;
  readonly memory: "ram" | "rom";
}

/** One character device. */
export interface ChardevInfo {
  readonly label: string;
  /** What it is connected to, for example `unix:/run/vm.sock,server=on`. */
  readonly filename: string;
  readonly frontendOpen: boolean;
}

/** A bus in the device tree (`info qtree`). */
export interface BusInfo {
  readonly name: string;
  readonly type: string;
  readonly devices: readonly DeviceInfo[];
}

/** A device in the device tree. */
export interface DeviceInfo {
  readonly driver: string;
  /** Empty for a device without an id. */
  readonly id: string;
  /** Property names and their printed values, for example `["irq", "4 (0x4)"]`. */
  readonly properties: readonly (readonly [name: string, value: string])[];
  /** MMIO ranges. */
  readonly mmio?: readonly { readonly start: bigint; readonly size: bigint }[];
  readonly buses?: readonly BusInfo[];
}

/** One disk. */
export interface BlockInfo {
  /** Name of the drive; empty for a `-blockdev` without one. */
  readonly device: string;
  /** Name in the block graph. */
  readonly nodeName: string;
  /** Id of the device it is attached to. */
  readonly qdev?: string;
  /** Path of the image. */
  readonly file: string;
  /** Name of the format driver, for example `raw`. */
  readonly driver: string;
  readonly readOnly: boolean;
  /** Bytes. */
  readonly size: number;
  /** Whether the host's page cache is bypassed (`cache.direct=on`). */
  readonly direct: boolean;
}

/** One network client: a NIC or a backend (`info network`). */
export interface NetClientInfo {
  readonly name: string;
  /** Its description, for example `index=0,type=tap,ifname=tap0`. */
  readonly info: string;
  readonly peer?: NetClientInfo;
}

/** A machine type (`query-machines`). */
export interface MachineTypeInfo {
  readonly name: string;
  readonly isDefault: boolean;
  readonly cpuMax: number;
  readonly defaultCpuType: string;
  readonly defaultRamId: string;
  readonly acpi: boolean;
}

/** Properties of `device_add`; all but the first three are the driver's own. */
export interface DeviceOptions {
  readonly driver: string;
  readonly id?: string;
  readonly bus?: string;
  readonly [property: string]: unknown;
}

/** Properties of `object-add`; all but the first two are the type's own. */
export interface ObjectOptions {
  readonly "qom-type": string;
  readonly id: string;
  readonly [property: string]: unknown;
}

/** What `set-action` sets. */
export interface Actions {
  readonly reboot?: "reset" | "shutdown";
  readonly shutdown?: "poweroff" | "pause";
  readonly panic?: "pause" | "shutdown" | "exit-failure" | "none";
  readonly watchdog?: "reset" | "shutdown" | "poweroff" | "pause" | "debug" | "none" | "inject-nmi";
}

/** A value now or later. */
export type Awaitable<T> = T | Promise<T>;

/** The VM as monitor commands see it. */
export interface MachineControl {
  /** `-name`; undefined if none was given. */
  readonly name: string | undefined;
  /** `-uuid`; all zeros if none was given. */
  readonly uuid: string;
  readonly kvm: { readonly enabled: boolean; readonly present: boolean };
  readonly runState: RunState;
  /** Whether vCPUs run. */
  readonly running: boolean;
  /** Whether the guest can be woken from suspend. */
  readonly wakeupSupported: boolean;
  readonly events: EventSink;
  readonly fds: FdRegistry;

  stop(): Awaitable<void>;
  cont(): Awaitable<void>;
  reset(): Awaitable<void>;
  powerdown(): Awaitable<void>;
  wakeup(): Awaitable<void>;
  quit(): Awaitable<void>;
  injectNmi(): Awaitable<void>;
  setActions(actions: Actions): void;

  readonly machineTypes: readonly MachineTypeInfo[];
  readonly vcpus: readonly VcpuInfo[];
  /** A vCPU's registers as `info registers` prints them, without the `CPU#n` line. */
  registers(cpuIndex: number): Awaitable<string>;
  /** The value of one register, named in lower case without `$`; undefined if there is none. */
  register(cpuIndex: number, name: string): Awaitable<bigint | undefined>;
  /** State of the interrupt controllers, as `info pic` prints it. */
  interruptControllers(): Awaitable<string>;
  /** Interrupt counts, as `info irq` prints them. */
  interruptStatistics(): Awaitable<string>;
  /** A vCPU's local APIC, as `info lapic` prints it. */
  localApic(cpuIndex: number): Awaitable<string>;

  readonly memory: {
    /** Bytes at start. */
    readonly size: number;
    /** Bytes plugged since. */
    readonly plugged: number;
  };
  readonly memoryBackends: readonly MemoryBackendInfo[];
  readonly ramBlocks: readonly RamBlockInfo[];
  readonly addressSpaces: readonly AddressSpaceInfo[];
  readonly roms: readonly RomInfo[];
  /** A copy of guest-physical memory; undefined if any byte of the range is no memory. */
  readMemory(address: bigint, length: number): Uint8Array<ArrayBuffer> | undefined;
  /** The guest-physical address of a virtual one, by the vCPU's page tables. */
  translate(cpuIndex: number, address: bigint): Awaitable<bigint | undefined>;

  readonly chardevs: readonly ChardevInfo[];
  /** Names of the character-device backends, for example `socket`. */
  readonly chardevBackends: readonly string[];
  readonly deviceTree: BusInfo;
  readonly blockDevices: readonly BlockInfo[];
  readonly netClients: readonly NetClientInfo[];

  objectAdd(options: ObjectOptions): Awaitable<void>;
  /** The same with options as after `-object` on the command line. */
  objectAddOptions(text: string): Awaitable<void>;
  objectDel(id: string): Awaitable<void>;
  deviceAdd(options: DeviceOptions): Awaitable<void>;
  /** The same with options as after `-device` on the command line. */
  deviceAddOptions(text: string): Awaitable<void>;
  deviceDel(id: string): Awaitable<void>;
  /** @returns the slave's path, if the backend is a pty */
  chardevAdd(config: ChardevConfig): Awaitable<{ pty?: string }>;
  /** The same with options as after `-chardev` on the command line. */
  chardevAddOptions(text: string): Awaitable<void>;
  chardevRemove(id: string): Awaitable<void>;
}

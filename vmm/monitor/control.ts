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
import type { ThrottleLimits } from "../../devices/block/throttle.ts";
import type { ActionConfig, IoThreadConfig } from "../config.ts";
import type { VmEventListener } from "../events.ts";
import type { RunState } from "../run_state.ts";
import type { BlockInfo, BlockNodeInfo } from "./block_info.ts";
import type { FdRegistry } from "./fd_registry.ts";
import type { JsonValue } from "./json_value.ts";

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
  /** From 0. */
  readonly index: number;
  /** Host thread id (gettid). */
  readonly threadId: number;
  /** CPU model, for example `host`. */
  readonly model: string;
  /** Place in the CPU topology. */
  readonly topology: {
    readonly socketId: number;
    readonly dieId?: number;
    readonly coreId: number;
    readonly threadId: number;
  };
}

/** One memory backend object. */
export interface MemoryBackendInfo {
  /** Id of the object. */
  readonly id: string;
  /** Bytes. */
  readonly size: number;
  /** Whether KSM may merge its pages. */
  readonly merge: boolean;
  /** Whether core dumps have its pages. */
  readonly dump: boolean;
  /** Whether its pages were touched at start. */
  readonly prealloc: boolean;
  /** Whether the mapping is shared, so that another process can map the same memory. */
  readonly share: boolean;
  /** Whether swap space is reserved for it. */
  readonly reserve: boolean;
}

/** One host mapping that backs guest memory (`info ramblock`). */
export interface RamBlockInfo {
  /** Name of the backend or region. */
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
  /** Whether the guest can only read it. */
  readonly readOnly: boolean;
}

/** A range of an address space (`info mtree`). */
export interface MemoryRegionInfo {
  /** The region's name. */
  readonly name: string;
  /** First address, absolute. */
  readonly start: bigint;
  /** Last address, inclusive: a region may end at 2^64 - 1. */
  readonly end: bigint;
  /** Where siblings overlap, the higher is seen. */
  readonly priority: number;
  /** What an access does: nothing here, the device emulation, host memory, host memory without writes. */
  readonly kind: "container" | "i/o" | "ram" | "rom";
  /** Set if the region shows a part of another one. */
  readonly alias?: { readonly of: string; readonly start: bigint; readonly end: bigint };
  /** Regions inside, in the order shown. */
  readonly children?: readonly MemoryRegionInfo[];
}

/** An address space: `memory` or `I/O`. */
export interface AddressSpaceInfo {
  /** Name of the address space. */
  readonly name: string;
  /** The region that spans it; spaces that show the same share the object. */
  readonly root: MemoryRegionInfo;
}

/** A firmware or kernel image in guest memory (`info roms`). */
export interface RomInfo {
  /** Name of the file. */
  readonly name: string;
  /** Guest-physical address. */
  readonly address: bigint;
  /** Bytes. */
  readonly size: number;
  /** What kind of memory it lies in. */
  readonly memory: "ram" | "rom";
}

/** A thread that devices name. */
export interface IoThreadInfo extends Omit<IoThreadConfig, "qomType"> {
  /** The thread's id. */
  readonly threadId: number;
}

/** One character device. */
export interface ChardevInfo {
  /** Its id. */
  readonly label: string;
  /** What it is connected to, for example `unix:/run/vm.sock,server=on`. */
  readonly filename: string;
  /** Whether a device or monitor uses it. */
  readonly frontendOpen: boolean;
}

/** A bus in the device tree (`info qtree`). */
export interface BusInfo {
  /** The bus's name. */
  readonly name: string;
  /** Type of the bus, for example `virtio-mmio-bus`. */
  readonly type: string;
  /** Devices on it. */
  readonly devices: readonly DeviceInfo[];
}

/** A device in the device tree. */
export interface DeviceInfo {
  /** The driver's name. */
  readonly driver: string;
  /** Empty for a device without an id. */
  readonly id: string;
  /** Property names and their printed values, for example `["irq", "4 (0x4)"]`. */
  readonly properties: readonly (readonly [name: string, value: string])[];
  /** MMIO ranges. */
  readonly mmio?: readonly { readonly start: bigint; readonly size: bigint }[];
  /** Buses that the device provides. */
  readonly buses?: readonly BusInfo[];
}

/** One network client: a NIC or a backend (`info network`). */
export interface NetClientInfo {
  /** Id of the device or backend. */
  readonly name: string;
  /** Its description, for example `index=0,type=tap,ifname=tap0`. */
  readonly info: string;
  /** The backend that the NIC is connected to. */
  readonly peer?: NetClientInfo;
}

/** A machine type (`query-machines`). */
export interface MachineTypeInfo {
  /** The type's name. */
  readonly name: string;
  /** Whether it is used if none is given. */
  readonly isDefault: boolean;
  /** Most vCPUs. */
  readonly cpuMax: number;
  /** Type of the vCPUs, for example `host-x86_64-cpu`. */
  readonly defaultCpuType: string;
  /** Id of the RAM that the machine makes itself. */
  readonly defaultRamId: string;
  /** Whether it can have ACPI tables. */
  readonly acpi: boolean;
}

/** Properties of `device_add`; all but the first three are the driver's own. */
export interface DeviceOptions {
  /** The driver's name. */
  readonly driver: string;
  /** Id of the new device. */
  readonly id?: string;
  /** Name of the bus; any that fits if absent. */
  readonly bus?: string;
  /** A property of the driver's. */
  readonly [property: string]: unknown;
}

/** Properties of `object-add`; all but the first two are the type's own. */
export interface ObjectOptions {
  /** Type of the object. */
  readonly "qom-type": string;
  /** Id of the new object. */
  readonly id: string;
  /** A property of the type's. */
  readonly [property: string]: unknown;
}

/** Properties of `blockdev-add`; all but the first two are the driver's own. */
export interface BlockdevOptions {
  /** Name of the driver. */
  readonly driver: string;
  /** Name of the new node. */
  readonly "node-name"?: string;
  /** A property of the driver's. */
  readonly [property: string]: unknown;
}

/** What `set-action` sets; what is absent stays. */
export type Actions = Partial<ActionConfig>;

/** A value now or later. */
export type Awaitable<T> = T | Promise<T>;

/** Memory of a PCI function. */
export interface PciRegionInfo {
  /** The number of its base address register. */
  readonly bar: number;
  /** Undefined while it is not decoded. */
  readonly address?: number;
  /** Bytes. */
  readonly size: number;
  /** Whether its address has 64 bits, and it is prefetchable. */
  readonly wide: boolean;
}

/** A function on the PCI bus. */
export interface PciFunctionInfo {
  /** The bus's number. */
  readonly bus: number;
  readonly slot: number;
  /** The device's id. */
  readonly id: string;
  /** What its configuration space says. */
  readonly config: {
    readonly vendorId: number;
    readonly deviceId: number;
    /** Base class and subclass, in 16 bits. */
    readonly class: number;
    readonly subsystemVendorId: number;
    readonly subsystemId: number;
    readonly interruptLine: number;
    /** 1 for pin A; 0 if it has none. */
    readonly interruptPin: number;
  };
  readonly regions: readonly PciRegionInfo[];
  /** What is behind it, if it is a bridge. */
  readonly bridge?: PciBridgeInfo;
}

/** A bridge as its configuration space says. */
export interface PciBridgeInfo {
  /** Numbers of buses: the one before it, the one behind it, the last one that can be reached. */
  readonly primary: number;
  readonly secondary: number;
  readonly subordinate: number;
  /** Addresses that are passed on, both ends included. */
  readonly memory: { readonly base: number; readonly limit: number };
  readonly prefetchable: { readonly base: number; readonly limit: number };
  readonly functions: readonly PciFunctionInfo[];
}

/** The VM as monitor commands see it. */
export interface MachineControl {
  /** `-name`; undefined if none was given. */
  readonly name: string | undefined;
  /** `-uuid`; all zeros if none was given. */
  readonly uuid: string;
  /** Whether KVM is in use, and whether it could be. */
  readonly kvm: { readonly enabled: boolean; readonly present: boolean };
  /** The run state. */
  readonly runState: RunState;
  /** Whether vCPUs run. */
  readonly running: boolean;
  /** Whether the guest can be woken from suspend. */
  readonly wakeupSupported: boolean;
  /** The Virtual Machine Generation ID, a GUID; undefined if there is no such device. */
  readonly generationId: string | undefined;
  /** Where the VM sends its events. */
  readonly events: EventSink;
  /** Descriptors passed by clients. */
  readonly fds: FdRegistry;

  /** Stops the vCPUs; nothing if they do not run. */
  stop(): Awaitable<void>;
  /** Lets the vCPUs run; nothing if they do. Throws where they must not. */
  cont(): Awaitable<void>;
  /** Resets the machine. */
  reset(): Awaitable<void>;
  /** Asks the guest to shut down. */
  powerdown(): Awaitable<void>;
  /** Wakes the guest from suspend; throws if it is not suspended. */
  wakeup(): Awaitable<void>;
  /** Ends the VMM: it closes its connections once the reply is sent. */
  quit(): Awaitable<void>;
  /** Sends an NMI to all vCPUs. */
  injectNmi(): Awaitable<void>;
  /**
   * Presses keys of the guest's keyboard together (QKeyCode), and releases them after `holdMs`; a
   * guest that does not run notices nothing.
   */
  sendKeys(keys: readonly string[], holdMs: number): Awaitable<void>;
  /** Sets what happens when the guest reboots, shuts down, panics or hangs. */
  setActions(actions: Actions): void;

  /** Machine types that can be created. */
  readonly machineTypes: readonly MachineTypeInfo[];
  /** The vCPUs, by index. */
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

  /** Amounts of memory. */
  readonly memory: {
    /** Bytes at start. */
    readonly size: number;
    /** Bytes plugged since. */
    readonly plugged: number;
  };
  /**
   * How much of it the guest has, without what it has given back, bytes; throws if there is no balloon.
   */
  readonly guestMemory: number;
  /** Asks the guest to give memory back until it has so much, bytes; throws if there is no balloon. */
  setBalloon(bytes: number): void;
  /** A property of an object; throws if there is no such object or property. */
  qomGet(path: string, property: string): Awaitable<JsonValue>;
  /** Sets a property of an object; throws if there is none, or it cannot be set to that. */
  qomSet(path: string, property: string, value: JsonValue): Awaitable<void>;
  /** The same with a value as on the command line. */
  qomSetText(path: string, property: string, text: string): Awaitable<void>;
  /** Memory backend objects. */
  readonly memoryBackends: readonly MemoryBackendInfo[];
  /** Host mappings that back guest memory. */
  readonly ramBlocks: readonly RamBlockInfo[];
  /** What lies at which address. */
  readonly addressSpaces: readonly AddressSpaceInfo[];
  /** Images loaded into guest memory. */
  readonly roms: readonly RomInfo[];
  /** A copy of guest-physical memory; undefined if any byte of the range is no memory. */
  readMemory(address: bigint, length: number): Uint8Array<ArrayBuffer> | undefined;
  /** The guest-physical address of a virtual one, by the vCPU's page tables. */
  translate(cpuIndex: number, address: bigint): Awaitable<bigint | undefined>;

  /** Character devices. */
  readonly chardevs: readonly ChardevInfo[];
  /** Names of the character-device backends, for example `socket`. */
  readonly chardevBackends: readonly string[];
  /** Objects that are threads, once they have started. */
  iothreads(): Awaitable<readonly IoThreadInfo[]>;
  /** The bus that all others hang from. */
  readonly deviceTree: BusInfo;
  /** The functions on the PCI bus, by their slots; none without a bus. */
  readonly pciFunctions: readonly PciFunctionInfo[];
  /** Disks. */
  readonly blockDevices: readonly BlockInfo[];
  /** Block nodes, the last to come first. */
  readonly blockNodes: readonly BlockNodeInfo[];
  /** NICs with their peers, and backends without a NIC. */
  readonly netClients: readonly NetClientInfo[];

  /** Plugs the cable of a network card, or of its backend, in or out; throws if there is neither. */
  setLink(name: string, up: boolean): Awaitable<void>;

  /** Opens a network backend, described as after `-netdev` on the command line; throws if it cannot be. */
  netdevAdd(options: string): Awaitable<void>;
  /** Closes a network backend; throws if there is none or a card has it. */
  netdevDel(id: string): Awaitable<void>;

  /** Creates an object; throws if the type cannot be made or the id is taken. */
  objectAdd(options: ObjectOptions): Awaitable<void>;
  /** The same with options as after `-object` on the command line. */
  objectAddOptions(text: string): Awaitable<void>;
  /** Destroys an object; throws if there is none or it is in use. */
  objectDel(id: string): Awaitable<void>;
  /** Plugs in a device; throws if there is no such driver or no place. */
  deviceAdd(options: DeviceOptions): Awaitable<void>;
  /** The same with options as after `-device` on the command line. */
  deviceAddOptions(text: string): Awaitable<void>;
  /** Unplugs a device; DEVICE_DELETED tells when it is gone. Throws if there is none. */
  deviceDel(id: string): Awaitable<void>;
  /** Waits for gdb on a device, instead of the one before; `none` for no device. */
  gdbserver(device: string): Awaitable<void>;
  /** Adds a character device; returns the slave's path if it is a pty. */
  chardevAdd(config: ChardevConfig): Awaitable<{ pty?: string }>;
  /** The same with options as after `-chardev` on the command line. */
  chardevAddOptions(text: string): Awaitable<void>;
  /** Removes a character device; throws if there is none or it is in use. */
  chardevRemove(id: string): Awaitable<void>;
  /** Opens a block node; throws if it cannot be, or the name is taken. */
  blockdevAdd(options: BlockdevOptions): Awaitable<void>;
  /** Closes a block node; throws if there is none or it is in use. */
  blockdevDel(nodeName: string): Awaitable<void>;
  /** Changes the size of a disk; throws if it cannot be. */
  blockResize(
    of: { readonly device?: string; readonly nodeName?: string },
    size: number,
  ): Awaitable<void>;
  /** Changes a disk's limits; throws if there is no such disk. */
  blockSetIoThrottle(
    of: { readonly device?: string; readonly id?: string },
    limits: ThrottleLimits,
    group?: string,
  ): Awaitable<void>;
}

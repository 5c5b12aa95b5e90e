/**
 * What a virtual machine is made of: plain data, from the command line or from code.
 *
 * @module
 */
import type { ThrottleLimits } from "../devices/block/throttle.ts";
import { MACHINE_TYPE } from "./machine/microvm.ts";
import type { BlockNodeConfig, DriveConfig } from "../devices/block/config.ts";
import type { ChardevConfig } from "../devices/chardev/config.ts";
import type { PropertyValue } from "../devices/device.ts";
import type { NetdevConfig } from "../devices/net/config.ts";

export type { BlockNodeConfig, ChardevConfig, DriveConfig, NetdevConfig };

/** `-machine microvm,...` */
export interface MachineTypeConfig {
  /** The only machine there is. */
  readonly type: "microvm";
  /** `memory-backend=ID`: the backend that is the machine's RAM. */
  readonly memoryBackend?: string;
  /** `aux-ram-share=`; undefined when not given. */
  readonly auxRamShare?: boolean;
  /** Whether ACPI tables tell the guest of the machine, and there is a GED. */
  readonly acpi: boolean;
  /** `x-oem-id=`: who made the ACPI tables, up to 6 bytes. */
  readonly oemId?: string;
  /** `x-oem-table-id=`: up to 8 bytes. */
  readonly oemTableId?: string;
  /** Whether a machine with ACPI has a second I/O APIC, and more virtio-mmio transports. */
  readonly ioapic2: boolean;
  /** Whether there is a PCI Express root bus, which only a machine with ACPI has. */
  readonly pcie: boolean;
  /** i8254 timer. */
  readonly pit: boolean;
  /** i8259 interrupt controllers. */
  readonly pic: boolean;
  /** MC146818 clock and CMOS. */
  readonly rtc: boolean;
  /** `dump-guest-core=`: whether a core dump of the VMM has guest RAM in it. */
  readonly dumpGuestCore: boolean;
  /** `mem-merge=`: whether the host may share equal pages of private RAM (KSM). */
  readonly memMerge: boolean;
  /** Whether `-serial` makes ISA serial ports. */
  readonly isaSerial: boolean;
  /** Whether the kernel is told of virtio-mmio devices on its command line. */
  readonly autoKernelCmdline: boolean;
  /** `x-pause-clock=`: guest time stands still during a live update, as under QEMU. */
  readonly xPauseClock: boolean;
  /** `x-boot=`: the boot protocol of an ELF kernel. */
  readonly xBoot: "auto" | "pvh" | "linux64";
}

/** `-cpu MODEL,+feature,-feature,property=value` */
export interface CpuConfig {
  /** Name of the CPU model. */
  readonly model: string;
  /**
   * Features and properties in the order in which they apply: `name=value`, then `+name`, then
   * `-name`.
   */
  readonly features: readonly (readonly [name: string, value: string | boolean])[];
}

/** `-smp` */
export interface SmpConfig {
  /** CPUs at power-on. */
  readonly cpus: number;
  /** Product of the levels below. */
  readonly maxcpus: number;
  /** Sockets on the board. */
  readonly sockets: number;
  /** Dies a socket: 1. */
  readonly dies: number;
  /** Cores a die. */
  readonly cores: number;
  /** Threads a core. */
  readonly threads: number;
}

/** `-object memory-backend-*` */
export interface MemoryBackendConfig {
  /** QEMU's name of the kind of memory. */
  readonly qomType:
    | "memory-backend-memfd"
    | "memory-backend-file"
    | "memory-backend-shm"
    | "memory-backend-ram";
  /** Unique among objects. */
  readonly id: string;
  /** Bytes. */
  readonly size: number;
  /** Whether another process can map the same memory. */
  readonly share: boolean;
  /** File, or directory to make one in; only memory-backend-file has it. */
  readonly memPath?: string;
  /** Whether all pages are allocated at the start. */
  readonly prealloc: boolean;
  /** Whether a memfd is made of huge pages. */
  readonly hugetlb: boolean;
  /** Bytes a huge page; the system's default when undefined. */
  readonly hugetlbsize?: number;
  /** Alignment of the mapping in bytes. */
  readonly align?: number;
  /** Bytes into the file. */
  readonly offset?: number;
  /** Whether the file is opened for reading only. */
  readonly readonly: boolean;
  /** Whether a memfd is sealed against changes of its size. */
  readonly seal: boolean;
}

/** `-object rng-random,...` or `rng-builtin`: where random numbers for guests come from. */
export interface RngConfig {
  /** The object's type. */
  readonly qomType: "rng-random" | "rng-builtin";
  /** Unique among objects. */
  readonly id: string;
  /** The file that they are read from; without, they are the host's kernel's. */
  readonly filename?: string;
}

/** `-object iothread,...`: a thread that works for devices. */
export interface IoThreadConfig {
  /** The object's type. */
  readonly qomType: "iothread";
  /** Unique among objects. */
  readonly id: string;
  // How QEMU's would poll before it sleeps; ours sleeps at once, and tells what it was told.
  /** How many requests are submitted together. */
  readonly aioMaxBatch: number;
  /** By what the polling time grows. */
  readonly pollGrow: number;
  /** The longest polling time. */
  readonly pollMaxNs: number;
  /** By what the polling time shrinks. */
  readonly pollShrink: number;
  /** What the last time weighs. */
  readonly pollWeight: number;
}

/** `-object throttle-group,...`: limits that disks share. */
export interface ThrottleGroupConfig {
  /** The object's type. */
  readonly qomType: "throttle-group";
  /** Unique among objects. */
  readonly id: string;
  /** What the disks may do in a second, all together. */
  readonly limits: ThrottleLimits;
}

/** What `-object` makes. */
export type ObjectConfig =
  | MemoryBackendConfig
  | RngConfig
  | IoThreadConfig
  | ThrottleGroupConfig;

/** `-device loader,...` */
export interface LoaderConfig {
  /** File to put into memory; without one a value is put there, or only a CPU started. */
  readonly file?: string;
  /** Guest-physical address; an ELF file has its own. */
  readonly addr?: number;
  /** CPU that starts at the file's entry point. */
  readonly cpuNum?: number;
  /** Load an ELF file as bytes like any other. */
  readonly forceRaw?: boolean;
  /** A value to store. */
  readonly data?: bigint;
  /** Its size in bytes, up to 8. */
  readonly dataLen?: number;
  /** Store it big-endian. */
  readonly dataBe?: boolean;
}

/** `-fw_cfg`: a file that firmware finds by its name. */
export type FirmwareFileConfig =
  & {
    /** Its name, `opt/…`. */
    readonly name: string;
  }
  & (
    | { /** The file on the host that it is. */ readonly path: string; readonly text?: undefined }
    | { /** Its content. */ readonly text: string; readonly path?: undefined }
  );

/** `-boot`: what firmware shall do. */
export interface BootConfig {
  /** Offer a menu. */
  readonly menu: boolean;
  /** Milliseconds that the menu waits. */
  readonly splashTime?: number;
  /** Milliseconds after which it starts again when nothing boots; -1 for never. */
  readonly rebootTimeout?: number;
}

/** `-device DRIVER,...` */
export interface DeviceConfig {
  /** The device type's name. */
  readonly driver: string;
  /** Unique among devices. */
  readonly id?: string;
  /** Properties that were given, by `-device` or `-global`. */
  readonly properties: Readonly<Record<string, PropertyValue>>;
}

/** `-mon`, `-monitor`, `-qmp`, `-gdb` */
export interface MonitorConfig {
  /** QMP is `control`, HMP is `readline`; gdb's Remote Serial Protocol is `gdb`. */
  readonly mode: "control" | "readline" | "gdb";
  /** Id of a character device. */
  readonly chardev: string;
  /** Whether QMP replies are indented. */
  readonly pretty: boolean;
}

/** `-action` */
export interface ActionConfig {
  /** When the guest resets itself. */
  readonly reboot: "reset" | "shutdown";
  /** When the guest powers itself off. */
  readonly shutdown: "poweroff" | "pause";
  /** When the guest panics. */
  readonly panic: "pause" | "shutdown" | "exit-failure" | "none";
  /** When a watchdog fires. */
  readonly watchdog: "reset" | "shutdown" | "poweroff" | "pause" | "debug" | "none" | "inject-nmi";
}

/** Everything that the command line can say of a VM. */
export interface MachineConfig {
  /** `-machine` */
  readonly machine: MachineTypeConfig;
  /** `-cpu` */
  readonly cpu: CpuConfig;
  /** `-smp` */
  readonly smp: SmpConfig;
  /** Bytes of RAM. */
  readonly memory: number;
  /** `-mem-path`: a file, or a directory to make one in, that is the machine's own RAM. */
  readonly memPath?: string;
  /** `-mem-prealloc`: whether the machine's own RAM is allocated at the start. */
  readonly memPrealloc: boolean;
  /** Those of `-object` that are memory, in order. */
  readonly objects: readonly MemoryBackendConfig[];
  /** Those of `-object` that are sources of random numbers. */
  readonly rngs: readonly RngConfig[];
  /** Those of `-object` that are threads. */
  readonly iothreads: readonly IoThreadConfig[];
  /** Those of `-object` that are limits of disks. */
  readonly throttleGroups: readonly ThrottleGroupConfig[];
  /** `-kernel`: file name. */
  readonly kernel?: string;
  /** `-initrd`: file name. */
  readonly initrd?: string;
  /** `-append`: the kernel command line. */
  readonly append?: string;
  /** `-bios`: file name. */
  readonly bios?: string;
  /** `-fw_cfg`, in order. */
  readonly firmwareFiles: readonly FirmwareFileConfig[];
  /** `-boot` */
  readonly boot: BootConfig;
  /** `-rtc base=`: the time zone of the clock, or what it shows at the start in Unix seconds. */
  readonly rtcBase: "utc" | "localtime" | number;
  /** `-nographic`: firmware is told that it has no screen. */
  readonly nographic: boolean;
  /** `-device loader`, in order. */
  readonly loaders: readonly LoaderConfig[];
  /** `-device`, in order. */
  readonly devices: readonly DeviceConfig[];
  /** `-blockdev`, and those that `-drive` implies, each after the one that it is made of. */
  readonly blockdevs: readonly BlockNodeConfig[];
  /** `-drive`, in order. */
  readonly drives: readonly DriveConfig[];
  /** `-netdev`, in order. */
  readonly netdevs: readonly NetdevConfig[];
  /** `-chardev`, and those that `-serial`, `-monitor` and the like imply. */
  readonly chardevs: readonly ChardevConfig[];
  /** Ids of character devices, COM1 first; `none` for a port without one. */
  readonly serials: readonly string[];
  /** Monitors, in order. */
  readonly monitors: readonly MonitorConfig[];
  /** `-debugcon`: id of a character device. */
  readonly debugcon?: string;
  /** `-accel`: what may run the guest, best first; none for KVM, or else the software CPU. */
  readonly accelerators: readonly ("kvm" | "tcg")[];
  /** `-name`: the guest's name. */
  readonly name?: string;
  /** `-name process=`: the name of the VMM's process. */
  readonly processName?: string;
  /** `-name debug-threads=`: whether threads get names of their own. */
  readonly debugThreads: boolean;
  /** `-uuid`, in lower case. */
  readonly uuid?: string;
  /** `-pidfile`: file name. */
  readonly pidfile?: string;
  /** `-daemonize` */
  readonly daemonize: boolean;
  /** `-D`: file name. */
  readonly logfile?: string;
  /** `-d` */
  readonly debugItems: readonly string[];
  /** `-S` */
  readonly startPaused: boolean;
  /** `-no-reboot`: whether `actions.reboot` is `shutdown`. */
  readonly noReboot: boolean;
  /** `-no-shutdown`: whether `actions.shutdown` is `pause`. */
  readonly noShutdown: boolean;
  /** `-action`, `-no-reboot` and `-no-shutdown`. */
  readonly actions: ActionConfig;
  /** Arguments of `-incoming`, in order. */
  readonly incoming: readonly string[];
  /** `-global DRIVER.PROPERTY=VALUE` */
  readonly globals: readonly (readonly [driver: string, property: string, value: string])[];
  /** `-sandbox on,spawn=deny,resourcecontrol=deny`: what the VMM itself may do. */
  readonly sandbox: {
    readonly enabled: boolean;
    /** Start programs. */
    readonly spawn: boolean;
    /** Choose the processors that its threads run on. */
    readonly resourceControl: boolean;
  };
  /** `-msg`: whether messages begin with the time, and the guest's name. */
  readonly messages: { readonly timestamp: boolean; readonly guestName: boolean };
}

/** The configuration of a VM about which nothing was said. */
export function defaultConfig(): MachineConfig {
  return {
    machine: {
      type: MACHINE_TYPE,
      acpi: true,
      ioapic2: true,
      pcie: false,
      pit: true,
      pic: true,
      rtc: false,
      dumpGuestCore: true,
      memMerge: true,
      isaSerial: true,
      autoKernelCmdline: true,
      xPauseClock: false,
      xBoot: "auto",
    },
    cpu: { model: "host", features: [] },
    smp: { cpus: 1, maxcpus: 1, sockets: 1, dies: 1, cores: 1, threads: 1 },
    memory: 128 << 20,
    accelerators: [],
    memPrealloc: false,
    objects: [],
    rngs: [],
    iothreads: [],
    throttleGroups: [],
    firmwareFiles: [],
    boot: { menu: false },
    rtcBase: "utc",
    nographic: false,
    loaders: [],
    devices: [],
    blockdevs: [],
    drives: [],
    netdevs: [],
    chardevs: [],
    serials: [],
    monitors: [],
    debugThreads: false,
    daemonize: false,
    debugItems: [],
    startPaused: false,
    noReboot: false,
    noShutdown: false,
    actions: { reboot: "reset", shutdown: "poweroff", panic: "shutdown", watchdog: "reset" },
    incoming: [],
    globals: [],
    sandbox: { enabled: false, spawn: true, resourceControl: true },
    messages: { timestamp: false, guestName: false },
  };
}

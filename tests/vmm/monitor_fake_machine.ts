/**
 * A machine for tests of the monitor: plain data, and a list of what was asked of it.
 *
 * @module
 */
import { EventHub } from "../../vmm/events.ts";
import type { BlockInfo, BlockNodeInfo } from "../../vmm/monitor/block_info.ts";
import type { MachineControl, MemoryRegionInfo, RunState } from "../../vmm/monitor/control.ts";
import { deviceNotFound, QmpError } from "../../vmm/monitor/errors.ts";
import { FdRegistry } from "../../vmm/monitor/fd_registry.ts";

const ram: MemoryRegionInfo = {
  name: "ram-below-4g",
  start: 0n,
  end: 0xfffn,
  priority: 0,
  kind: "ram",
  alias: { of: "ram0", start: 0n, end: 0xfffn },
};
const bios: MemoryRegionInfo = {
  name: "isa-bios",
  start: 0x800n,
  end: 0x8ffn,
  priority: 1,
  kind: "rom",
};

const noCounts = { bytes: 0, operations: 0, totalTimeNs: 0, failed: 0, invalid: 0 };
const noStatistics = { counts: { rd: noCounts, wr: noCounts, flush: noCounts, unmap: noCounts } };

/** One vCPU more than QEMU's recordings have, 4 KiB of RAM, a disk, a NIC and a monitor. */
export class FakeMachine implements MachineControl {
  name: string | undefined = "vm1";
  uuid = "00000000-0000-0000-0000-000000000000";
  kvm = { enabled: true, present: true };
  runState: RunState = "running";
  wakeupSupported = true;
  generationId: string | undefined = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87";
  readonly events = new EventHub();
  readonly fds = new FdRegistry();
  /** Calls with their arguments. */
  readonly calls: unknown[][] = [];
  readonly ram: Uint8Array<ArrayBuffer> = Uint8Array.from({ length: 4096 }, (_, i) => i & 0xff);

  get running(): boolean {
    return this.runState === "running";
  }
  stop() {
    if (!this.running) return;
    this.runState = "paused";
    this.events.emit("STOP");
  }
  cont() {
    if (this.runState === "shutdown") throw new Error("Resetting the Virtual Machine is required");
    if (this.running) return;
    this.runState = "running";
    this.events.emit("RESUME");
  }
  reset() {
    this.events.emit("RESET", { guest: false, reason: "host-qmp-system-reset" });
  }
  powerdown() {
    this.events.emit("POWERDOWN");
  }
  wakeup() {
    throw new QmpError("Unable to wake up: guest is not in suspended state");
  }
  quit() {
    this.events.emit("SHUTDOWN", { guest: false, reason: "host-qmp-quit" });
  }
  sendKeys(keys: readonly string[], holdMs: number) {
    this.calls.push(["sendKeys", keys, holdMs]);
  }

  injectNmi() {
    this.calls.push(["injectNmi"]);
  }
  setActions(...args: unknown[]) {
    this.calls.push(["setActions", ...args]);
  }

  readonly machineTypes = [{
    name: "microvm",
    isDefault: true,
    cpuMax: 288,
    defaultCpuType: "host-x86_64-cpu",
    defaultRamId: "microvm.ram",
    acpi: false,
  }];
  readonly vcpus = [0, 1].map((index) => ({
    index,
    threadId: 3115 + index,
    model: "qemu64",
    topology: { socketId: 0, dieId: 0, coreId: index, threadId: 0 },
  }));
  registers(cpuIndex: number) {
    return `RAX=000000000000000${cpuIndex}\n`;
  }
  register(_cpuIndex: number, name: string) {
    return name === "rip" ? 0xfff0n : undefined;
  }
  interruptControllers() {
    return "pic0: irr=00\n";
  }
  interruptStatistics() {
    return "IRQ statistics for kvm-ioapic:\n";
  }
  localApic(cpuIndex: number) {
    return `dumping local APIC state for CPU ${cpuIndex} \n`;
  }

  readonly memory = { size: 268435456, plugged: 0 };
  guestMemory = 268435456;
  setBalloon(bytes: number) {
    this.guestMemory = bytes;
  }
  qomGet(path: string, property: string) {
    if (path !== "/machine/peripheral/balloon0") throw deviceNotFound(path);
    return property === "guest-stats" ? { stats: { "stat-swap-in": 2n ** 64n - 1n } } : 5;
  }
  qomSet(...args: unknown[]) {
    this.calls.push(["qomSet", ...args]);
  }
  qomSetText(...args: unknown[]) {
    this.calls.push(["qomSetText", ...args]);
  }
  readonly memoryBackends = [{
    id: "ram0",
    size: 268435456,
    merge: true,
    dump: true,
    prealloc: false,
    share: true,
    reserve: true,
  }];
  readonly ramBlocks = [{
    name: "ram0",
    pageSize: 4096,
    offset: 0n,
    used: 0x10000000n,
    total: 0x10000000n,
    hostAddress: 0x7f4c0ffff000n,
    readOnly: false,
  }];
  readonly addressSpaces = ["memory", "cpu-memory-0"].map((name) => ({ name, root: memoryRoot }));
  readonly roms = [{
    name: "rom1.bin",
    address: 0xffff0000n,
    size: 0x10000,
    memory: "rom" as const,
  }];
  readMemory(address: bigint, length: number) {
    const end = address + BigInt(length);
    return end > 4096n ? undefined : this.ram.slice(Number(address), Number(end));
  }
  /** Maps 64 KiB and up to 0 and up. */
  translate(_cpuIndex: number, address: bigint) {
    return address < 0x10000n ? undefined : address - 0x10000n;
  }

  readonly chardevs = [{
    label: "compat_monitor0",
    filename: "unix:run/tr-old.qmp,server=on",
    frontendOpen: true,
  }];
  readonly chardevBackends = ["null", "socket"];
  iothreads() {
    return [{
      ...{ id: "io0", threadId: 4712, pollMaxNs: 32768, pollGrow: 0, pollShrink: 0 },
      ...{ pollWeight: 0, aioMaxBatch: 0 },
    }];
  }
  readonly deviceTree = {
    name: "main-system-bus",
    type: "System",
    devices: [{
      driver: "virtio-mmio",
      id: "",
      properties: [["ioeventfd", "true"]] as const,
      mmio: [{ start: 0xfeb00000n, size: 0x200n }],
      buses: [{
        name: "virtio-mmio-bus.0",
        type: "virtio-mmio-bus",
        devices: [{ driver: "virtio-blk-device", id: "vb0", properties: [] }],
      }],
    }],
  };
  readonly pciFunctions = [
    {
      ...{ bus: 0, slot: 0, id: "", regions: [] },
      config: {
        ...{ vendorId: 0x1b36, deviceId: 8, class: 0x600, subsystemVendorId: 0x1af4 },
        ...{ subsystemId: 0x1100, interruptLine: 0, interruptPin: 0 },
      },
    },
    {
      ...{ bus: 0, slot: 17, id: "r0" },
      regions: [
        { bar: 1, address: 0xc000_1000, size: 0x1000, wide: false },
        { bar: 4, size: 0x4000, wide: true },
      ],
      config: {
        ...{ vendorId: 0x1af4, deviceId: 0x1044, class: 0xff, subsystemVendorId: 0x1af4 },
        ...{ subsystemId: 0x1100, interruptLine: 11, interruptPin: 1 },
      },
    },
  ];
  readonly blockNodes: readonly BlockNodeInfo[] = [
    {
      ...{ nodeName: "#d0", driver: "raw", filename: "disk.img", child: "#d0.file" },
      ...{ readOnly: false, size: 1048576, allocated: 8192, direct: false, noFlush: false },
      ...{ detectZeroes: "off", highestWrite: 1024 },
    },
    {
      ...{ nodeName: "#d0.file", driver: "file", filename: "disk.img" },
      ...{ readOnly: false, size: 1048576, allocated: 8192, direct: false, noFlush: false },
      ...{ detectZeroes: "off", highestWrite: 1024 },
      discards: { done: 1, failed: 2, bytes: 512 },
    },
    {
      ...{ nodeName: "n1", driver: "null-co", filename: 'json:{"driver": "null-co", "size": 0}' },
      ...{ readOnly: true, size: 0, direct: true, noFlush: true },
      ...{ detectZeroes: "on", highestWrite: 0 },
    },
  ];
  readonly blockDevices: readonly BlockInfo[] = [
    {
      ...{ device: "d0", qdev: "vb0", ioStatus: "nospace", writeback: false },
      node: this.blockNodes[0],
      statistics: {
        counts: {
          rd: { bytes: 1, operations: 2, totalTimeNs: 3, failed: 4, invalid: 5 },
          wr: { bytes: 11, operations: 12, totalTimeNs: 13, failed: 14, invalid: 15 },
          flush: { bytes: 0, operations: 22, totalTimeNs: 23, failed: 24, invalid: 25 },
          unmap: { bytes: 31, operations: 32, totalTimeNs: 33, failed: 34, invalid: 35 },
        },
        idleNs: 99,
      },
    },
    { device: "cd", writeback: true, statistics: noStatistics },
    {
      ...{ device: "", qdev: "vb1", ioStatus: "ok", writeback: true },
      node: this.blockNodes[2],
      statistics: noStatistics,
    },
  ];
  readonly netClients = [{
    name: "vn0",
    info: "index=0,type=nic,model=virtio-net-device,macaddr=52:54:00:12:34:56",
    peer: { name: "n0", info: "index=0,type=tap,ifname=tap0" },
  }];

  setLink(...args: unknown[]) {
    this.calls.push(["setLink", ...args]);
  }
  netdevAdd(...args: unknown[]) {
    this.calls.push(["netdevAdd", ...args]);
  }
  netdevDel(...args: unknown[]) {
    this.calls.push(["netdevDel", ...args]);
  }
  blockdevAdd(...args: unknown[]) {
    this.calls.push(["blockdevAdd", ...args]);
  }
  blockdevDel(...args: unknown[]) {
    this.calls.push(["blockdevDel", ...args]);
  }
  blockResize(...args: unknown[]) {
    this.calls.push(["blockResize", ...args]);
  }
  blockSetIoThrottle(...args: unknown[]) {
    this.calls.push(["blockSetIoThrottle", ...args]);
  }
  objectAdd(...args: unknown[]) {
    this.calls.push(["objectAdd", ...args]);
  }
  objectAddOptions(...args: unknown[]) {
    this.calls.push(["objectAddOptions", ...args]);
  }
  objectDel(id: string) {
    throw new QmpError(`object '${id}' not found`);
  }
  deviceAdd({ driver }: { driver: string }) {
    throw new QmpError(`'${driver}' is not a valid device model name`);
  }
  deviceAddOptions(text: string) {
    throw new QmpError(`'${text}' is not a valid device model name`);
  }
  deviceDel(id: string) {
    throw deviceNotFound(id);
  }
  chardevAdd(...args: unknown[]) {
    this.calls.push(["chardevAdd", ...args]);
    return {};
  }
  chardevAddOptions(...args: unknown[]) {
    this.calls.push(["chardevAddOptions", ...args]);
  }
  gdbserver(...args: unknown[]) {
    this.calls.push(["gdbserver", ...args]);
  }
  chardevRemove(id: string) {
    throw new QmpError(`Chardev '${id}' not found`);
  }
}

const memoryRoot: MemoryRegionInfo = {
  name: "system",
  start: 0n,
  end: 0xffffffffffffffffn,
  priority: 0,
  kind: "container",
  children: [ram, bios],
};

/** A connection whose output is kept. */
export class FakeTransport {
  output = "";
  closed = false;
  write(bytes: Uint8Array) {
    this.output += new TextDecoder().decode(bytes);
  }
  close() {
    this.closed = true;
  }
  /** What was written since the last call. */
  take(): string {
    const text = this.output;
    this.output = "";
    return text;
  }
}

/** Text as bytes; characters up to U+00FF stand for single bytes. */
export function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

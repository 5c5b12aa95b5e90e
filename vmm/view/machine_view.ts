/**
 * A virtual machine as monitor commands see it.
 *
 * @module
 */
import type { ChardevConfig } from "../../devices/chardev/config.ts";
import type { AcceleratorVcpu } from "../accel/accelerator.ts";
import { deviceTypes } from "../../devices/registry.ts";
import { guestMemory, setBalloon } from "./balloon_view.ts";
import { blockInfos, blockNodeInfos } from "./block_view.ts";
import { addDevice, removeDevice } from "./hotplug.ts";
import { dumpInterruptControllers, dumpLocalApic } from "./interrupts.ts";
import { dumpRegisters, readRegister } from "./registers.ts";
import type { EventHub } from "../events.ts";
import { addressSpaces, deviceTree, interruptStatistics, ramBlocks } from "./machine_tree.ts";
import { MACHINE_TYPE, USABLE_CPUS } from "../machine/microvm.ts";
import type {
  Actions,
  AddressSpaceInfo,
  BlockdevOptions,
  BusInfo,
  ChardevInfo,
  DeviceOptions,
  IoThreadInfo,
  MachineControl,
  MachineTypeInfo,
  MemoryBackendInfo,
  NetClientInfo,
  ObjectOptions,
  PciFunctionInfo,
  RamBlockInfo,
  RomInfo,
  VcpuInfo,
} from "../monitor/control.ts";
import type { BlockInfo, BlockNodeInfo } from "../monitor/block_info.ts";
import type { JsonValue } from "../monitor/json_value.ts";
import { netClients, removeNetdev, setLink } from "./network_view.ts";
import { addObject, removeObject } from "./objects_view.ts";
import { pciFunctions } from "./pci_view.ts";
import { qomGet, qomSet, qomSetText } from "./qom_view.ts";
import { FdRegistry } from "../monitor/fd_registry.ts";
import { GDB_CHARDEV, parseGdbDevice } from "../options/chardev.ts";
import { parseBlockdev } from "../options/blockdev.ts";
import { parseNetdev } from "../options/netdev.ts";
import { parseChardev, parseDevice, parseObject } from "../options/command_line.ts";
import type { RunState } from "../run_state.ts";
import { DEFAULT_RAM_ID, ROM_ID } from "../machine/memory_set.ts";
import type { VirtualMachine } from "../virtual_machine.ts";

/** The bridge from the monitor's interface to the VM. */
export class MachineView implements MachineControl {
  readonly fds: FdRegistry = new FdRegistry();
  /** Executes a line of the human monitor, for gdb's `monitor`; there once monitors' code is loaded. */
  monitorLine: ((line: string) => Promise<string>) | undefined;
  readonly chardevBackends = ["null", "stdio", "file", "pipe", "pty", "socket"];
  readonly machineTypes: readonly MachineTypeInfo[] = [{
    name: MACHINE_TYPE,
    isDefault: true,
    cpuMax: USABLE_CPUS,
    defaultCpuType: "host-x86_64-cpu",
    defaultRamId: DEFAULT_RAM_ID,
    acpi: true,
  }];
  readonly #vm: VirtualMachine;

  /** @param vm the VM */
  constructor(vm: VirtualMachine) {
    this.#vm = vm;
  }

  get generationId(): string | undefined {
    return this.#vm.machine.generationId;
  }

  get wakeupSupported(): boolean {
    return this.#vm.config.machine.acpi;
  }

  get kvm(): { enabled: boolean; present: boolean } {
    return { enabled: this.#vm.machine.accelerator.name === "kvm", present: true };
  }

  get name(): string | undefined {
    return this.#vm.config.name;
  }

  get uuid(): string {
    return this.#vm.machine.uuid;
  }

  get runState(): RunState {
    return this.#vm.runState;
  }

  get running(): boolean {
    return this.#vm.running;
  }

  get events(): EventHub {
    return this.#vm.events;
  }

  stop(): void {
    this.#vm.stop();
  }

  cont(): void {
    this.#vm.cont();
  }

  reset(): void {
    this.#vm.reset();
  }

  powerdown(): void {
    this.#vm.powerdown();
  }

  wakeup(): void {
    this.#vm.wakeup();
  }

  quit(): void {
    this.#vm.quit();
  }

  injectNmi(): void {
    this.#vm.injectNmi();
  }

  get netClients(): readonly NetClientInfo[] {
    return netClients(this.#vm);
  }

  setLink(name: string, up: boolean): void {
    setLink(this.#vm, name, up);
  }

  netdevAdd(options: string): Promise<void> {
    return this.#vm.netdevs.add(parseNetdev(options));
  }

  netdevDel(id: string): void {
    removeNetdev(this.#vm, id);
  }

  sendKeys(keys: readonly string[], holdMs: number): void {
    this.#vm.sendKeys(keys, holdMs);
  }

  setActions(actions: Actions): void {
    this.#vm.actions = { ...this.#vm.actions, ...actions };
  }

  get vcpus(): readonly VcpuInfo[] {
    const { config, machine } = this.#vm;
    const { cores, threads, dies } = config.smp;
    return machine.vcpus.map(({ index, threadId }) => ({
      index,
      threadId,
      model: config.cpu.model,
      topology: {
        socketId: Math.floor(index / (threads * cores * dies)),
        ...(dies > 1 ? { dieId: Math.floor(index / (threads * cores)) % dies } : {}),
        coreId: Math.floor(index / threads) % cores,
        threadId: index % threads,
      },
    }));
  }

  registers(cpuIndex: number): string {
    return this.#vm.whileParked(() =>
      dumpRegisters(this.#vcpu(cpuIndex), this.#vm.machine.hardware.layout)
    );
  }

  register(cpuIndex: number, name: string): bigint | undefined {
    return this.#vm.whileParked(() => readRegister(this.#vcpu(cpuIndex), name));
  }

  interruptControllers(): string {
    return dumpInterruptControllers(this.#vm.machine.hardware.vm);
  }

  interruptStatistics(): string {
    return interruptStatistics(this.#vm.machine);
  }

  localApic(cpuIndex: number): string {
    return this.#vm.whileParked(() => dumpLocalApic(this.#vcpu(cpuIndex), cpuIndex));
  }

  get memory(): { size: number; plugged: number } {
    return { size: this.#vm.config.memory, plugged: 0 };
  }

  get guestMemory(): number {
    return guestMemory(this.#vm);
  }

  setBalloon(bytes: number): void {
    setBalloon(this.#vm, bytes);
  }

  qomGet(path: string, property: string): JsonValue {
    return qomGet(this.#vm, path, property);
  }

  qomSet(path: string, property: string, value: JsonValue): void {
    qomSet(this.#vm, path, property, value);
  }

  qomSetText(path: string, property: string, text: string): void {
    qomSetText(this.#vm, path, property, text);
  }

  get memoryBackends(): readonly MemoryBackendInfo[] {
    return [...this.#vm.backends.values()].filter(({ config }) => config.id !== ROM_ID).map((
      { config },
    ) => ({
      id: config.id,
      size: config.size,
      merge: true,
      dump: true,
      prealloc: config.prealloc,
      share: config.share,
      reserve: true,
    }));
  }

  get ramBlocks(): readonly RamBlockInfo[] {
    return ramBlocks(this.#vm);
  }

  get addressSpaces(): readonly AddressSpaceInfo[] {
    return addressSpaces(this.#vm.machine);
  }

  get roms(): readonly RomInfo[] {
    return this.#vm.machine.roms;
  }

  readMemory(address: bigint, length: number): Uint8Array<ArrayBuffer> | undefined {
    const { memory } = this.#vm.machine;
    const gpa = Number(address);
    return memory.contains(gpa, length) ? memory.read(gpa, length) : undefined;
  }

  translate(cpuIndex: number, address: bigint): bigint | undefined {
    return this.#vm.whileParked(() => this.#vcpu(cpuIndex).translate(address));
  }

  get chardevs(): readonly ChardevInfo[] {
    return [...this.#vm.chardevs.backends.values()];
  }

  get blockDevices(): readonly BlockInfo[] {
    return blockInfos(this.#vm.blocks);
  }

  get blockNodes(): readonly BlockNodeInfo[] {
    return blockNodeInfos(this.#vm.blocks);
  }

  blockdevAdd(options: BlockdevOptions): void {
    this.#vm.blocks.add(parseBlockdev({ ...options }));
  }

  blockdevDel(nodeName: string): void {
    this.#vm.blocks.remove(nodeName);
  }

  blockResize(of: Parameters<MachineControl["blockResize"]>[0], size: number): void {
    const { blocks, machine: { devices } } = this.#vm;
    blocks.resize(of, size);
    for (const { id } of devices.devices) devices.with(id, (device) => device.resized?.());
  }

  blockSetIoThrottle(...args: Parameters<MachineControl["blockSetIoThrottle"]>): void {
    const { blocks, machine: { devices } } = this.#vm;
    blocks.setLimits(...args);
    // What waits may go on by now.
    for (const { id } of devices.devices) devices.with(id, (device) => device.limitsChanged?.());
  }

  get pciFunctions(): PciFunctionInfo[] {
    return pciFunctions(this.#vm.machine);
  }

  get deviceTree(): BusInfo {
    return deviceTree(this.#vm.machine);
  }

  objectAdd(options: ObjectOptions): void {
    addObject(this.#vm, parseObject({ ...options }));
  }

  objectAddOptions(text: string): void {
    addObject(this.#vm, parseObject(text));
  }

  objectDel(id: string): void {
    removeObject(this.#vm, id);
  }

  deviceAdd(options: DeviceOptions): void {
    addDevice(this.#vm, parseDevice({ ...options }, deviceTypes));
  }

  deviceAddOptions(text: string): void {
    addDevice(this.#vm, parseDevice(text, deviceTypes));
  }

  deviceDel(id: string): void {
    removeDevice(this.#vm, id);
  }

  async gdbserver(device: string): Promise<void> {
    const { chardevs } = this.#vm;
    const config = device === "none" ? undefined : parseGdbDevice(device);
    chardevs.disconnect(GDB_CHARDEV);
    if (!config) return;
    const { openGdb } = await import("../gdb/server.ts");
    await chardevs.open([config], [{ mode: "gdb", chardev: config.id, pretty: false }]);
    openGdb(this.#vm, config.id, this.monitorLine);
  }

  async chardevAdd(config: ChardevConfig): Promise<{ pty?: string }> {
    const successor = this.#vm.runState === "inmigrate";
    await this.#vm.chardevs.open([config], [], undefined, { successor });
    if (config.backend !== "pty") return {};
    return { pty: this.#vm.chardevs.get(config.id).filename.replace(/^pty:/, "") };
  }

  async chardevAddOptions(text: string): Promise<void> {
    await this.chardevAdd(parseChardev(text));
  }

  chardevRemove(id: string): void {
    this.#vm.chardevs.remove(id);
  }

  async iothreads(): Promise<IoThreadInfo[]> {
    const { machine } = this.#vm;
    await machine.threadsStarted();
    const { ioThreads } = machine;
    return this.#vm.config.iothreads.map((config) => ({
      ...config,
      threadId: ioThreads.find(({ id }) => id === config.id)!.threadId,
    }));
  }

  #vcpu(index: number): AcceleratorVcpu {
    return this.#vm.machine.vcpus[index].hardware;
  }
}

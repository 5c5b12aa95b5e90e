/**
 * The machine `microvm`: memory, hardware of the accelerator, vCPU threads and devices, wired together.
 *
 * @module
 */
import { guidText } from "../../devices/acpi/vmgenid.ts";
import { drainEvent, Epoll, makeEventfd } from "../../ffi/event.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import { installKick } from "../../ffi/process.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import type { Accelerator } from "../accel/accelerator.ts";
import { Hardware } from "../accel/hardware.ts";
import type { MachineConfig } from "../config.ts";
import { controlBlockSize, ThreadControl, ThreadPhase, Wanted } from "../threads/control_block.ts";
import { findCpuid } from "../cpu/features.ts";
import { type CpuTables, cpuTables, hostCpu, physicalBitsOf } from "../cpu/tables.ts";
import { type DeviceRequest, DeviceSet, needIoThread } from "../bus/device_set.ts";
import type { RamRange } from "../bus/device_memory.ts";
import type { AcpiOptions } from "../firmware/acpi/acpi.ts";
import { acpiOptions } from "../firmware/acpi/options.ts";
import { type FirmwareItems, firmwareItems } from "../firmware/firmware_items.ts";
import { type DeviceParts, deviceRequests, GED_ID, machineDevices } from "./devices.ts";
import { openEntropy } from "./entropy.ts";
import { GuestMemory, type MemoryBackend } from "./guest_memory.ts";
import { BootImages, type LoadedImage, startVcpu } from "./power_on.ts";
import { pcieIrqs, type VirtioTransport, virtioTransports } from "./microvm.ts";
import { virtioCmdline } from "./virtio.ts";
import {
  type MachineThread,
  parkAll,
  startGradually,
  threadsAtATime,
} from "../threads/machine_thread.ts";
import { IoThread } from "../threads/io_thread.ts";
import { Vcpu } from "../threads/vcpu.ts";

/** Milliseconds after which a vCPU thread that is not up is a defect. */
const START_LIMIT_MS = 30_000;

const NO_UUID = "00000000-0000-0000-0000-000000000000";

/** An event that a vCPU or a device left for the main thread. */
export interface MachineEvent {
  /** A `GuestEvent`. */
  readonly event: number;
  readonly argument: number;
  /** The vCPU that left it; undefined for a device on the main thread. */
  readonly vcpu?: Vcpu;
}

/** What a machine is built from, beside its configuration. */
export interface MachineParts extends DeviceParts {
  readonly reactor: Reactor;
  /** What runs its vCPUs; the machine closes it. */
  readonly accelerator: Accelerator;
  /** The machine's RAM. */
  readonly ram: MemoryBackend;
  /** Wait for saved state: nothing is loaded into memory. */
  readonly incoming: boolean;
  /** Makes the memory of a firmware ROM, or finds what a predecessor left of it. */
  rom(size: number): MemoryBackend;
  /** Called on the main thread for each event. */
  onEvent(event: MachineEvent): void;
  /** Called on the main thread after events, and when devices have something that is found by looking. */
  onSignal?(): void;
}

/** A machine whose vCPUs are parked until `resume`. */
export class Machine {
  readonly accelerator: Accelerator;
  readonly memory: GuestMemory;
  readonly hardware: Hardware;
  readonly devices: DeviceSet;
  readonly vcpus: readonly Vcpu[];
  /** All that has to stand still while state is read or written. */
  readonly threads: readonly MachineThread[];
  /** What firmware is told. */
  readonly firmware: FirmwareItems;
  /** CPUID leaves and APIC ids. */
  readonly cpus: CpuTables;
  readonly #config: MachineConfig;
  readonly #acpi: AcpiOptions | undefined;
  /** The machine's own, if a device needs it, and those of `-object`. */
  readonly ioThreads: readonly IoThread[];
  readonly #event: OwnedFd = makeEventfd();
  readonly #control: ThreadControl;
  /** Who may leave events: the threads, and the devices on the main thread. */
  readonly #controls: readonly ThreadControl[];
  readonly #parts: MachineParts;
  #roms: readonly LoadedImage[] = [];
  readonly #closing = new AbortController();
  /** What to undo, last first. */
  readonly #cleanup = new DisposableStack();

  /**
   * Builds the machine; unless it waits for saved state, it is ready for its first instruction.
   *
   * @throws {Error} that says what the host or the configuration lacks
   */
  constructor(config: MachineConfig, parts: MachineParts) {
    installKick();
    this.#config = config;
    this.#parts = parts;
    this.accelerator = this.#cleanup.use(parts.accelerator);
    this.#cleanup.use(this.#event);
    try {
      checkVcpuLimit(config.smp.cpus, this.accelerator);
      this.cpus = cpuTables(config, hostCpu(this.accelerator));
      this.memory = new GuestMemory(parts.ram);
      const apicIds = this.cpus.identities.map(({ apicId }) => apicId);
      const physicalBits = physicalBitsOf(this.cpus.identities[0].cpuid);
      this.#acpi = acpiOptions(config, machineDevices(config), apicIds, physicalBits);
      this.firmware = firmwareItems(config, apicIds, this.#acpi);
      this.hardware = this.#cleanup.use(
        new Hardware(this.accelerator, {
          pit: config.machine.pit,
          pic: config.machine.pic,
          cpus: this.cpus.identities,
        }),
      );
      const requests = openEntropy(
        deviceRequests(config, parts, this.firmware),
        config,
        this.#cleanup,
      );
      const ids = [
        ...needIoThread(requests, this.hasPcie) ? [undefined] : [],
        ...config.iothreads.map(({ id }) => id),
      ];
      const threads = config.smp.cpus + ids.length;
      const block = new SharedArrayBuffer(controlBlockSize(threads));
      this.#control = new ThreadControl(block, threads);
      this.vcpus = this.hardware.vcpus.map((vcpu, index) => new Vcpu(index, vcpu, block));
      this.ioThreads = ids.map((id, index) =>
        this.#cleanup.use(new IoThread(id, block, this.vcpus.length + index))
      );
      this.threads = [...this.vcpus, ...this.ioThreads];
      this.#controls = [...this.threads.map(({ control }) => control), this.#control];
      this.devices = this.#cleanup.use(
        new DeviceSet(
          requests,
          this.hardware.vm,
          ramRanges(this.memory),
          this.#event.fd,
          this.#control,
          parts.reactor,
          this.hasPcie ? pcieIrqs(config.machine) : [],
        ),
      );
      this.#powerOn();
      parts.reactor.add(this.#event.fd, Epoll.IN, () => this.#takeEvents());
      this.#cleanup.defer(() => parts.reactor.remove(this.#event.fd));
    } catch (error) {
      this.#cleanup.dispose();
      throw error;
    }
  }

  /** Starts the threads, parked; returns at once. */
  startThreads(): void {
    const { length } = this.vcpus;
    const onFailure = () => this.#takeEvents();
    // One that is started later finds the devices that there are then.
    const start = (vcpu: Vcpu) => vcpu.startThread(length, this.devices.description, onFailure);
    for (const thread of this.ioThreads) thread.startThread(this.devices.description, onFailure);
    void startGradually(this.vcpus, start, threadsAtATime, this.#closing.signal);
  }

  /** `-uuid`; all zeros if none was given. */
  get uuid(): string {
    return this.#config.uuid ?? NO_UUID;
  }

  /** Where virtio devices may be. */
  get transports(): readonly VirtioTransport[] {
    return virtioTransports(this.#config.machine);
  }

  /** Waits until all threads have started. @throws {Error} if one does not */
  async threadsStarted(): Promise<void> {
    for (const { title, control } of this.threads) {
      const limit = performance.now() + START_LIMIT_MS;
      while (control.phase === ThreadPhase.STARTING) {
        if (performance.now() > limit) {
          throw new Error(`${title} did not start within ${START_LIMIT_MS / 1000} s`);
        }
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
  }

  /** Puts a machine that has run back to power-on. All vCPUs are parked. */
  reset(): void {
    using images = this.#images();
    // A vCPU that asked for the reset may have gone on and asked again before it was parked.
    this.forgetEvents();
    this.hardware.reset();
    this.#start(images);
    // What the guest had open is told of before it can open that again.
    this.#parts.onSignal?.();
  }

  /** Lets all threads run, but for those that a debugger holds. */
  resume(held: ReadonlySet<MachineThread> = new Set()): void {
    this.hardware.thawClock();
    for (const thread of this.threads) if (!held.has(thread)) thread.resume();
  }

  /**
   * The guest's processors will be let run in a moment: wakes their threads, which are parked. Not those
   * that serve it: they would take the processor of the thread that is about to let all of them run.
   */
  makeReady(): void {
    for (const { control } of this.vcpus) control.makeReady();
  }

  /** Nobody decides on what has happened so far. */
  forgetEvents(): void {
    for (const control of this.#controls) control.take();
  }

  /** The guest starts from a copy of its state: it gets another generation ID, and is told. */
  startGeneration(): void {
    const id = this.#vmgenid;
    if (id === undefined) return;
    const isNew = this.devices.with(id, (device) => device.startGeneration!());
    if (isNew) this.devices.with(GED_ID, (device) => device.tellGeneration!());
  }

  /** The generation ID, a GUID as text; undefined if there is no such device. */
  get generationId(): string | undefined {
    const device = this.devices.devices.find(({ id }) => id === this.#vmgenid);
    return device && guidText(device.state.slice());
  }

  get #vmgenid(): string | undefined {
    return this.devices.devices.find(({ type }) => type.name === "vmgenid")?.id;
  }

  /** Whether the guest finds the machine by ACPI. */
  get hasAcpi(): boolean {
    return this.#config.machine.acpi;
  }

  /** Whether there is a second I/O APIC, which only a machine with ACPI has. */
  get hasIoapic2(): boolean {
    return this.hasAcpi && this.#config.machine.ioapic2;
  }

  /** Whether there is a PCI Express root bus. */
  get hasPcie(): boolean {
    return this.#config.machine.pcie;
  }

  /** Whether the guest has put the machine to sleep, and nobody has woken it up. */
  get isAsleep(): boolean {
    return this.hasAcpi && this.devices.with(GED_ID, (device) => device.isAsleep!());
  }

  /** Stops all threads. */
  park(): void {
    parkAll(this.threads);
  }

  /** Makes one more device, in its power-on state. The threads stand still. @throws {Error} */
  plug(request: DeviceRequest): void {
    const news = this.devices.plug(request);
    for (const thread of this.threads) thread.tell(news);
  }

  /** Takes a device out. The threads stand still. */
  unplug(id: string): void {
    const news = this.devices.unplug(id);
    for (const thread of this.threads) thread.tell(news);
  }

  /**
   * Has all threads stand still for a moment, which the guest does not notice.
   *
   * @throws {Error} if one does not stop; what ran goes on
   */
  whileStill<T>(action: () => T): T {
    const ran = this.threads.filter(({ control }) => control.wanted === Wanted.RUN);
    this.park();
    try {
      return action();
    } finally {
      // A vCPU that has left an event has asked to be parked until it is answered; who serves the guest
      // goes on meanwhile.
      for (const thread of ran) {
        if (thread.servesGuest || !thread.control.hasEvent) thread.resume();
      }
    }
  }

  /** Ends all threads and closes everything. */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all(this.threads.map((thread) => thread.endThread()));
    this.#cleanup.dispose();
  }

  /** Firmware and RAM slots, and what is in them unless a predecessor's state will come. */
  #powerOn(): void {
    if (this.#parts.incoming && this.#config.bios === undefined) {
      return this.memory.attach(this.hardware.vm);
    }
    using images = this.#images();
    const { rom } = images.plan;
    if (rom) this.memory.addRom("pc.bios", rom.gpa, this.#parts.rom(rom.size));
    this.memory.attach(this.hardware.vm);
    if (this.#parts.incoming) return;
    images.loadRom(this.memory);
    this.#start(images);
  }

  #start(images: BootImages): void {
    this.#roms = images.loaded;
    this.devices.reset();
    images.load(this.memory);
    for (const [index, start] of images.plan.starts) startVcpu(this.hardware.vcpus[index], start);
  }

  /** The images in memory, for `info roms`. */
  get roms(): readonly LoadedImage[] {
    return this.#roms;
  }

  #images(): BootImages {
    const { identities } = this.cpus;
    const leaf1 = findCpuid(identities[0].cpuid, 1);
    const processors = {
      apicIds: identities.map(({ apicId }) => apicId),
      signature: leaf1?.eax ?? 0,
      features: leaf1?.edx ?? 0,
    };
    const cmdline = virtioCmdline(this.#config, machineDevices(this.#config));
    return new BootImages(this.#config, processors, this.#acpi, cmdline);
  }

  #takeEvents(): void {
    drainEvent(this.#event.fd);
    for (const vcpu of this.vcpus) {
      const taken = vcpu.control.take();
      if (taken) this.#parts.onEvent({ ...taken, vcpu });
    }
    for (const control of [...this.ioThreads.map(({ control }) => control), this.#control]) {
      const taken = control.take();
      if (taken) this.#parts.onEvent(taken);
    }
    this.#parts.onSignal?.();
  }
}

function checkVcpuLimit(cpus: number, { maxVcpus: limit, title }: Accelerator): void {
  if (cpus <= limit) return;
  throw new Error(
    `Number of SMP cpus requested (${cpus}) exceeds the maximum cpus supported by ${title} (${limit})`,
  );
}

/** Where guest RAM is mapped, for devices. */
function ramRanges({ regions }: GuestMemory): RamRange[] {
  return regions.map(({ gpa, size, mapping, offset, file, readonly, pages }) => ({
    gpa,
    size,
    address: mapping.address + offset,
    ...file && { file: { fd: file.fd.fd, offset: file.offset } },
    name: mapping.name,
    readonly,
    pages,
  }));
}

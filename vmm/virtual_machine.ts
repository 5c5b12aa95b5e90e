/**
 * A virtual machine as its owner sees it: what it consists of, from its creation to its end.
 *
 * @module
 */
import type { Reactor } from "../ffi/reactor.ts";
import { openAccelerator } from "./accel/open.ts";
import { BalloonEvents, balloonOf, balloonWarnings } from "./balloon_events.ts";
import type { BlockSet } from "./block_set.ts";
import type { ChardevSet } from "./chardev_set.ts";
import type { Console } from "./console.ts";
import { defaultConfig, type MachineConfig } from "./config.ts";
import { GuestControl } from "./guest_control.ts";
import { GuestEvents } from "./guest_events.ts";
import type { MemoryBackend } from "./machine/guest_memory.ts";
import type { Inheritance, Keeper } from "./inheritance.ts";
import { checkMachine } from "./machine/check.ts";
import { Machine, type MachineParts } from "./machine/machine.ts";
import { OldVm } from "./machine/old_vm.ts";
import { orphanWarnings } from "./machine/orphans.ts";
import { ownCommandLine } from "./daemon.ts";
import { withChanges } from "./device_changes.ts";
import { Hotplug } from "./hotplug.ts";
import { PortEvents } from "./port_events.ts";
import type { NetdevSet } from "./netdev_set.ts";
import type { Pidfile } from "./pidfile.ts";
import type { VhostUserSet } from "./vhost_user_set.ts";
import { Resources } from "./resources.ts";
import { inTransit } from "./run_state.ts";

/** How a VM is created. */
export interface CreateOptions {
  /** Wait for the state of a predecessor instead of booting. */
  readonly incoming?: boolean;
  /**
   * What a predecessor left; it is closed when the VM cannot be created.
   *
   * @internal
   */
  readonly inheritance?: Inheritance;
  /** Leave it to the caller to call `attachDevices`, after monitors that share a multiplexer. */
  readonly detached?: boolean;
  /** Ends the wait for what is outside, such as a FIFO's reader: creation fails then. */
  readonly abort?: AbortSignal;
  /** Takes lines for the user: warnings, the names of pseudo-terminals. */
  readonly notice?: (text: string) => void;
}

/** A virtual machine. */
export class VirtualMachine extends GuestControl implements AsyncDisposable {
  /**
   * Watches descriptors on the main thread.
   *
   * @internal
   */
  readonly reactor: Reactor;
  /**
   * The character devices.
   *
   * @internal
   */
  readonly chardevs: ChardevSet;
  /**
   * The disks' images.
   *
   * @internal
   */
  readonly blocks: BlockSet;
  /**
   * The network backends.
   *
   * @internal
   */
  readonly netdevs: NetdevSet;
  /**
   * The processes that work on devices' queues.
   *
   * @internal
   */
  readonly vhostUsers: VhostUserSet;
  /**
   * Memory, vCPUs and devices.
   *
   * @internal
   */
  readonly machine: Machine;
  /**
   * All memory backends, the machine's RAM among them.
   *
   * @internal
   */
  readonly backends: Map<string, MemoryBackend>;
  /**
   * Devices that come and go.
   *
   * @internal
   */
  readonly hotplug: Hotplug;
  /** Resolves with the exit status when the VM has ended: by the guest, by `quit` or by `close`. */
  readonly exited: Promise<number>;
  /**
   * Aborted when the VM ends: whoever waits for something outside gives up then.
   *
   * @internal
   */
  get ending(): AbortSignal {
    return this.#ending.signal;
  }
  /**
   * The program's pidfile, which a successor takes over; it is closed with the VM.
   *
   * @internal
   */
  pidfile: Pidfile | undefined;
  /** Why the VM ended without its guest, if it did. */
  failure: string | undefined;
  /**
   * Which vCPU has put the VM into the run state `debug`, and its DR6.
   *
   * @internal
   */
  debugStop: { readonly cpuIndex: number; readonly status: number } | undefined;
  /** What `set-action`, `-action`, `-no-reboot` and `-no-shutdown` say. */
  actions: MachineConfig["actions"];
  #resolveExited!: (status: number) => void;
  readonly #ending = new AbortController();
  #closed = false;
  readonly #parts: Resources;
  readonly #oldVm: OldVm;
  readonly #ports: PortEvents;
  readonly #balloon: BalloonEvents | undefined;

  private constructor(
    config: MachineConfig,
    options: CreateOptions,
    parts: Resources,
    basis: Pick<MachineParts, "accelerator" | "ram">,
  ) {
    super(config, options);
    this.#parts = parts;
    this.reactor = parts.reactor;
    this.chardevs = parts.chardevs;
    this.blocks = parts.blocks;
    this.netdevs = parts.netdevs;
    this.vhostUsers = parts.vhostUsers;
    this.backends = parts.memory.backends;
    this.actions = {
      ...config.actions,
      ...(config.noReboot && { reboot: "shutdown" as const }),
      ...(config.noShutdown && { shutdown: "pause" as const }),
    };
    this.exited = new Promise((resolve) => this.#resolveExited = resolve);
    const guestEvents = new GuestEvents(this, (status) => this.#end(status));
    this.machine = new Machine(config, {
      ...basis,
      reactor: this.reactor,
      incoming: options.incoming ?? false,
      rom: (size) => parts.memory.openRom(size),
      sink: (id) => this.chardevs.sink(id),
      netPort: (id) => this.netdevs.port(id),
      vhostUser: (id) => this.vhostUsers.description(id),
      vsockPort: (id, cid) => this.netdevs.vsocks.port(id, cid, options.incoming ?? false),
      disk: (drive, user) => this.blocks.attach(drive, user),
      onEvent: (event) => guestEvents.handle(event),
      onSignal: () => this.#lookAtDevices(),
    });
    this.#ports = new PortEvents(this.machine.devices.devices, config.devices, (data) => {
      this.events.emit("VSERPORT_CHANGE", { ...data });
    });
    this.#balloon = this.#watchBalloon();
    this.hotplug = new Hotplug(this);
    this.#oldVm = new OldVm(this.machine, options.inheritance);
    const { cpus, firmware } = this.machine;
    const warnings = [
      ...cpus.warnings,
      ...firmware.warnings,
      ...orphanWarnings(config),
      ...balloonWarnings(this.machine),
    ];
    for (const warning of warnings) this.notice(warning);
  }

  /**
   * Creates a VM; its guest does not run before `start`.
   *
   * @param config what it is made of; what is left out has QEMU's defaults, and without `serials`
   *   the first serial port is `console`
   * @param options for a VM that takes over from a predecessor
   * @throws {Error} that says what is wrong with the configuration or lacking on the host
   */
  static async create(
    config: Partial<MachineConfig>,
    options: CreateOptions = {},
  ): Promise<VirtualMachine> {
    const notice = options.notice ?? ((text) => console.error(text));
    const parts = new Resources(
      notice,
      () => vm?.quit("host-ui"),
      {
        event: (name, data) => vm?.events.emit(name, data),
        connected: (id) => vm?.machine.devices.netdevConnected(id),
        claimed: (id) => vm?.machine.devices.with(id, (device) => device.connected?.()),
      },
      { connected: (id) => vm?.machine.devices.vhostUserConnected(id) },
    );
    const full = config.serials
      ? { ...defaultConfig(), ...config }
      : parts.withConsole({ ...defaultConfig(), ...config });
    let vm: VirtualMachine | undefined;
    try {
      const { inheritance, abort, incoming: successor } = options;
      checkMachine(full, successor ?? false);
      await parts.open(full, inheritance, { abort, successor });
      parts.memory.ram(full);
      // The machine closes it, also where it cannot be built.
      const accelerator = await openAccelerator(full.accelerators, notice);
      if (accelerator.mapsFiles) parts.memory.makeMappable(full);
      const ram = parts.memory.ram(full);
      vm = new VirtualMachine(full, options, parts, { accelerator, ram });
      vm.machine.startThreads();
      if (!options.detached) vm.attachDevices();
      return vm;
    } catch (error) {
      await (vm ?? parts).close();
      options.inheritance?.[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * The first serial port as streams.
   *
   * @throws {Error} if the configuration has `serials` of its own
   */
  get console(): Console {
    if (this.#parts.console) return this.#parts.console;
    throw new Error("This VM has no console: its configuration binds serials to character devices");
  }

  /**
   * Lets the devices read from their character devices. Of several users of a multiplexer the last
   * to be bound has the focus, so this comes after the monitors.
   */
  attachDevices(): void {
    this.chardevs.attachDevices(this.machine.devices, () => !inTransit.has(this.runState));
  }

  /**
   * Whoever has something that outlives this VMM.
   *
   * @internal
   */
  get keepers(): readonly Keeper[] {
    const { pidfile } = this;
    return [...this.#parts.keepers, this.#oldVm, ...(pidfile ? [pidfile] : [])];
  }

  /**
   * The guest is here: its character devices go on, with output that waits and input that may.
   *
   * @param takeOver what its keepers had to do then
   * @internal
   */
  arrived(takeOver: () => void): void {
    takeOver();
    this.#balloon?.settle();
    this.#lookAtDevices();
    for (const { id } of this.machine.devices.devices) {
      this.machine.devices.with(id, (device) => device.writable?.());
    }
    this.chardevs.acceptInput();
  }

  /**
   * The command line that makes a VM with this one's devices: this process's, with those that have come.
   *
   * @internal
   */
  get commandLine(): string[] {
    return withChanges(ownCommandLine(), this.hotplug.changes);
  }

  /** Ends the VM as QEMU's `quit` does: event SHUTDOWN, exit status 0. */
  quit(reason = "host-qmp-quit"): void {
    if (this.ending.aborted) return;
    this.events.emit("SHUTDOWN", { guest: reason.startsWith("guest"), reason });
    this.#end(0);
  }

  /** Ends a VM whose guest could not arrive, or else tells the user and goes on waiting. */
  fail(text: string, end: boolean): void {
    if (!end) return this.notice(text);
    if (this.ending.aborted) return;
    this.failure = text;
    this.#end(1);
  }

  /** Closes everything: threads, descriptors, mappings. The guest is gone. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#end(0);
    this.pidfile?.[Symbol.dispose]();
    this.#balloon?.[Symbol.dispose]();
    await this.machine.close();
    this.hotplug.close();
    this.#oldVm.close();
    await this.#parts.close();
  }

  /** Closes the VM at the end of an `await using` scope. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** What is loaded, and may be another VMM's guest's after all, is not told of. */
  #lookAtDevices(): void {
    if (inTransit.has(this.runState)) return;
    this.#ports.look();
    this.#balloon?.look();
    this.hotplug.look();
  }

  #watchBalloon(): BalloonEvents | undefined {
    const { machine: { devices, memory } } = this;
    const id = balloonOf(devices);
    if (id === undefined) return undefined;
    return new BalloonEvents(
      () => devices.with(id, ({ balloon }) => balloon!.actual),
      () => !inTransit.has(this.runState),
      (bytes) => this.events.emit("BALLOON_CHANGE", { actual: Math.max(0, memory.size - bytes) }),
    );
  }

  /** The vCPUs stop here, so that nothing happens between the end and `close`. */
  #end(status: number): void {
    if (this.ending.aborted) return;
    try {
      if (this.running) this.machine.park();
    } catch {
      // Who does not stop now is waited for in `close`.
    }
    this.setRunState("shutdown");
    this.#resolveExited(status);
    this.#ending.abort(new Error("The VM has ended"));
  }
}

/**
 * A virtual machine as its owner sees it: created, started, stopped, reset, closed.
 *
 * @module
 */
import { MAX_KEYS } from "../devices/isa/ps2_keyboard.ts";
import type { Reactor } from "../ffi/reactor.ts";
import type { Accelerator } from "./accel/accelerator.ts";
import { openAccelerator } from "./accel/open.ts";
import type { BlockSet } from "./block_set.ts";
import type { ChardevSet } from "./chardev_set.ts";
import type { Console } from "./console.ts";
import { defaultConfig, type MachineConfig } from "./config.ts";
import { EventHub } from "./events.ts";
import { GuestEvents } from "./guest_events.ts";
import type { MemoryBackend } from "./machine/guest_memory.ts";
import type { Inheritance, Keeper } from "./inheritance.ts";
import { checkMachine } from "./machine/check.ts";
import { GED_ID, Machine } from "./machine/machine.ts";
import { OldVm } from "./machine/old_vm.ts";
import type { NetdevSet } from "./netdev_set.ts";
import type { Pidfile } from "./pidfile.ts";
import { Resources } from "./resources.ts";
import { inTransit, needsReset, type RunState } from "./run_state.ts";
import { registersAtReset } from "./view/vcpu_failure.ts";

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
export class VirtualMachine implements AsyncDisposable {
  /** What the VM is made of. */
  readonly config: MachineConfig;
  /** Events with QEMU's names and data. */
  readonly events: EventHub = new EventHub();
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
  /** Asked before vCPUs are let run; an error message means no. */
  guard: (() => string | undefined) | undefined;
  /** What `set-action`, `-action`, `-no-reboot` and `-no-shutdown` say. */
  actions: MachineConfig["actions"];
  #runState: RunState;
  #resolveExited!: (status: number) => void;
  readonly #ending = new AbortController();
  #closed = false;
  #startOnArrival: boolean;
  /** Takes a line for the user. */
  readonly notice: (text: string) => void;
  readonly #parts: Resources;
  readonly #oldVm: OldVm;

  private constructor(
    config: MachineConfig,
    options: CreateOptions,
    parts: Resources,
    accelerator: Accelerator,
  ) {
    this.config = config;
    this.#parts = parts;
    this.reactor = parts.reactor;
    this.chardevs = parts.chardevs;
    this.blocks = parts.blocks;
    this.netdevs = parts.netdevs;
    this.backends = parts.memory.backends;
    this.actions = {
      ...config.actions,
      ...(config.noReboot && { reboot: "shutdown" as const }),
      ...(config.noShutdown && { shutdown: "pause" as const }),
    };
    this.notice = options.notice ?? ((text) => console.error(text));
    this.#runState = options.incoming ? "inmigrate" : "prelaunch";
    this.#startOnArrival = !config.startPaused;
    this.exited = new Promise((resolve) => this.#resolveExited = resolve);
    const guestEvents = new GuestEvents(this, (status) => this.#end(status));
    this.machine = new Machine(config, {
      accelerator,
      reactor: this.reactor,
      ram: parts.memory.ram(config),
      incoming: options.incoming ?? false,
      rom: (size) => parts.memory.openRom(size),
      sink: (id) => this.chardevs.sink(id),
      netPort: (id) => this.netdevs.port(id),
      disk: (drive, user) => this.blocks.attach(drive, user),
      onEvent: (event) => guestEvents.handle(event),
    });
    this.#oldVm = new OldVm(this.machine, options.inheritance);
    const { cpus, firmware } = this.machine;
    for (const warning of [...cpus.warnings, ...firmware.warnings]) this.notice(warning);
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
      },
    );
    const full = config.serials
      ? { ...defaultConfig(), ...config }
      : parts.withConsole({ ...defaultConfig(), ...config });
    let vm: VirtualMachine | undefined;
    let accelerator: Accelerator | undefined;
    try {
      const { inheritance, abort, incoming: successor } = options;
      checkMachine(full, successor ?? false);
      await parts.open(full, inheritance, { abort, successor });
      accelerator = await openAccelerator(full.accelerators, notice);
      vm = new VirtualMachine(full, options, parts, accelerator);
      vm.machine.startThreads();
      if (!options.detached) vm.attachDevices();
      return vm;
    } catch (error) {
      await (vm ?? parts).close();
      accelerator?.[Symbol.dispose]();
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

  /** The run state, with QEMU's names. */
  get runState(): RunState {
    return this.#runState;
  }

  /** Whether the guest runs. */
  get running(): boolean {
    return this.#runState === "running";
  }

  /** Whether the guest starts by itself once a predecessor's state has arrived. */
  get startsOnArrival(): boolean {
    return this.#startOnArrival;
  }

  /** Starts the guest, unless the configuration says to wait (`-S`). */
  start(): void {
    if (!this.config.startPaused) this.cont();
  }

  /**
   * Lets the guest run.
   *
   * @param held indices of vCPUs that a debugger wants to stand still meanwhile
   * @throws {Error} if it must not: after a crash, or because another VMM owns it
   */
  cont(held?: ReadonlySet<number>): void {
    if (this.running || this.#runState === "suspended") return;
    if (this.#runState === "inmigrate") {
      this.#startOnArrival = true;
      return;
    }
    if (needsReset.has(this.#runState)) {
      throw new Error("Resetting the Virtual Machine is required");
    }
    const refusal = this.guard?.();
    if (refusal !== undefined) throw new Error(refusal);
    this.resume(held);
  }

  /**
   * Lets the vCPUs run, whatever the run state; for those who have checked it.
   *
   * @param held indices of vCPUs that a debugger wants to stand still meanwhile
   */
  resume(held: ReadonlySet<number> = new Set()): void {
    const { machine } = this;
    if (machine.isAsleep) return this.sleepOn();
    this.blocks.clearErrors();
    machine.resume(new Set(machine.vcpus.filter(({ index }) => held.has(index))));
    this.resumed();
  }

  /**
   * The vCPUs have been let run.
   *
   * @internal
   */
  resumed(): void {
    this.#runState = "running";
    this.events.emit("RESUME");
    this.chardevs.acceptInput();
  }

  /**
   * The VM goes on, but its guest sleeps: the vCPUs stand still until it is woken.
   *
   * @internal
   */
  sleepOn(): void {
    this.#runState = "suspended";
    this.events.emit("RESUME");
  }

  /** The guest has put the machine to sleep: stops it until it is woken. */
  suspend(): void {
    if (!this.running || !this.machine.isAsleep) return;
    this.machine.park();
    this.machine.hardware.freezeClock();
    this.#runState = "suspended";
    this.events.emit("SUSPEND");
  }

  /**
   * Wakes a guest that sleeps.
   *
   * @throws {Error} if it does not, or cannot
   */
  wakeup(): void {
    if (!this.config.machine.acpi) {
      throw new Error("wake-up from suspend is not supported by this guest");
    }
    if (this.#runState !== "suspended") {
      throw new Error("Unable to wake up: guest is not in suspended state");
    }
    const refusal = this.guard?.();
    if (refusal !== undefined) throw new Error(refusal);
    const { machine } = this;
    machine.devices.with(GED_ID, (device) => device.wake!());
    machine.resume();
    this.#runState = "running";
    this.events.emit("WAKEUP");
    this.chardevs.acceptInput();
  }

  /** Stops the guest; `cont` lets it go on. In `inmigrate` it only takes back the automatic start. */
  stop(): void {
    if (this.#runState === "inmigrate") this.#startOnArrival = false;
    else if (this.#runState === "suspended") {
      this.#runState = "paused";
      this.events.emit("STOP");
    } else this.pause("paused");
  }

  /**
   * Stops the guest into a run state. Without effect when it does not run.
   *
   * @param agoNs how long ago its vCPUs were stopped, if they were
   */
  pause(state: RunState, agoNs = 0): void {
    if (!this.running) return;
    this.machine.park();
    // While a person has the guest stopped its time stands still; over a live update it goes on.
    if (state !== "finish-migrate" || this.config.machine.xPauseClock) {
      this.machine.hardware.freezeClock();
    }
    this.#runState = state;
    this.events.emit("STOP", undefined, agoNs);
  }

  /** Changes the run state of a VM that does not run. */
  setRunState(state: RunState): void {
    this.#runState = state;
  }

  /**
   * Lets the devices read from their character devices. Of several users of a multiplexer the last
   * to be bound has the focus, so this comes after the monitors.
   */
  attachDevices(): void {
    this.chardevs.attachDevices(this.machine.devices, () => !inTransit.has(this.#runState));
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
    for (const { id } of this.machine.devices.devices) {
      this.machine.devices.with(id, (device) => device.writable?.());
    }
    this.chardevs.acceptInput();
  }

  /** Resets the machine; it goes on in the run state it was in, or paused after a crash. */
  reset(reason = "host-qmp-system-reset"): void {
    const refusal = this.guard?.();
    if (refusal !== undefined) throw new Error(refusal);
    const resetEvent = { guest: reason.startsWith("guest"), reason };
    if (this.#runState === "inmigrate") {
      // The machine is as a reset leaves it, and its memory is in use where the guest still runs.
      return this.events.emit("RESET", resetEvent);
    }
    const wasRunning = this.running || this.#runState === "suspended";
    this.machine.park();
    this.log("cpu_reset", () => registersAtReset(this.machine));
    try {
      this.machine.reset();
    } catch (error) {
      // Memory or an image is gone: what is left is no machine that could run.
      if (this.running) this.pause("internal-error");
      else this.#runState = "internal-error";
      throw error;
    }
    this.events.emit("RESET", resetEvent);
    if (needsReset.has(this.#runState)) this.#runState = "paused";
    else if (wasRunning) {
      this.#runState = "running";
      this.machine.resume();
    }
  }

  /** Presses the power button; without ACPI there is none, only the event is sent. */
  powerdown(): void {
    const { devices } = this.machine;
    if (this.config.machine.acpi) devices.with(GED_ID, (device) => device.pressPowerButton!());
    this.events.emit("POWERDOWN");
  }

  /**
   * Presses keys of the keyboard together, by QEMU's names, and releases them after a while. As
   * under QEMU nothing is typed while the guest does not run.
   *
   * @throws {Error} if too many are waiting already, because the guest does not read them
   */
  sendKeys(keys: readonly string[], holdMs: number): void {
    if (!this.running) return;
    if (keys.length > MAX_KEYS) {
      throw new Error(`${keys.length} keys cannot be pressed together, the most is ${MAX_KEYS}`);
    }
    const isTaken = this.machine.devices.with("i8042", (device) => device.press!(keys, holdMs));
    if (!isTaken) throw new Error("Too many keys are waiting to be pressed: try again later");
  }

  /** Sends every vCPU a non-maskable interrupt. */
  injectNmi(): void {
    this.whileParked(() => this.machine.vcpus.forEach((vcpu) => vcpu.hardware.nmi()));
  }

  /** Looks at the vCPUs: stops them for as long as `look` takes, without anyone noticing. */
  whileParked<T>(look: () => T): T {
    if (!this.running) return look();
    this.machine.park();
    try {
      return look();
    } finally {
      this.machine.resume();
    }
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
    await this.machine.close();
    this.#oldVm.close();
    await this.#parts.close();
  }

  /** Closes the VM at the end of an `await using` scope. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The vCPUs stop here, so that nothing happens between the end and `close`. */
  #end(status: number): void {
    if (this.ending.aborted) return;
    if (this.running) this.machine.park();
    this.#runState = "shutdown";
    this.#resolveExited(status);
    this.#ending.abort(new Error("The VM has ended"));
  }

  /**
   * Logs what `-d ITEM` asks for.
   *
   * @internal
   */
  log(item: string, text: () => string): void {
    if (this.config.debugItems.includes(item)) this.notice(text());
  }
}

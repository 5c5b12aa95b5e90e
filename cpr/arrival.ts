/**
 * Where a process's guest comes from: its own boot, a file, an old VMM beside it, or the program
 * that this process was before.
 *
 * @module
 */
import { monotonicNow } from "../ffi/event.ts";
import { Reactor } from "../ffi/reactor.ts";
import type { MachineConfig } from "../vmm/config.ts";
import { placement } from "../vmm/threads/placement.ts";
import type { VirtualMachine } from "../vmm/virtual_machine.ts";
import type { Cpr } from "./cpr.ts";
import { type ReceivedExec, receiveExec } from "./modes/exec.ts";
import type { Begun, Received } from "./handover/incoming.ts";
import { receiveCpr, receiveOver } from "./handover/receive.ts";
import { type IncomingOptions, parseIncoming } from "./channel/incoming_options.ts";
import { Relay } from "./modes/relay.ts";

/** One process's way to its guest. */
export class Arrival {
  readonly #exec: ReceivedExec | undefined;
  readonly #relay: Relay | undefined;
  #options: IncomingOptions | undefined;
  /** When the runtime and when this program began, nanoseconds of CLOCK_MONOTONIC. */
  readonly #begun: Begun;

  private constructor(exec: ReceivedExec | undefined, relay: Relay | undefined) {
    this.#exec = exec;
    this.#relay = relay;
    const programNs = monotonicNow();
    this.#begun = { programNs, runtimeNs: programNs - performance.now() * 1e6 };
  }

  /**
   * What the program before this one left, if there was one. Environment variables that say so are
   * gone afterwards.
   *
   * @throws {StateError} if what was left makes no sense
   */
  static fromEnvironment(): Arrival {
    const relay = Relay.fromEnvironment();
    return new Arrival(relay ? undefined : receiveExec(), relay);
  }

  /** Whether this process has been a VMM, or helps one: it goes on where that is. */
  get inPlace(): boolean {
    return this.#exec !== undefined || this.#relay !== undefined;
  }

  /** Whether this process only keeps the guest for another: it has no monitors and no pidfile. */
  get isHelper(): boolean {
    return this.#relay?.isHelper ?? false;
  }

  /** Whether the guest comes from somewhere, rather than boots. */
  get expected(): boolean {
    return this.#options !== undefined;
  }

  /**
   * Takes the descriptors that a predecessor passes: the machine is built from them.
   *
   * @param abort ends the wait for a predecessor
   */
  async receive(config: MachineConfig, abort?: AbortSignal): Promise<Received | undefined> {
    const relay = this.#relay;
    const given = relay?.isHelper || relay?.failure !== undefined || this.#exec?.failure;
    this.#options = given ? { main: "defer" } : await parseIncoming(config.incoming) ??
      (this.inPlace ? { main: "defer" } : undefined);
    if (this.#exec) {
      const { inheritance, wayBack } = this.#exec;
      placement.takeOver(inheritance);
      const onArrival = () => wayBack?.[Symbol.dispose]();
      return { inheritance, begun: this.#begun, onArrival };
    }
    if (relay) {
      const { cpr, main } = relay.link.ask();
      const onArrival = (vm: VirtualMachine) => this.#relayed(vm, relay);
      const received = receiveOver(cpr);
      placement.takeOver(received.inheritance);
      return { ...received, main, begun: this.#begun, onArrival };
    }
    if (!this.#options?.cpr) return undefined;
    const reactor = new Reactor();
    try {
      const received = await receiveCpr(this.#options.cpr, reactor, abort);
      placement.takeOver(received.inheritance);
      return received;
    } finally {
      await reactor.close();
    }
  }

  /** The guest has come over the link. */
  #relayed(vm: VirtualMachine, relay: Relay): void {
    if (relay.isHelper) vm.chardevs.holdMonitors("everything");
    else relay.arrived(vm.reactor);
  }

  /**
   * Takes the guest, or begins to wait for it. Not for a VM that boots.
   *
   * @param onArrival called when the guest has come by itself
   */
  async begin(vm: VirtualMachine, cpr: Cpr, onArrival?: () => void): Promise<void> {
    const { main, argument } = this.#options!;
    if (this.#exec?.failure) {
      return cpr.incoming!.takeBack(this.#exec.failure.state, this.#exec.failure.reason);
    }
    if (this.#relay?.failure !== undefined) {
      await (await cpr.migrateIncoming(undefined, true))();
      cpr.migration.failedBefore(this.#relay.failure);
    } else if (main !== "defer") {
      const named = (cause: Error) => {
        throw new Error(`-incoming ${argument}: ${cause.message}`, { cause });
      };
      const arrival = await cpr.migrateIncoming(main, true).catch(named);
      const arrived = arrival().then(() => vm.failure === undefined && onArrival?.());
      // Who connects to a VMM that executes its successor finds the guest there.
      if (this.inPlace) await arrived;
    }
  }

  /**
   * The helper's life: it takes the guest and keeps it until somebody takes it from here; then the
   * VM ends. If nobody will, it goes on as a VM like any other.
   */
  async help(vm: VirtualMachine, cpr: Cpr): Promise<void> {
    await (await cpr.migrateIncoming(undefined, true))();
    if (vm.failure !== undefined) return;
    const nobody = await Promise.race([
      this.#relay!.giveAway(vm.reactor, (to) => cpr.giveTo(to)),
      vm.exited,
    ]);
    // The guest has ended meanwhile: so does this process, and the new program learns how.
    if (typeof nobody === "number") return this.#relay!.link.ended(nobody);
    if (nobody === undefined) {
      vm.chardevs.releaseKept(true);
      return vm.quit();
    }
    cpr.migration.failedBefore(nobody);
    vm.notice(`${nobody}; the guest runs on in process ${Deno.pid}`);
    vm.chardevs.holdMonitors("nothing");
  }

  /** After a failure: becomes the program before this one again, if there is one and it is needed. */
  goBack(reason: string): void {
    this.#exec?.wayBack?.go(reason);
    this.#relay?.goBack(reason);
  }
}

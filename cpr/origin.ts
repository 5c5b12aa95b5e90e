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
import { receiveCpr, receiveOver } from "./handover/receive.ts";
import type { Begun, Received } from "./handover/received.ts";
import { type IncomingOptions, parseIncoming } from "./channel/incoming_options.ts";
import { Relay } from "./modes/relay.ts";

/** What a VM that does not boot waits for. */
export interface ExpectedGuest {
  /** Where its state comes from. */
  readonly incoming: IncomingOptions;
  /** What a predecessor that is there has passed. */
  readonly received: Received | undefined;
}

/** Where one process's guest comes from. */
export class Origin {
  readonly #exec: ReceivedExec | undefined;
  readonly #relay: Relay | undefined;
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
  static fromEnvironment(): Origin {
    const relay = Relay.fromEnvironment();
    return new Origin(relay ? undefined : receiveExec(), relay);
  }

  /** Whether this process has been a VMM, or helps one: it goes on where that is. */
  get inPlace(): boolean {
    return this.#exec !== undefined || this.#relay !== undefined;
  }

  /** Whether this process only keeps the guest for another: it has no monitors and no pidfile. */
  get isHelper(): boolean {
    return this.#relay?.isHelper ?? false;
  }

  /**
   * Takes the descriptors that a predecessor passes: the machine is built from them.
   *
   * @param abort ends the wait for a predecessor
   * @returns undefined for a VM that boots
   */
  async receive(config: MachineConfig, abort: AbortSignal): Promise<ExpectedGuest | undefined> {
    const incoming = await this.#incoming(config);
    if (!incoming) return undefined;
    const received = await this.#received(incoming, abort);
    if (received) placement.takeOver(received.inheritance);
    return { incoming, received };
  }

  /** Where the state comes from. */
  async #incoming({ incoming }: MachineConfig): Promise<IncomingOptions | undefined> {
    const relay = this.#relay;
    const isHereAlready = relay?.isHelper || relay?.failure !== undefined || this.#exec?.failure;
    const asked = isHereAlready ? undefined : await parseIncoming(incoming);
    return asked ?? (this.inPlace ? { main: "defer" } : undefined);
  }

  async #received(incoming: IncomingOptions, abort: AbortSignal): Promise<Received | undefined> {
    if (this.#exec) {
      const { inheritance, anchored } = this.#exec;
      return { inheritance, anchored, begun: this.#begun };
    }
    if (this.#relay) {
      const { cpr, main } = this.#relay.link.ask();
      return { ...receiveOver(cpr), main, begun: this.#begun };
    }
    if (!incoming.cpr) return undefined;
    const reactor = new Reactor();
    try {
      return await receiveCpr(incoming.cpr, reactor, abort);
    } finally {
      await reactor.close();
    }
  }

  /**
   * Takes the guest, or begins to wait for it. Not for a VM that boots.
   *
   * @param onArrival called when the guest has come by itself
   */
  async begin(
    vm: VirtualMachine,
    cpr: Cpr,
    { main, argument }: IncomingOptions,
    onArrival?: () => void,
  ): Promise<void> {
    const { failure, anchored } = this.#exec ?? {};
    if (failure && !anchored) {
      return await cpr.incoming!.takeBack(failure.state, failure.reason);
    }
    const reason = failure?.reason ?? this.#relay?.failure;
    if (reason !== undefined) {
      await (await cpr.migrateIncoming(undefined, true))();
      cpr.migration.failedBefore(reason);
    } else if (main !== "defer") {
      const named = (cause: Error) => {
        throw new Error(`-incoming ${argument}: ${cause.message}`, { cause });
      };
      const load = await cpr.migrateIncoming(main, true).catch(named);
      const arrived = load().then(() => vm.failure === undefined && onArrival?.());
      // Who connects to a VMM that executes its successor finds the guest there.
      if (this.inPlace) await arrived;
    }
  }

  /** The guest is here: there is no way back from now on. */
  arrived(vm: VirtualMachine): void {
    this.#exec?.wayBack?.[Symbol.dispose]();
    if (this.isHelper) vm.chardevs.holdMonitors("everything");
    else this.#relay?.arrived(vm.reactor);
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
    const { anchored, wayBack } = this.#exec ?? {};
    if (anchored?.hasEnded) return;
    wayBack?.go(reason, anchored?.state);
    this.#relay?.goBack(reason);
  }
}

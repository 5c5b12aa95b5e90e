/** A reset or the like is the guest's own: it gets lost in no update, and no rehearsal makes one. */
import assert from "node:assert/strict";
import { Channel } from "../../cpr/channel/channel.ts";
import { Cpr } from "../../cpr/cpr.ts";
import { collectHandover, decodeHandover, encodeHandover } from "../../cpr/handover/handover.ts";
import { Owner, Ownership } from "../../cpr/handover/ownership.ts";
import { enter, leave } from "../../cpr/pause/pause.ts";
import { EnteringRehearsal, LeavingRehearsal } from "../../cpr/pause/rehearsal.ts";
import { signalEventfd } from "../../ffi/event.ts";
import { duplicate } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import { FdRegistry } from "../../vmm/monitor/fd_registry.ts";
import { GuestEvent } from "../../vmm/threads/control_block.ts";
import { placement } from "../../vmm/threads/placement.ts";
import { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { layout } from "../guests/programs.ts";
import { kvmTest, sleep, TestVm, until } from "./harness.ts";

const UNDECIDED = "CPU 0 has just asked for a reset or the like, which comes first: try again";

/** What a vCPU's thread leaves when its guest asks for something; the main thread has not seen it. */
function leaveEvent({ machine }: VirtualMachine, event: number): void {
  machine.vcpus[0].control.post(event);
}

/** The main thread is woken, and has seen what there was. */
async function wake({ machine }: VirtualMachine): Promise<void> {
  signalEventfd(machine.devices.description.eventFd);
  const [{ control }] = machine.vcpus;
  await until(() => !control.hasEvent, () => "the main thread to take an event");
  await sleep(1);
}

/** Two VMs with the same RAM, as during a cpr-transfer: the guest runs in the first one. */
class Transfer implements AsyncDisposable {
  readonly #cleanup: AsyncDisposableStack;
  readonly #events: string[] = [];

  private constructor(
    readonly source: TestVm,
    readonly successor: VirtualMachine,
    readonly ownership: Ownership,
    cleanup: AsyncDisposableStack,
  ) {
    this.#cleanup = cleanup;
    successor.events.subscribe(({ name }) => this.#events.push(name));
  }

  static async begin(): Promise<Transfer> {
    await using cleanup = new AsyncDisposableStack();
    const source = cleanup.use(await TestVm.start({ program: "demo" }));
    const ownership = cleanup.use(Ownership.create());
    const { fds, values } = collectHandover(source.vm, ownership, "neighbour");
    const table = encodeHandover({ fds, values }, (entry) => fds.indexOf(entry));
    const inheritance = decodeHandover(table, (number) => duplicate(fds[number].fd), true);
    placement.takeOver(inheritance);
    cleanup.defer(() => placement.restore());
    const successor = cleanup.use(
      await VirtualMachine.create(source.vm.config, { incoming: true, inheritance }),
    );
    cleanup.use(Ownership.takeOver(inheritance, "new"));
    inheritance.checkEmpty();
    await successor.machine.threadsStarted();
    return new Transfer(source, successor, ownership, cleanup.move());
  }

  get resets(): number {
    return this.#events.filter((name) => name === "RESET").length;
  }

  /** Moves the guest, but does `before` when the successor has its state and is about to run it. */
  move(before: () => void): void {
    const { source: { vm }, successor: { machine, keepers }, ownership } = this;
    using entering = new EnteringRehearsal(this.successor);
    using leaving = new LeavingRehearsal(vm);
    const [near, far] = socketPair();
    using to = new Channel(near);
    using from = new Channel(far);
    entering.begin();
    vm.machine.park();
    const stopped = { wasRunning: true, stoppedNs: 0 };
    ownership.swap(Owner.OLD, Owner.HANDED_OVER);
    to.sink(leaving.image.encode(leaving.image.save(stopped, vm.keepers)));
    vm.setRunState("postmigrate");
    before();
    const { state, runs } = enter({
      claimants: [],
      ownership,
      channel: from,
      machine,
      reading: { agreed: true, ignoreShared: false, keepers, target: entering.target },
      tscGoesOn: true,
      isCopy: false,
      mayRun: true,
      wakesEarly: false,
    });
    assert.ok(runs);
    this.successor.resumed();
    this.successor.arrived(state.takeOver);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#cleanup.disposeAsync();
  }
}

kvmTest("what a vCPU runs into as it rehearses is no reset of the machine", async () => {
  await using transfer = await Transfer.begin();
  const { source, successor } = transfer;
  await source.grown(layout.ticks);
  // Where a reset would put the guest's image again, while the guest runs in the other VM.
  const mark = Uint8Array.of(1, 2, 3, 4);
  const { memory } = successor.machine;
  const place = Number(source.vm.machine.roms[0].address);
  assert.notDeepEqual(memory.read(place, 4), mark);
  memory.write(place, mark);
  for (const event of [GuestEvent.TRIPLE_FAULT, GuestEvent.RESET, GuestEvent.SHUTDOWN]) {
    leaveEvent(successor, event);
    await wake(successor);
    assert.equal(successor.runState, "inmigrate");
    assert.deepEqual(memory.read(place, 4), mark);
  }
  // Nor does `system_reset` touch the memory of a guest that is not here yet.
  successor.reset();
  assert.deepEqual(memory.read(place, 4), mark);
  assert.equal(transfer.resets, 1);
  source.assertUnharmed();

  transfer.move(() => leaveEvent(successor, GuestEvent.TRIPLE_FAULT));
  await source.grown(layout.ticks);
  await source.grown(layout.counter);
  source.assertUnharmed();
  // From now on what happens is the guest's: its thread's mailbox has room for it.
  leaveEvent(successor, GuestEvent.DEBUG);
  await wake(successor);
  assert.equal(successor.runState, "debug");
  assert.equal(transfer.resets, 1);
});

kvmTest("a guest that has asked for a reset does not leave, and is reset", async () => {
  await using test = await TestVm.start({ program: "demo" });
  const { vm } = test;
  await test.grown(layout.ticks);
  using ownership = Ownership.create();
  using rehearsal = new LeavingRehearsal(vm);
  const [near, far] = socketPair("stream", { nonblocking: true });
  using channel = new Channel(near);
  using _far = far;
  leaveEvent(vm, GuestEvent.RESET);
  const leaving = {
    ownership,
    channel,
    vm,
    image: rehearsal.image,
    guest: undefined,
    threads: vm.machine.threads,
  };
  assert.throws(() => leave(leaving), { message: UNDECIDED });
  assert.equal(ownership.owner, Owner.OLD);
  vm.resume();
  await wake(vm);
  await test.resets(1);
  await test.grown(layout.counter, 0);
});

kvmTest("a migration to a file waits for a reset that the guest has asked for", async () => {
  await using test = await TestVm.start({ program: "demo" });
  const { vm } = test;
  await test.grown(layout.ticks);
  const cpr = new Cpr(vm, new FdRegistry());
  cpr.migration.parameters.mode = "cpr-reboot";
  const filename = await Deno.makeTempFile({ prefix: "denovo-undecided-" });
  const main = {
    "channel-type": "main",
    addr: { transport: "file", filename, offset: 0 },
  } as const;
  const migrate = async () => await (await cpr.migrate([main]))();
  leaveEvent(vm, GuestEvent.TRIPLE_FAULT);
  await assert.rejects(migrate(), { message: UNDECIDED });
  assert.equal(vm.runState, "running");
  await wake(vm);
  await test.resets(1);
  await test.grown(layout.counter, 0);
  await migrate();
  assert.equal(cpr.migration.status, "completed");
  assert.equal(vm.runState, "postmigrate");
  await Deno.remove(filename);
});

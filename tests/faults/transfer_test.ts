/** Peers that die, lie or keep silent during cpr-transfer: the guest must have exactly one owner. */
import assert from "node:assert/strict";
import { receiveCpr } from "../../cpr/handover/receive.ts";
import { Owner, Ownership } from "../../cpr/handover/ownership.ts";
import { writeAll } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { connectUnix } from "../../ffi/socket.ts";
import {
  beginTransfer,
  kvmTest,
  Laboratory,
  type Qmp,
  unixChannel,
} from "../conformance/program.ts";

const READY = Uint8Array.of(0x52);
const DONE = Uint8Array.of(0x44);

/** Closes what a fake successor has no use for. */
/** A peer that speaks the successor's part up to where a test wants it to go wrong. */
class FakeSuccessor implements AsyncDisposable {
  readonly #reactor = new Reactor();
  readonly #listener: Deno.UnixListener;
  readonly #received: ReturnType<typeof receiveCpr>;
  ownership!: Ownership;
  main!: Deno.UnixConn;

  constructor(readonly lab: Laboratory) {
    this.#listener = Deno.listen({ transport: "unix", path: lab.path("main") });
    const path = lab.path("cpr");
    this.#received = receiveCpr({ transport: "socket", type: "unix", path }, this.#reactor);
  }

  get channels(): object[] {
    return [unixChannel("main", this.lab.path("main")), unixChannel("cpr", this.lab.path("cpr"))];
  }

  /** Takes the descriptors, says that the main channel listens, and accepts on it. */
  async accept(): Promise<void> {
    const { inheritance, connection } = await this.#received;
    this.ownership = Ownership.takeOver(inheritance, "new");
    inheritance[Symbol.dispose]();
    connection.close();
    this.main = await this.#listener.accept();
  }

  /** Reads what stays the same, says that it waits for the rest, and reads that to its end. */
  async readState(): Promise<void> {
    await this.#readStream();
    await this.main.write(READY);
    await this.#readStream();
  }

  async #readStream(): Promise<void> {
    const buffer = new Uint8Array(1 << 20);
    let tail = "";
    while (!tail.includes("ENDS")) {
      const n = await this.main.read(buffer);
      assert.ok(n, "the state ends early");
      tail = tail.slice(-16) + new TextDecoder("latin1").decode(buffer.subarray(0, n));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.main?.close();
    this.#listener.close();
    this.ownership?.close();
    await this.#reactor.close();
  }
}

/** A guest, and a false successor that it has been told to go to. */
async function begin(lab: Laboratory): Promise<{ qmp: Qmp; fake: FakeSuccessor }> {
  const { qmp } = await lab.run("old");
  const fake = new FakeSuccessor(lab);
  await beginTransfer(qmp, fake.channels);
  await fake.accept();
  return { qmp, fake };
}

async function assertGoesOn(qmp: Qmp, reason: string): Promise<void> {
  await qmp.logged("MIGRATION failed");
  assert.deepEqual(await qmp.migration(), { status: "failed", "error-desc": reason });
  await qmp.reaches("running");
  await qmp.assertGuestRuns();
}

kvmTest("the guest never stops when the successor closes its main channel", async () => {
  await using lab = await Laboratory.open();
  const { qmp, fake } = await begin(lab);
  await using _fake = fake;
  fake.main.close();
  await assertGoesOn(qmp, "The new VMM has closed the migration channel");
  assert.ok(!qmp.log.includes("STOP"));
  fake.main = undefined!;
});

kvmTest("the old VMM takes the guest back when the successor dies after the stream", async () => {
  await using lab = await Laboratory.open();
  const { qmp, fake } = await begin(lab);
  await using _fake = fake;
  await fake.readState();
  assert.equal(fake.ownership.owner, Owner.HANDED_OVER);
  assert.match(await qmp.refusal("cont"), /it cannot run here again/);
  assert.match(await qmp.refusal("system_reset"), /it cannot run here again/);
  fake.main.close();
  await assertGoesOn(qmp, "The new VMM has closed the migration channel");
  assert.equal(fake.ownership.owner, Owner.OLD);
  assert.equal(fake.ownership.swap(Owner.HANDED_OVER, Owner.NEW), false);
  fake.main = undefined!;
});

kvmTest("the old VMM says the successor's reason when it refuses the state", async () => {
  await using lab = await Laboratory.open();
  const { qmp, fake } = await begin(lab);
  await using _fake = fake;
  await fake.readState();
  await fake.main.write(new TextEncoder().encode("Eno such luck"));
  await fake.main.closeWrite();
  await assertGoesOn(qmp, "no such luck");
});

kvmTest("the old VMM takes the guest back when the successor lies about having it", async () => {
  await using lab = await Laboratory.open();
  const { qmp, fake } = await begin(lab);
  await using _fake = fake;
  await fake.readState();
  await fake.main.write(DONE);
  await assertGoesOn(qmp, "The new VMM did not take the guest");
});

kvmTest("the old VMM never runs the guest again when the successor has taken it", async () => {
  await using lab = await Laboratory.open();
  const { qmp, fake } = await begin(lab);
  await using _fake = fake;
  await fake.readState();
  assert.ok(fake.ownership.swap(Owner.HANDED_OVER, Owner.NEW));
  fake.main.close();
  fake.main = undefined!;
  await qmp.logged("MIGRATION completed");
  assert.equal(await qmp.runState(), "postmigrate");
  assert.match(await qmp.refusal("cont"), /it cannot run here again/);
  await qmp.assertGuestStands();
});

kvmTest("a guest that was stopped meanwhile stays stopped when the transfer fails", async () => {
  await using lab = await Laboratory.open();
  const { qmp, fake } = await begin(lab);
  await using _fake = fake;
  await qmp.execute("stop");
  await fake.readState();
  fake.main.close();
  fake.main = undefined!;
  await qmp.logged("MIGRATION failed");
  await qmp.reaches("paused");
  await qmp.assertGuestStands();
});

kvmTest(
  "the guest goes on when the successor says nothing, and `migrate_cancel` works",
  async () => {
    await using lab = await Laboratory.open();
    const { qmp, fake } = await begin(lab);
    await using _fake = fake;
    await qmp.assertGuestRuns();
    await qmp.execute("migrate_cancel");
    await qmp.logged("MIGRATION cancelled");
    assert.ok(!qmp.log.includes("STOP"));
    await qmp.assertGuestRuns();
  },
);

kvmTest(
  "the old VMM takes the guest back when the successor reads the state and stalls",
  async () => {
    await using lab = await Laboratory.open();
    const { qmp, fake } = await begin(lab);
    await using _fake = fake;
    await fake.readState();
    await qmp.logged("MIGRATION failed");
    await qmp.reaches("running");
    await qmp.assertGuestRuns();
  },
);

kvmTest("garbage on the cpr channel is refused by the successor", async () => {
  for (
    const [garbage, reason] of [
      ["", "Stream ends within the head of the stream"],
      ["hello, world", "Not a migration stream"],
      ["DENOVO\r\n\x01\0\0\0junk", "Unknown section type"],
    ]
  ) {
    await using lab = await Laboratory.open();
    const reactor = new Reactor();
    const path = lab.path("cpr");
    const received = receiveCpr({ transport: "socket", type: "unix", path }, reactor);
    const refused = assert.rejects(received, (error: Error) => {
      assert.equal(error.name, "StateError");
      assert.ok(error.message.startsWith(reason), error.message);
      return true;
    });
    // At one go: the successor waits for the table on this very thread.
    using connection = connectUnix(path);
    writeAll(connection.fd, new TextEncoder().encode(garbage));
    connection.close();
    await refused;
    await reactor.close();
  }
});

/** A memory balloon over live updates: its size stays, no page is lost, and it goes on. */
import assert from "node:assert/strict";
import { kvmTest, Laboratory, type Qmp, sleep } from "./program.ts";
import { assertUnharmed, Chain, endUnharmed, goThrough, modes } from "./updates.ts";

const MIB = 1 << 20;
const RAM = 64 * MIB;
const PATH = "/machine/peripheral/b";
const INTERVAL = "guest-stats-polling-interval";

async function actual(qmp: Qmp): Promise<number> {
  return (await qmp.execute<{ actual: number }>("query-balloon")).actual;
}

/** Waits until a value is there; the guest's errors end the wait. */
async function becomes(qmp: Qmp, wanted: number, ask: () => Promise<number>): Promise<void> {
  let now = await ask();
  for (let tries = 0; now !== wanted; tries++) {
    await assertUnharmed(qmp);
    assert.ok(tries < 4000, `Waited in vain for ${wanted}, it is ${now}`);
    await sleep(10);
    now = await ask();
  }
}

async function resize(qmp: Qmp, bytes: number): Promise<void> {
  await qmp.execute("balloon", { value: bytes });
  await becomes(qmp, bytes, () => actual(qmp));
}

for (const packed of ["off", "on"]) {
  kvmTest(`a guest gives back and takes through each mode, packed: ${packed}`, async () => {
    await using lab = await Laboratory.open();
    const device = `virtio-balloon-device,packed=${packed},free-page-reporting=on`;
    const chain = await Chain.start(lab, {
      guest: "virtio_balloon",
      memory: RAM / MIB,
      options: ["-append", "churn report", "-device", device],
    });
    await lab.printed("balloon at irq 47\n");
    await goThrough(chain, modes);
    await endUnharmed(chain);
  });
}

kvmTest("a balloon keeps its size, its target and its interval through each mode", async () => {
  await using lab = await Laboratory.open();
  const chain = await Chain.start(lab, {
    guest: "virtio_balloon",
    memory: RAM / MIB,
    options: ["-device", "virtio-balloon-device,id=b"],
  });
  await lab.printed("balloon at irq 47\n");
  await chain.qmp.execute("qom-set", { path: PATH, property: INTERVAL, value: 1 });
  await resize(chain.qmp, RAM - 8 * MIB);
  let left = 8 * MIB;
  for (const mode of modes) {
    await chain.update(mode);
    const { qmp } = chain;
    assert.equal(await actual(qmp), RAM - left);
    assert.equal(await qmp.hmp("info balloon"), `balloon: actual=${(RAM - left) / MIB}\r\n`);
    assert.equal(await qmp.execute("qom-get", { path: PATH, property: INTERVAL }), 1);
    left += MIB;
    await resize(qmp, RAM - left);
    // It is asked for statistics as before.
    await becomes(qmp, (16 * MIB - left) / 4096, async () => {
      const args = { path: PATH, property: "guest-stats" };
      const { stats } = await qmp.execute<{ stats: Record<string, number> }>("qom-get", args);
      return stats["stat-free-memory"];
    });
  }
  await resize(chain.qmp, RAM);
  await assertUnharmed(chain.qmp);
  assert.equal(lab.serialText.includes("FAIL"), false, lab.serialText);
});

/** The guest's clocks and timers over a live update. */
import assert from "node:assert/strict";
import { kvmTest, Laboratory, sleep } from "./program.ts";
import { assertSteady, Chain, FifoConsole, modes } from "./updates.ts";

const NS_PER_MS = 1e6;
/** By what part of the time that passes the host's clocks may go apart while one of them is slewed. */
const SLEW = 1 / 1000;
/** By how much the pause of cpr-reboot is prolonged here, milliseconds. */
const DELAY_MS = 300;
const QUESTIONS = 20;
/** A clock that goes on would not be found to have stood still after more of them either. */
const MOST_UPDATES = 40;

/** Bounds, in ns, of how far kvmclock is ahead of this process's clock; they are never wrong. */
interface Offset {
  readonly low: number;
  readonly high: number;
}

/** By how much the host's clocks may differ in what they say of the time since, in ns. */
function tolerance(sinceMs: number): number {
  return (2 + SLEW * (performance.now() - sinceMs)) * NS_PER_MS;
}

/** Asks the guest for its clock: it read it after the question and before the answer. */
async function offset(console: FifoConsole): Promise<Offset> {
  let [low, high] = [-Infinity, Infinity];
  for (let question = 0; question < QUESTIONS; question++) {
    const from = console.text.length;
    const asked = performance.now() * NS_PER_MS;
    await console.type("?");
    await console.printed("\n", from);
    const clock = Number(/clock (\d+)\n/.exec(console.text.slice(from))?.[1]);
    low = Math.max(low, clock - performance.now() * NS_PER_MS);
    high = Math.min(high, clock - asked);
  }
  assert.ok(low <= high, `kvmclock went back: it is ${low} to ${high} ahead`);
  return { low, high };
}

/** Starts `steady`, halting between ticks, with a clock that may stand still. */
async function start(lab: Laboratory, console: FifoConsole, machine: string): Promise<Chain> {
  const options = ["-smp", "2", "-append", "mode=p", "-machine", machine];
  const chain = await Chain.start(lab, { guest: "steady_cpl0", options, serial: console.serial });
  await console.printed("steady 2\n");
  return chain;
}

for (const mode of modes) {
  const delayMs = mode === "cpr-reboot" ? DELAY_MS : 0;

  kvmTest(`kvmclock goes on over the pause of ${mode}`, async () => {
    await using lab = await Laboratory.open();
    using console = await FifoConsole.open(lab.path("console"));
    const chain = await start(lab, console, "microvm");
    const begin = performance.now();
    const before = await offset(console);
    await chain.update(mode, { delayMs });
    const after = await offset(console);
    const what = `kvmclock was ${JSON.stringify(before)} ahead, then ${JSON.stringify(after)}`;
    assert.ok(after.high >= before.low - tolerance(begin), `${what}: it has stood still`);
    assert.ok(after.low <= before.high + tolerance(begin), `${what}: it has leapt`);
    await assertSteady(chain.qmp, 2);
  });

  kvmTest(`kvmclock stands still over the pause of ${mode} with x-pause-clock`, async () => {
    await using lab = await Laboratory.open();
    using console = await FifoConsole.open(lab.path("console"));
    const chain = await start(lab, console, "microvm,x-pause-clock=on");
    const begin = performance.now();
    const before = await offset(console);
    let pauses = 0, least = -Infinity, most = 0;
    // The pause of one update between live VMMs may be shorter than the bounds are apart.
    for (
      let update = 0;
      update < (mode === "cpr-reboot" ? 1 : MOST_UPDATES) && least <= 0;
      update++
    ) {
      await chain.update(mode, { delayMs });
      pauses += await chain.pause() * 1000;
      const after = await offset(console);
      least = before.low - after.high;
      most = before.high - after.low;
    }
    const what = `kvmclock lost ${least} to ${most} ns in pauses of ${pauses} ns`;
    assert.ok(least > delayMs * NS_PER_MS - tolerance(begin) && least > 0, what);
    assert.ok(least < pauses + tolerance(begin), what);
    assert.ok(most > 0, what);
    await assertSteady(chain.qmp, 2);
  });

  kvmTest(`timers that run out while the guest is stopped come after ${mode}`, async () => {
    await using lab = await Laboratory.open();
    using console = await FifoConsole.open(lab.path("console"));
    const chain = await start(lab, console, "microvm");
    for (let round = 0; round < 2; round++) {
      await assertSteady(chain.qmp, 2);
      await chain.qmp.execute("stop");
      // Longer than any of the guest's timers: the interrupts are noted, but in no register yet.
      await sleep(50);
      await chain.update(mode, { arrives: "paused" });
      await chain.qmp.execute("cont");
    }
    await assertSteady(chain.qmp, 2);
  });
}

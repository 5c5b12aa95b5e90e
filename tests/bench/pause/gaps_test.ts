import assert from "node:assert/strict";
import { monotonicNow } from "../../../ffi/event.ts";
import { layout } from "../../guests/programs.ts";
import { kvmTest, sleep, TestVm } from "../../kvm/harness.ts";
import { gapAround, lengthUs, lostUs } from "./gaps.ts";
import { GuestRam, ramPath } from "./guest_ram.ts";
import type { Configuration } from "./results.ts";

const STILL_MS = 60;
const configuration = (guest: Configuration["guest"], cpus: number): Configuration => ({
  name: guest,
  guest,
  ram: 64 << 20,
  page: "4K",
  cpus,
  populated: false,
});

Deno.test("gapAround() is the longest gap around the moment, or just after it", () => {
  const us = (from: number, to: number) => ({ startNs: from * 1000, endNs: to * 1000, count: 0 });
  const gaps = [us(1000, 3000), us(2000, 8000), us(20_000, 90_000)];
  const around = (moment: number) => {
    const gap = gapAround(gaps, moment * 1000);
    return gap && lengthUs(gap);
  };
  assert.equal(around(2500), 6000);
  assert.equal(around(1500), 6000);
  assert.equal(around(499), undefined);
  assert.equal(around(500), 2000);
  assert.equal(around(8001), undefined);
  assert.equal(around(19_499), undefined);
  assert.equal(around(19_500), 70_000);
});

Deno.test("lostUs() is the time for which the guest has counted less than usually", () => {
  const usual = [{ ns: 5_000_000, count: 100 }, { ns: 15_000_000, count: 10_100 }] as const;
  const from = { ns: 20_000_000, count: 11_000 };
  const later = (count: number) => lostUs(from, { ns: 120_000_000, count }, usual);
  assert.equal(later(111_000), 0);
  assert.equal(later(110_000), 1000);
  assert.equal(later(111_500), -500);
});

for (
  const [program, guest, cpus] of [["counter_cpl3", "cpl3", 1], ["counter_cpl0", "cpl0", 1], [
    "smp",
    "smp",
    2,
  ]] as const
) {
  kvmTest(`${program} lists the gap in which it was stopped, with its time`, async () => {
    await using test = await TestVm.create({ program, cpus });
    const { tscKhz } = test.vm.machine.hardware.vcpus[0];
    test.vm.start();
    const counter = guest === "smp" ? layout.cpuRecords : layout.counter;
    await test.grown(counter);
    using ram = new GuestRam(await ramPath(Deno.pid), configuration(guest, cpus));
    ram.listGapsFrom(STILL_MS / 2 * tscKhz);
    test.vm.stop();
    const moment = monotonicNow();
    await sleep(STILL_MS);
    const stillNs = monotonicNow() - moment;
    test.vm.cont();
    // An iteration counts first and lists its gap then: the one after it has listed.
    await test.grown(counter, await test.grown(counter));
    // Whatever else the host does: it cannot have counted meanwhile.
    // The two clocks are compared only as well as this process is let run.
    const gap = gapAround(ram.gaps(tscKhz), moment + stillNs / 2)!;
    assert.ok(lengthUs(gap) * 1000 >= stillNs * 0.999, `${lengthUs(gap)} of ${stillNs / 1000} us`);
    assert.ok(gap.count > 0 && ram.counts().some((count) => count >= gap.count));
  });
}

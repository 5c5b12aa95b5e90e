/** What `-M dump-guest-core=` and `mem-merge=` do to guest RAM, as the kernel tells it. */
import assert from "node:assert/strict";
import { defaultConfig, type MachineTypeConfig } from "../../vmm/config.ts";
import { DEFAULT_RAM_ID, MemorySet } from "../../vmm/machine/memory_set.ts";

/** The kernel's flags of RAM's mapping (/proc/PID/smaps, VmFlags). */
function flagsOf(machine: Partial<MachineTypeConfig>): string[] {
  const config = defaultConfig();
  const memory = new MemorySet();
  try {
    memory.open({ ...config, machine: { ...config.machine, ...machine } });
    const { address } = memory.backends.get(DEFAULT_RAM_ID)!.mapping;
    const text = Deno.readTextFileSync("/proc/self/smaps");
    for (const [, from, to, flags] of text.matchAll(/^(\w+)-(\w+) .*?^VmFlags: (.*?) *$/gms)) {
      if (parseInt(from, 16) <= address && address < parseInt(to, 16)) return flags.split(" ");
    }
    assert.fail("RAM is not mapped");
  } finally {
    memory.close();
  }
}

Deno.test("dump-guest-core=off leaves RAM out of core dumps", () => {
  assert.ok(!flagsOf({}).includes("dd"));
  assert.ok(flagsOf({ dumpGuestCore: false }).includes("dd"));
});

const ksm = (() => {
  try {
    return Deno.statSync("/sys/kernel/mm/ksm").isDirectory;
  } catch {
    return false;
  }
})();
if (!ksm) console.warn("SKIPPED: a test that needs KSM in the kernel");

Deno.test(
  "mem-merge lets the kernel share equal pages of private RAM",
  { ignore: !ksm },
  () => {
    assert.ok(flagsOf({ auxRamShare: false }).includes("mg"));
    assert.ok(!flagsOf({ auxRamShare: false, memMerge: false }).includes("mg"));
    assert.ok(!flagsOf({}).includes("mg"));
  },
);

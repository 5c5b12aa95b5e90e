/** What `-M dump-guest-core=` and `mem-merge=` do to guest RAM, as the kernel tells it. */
import assert from "node:assert/strict";
import { defaultConfig, type MachineTypeConfig } from "../../vmm/config.ts";
import { DEFAULT_RAM_ID, Resources } from "../../vmm/resources.ts";

/** The kernel's flags of RAM's mapping (/proc/PID/smaps, VmFlags). */
async function flagsOf(machine: Partial<MachineTypeConfig>): Promise<string[]> {
  const config = defaultConfig();
  const resources = new Resources(() => {}, () => {});
  try {
    resources.openBackends({ ...config, machine: { ...config.machine, ...machine } });
    const { address } = resources.backends.get(DEFAULT_RAM_ID)!.mapping;
    const text = Deno.readTextFileSync("/proc/self/smaps");
    for (const [, from, to, flags] of text.matchAll(/^(\w+)-(\w+) .*?^VmFlags: (.*?) *$/gms)) {
      if (parseInt(from, 16) <= address && address < parseInt(to, 16)) return flags.split(" ");
    }
    assert.fail("RAM is not mapped");
  } finally {
    await resources.close();
  }
}

Deno.test("dump-guest-core=off leaves RAM out of core dumps", async () => {
  assert.ok(!(await flagsOf({})).includes("dd"));
  assert.ok((await flagsOf({ dumpGuestCore: false })).includes("dd"));
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
  async () => {
    assert.ok((await flagsOf({ auxRamShare: false })).includes("mg"));
    assert.ok(!(await flagsOf({ auxRamShare: false, memMerge: false })).includes("mg"));
    assert.ok(!(await flagsOf({})).includes("mg"));
  },
);

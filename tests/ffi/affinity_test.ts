import assert from "node:assert/strict";
import { affinityOf, processorOf, setAffinity, threadIds } from "../../ffi/affinity.ts";

Deno.test("affinityOf() is what the kernel says of a thread", () => {
  const status = Deno.readTextFileSync("/proc/thread-self/status");
  const [, list] = /^Cpus_allowed_list:\s+(.*)$/m.exec(status)!;
  const expected = list.split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
  assert.deepEqual(affinityOf(0), expected);
  assert.throws(() => affinityOf(0x3fff_fff0), { code: "ESRCH" });
});

Deno.test("setAffinity() moves the calling thread, and threads that are gone do not matter", () => {
  const before = affinityOf(0);
  try {
    for (const cpu of before) {
      setAffinity(0, [cpu]);
      assert.deepEqual(affinityOf(0), [cpu]);
      assert.equal(
        processorOf(Number(Deno.readLinkSync("/proc/thread-self").split("/").at(-1))),
        cpu,
      );
    }
    assert.throws(() => setAffinity(0, []), { code: "EINVAL" });
  } finally {
    setAffinity(0, before);
  }
  setAffinity(0x3fff_fff0, before);
  assert.ok(threadIds().includes(Deno.pid));
});

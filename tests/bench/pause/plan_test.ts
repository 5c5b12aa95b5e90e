import assert from "node:assert/strict";

import { parseOptions } from "./options.ts";
import { configurations, mismatch, obstacle, subjects } from "./plan.ts";
import { able } from "./probe.ts";

const GIB = 2 ** 30;

Deno.test("configurations() changes one thing at a time, and gives none twice", () => {
  const names = configurations(parseOptions(["--ram", "256M,4G"])).map(({ name }) => name);
  assert.deepEqual(names, [
    "cpl3, 256M",
    "cpl3, 4G",
    "cpl3, 256M populated",
    "cpl3, 4G populated",
    "cpl3, 256M, 2M pages",
    "cpl0, 256M",
    "dirty, 256M",
    "smp, 1 vCPU, 256M",
    "smp, 2 vCPUs, 256M",
    "smp, 4 vCPUs, 256M",
  ]);
});

Deno.test("configurations() takes each list's first value as the base", () => {
  const args = ["--guests=dirty", "--ram=1G", "--pages=2M", "--populate=on", "--cpus=none"];
  assert.deepEqual(configurations(parseOptions(args)).map(({ name }) => name), [
    "dirty, 1G populated, 2M pages",
  ]);
});

Deno.test("subjects() are Denovo's modes, and those that QEMU has of its machines", () => {
  const names = (args: string[]) => subjects(parseOptions(args)).map(({ name }) => name);
  assert.deepEqual(names(["--modes=exec,exec-relay"]), ["Denovo exec", "Denovo exec-relay"]);
  assert.deepEqual(names(["--modes=exec,exec-relay", "--qemu=x"]), [
    "Denovo exec",
    "Denovo exec-relay",
    "QEMU microvm exec",
    "QEMU q35 exec",
  ]);
});

Deno.test("obstacle() says what a configuration lacks on the host", () => {
  const [sparse, populated, huge] = configurations(
    parseOptions(["--ram=4G", "--guests=cpl3", "--cpus=none"]),
  );
  const poor = { available: 4 * GIB, hugeFree: GIB };
  assert.equal(obstacle(sparse, poor), undefined);
  assert.equal(obstacle(populated, poor), "needs 8G of available memory, 4096M are there");
  assert.match(obstacle(huge, poor)!, /^needs 2048 free huge pages of 2 MiB .*, 512 are there$/);
  const rich = { available: 8 * GIB, hugeFree: 4 * GIB };
  for (const configuration of [sparse, populated, huge]) {
    assert.equal(obstacle(configuration, rich), undefined);
  }
});

Deno.test("mismatch() leaves out cpr-reboot with huge pages", () => {
  const options = parseOptions(["--pages=4K,2M", "--modes=transfer,reboot"]);
  const all = configurations(options);
  const huge = all.find(({ page }) => page === "2M")!;
  const [transfer, reboot] = subjects(options);
  assert.equal(mismatch(reboot, all[0]), undefined);
  assert.equal(mismatch(transfer, huge), undefined);
  assert.equal(mismatch(reboot, huge), "huge pages in a file need a mounted hugetlbfs");
});

Deno.test("able() leaves out the modes that a VMM does not know, and says so", () => {
  const options = parseOptions(["--qemu=x", "--machines=microvm", "--modes=exec,exec-relay"]);
  const all = subjects(options);
  const old = able(all, options, { hasRelay: false, qemu: "10.1.0" });
  assert.deepEqual(old.subjects.map(({ name }) => name), ["Denovo exec"]);
  assert.deepEqual(old.skipped, [
    { what: "Denovo exec-relay", reason: "this Denovo has no parameter x-cpr-exec-relay" },
    { what: "QEMU microvm exec", reason: "QEMU 10.1.0 has no cpr-exec, which came with 10.2" },
  ]);
  const current = able(all, options, { hasRelay: true, qemu: "11.1.3" });
  assert.deepEqual(current.subjects, all);
  assert.deepEqual(current.skipped, []);
});

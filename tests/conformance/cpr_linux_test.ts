/**
 * Linux through live updates. Its kernel and initial RAM disk are no part of the project: they are
 * in the folder that DENOVO_LINUX names, or in `shared/guests` beside the project.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { execUpdate, kvmTest, Laboratory, transferUpdate } from "./program.ts";

const folder = Deno.env.get("DENOVO_LINUX") ??
  new URL("../../../shared/guests", import.meta.url).pathname;
const kernel = `${folder}/vmlinux-up.gz`;
const noLinux = !existsSync(kernel);
if (noLinux) console.warn(`SKIPPED: Linux is not updated: there is no ${kernel}`);

/** The options that make a VMM boot Linux; `-kernel` and `-m` override what all guests have. */
function linuxOptions(lab: Laboratory): string[] {
  const image = lab.path("vmlinux");
  Deno.writeFileSync(image, gunzipSync(Deno.readFileSync(kernel)));
  return [
    ...["-kernel", image, "-initrd", `${folder}/initrd-tiny.cpio`, "-m", "128"],
    ...["-cpu", "host,-cx16", "-append", "console=ttyS0 reboot=k panic=-1", "-no-reboot"],
  ];
}

/** Fails unless Linux has printed all that it prints, each line once. */
function assertWhole(lab: Laboratory): void {
  for (const line of ["TICK-READY", "tick 0", "tick 1", "tick 2", "tick 3", "tick 4", "DONE"]) {
    assert.equal(lab.serialText.split(`${line}\n`).length, 2, `${line} in: ${lab.serialText}`);
  }
}

if (!noLinux) {
  kvmTest("Linux goes on to its end when its VMM is replaced by cpr-exec", async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp } = await lab.run("vmm", { options: linuxOptions(lab) });
    await lab.printed("tick 0");
    await execUpdate(lab, vmm, qmp);
    assert.deepEqual(await vmm.ended(), { code: 0 });
    assertWhole(lab);
  });

  kvmTest("Linux goes on to its end when cpr-transfer moves it", async () => {
    await using lab = await Laboratory.open();
    const options = linuxOptions(lab);
    const { vmm, qmp } = await lab.run("old", { options });
    await lab.printed("tick 0");
    const next = await transferUpdate(lab, "new", qmp, { options });
    await qmp.execute("quit");
    assert.deepEqual(await vmm.ended(), { code: 0 });
    assert.deepEqual(await next.vmm.ended(), { code: 0 });
    assertWhole(lab);
  });
}

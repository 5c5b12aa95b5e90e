/**
 * Disks over live updates: every record that the guest writes is there, once, and nobody else ever has
 * the image.
 */
import assert from "node:assert/strict";
import { hasIoUring } from "../../ffi/io_uring.ts";
import { checkImage, create, OpenImage } from "../devices/qcow2/testing.ts";
import { layout } from "../guests/programs.ts";
import { beginTransfer, kvmTest, Laboratory, startSuccessor, type VmmOptions } from "./program.ts";
import { assertRecords, assertRecordsIn } from "./disk_records.ts";
import { Thief } from "./thief.ts";
import { assertCounts, assertUnharmed, Chain, endUnharmed, goThrough, modes } from "./updates.ts";

/** An image of 1 MiB in a laboratory. */
function makeImage(lab: Laboratory): string {
  const path = lab.path("disk.img");
  Deno.writeFileSync(path, new Uint8Array(1 << 20));
  return path;
}

const drive = (image: string) => `file=${image},format=raw,if=none,id=d`;

for (const packed of ["off", "on"]) {
  kvmTest(`a guest that writes records goes on through each mode, packed: ${packed}`, async () => {
    await using lab = await Laboratory.open();
    const image = makeImage(lab);
    const device = `virtio-blk-device,drive=d,packed=${packed}`;
    // How requests are made is the VMM's own affair: the next one may do it otherwise.
    const by = (aio: string): VmmOptions => ({
      guest: "virtio_blk",
      options: ["-drive", `${drive(image)},aio=${aio}`, "-device", device],
    });
    const kinds = hasIoUring() ? ["io_uring", "threads"] : ["threads"];
    const chain = await Chain.start(lab, by(kinds[0]));
    await lab.printed("2048 sectors\n");
    for (let round = 0; round < 3; round++) {
      chain.become(by(kinds[round % kinds.length]));
      await goThrough(chain, modes);
    }
    await endUnharmed(chain);
    await assertRecords(image, chain.qmp);
  });
}

kvmTest("a disk with a thread of its own keeps it through each mode", async () => {
  await using lab = await Laboratory.open();
  const image = makeImage(lab);
  const device = "virtio-blk-device,drive=d,iothread=io0";
  const object = ["-object", "iothread,id=io0,poll-max-ns=7"];
  const options = ["-drive", drive(image), ...object, "-device", device];
  const chain = await Chain.start(lab, { guest: "virtio_blk", options });
  await lab.printed("2048 sectors\n");
  for (const mode of modes) {
    await assertCounts(chain.qmp, layout.counter);
    await chain.update(mode);
    const threads = await chain.qmp.execute("query-iothreads") as Record<string, unknown>[];
    assert.deepEqual(threads.map((thread) => [thread.id, thread["poll-max-ns"]]), [["io0", 7]]);
    assert.notEqual(threads[0]["thread-id"], 0);
  }
  await assertCounts(chain.qmp, layout.counter);
  await chain.qmp.execute("stop");
  await assertUnharmed(chain.qmp);
  await assertRecords(image, chain.qmp);
});

/** A guest goes on through each mode on an image with one behind it. */
async function imageGoesOn(aio: string, lazyRefcounts: boolean): Promise<void> {
  await using lab = await Laboratory.open();
  const [base, image] = [lab.path("base.qcow2"), lab.path("disk.qcow2")];
  create(base, { size: 1 << 20, clusterBits: 9 });
  // Small clusters, so that there is always something that is not yet in the file.
  const backing = { filename: "base.qcow2", format: "qcow2" };
  create(image, { size: 1 << 20, clusterBits: 9, refcountOrder: 6, backing, lazyRefcounts });
  const drive = `file=${image},format=qcow2,aio=${aio},if=none,id=d`;
  const options = ["-drive", drive, "-device", "virtio-blk-device,drive=d"];
  const chain = await Chain.start(lab, { guest: "virtio_blk", options });
  await lab.printed("2048 sectors\n");
  await goThrough(chain, [...modes, "cpr-transfer", "cpr-exec"]);
  await endUnharmed(chain);
  // Whoever lets go of an image writes all of it, and still has the guest's memory.
  await chain.qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  await chain.qmp.execute("migrate", { uri: `file:${lab.path("end")}` });
  await chain.qmp.reaches("postmigrate");
  using opened = new OpenImage(image);
  await assertRecordsIn(opened.read(0, 1 << 20), chain.qmp);
  const wrong: string[] = [];
  const { leaks, corruptions } = checkImage(opened, (text) => wrong.push(text));
  assert.deepEqual([leaks, corruptions], [0, 0], wrong.join("\n"));
}

kvmTest(
  "a guest on a qcow2 image and one behind it goes on through each mode",
  () => imageGoesOn("threads", false),
);

kvmTest(
  "a guest whose requests to a qcow2 image with lazy refcounts are made at once goes on",
  () => imageGoesOn("io_uring", true),
  !hasIoUring(),
);

for (const format of ["raw", "qcow2"] as const) {
  kvmTest(`cpr=off: each VMM opens the image by its name, ${format}`, async () => {
    await using lab = await Laboratory.open();
    const image = format === "raw" ? makeImage(lab) : lab.path("disk.qcow2");
    if (format === "qcow2") create(image, { size: 1 << 20, clusterBits: 9 });
    const drive = `file=${image},format=${format},if=none,id=d,cpr=off`;
    const options = ["-drive", drive, "-device", "virtio-blk-device,drive=d"];
    const special = { guest: "virtio_blk", options } as const;
    const chain = await Chain.start(lab, special);
    await lab.printed("2048 sectors\n");
    // Whoever let go of it has it again where nobody has taken the guest.
    await chain.qmp.withEvents();
    const doomed = await startSuccessor(lab, "doomed", special);
    await beginTransfer(chain.qmp, doomed.channels);
    doomed.vmm.kill();
    await chain.qmp.reaches("running");
    await goThrough(chain, [...modes, "cpr-transfer", "cpr-exec"]);
    await endUnharmed(chain);
    if (format === "raw") {
      await assertRecords(image, chain.qmp);
      return;
    }
    await chain.qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
    await chain.qmp.execute("migrate", { uri: `file:${lab.path("end")}` });
    await chain.qmp.reaches("postmigrate");
    using opened = new OpenImage(image);
    await assertRecordsIn(opened.read(0, 1 << 20), chain.qmp);
  });
}

kvmTest("nobody else ever gets the image while VMMs are replaced, or fail to be", async () => {
  await using lab = await Laboratory.open();
  const image = makeImage(lab);
  const options = ["-drive", `${drive(image)},cache=none`, "-device", "virtio-blk-device,drive=d"];
  const special = { guest: "virtio_blk", options } as const;
  const chain = await Chain.start(lab, special);
  await lab.printed("2048 sectors\n");
  await using thief = new Thief(image);
  for (let round = 0; round < 3; round++) {
    // A successor that dies when all is ready for it to take the guest.
    await chain.qmp.withEvents();
    await chain.qmp.setCapability("pause-before-switchover");
    const doomed = await startSuccessor(lab, `doomed${round}`, special);
    await beginTransfer(chain.qmp, doomed.channels);
    await chain.qmp.logged("MIGRATION pre-switchover");
    doomed.vmm.kill();
    await chain.qmp.execute("migrate-continue", { state: "pre-switchover" });
    await chain.qmp.logged("MIGRATION failed");
    await chain.qmp.setCapability("pause-before-switchover", false);
    await chain.qmp.reaches("running");
    await assertCounts(chain.qmp, layout.counter);
    for (const mode of ["cpr-transfer", "cpr-exec"] as const) {
      await chain.update(mode);
      await assertCounts(chain.qmp, layout.counter);
    }
  }
  await chain.qmp.execute("stop");
  await assertUnharmed(chain.qmp);
  await thief.finish();
  await assertRecords(image, chain.qmp);
});

kvmTest("a VMM whose guest went on elsewhere from a file does not run it beside", async () => {
  await using lab = await Laboratory.open();
  const image = makeImage(lab);
  const options = ["-drive", drive(image), "-device", "virtio-blk-device,drive=d"];
  const { qmp } = await lab.run("old", { guest: "virtio_blk", options });
  await lab.printed("2048 sectors\n");
  const uri = `file:${lab.path("state")}`;
  await qmp.withEvents();
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  await qmp.execute("migrate", { uri });
  await qmp.reaches("postmigrate");
  const next = await lab.run("new", {
    guest: "virtio_blk",
    options: [...options, "-incoming", uri],
  });
  await next.qmp.reaches("running");
  await assert.rejects(() => qmp.execute("cont"), {
    message: /^Another process has a disk image of this VMM's, and perhaps its guest: end it first/,
  });
  await assertCounts(next.qmp, layout.counter);
  await next.qmp.execute("quit");
  await next.vmm.ended();
  // Nobody has it now: the guest may go on where it was, from where it was.
  assert.equal((await qmp.execute<{ status: string }>("query-status")).status, "postmigrate");
});

kvmTest("a successor that knows the disk by another file, or not at all, is refused", async () => {
  await using lab = await Laboratory.open();
  const image = makeImage(lab);
  const other = lab.path("other.img");
  await Deno.copyFile(image, other);
  const device = ["-device", "virtio-blk-device,drive=d"];
  const options = ["-drive", drive(image), ...device];
  const { qmp } = await lab.run("old", { guest: "virtio_blk", options });
  await lab.printed("2048 sectors\n");
  await qmp.withEvents();
  const cases: [string[], RegExp][] = [
    [["-drive", drive(other), ...device], /Node '#d\.file' is another file than '.*other\.img'/],
    [
      ["-drive", drive(`${image}.typo`), ...device],
      /Could not open '.*\.typo': No such file or directory; the disk of the guest, node '#d\.file',/,
    ],
    [[], /The guest has a disk '#d\.file' that this VMM has not: give it the old VMM's -drive or/],
  ];
  for (const [i, [wrong, message]] of cases.entries()) {
    const successor = await startSuccessor(lab, `wrong${i}`, {
      guest: "virtio_blk",
      options: wrong,
    });
    await qmp.execute("migrate-set-parameters", { mode: "cpr-transfer" });
    await qmp.execute("migrate", { channels: successor.channels });
    await successor.vmm.ended();
    assert.match(successor.vmm.output, message);
    await qmp.reaches("running");
    await assertCounts(qmp, layout.counter);
  }
  await assertUnharmed(qmp);
});

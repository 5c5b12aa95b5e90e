/** Devices of vhost-user back-ends over live updates: the back-end works on, and nothing is lost. */
import assert from "node:assert/strict";
import { layout } from "../guests/programs.ts";
import { noStorageDaemon, StorageDaemon } from "../storage_daemon.ts";
import { assertRecords } from "./disk_records.ts";
import { noKvm } from "../needs_kvm.ts";
import {
  beginTransfer,
  kvmTest,
  Laboratory,
  setExec,
  startSuccessor,
  type VmmOptions,
} from "./program.ts";
import { assertCounts, Chain, endUnharmed, goThrough, modes } from "./updates.ts";

/** A back-end with an image of 1 MiB, and a VMM with a disk of it. */
async function makeDisk(lab: Laboratory, queues = 1) {
  const [image, socket] = [lab.path("disk.img"), lab.path("vhost-user")];
  Deno.writeFileSync(image, new Uint8Array(1 << 20));
  const options = [
    ...["-chardev", `socket,id=c,path=${socket},reconnect-ms=10`],
    ...["-device", `vhost-user-blk-device,chardev=c,num-queues=${queues}`],
  ];
  const special: VmmOptions = { guest: "virtio_blk", options };
  return { image, special, daemon: await StorageDaemon.start(image, socket, queues) };
}

kvmTest(
  "a guest on a vhost-user disk goes on through each mode",
  async () => {
    await using lab = await Laboratory.open();
    const { image, special, daemon } = await makeDisk(lab);
    await using _daemon = daemon;
    const chain = await Chain.start(lab, special);
    await lab.printed("2048 sectors\n");
    for (let round = 0; round < 3; round++) await goThrough(chain, modes);
    if (noKvm === undefined) {
      await setExec(chain.qmp, ["nothing"]);
      await chain.qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": "anchor" });
      assert.equal(
        await chain.qmp.refusal("migrate", { uri: `file:${lab.path("state")}` }),
        "Cannot use x-cpr-exec-relay=anchor: it does not go with vhost-user devices",
      );
    }
    await endUnharmed(chain);
    await assertRecords(image, chain.qmp);
  },
  noStorageDaemon,
);

kvmTest(
  "a guest on a vhost-user disk goes on where it is when updates fail",
  async () => {
    await using lab = await Laboratory.open();
    const { image, special, daemon } = await makeDisk(lab);
    await using _daemon = daemon;
    const chain = await Chain.start(lab, special);
    await lab.printed("2048 sectors\n");
    await chain.qmp.withEvents();
    const doomed = await startSuccessor(lab, "doomed", special);
    await beginTransfer(chain.qmp, doomed.channels);
    doomed.vmm.kill();
    await chain.qmp.reaches("running");
    await assertCounts(chain.qmp, layout.counter);
    // A copy that nobody takes: the guest goes on by `cont`.
    await chain.qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
    await chain.qmp.execute("migrate", { uri: `file:${lab.path("copy")}` });
    await chain.qmp.reaches("postmigrate");
    await chain.qmp.execute("cont");
    await endUnharmed(chain);
    await assertRecords(image, chain.qmp);
  },
  noStorageDaemon,
);

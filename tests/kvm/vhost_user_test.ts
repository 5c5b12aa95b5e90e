/** Disks of a vhost-user back-end with a driver in the guest that verifies numbered records. */
import type { ChardevConfig } from "../../devices/chardev/config.ts";
import { layout } from "../guests/programs.ts";
import { noStorageDaemon, StorageDaemon } from "../storage_daemon.ts";
import { kvmTest, TestVm, until } from "./harness.ts";

/** An image and a socket, which are removed at the end of a scope. */
function makeFolder(size = 1 << 20) {
  const folder = Deno.makeTempDirSync({ prefix: "denovo-vhost-user-" });
  const image = `${folder}/image`;
  Deno.writeFileSync(image, new Uint8Array(size));
  return {
    image,
    socket: `${folder}/socket`,
    [Symbol.dispose]: () => Deno.removeSync(folder, { recursive: true }),
  };
}

const chardev = (path: string, reconnectMs?: number): ChardevConfig => ({
  ...{ backend: "socket", family: "unix", path, id: "c", server: false, wait: false },
  ...reconnectMs !== undefined && { reconnectMs },
});

for (const bus of ["device", "pci"] as const) {
  kvmTest(
    `a guest keeps its records on a vhost-user-blk-${bus}, over stops and a reset`,
    async () => {
      using folder = makeFolder();
      await using _daemon = await StorageDaemon.start(folder.image, folder.socket);
      await using test = await TestVm.start({
        program: "virtio_blk",
        ...bus === "pci" && { append: "pci", machine: { pcie: true } },
        chardevs: [chardev(folder.socket)],
        devices: [{ driver: `vhost-user-blk-${bus}`, properties: { chardev: "c" } }],
      });
      await test.printed("2048 sectors\n");
      await test.grown(layout.counter, 300);
      for (let stop = 0; stop < 3; stop++) {
        await test.assertStandsStill([layout.counter]);
        test.vm.cont();
        await test.grown(layout.counter);
      }
      test.vm.reset();
      await test.printed("2048 sectors\n", 2);
      await test.grown(layout.counter, 300);
      test.assertUnharmed();
    },
    noStorageDaemon,
  );
}

kvmTest(
  "a back-end that ends is connected to again, and the guest goes on",
  async () => {
    using folder = makeFolder();
    const start = () => StorageDaemon.start(folder.image, folder.socket);
    const first = await start();
    await using test = await TestVm.start({
      program: "virtio_blk",
      chardevs: [chardev(folder.socket, 10)],
      devices: [{ driver: "vhost-user-blk-device", properties: { chardev: "c" } }],
    });
    await test.grown(layout.counter, 300);
    // It notes nothing of what it is at: so it ends while it is at nothing.
    test.vm.pause("paused");
    test.vm.machine.devices.quiesce();
    await first.kill();
    test.vm.cont();
    await until(
      () => test.notices.some((text) => text.includes("back-end of chardev 'c' is gone")),
      () => `a notice that the back-end is gone in ${test.notices}`,
    );
    await using _second = await start();
    await test.grown(layout.counter, 300);
    test.assertUnharmed();
  },
  noStorageDaemon,
);

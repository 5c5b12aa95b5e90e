/**
 * Debian's stock kernel with a folder of the host's, shared by virtiofsd, through live updates on the
 * software CPU. Unless DENOVO_DEBIAN is set the test is skipped, as it takes minutes.
 */
import assert from "node:assert/strict";
import { type StockLinux, stockLinux } from "../guests/stock_linux.ts";
import { patience } from "../patience.ts";
import { noVirtiofsd, Virtiofsd } from "../virtiofsd.ts";
import { kvmTest, Laboratory, until } from "./program.ts";
import { Chain, FifoConsole, type Mode } from "./updates.ts";

/** Process 1: appends to a file that it keeps open, and copies others, until somebody types a line. */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for module in $(cat /m/order); do insmod /m/$module; done
mkdir -p /share
tries=0
until mount -t virtiofs myfs /share || [ $tries -gt 100 ]; do sleep 0.1; tries=$((tries+1)); done
echo "FOLDER UP $(cat /share/hello)"
(read line < /dev/console; touch /stop) &
exec 5>>/share/log
n=0
while [ ! -e /stop ]; do
  n=$((n+1)); echo $n >&5
  echo "copy $n" > /share/copy; cmp -s /share/copy - <<EOT || echo WRONG $n
copy $n
EOT
  echo "<$n>"
done
exec 5>&-
umount /share && echo "WROTE $n"
poweroff -f
`;

const linux = Deno.env.get("DENOVO_DEBIAN") === undefined
  ? "DENOVO_DEBIAN is not set"
  : noVirtiofsd ?? await stockLinux({ init: INIT, modules: ["virtio_mmio", "virtiofs"] });
if (typeof linux === "string") console.warn(`SKIPPED: a folder is not shared: ${linux}`);

/** Half a minute where nothing else runs. */
const BOOT_PATIENCE_MS = patience(400_000);
const ROUNDS = 3;

kvmTest(
  "Debian's kernel uses a shared folder through updates, and what it has open stays open",
  async () => {
    await using lab = await Laboratory.open();
    const { kernel, initrd } = linux as StockLinux;
    const [folder, socket] = [lab.path("folder"), lab.path("fs")];
    await Deno.mkdir(folder);
    await Deno.writeTextFile(`${folder}/hello`, "hello\n");
    await using _daemon = await Virtiofsd.start(folder, socket);
    using console = await FifoConsole.open(lab.path("console"));
    const options = [
      ...["-kernel", kernel, "-initrd", initrd, "-m", "256"],
      ...["-append", "console=ttyS0 loglevel=4"],
      ...["-chardev", `socket,id=c,path=${socket}`],
      ...["-device", "vhost-user-fs-device,chardev=c,tag=myfs"],
    ];
    const special = { options, serial: console.serial, accel: "tcg" } as const;
    const chain = await Chain.start(lab, special);
    const lines = () => console.text.match(/^<\d+>$/gm)?.length ?? 0;
    const writes = (more: number) => {
      const goal = lines() + more;
      return () => {
        assert.equal(chain.vmm.child.poll(), undefined, console.text);
        return lines() >= goal;
      };
    };
    await until(writes(3), () => `lines in ${console.text}`, BOOT_PATIENCE_MS);
    assert.match(console.text, /^FOLDER UP hello$/m);
    for (let round = 0; round < ROUNDS; round++) {
      for (const mode of ["cpr-transfer", "cpr-exec"] satisfies Mode[]) {
        await chain.update(mode);
        await until(writes(3), () => `lines in ${console.text}`, BOOT_PATIENCE_MS);
      }
      // What only the daemon knows is not in a copy: that is said, and the guest goes on here.
      await chain.qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
      await chain.qmp.execute("migrate", { uri: `file:${lab.path("state")}` });
      await until(
        async () => (await chain.qmp.migration()).status === "failed",
        () => "the refusal of cpr-reboot",
      );
      const { "error-desc": reason } = await chain.qmp.migration();
      assert.match(String(reason), /^vhost-user-fs-device: what the guest has open in the shared/);
      await until(writes(3), () => `lines in ${console.text}`, BOOT_PATIENCE_MS);
    }
    await console.type("stop\n");
    await console.printed("WROTE");
    const written = Number(/^WROTE (\d+)$/m.exec(console.text)?.[1]);
    assert.doesNotMatch(console.text, /WRONG/);
    const log = await Deno.readTextFile(`${folder}/log`);
    assert.equal(log, Array.from({ length: written }, (_, i) => `${1 + i}\n`).join(""));
  },
  typeof linux === "string",
);

/**
 * Debian's kernel for clouds, as it is, with an initial RAM disk that finds an ext4 file system on a
 * virtio disk and writes numbered lines to it, each of which is on the disk before the next one.
 *
 * @module
 */
import { gzipSync } from "node:zlib";

const PACKAGE = "linux-image-cloud-amd64";
/** In the order in which they are loaded. */
const MODULES = ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk"];
/** What the host needs. */
const TOOLS = ["apt-get", "dpkg-deb", "busybox", "cpio", "mkfs.ext4", "e2fsck", "debugfs"];

/** Process 1: writes until somebody types a line, and powers off. */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for module in ${MODULES.join(" ")}; do insmod /m/$module.ko; done
tries=0; while [ ! -b /dev/vda ] && [ $tries -lt 600 ]; do sleep 0.1; tries=$((tries+1)); done
mount -t ext4 /dev/vda /mnt && echo DISK UP
(read line < /dev/console; touch /stop) &
n=0
while [ ! -e /stop ]; do n=$((n+1)); echo $n >> /mnt/log; sync; echo "<$n>"; done
umount /mnt && echo "WROTE $n"
poweroff -f
`;

/** A kernel and its initial RAM disk. */
export interface DebianFiles {
  readonly kernel: string;
  readonly initrd: string;
}

/** Runs a command. @returns what it printed @throws {Error} with its last words if it fails */
export async function run(file: string, args: readonly string[], cwd?: string): Promise<string> {
  const command = new Deno.Command(file, { args: [...args], cwd });
  const { success, stdout, stderr } = await command.output();
  if (success) return new TextDecoder().decode(stdout);
  throw new Error(`${file} ${args.join(" ")} failed: ${new TextDecoder().decode(stderr)}`);
}

/** Tools that the host lacks. */
export async function missingTools(): Promise<string[]> {
  const found = await Promise.all(
    TOOLS.map((tool) => run("sh", ["-c", `command -v ${tool}`]).then(() => true, () => false)),
  );
  return TOOLS.filter((_, i) => !found[i]);
}

/** Files of a folder and below by their names. */
function findFiles(folder: string, names: RegExp): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    const path = `${folder}/${name}`;
    return isDirectory ? findFiles(path, names) : names.test(name) ? [path] : [];
  });
}

/**
 * Fetches the kernel's package into a folder, unless it is there, and makes the initial RAM disk.
 *
 * @param folder where the package is kept
 * @param work an empty folder
 */
export async function makeDebian(folder: string, work: string): Promise<DebianFiles> {
  for (const path of [folder, work]) await Deno.mkdir(path, { recursive: true });
  const isKernel = /^linux-image-[\d.].*_amd64\.deb$/;
  if (findFiles(folder, isKernel).length === 0) {
    const depends = await run("apt-cache", ["depends", PACKAGE]);
    const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
    if (name === undefined) throw new Error(`${PACKAGE} depends on no kernel: ${depends}`);
    await run("apt-get", ["download", name], folder);
  }
  const unpacked = `${work}/kernel`;
  await run("dpkg-deb", ["-x", findFiles(folder, isKernel)[0], unpacked]);
  const root = `${work}/root`;
  for (const name of ["bin", "m", "proc", "sys", "dev", "mnt"]) {
    await Deno.mkdir(`${root}/${name}`, { recursive: true });
  }
  await Deno.copyFile(
    (await run("sh", ["-c", "command -v busybox"])).trim(),
    `${root}/bin/busybox`,
  );
  for (const module of MODULES) {
    const [path] = findFiles(`${unpacked}/lib/modules`, new RegExp(`^${module}\\.ko$`));
    await Deno.copyFile(path, `${root}/m/${module}.ko`);
  }
  await Deno.writeTextFile(`${root}/init`, INIT, { mode: 0o755 });
  const archive = `${work}/initrd`;
  await run("sh", ["-c", `cd ${root} && find . | cpio -o -H newc --quiet > ${archive}`]);
  const initrd = `${work}/initrd.gz`;
  await Deno.writeFile(initrd, gzipSync(await Deno.readFile(archive)));
  return { kernel: findFiles(`${unpacked}/boot`, /^vmlinuz-/)[0], initrd };
}

/**
 * Makes the lab: a disk with a small Debian, Deno and the agent; Debian's kernel for clouds; and an
 * initial RAM disk that loads kvm-amd. All of it comes from Debian's packages and this Deno.
 *
 * @module
 */
import { debianQemu } from "./debian_qemu.ts";
import { cacheFolder, exists, NoLab, run, shortHash, step, tree } from "./host.ts";

/** What the host needs, and what is inside. */
const HOST_PACKAGES = ["qemu-system-x86", "qemu-utils", "mmdebstrap", "busybox-static", "cpio"]
  .concat("e2fsprogs", "util-linux", "ca-certificates");
const INSIDE_PACKAGES = ["socat", "iproute2", "procps", "binutils", "e2fsprogs"];
const KERNEL_PACKAGE = "linux-image-cloud-amd64";

/** Kernel modules that the lab needs; those that they depend on come with them. */
const MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "kvm_amd"]
  .concat("tun", "vhost_net", "vhost_vsock");

/** The port that the agent listens on, inside. */
export const AGENT_PORT = 5000;

/** Loads the modules, in the order of the file that lists them, and hands over to the disk. */
const INITRD_INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for module in $(cat /m/order); do insmod /m/$module; done
tries=0; while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries+1)); done
mount /dev/vda /mnt || { echo "LAB FAILED: no disk"; poweroff -f; }
mount --move /dev /mnt/dev; mount --move /proc /mnt/proc; mount --move /sys /mnt/sys
mount -t tmpfs t /mnt/tmp; mkdir -p /mnt/dev/pts /mnt/dev/shm
mount -t devpts p /mnt/dev/pts; mount -t tmpfs s /mnt/dev/shm
exec switch_root /mnt /lab/init
`;

/** Process 1 inside: the network, and the agent. */
const INIT = `#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up
[ -e /dev/kvm ] || echo "LAB FAILED: kvm-amd makes no /dev/kvm"
while true; do deno run -A --no-config --no-check /lab/agent.ts ${AGENT_PORT}; sleep 1; done
`;

/** Where a stock kernel and an initial RAM disk for it are, inside: for a guest of Denovo's. */
export const STOCK_LINUX = "/lab/stock";

/** Process 1 of such a guest: shows that user space runs and what interrupts there were. */
const STOCK_INIT = `#!/bin/busybox sh
/bin/busybox mount -t proc p /proc
/bin/busybox echo STOCK UP
/bin/busybox cat /proc/interrupts
/bin/busybox echo STOCK DONE
/bin/busybox reboot -f
`;

/** A lab that was made. */
export interface Lab {
  readonly folder: string;
  readonly kernel: string;
  readonly initrd: string;
  readonly disk: string;
  /** The program that emulates its machine. */
  readonly emulator: string;
}

/**
 * Finds the lab, and makes it first where it is not there or would be made in another way now.
 *
 * @throws {NoLab} if it cannot be made on this host
 */
export async function makeLab(): Promise<Lab> {
  const cache = cacheFolder();
  await Deno.mkdir(cache, { recursive: true });
  using lock = await Deno.open(`${cache}/lock`, { create: true, write: true });
  await lock.lock(true);
  const folder = `${cache}/${await keyOfLab()}`;
  const files = {
    folder,
    kernel: `${folder}/vmlinuz`,
    initrd: `${folder}/initrd.gz`,
    disk: `${folder}/disk.img`,
  };
  // The disk comes last: where it is, all is.
  if (!exists(files.disk)) await makeFiles(cache, files);
  return { ...files, emulator: await emulator() };
}

/** A lab's files, without what runs it. */
type LabFiles = Omit<Lab, "emulator">;

async function makeFiles(cache: string, files: LabFiles): Promise<void> {
  const suite = checkHost();
  await installPackages(HOST_PACKAGES);
  await removeOthers(cache, files.folder);
  await Deno.mkdir(files.folder, { recursive: true });
  const modules = await step(
    `fetching Debian's kernel (${KERNEL_PACKAGE})`,
    () => fetchKernel(files),
  );
  await makeInitrd(files, modules);
  const base = await debian(cache, suite);
  await step("making the lab's disk", () => makeDisk(files, base));
}

/**
 * What `DENOVO_LAB_QEMU` names: a program, or `debian`, which is Debian sid's QEMU; this host's QEMU unless
 * it is set.
 */
async function emulator(): Promise<string> {
  const named = Deno.env.get("DENOVO_LAB_QEMU") || "qemu-system-x86_64";
  return named === "debian" ? await debianQemu() : named;
}

/** A name for what the lab is made of: another recipe, Deno or package makes another lab. */
async function keyOfLab(): Promise<string> {
  const own = ["recipe.ts", "agent.ts", "wire.ts"].map((name) => `${tree}tests/lab/${name}`);
  const parts = [...own, `${tree}deno.lock`].map((path) => Deno.readTextFileSync(path));
  return `lab-${await shortHash([Deno.version.deno, ...parts].join("\0"))}`;
}

/** @returns Debian's release on this host @throws {NoLab} if the lab cannot be made here */
function checkHost(): string {
  const missing: string[] = [];
  let release = "";
  try {
    release = Deno.readTextFileSync("/etc/os-release");
  } catch {
    // A host without it is not Debian.
  }
  const suite = /^VERSION_CODENAME=(\S+)$/m.exec(release)?.[1];
  if (!/^ID=debian$/m.test(release) || suite === undefined) missing.push("a Debian release");
  if (Deno.build.arch !== "x86_64") missing.push("an x86-64 processor");
  if (Deno.uid() !== 0) missing.push("to be root");
  if (suite !== undefined && missing.length === 0) return suite;
  throw new NoLab(`The lab is made of Debian's packages and needs ${missing.join(", ")}`);
}

/** Installs packages on this host, unless they are. @throws {NoLab} */
export async function installPackages(names: readonly string[]): Promise<void> {
  const missing: string[] = [];
  for (const name of names) {
    const query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", name];
    if (await run(query).catch(() => "") !== "installed") missing.push(name);
  }
  await step("reading Debian's package lists", () => run(["apt-get", "update", "-qq"]));
  if (missing.length === 0) return;
  const install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", ...missing];
  await step(
    `installing on this host: ${missing.join(" ")}`,
    () => run(install, { env: { DEBIAN_FRONTEND: "noninteractive" } }),
  );
}

/** Labs that nothing is made of any more. One that runs keeps its files until it ends. */
async function removeOthers(cache: string, keep: string): Promise<void> {
  for await (const { name } of Deno.readDir(cache)) {
    const path = `${cache}/${name}`;
    if (name.startsWith("lab-") && path !== keep) await Deno.remove(path, { recursive: true });
  }
}

/**
 * Fetches and unpacks Debian's kernel for clouds.
 *
 * @param to the folder in which to unpack it, and the file that the kernel will be
 * @returns the folder of its modules, in a folder `kernel` that nobody needs afterwards
 */
export async function fetchKernel(to: Pick<Lab, "folder" | "kernel">): Promise<string> {
  const folder = `${to.folder}/kernel`;
  await Deno.mkdir(folder, { recursive: true });
  // The named package only depends on the one that has the kernel.
  const depends = await run(["apt-cache", "depends", KERNEL_PACKAGE]);
  const name = /Depends: (linux-image-[0-9]\S*)/.exec(depends)?.[1];
  if (name === undefined) throw new NoLab(`There is no package ${KERNEL_PACKAGE}`);
  // As the user _apt, apt cannot write where only root may.
  await run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name], { cwd: folder });
  const file = firstOf(folder, /\.deb$/);
  await run(["dpkg", "-x", file, folder]);
  await Deno.remove(file);
  await Deno.rename(firstOf(`${folder}/boot`, /^vmlinuz-/), to.kernel);
  return firstOf(`${folder}/${exists(`${folder}/usr/lib/modules`) ? "usr/" : ""}lib/modules`, /./);
}

function firstOf(folder: string, pattern: RegExp): string {
  const name = Array.from(Deno.readDirSync(folder), ({ name }) => name)
    .find((name) => pattern.test(name));
  if (name === undefined) throw new NoLab(`There is nothing like ${pattern} in ${folder}`);
  return `${folder}/${name}`;
}

async function makeInitrd(lab: LabFiles, modules: string): Promise<void> {
  await packInitrd(lab.initrd, INITRD_INIT, async (folder) => {
    const order = await addModules(`${folder}/m`, modules, MODULES);
    await Deno.writeTextFile(`${folder}/m/order`, order.join(" "));
  });
  await Deno.remove(`${lab.folder}/kernel`, { recursive: true });
}

/** Makes an initial RAM disk of busybox, a script that is process 1, and what `add` adds. */
export async function packInitrd(
  file: string,
  init: string,
  add?: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = `${file}.new`;
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  for (const name of ["bin", "m", "proc", "sys", "dev", "mnt"]) {
    await Deno.mkdir(`${folder}/${name}`, { recursive: true });
  }
  await Deno.copyFile("/bin/busybox", `${folder}/bin/busybox`);
  await Deno.writeTextFile(`${folder}/init`, init, { mode: 0o755 });
  await add?.(folder);
  await run(["sh", "-c", `find . | cpio -o -H newc | gzip -1 >'${file}'`], { cwd: folder });
  await Deno.remove(folder, { recursive: true });
}

/**
 * Copies the modules and what they depend on.
 *
 * @returns the files' names in the order in which they can be loaded
 */
export async function addModules(
  to: string,
  from: string,
  modules: readonly string[],
): Promise<string[]> {
  const paths = new Map(
    (await run(["find", from, "-name", "*.ko*"])).trim().split("\n")
      .map((path) => [moduleName(path), path]),
  );
  const order: string[] = [];
  const add = async (name: string) => {
    const path = paths.get(name);
    // What is not there is built into the kernel.
    if (path === undefined || order.includes(`${name}.ko`)) return;
    const file = `${to}/${name}.ko`;
    if (path.endsWith(".xz")) await run(["sh", "-c", `xz -dc '${path}' >'${file}'`]);
    else await Deno.copyFile(path, file);
    // The section .modinfo: strings that end in NUL.
    const text = new TextDecoder("latin1").decode(await Deno.readFile(file));
    const needed = /\0depends=([^\0]*)\0/.exec(text)?.[1] ?? "";
    for (const one of needed.split(",")) await add(moduleName(one));
    order.push(`${name}.ko`);
  };
  for (const name of modules) await add(name);
  return order;
}

/** The kernel takes `-` and `_` in modules' names for the same. */
function moduleName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1).replace(/\.ko.*$/, "").replaceAll("-", "_");
}

/** A small Debian, which is the same for many labs. @returns its folder */
async function debian(cache: string, suite: string): Promise<string> {
  const folder = `${cache}/debian-${suite}-${INSIDE_PACKAGES.join("-")}`;
  if (exists(folder)) return folder;
  const unfinished = `${folder}.new`;
  await Deno.remove(unfinished, { recursive: true }).catch(() => {});
  const command = ["mmdebstrap", "--variant=minbase", `--include=${INSIDE_PACKAGES.join(",")}`]
    .concat("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*")
    .concat(suite, unfinished);
  await step(`making a small Debian ${suite}`, () => run(command));
  await Deno.rename(unfinished, folder);
  return folder;
}

async function makeDisk(lab: LabFiles, base: string): Promise<void> {
  const root = `${lab.folder}/root`;
  await Deno.remove(root, { recursive: true }).catch(() => {});
  await run(["cp", "-a", base, root]);
  await Deno.copyFile(Deno.execPath(), `${root}/usr/local/bin/deno`);
  await Deno.mkdir(`${root}/lab`);
  for (const name of ["agent.ts", "wire.ts"]) {
    await Deno.copyFile(`${tree}tests/lab/${name}`, `${root}/lab/${name}`);
  }
  await Deno.writeTextFile(`${root}/lab/init`, INIT, { mode: 0o755 });
  await Deno.mkdir(root + STOCK_LINUX);
  await Deno.copyFile(lab.kernel, `${root}${STOCK_LINUX}/vmlinuz`);
  await packInitrd(`${root}${STOCK_LINUX}/initrd.gz`, STOCK_INIT);
  // The packages that the project needs, for a place without a network.
  const cache = [Deno.execPath(), "cache", "--no-check", "-q", "mod.ts", "cpr/update/bundle.ts"];
  await run(cache, { cwd: tree, env: { DENO_DIR: `${root}/root/.cache/deno` } });
  const disk = `${lab.disk}.new`;
  await run(["truncate", "-s", "6G", disk]);
  await run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", root, disk]);
  await Deno.remove(root, { recursive: true });
  await Deno.rename(disk, lab.disk);
}

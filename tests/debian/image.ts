/**
 * Makes a disk with Debian on it, as a user's is: systemd, a login on the serial console, the stock
 * kernel for clouds and its own initial RAM disk. All of it comes from Debian's packages.
 *
 * @module
 */
import { cacheFolder, exists, NoLab, run, shortHash, step as announce } from "../lab/host.ts";
import { installPackages } from "../lab/recipe.ts";
import { addresses, CLIENT } from "./stream.ts";

/** Says what is done now, and how long it took. */
export function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  return announce(what, work, "debian");
}

/** What the image is made with. */
const HOST_PACKAGES = ["mmdebstrap", "e2fsprogs", "ca-certificates"];
const PACKAGES = ["systemd-sysv", "udev", "iproute2", "e2fsprogs", "initramfs-tools"]
  .concat("linux-image-cloud-amd64", "qemu-guest-agent");
/** In Debian's initial RAM disk; they are modules of its kernel. */
const MODULES = ["virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "virtio_console"];
/** Where the writer's records are, on the disk. */
export const RECORDS = "/var/records";
/** Where it tells how many there are. */
export const RECORD_COUNT = "/run/records";

/** Writes numbered records, each of which is on the disk before the next is written. */
const WRITER = `#!/usr/bin/perl
use IO::Handle;
open(my $file, ">>", "${RECORDS}") or die $!;
$SIG{TERM} = sub { $stop = 1 };
for (my $n = 1; !$stop; $n++) {
  syswrite($file, sprintf("%08d\\n", $n)) == 9 or die $!;
  $file->sync or die $!;
  next if $n % 10;
  open(my $last, ">", "${RECORD_COUNT}") or die $!;
  print $last "$n\\n";
}
`;

/** A card with an address of its own. */
const WIRED = `[Match]
Name=e*
[Network]
Address=${addresses.guest}/24
LinkLocalAddressing=no
`;

/** What a user would set in a new Debian, and the programs that work in it. */
const FILES: Readonly<Record<string, string>> = {
  "etc/hostname": "denovo\n",
  "etc/fstab": "/dev/vda / ext4 defaults,errors=remount-ro 0 1\n",
  "etc/initramfs-tools/modules": `${MODULES.join("\n")}\n`,
  // On a busy host without KVM, what systemd waits for takes longer than it would.
  "etc/systemd/system.conf.d/patience.conf":
    "[Manager]\nDefaultTimeoutStartSec=30min\nDefaultDeviceTimeoutSec=30min\n",
  "etc/systemd/network/wired.network": WIRED,
  "usr/local/bin/writer": WRITER,
  "usr/local/bin/stream": CLIENT,
};

/** A disk and what boots it. */
export interface DebianImage {
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
}

/**
 * Finds the image, and makes it first where it is not there.
 *
 * @throws {NoLab} if it cannot be made on this host
 */
export async function debianImage(suite = "bookworm"): Promise<DebianImage> {
  const cache = cacheFolder();
  await Deno.mkdir(cache, { recursive: true });
  // Not the lab's: that may be wanted meanwhile.
  using lock = await Deno.open(`${cache}/disk-lock`, { create: true, write: true });
  await lock.lock(true);
  const folder = `${cache}/disk-${suite}-${await keyOfImage()}`;
  const image = {
    disk: `${folder}/disk.img`,
    kernel: `${folder}/vmlinuz`,
    initrd: `${folder}/initrd.img`,
  };
  if (exists(folder)) return image;
  if (Deno.uid() !== 0) throw new NoLab("Debian's disk is made of its packages by root only");
  await installPackages(HOST_PACKAGES);
  const unfinished = `${folder}.new`;
  await Deno.remove(unfinished, { recursive: true }).catch(() => {});
  await Deno.mkdir(`${unfinished}/root`, { recursive: true });
  await step(`making a disk with Debian ${suite}`, () => makeDisk(unfinished, suite));
  await Deno.rename(unfinished, folder);
  return image;
}

/** A name for what the image is made of, and how: another recipe makes another image. */
async function keyOfImage(): Promise<string> {
  const recipe = await Deno.readTextFile(new URL(import.meta.url));
  return await shortHash([recipe, JSON.stringify(FILES)].join("\0"));
}

async function makeDisk(folder: string, suite: string): Promise<void> {
  const root = `${folder}/root`;
  await run(
    ["mmdebstrap", "--variant=minbase", `--include=${PACKAGES.join(",")}`]
      .concat("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*")
      .concat(suite, root),
  );
  await configure(root);
  for (const [name, pattern] of [["vmlinuz", /^vmlinuz-/], ["initrd.img", /^initrd/]] as const) {
    const files = Array.from(Deno.readDirSync(`${root}/boot`), (entry) => entry.name);
    await Deno.copyFile(
      `${root}/boot/${files.find((one) => pattern.test(one))}`,
      `${folder}/${name}`,
    );
  }
  await run(["truncate", "-s", "1G", `${folder}/disk.img`]);
  await run(["mkfs.ext4", "-q", "-F", "-d", root, `${folder}/disk.img`]);
  await Deno.remove(root, { recursive: true });
}

async function configure(root: string): Promise<void> {
  await Deno.mkdir(`${root}/etc/systemd/system.conf.d`, { recursive: true });
  for (const [path, text] of Object.entries(FILES)) {
    await Deno.writeTextFile(`${root}/${path}`, text);
  }
  for (const program of ["writer", "stream"]) {
    await Deno.chmod(`${root}/usr/local/bin/${program}`, 0o755);
  }
  await run(["chroot", root, "systemctl", "enable", "systemd-networkd"]);
  // Where the processor is slow, a password takes longer to check than login waits.
  await run(["chroot", root, "passwd", "-d", "root"]);
  // Only what is listed, instead of all drivers that there are.
  const options = `${root}/etc/initramfs-tools/initramfs.conf`;
  const text = await Deno.readTextFile(options);
  await Deno.writeTextFile(options, text.replace(/^MODULES=.*$/m, "MODULES=list"));
  await run(["chroot", root, "update-initramfs", "-u", "-k", "all"]);
}

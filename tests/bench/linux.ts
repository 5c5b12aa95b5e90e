/**
 * Linux from the VMM's start to `DONE` on the console, beside QEMU.
 *
 * Needs `qemu-system-x86_64` and a folder with `vmlinux-up.gz` and `initrd-tiny.cpio`, an init that
 * prints DONE: `../shared/guests`, or what DENOVO_GUESTS says. The two take turns.
 *
 * @module
 */
import { bundleCommand } from "../../cpr/update/bundle.ts";
import { Workspace } from "./program.ts";
import type { BenchOptions, Measurement } from "./statistics.ts";

const root = new URL("../../", import.meta.url).pathname;
const guests = Deno.env.get("DENOVO_GUESTS") ?? `${root}../shared/guests`;

/** Measures the boot under both. */
export async function* linux({ quick }: BenchOptions): AsyncGenerator<Measurement> {
  await using work = await Workspace.create();
  const files = await guestFiles(work.path);
  if (!files) return;
  const image = [...files, "-m", "128M"];
  const console_ = ["-display", "none", "-serial", "stdio", "-no-reboot"];
  const ours = [...await bundleCommand(), "-cpu", "host,-cx16", ...image, ...console_];
  const theirs = [
    ...["qemu-system-x86_64", "-M", microvm("kvm")],
    ...["-cpu", "qemu64,-cx16,+xsaveerptr,+kvmclock", "-nodefaults", ...image, ...console_],
  ];
  const denovo: number[] = [];
  const qemu: number[] = [];
  for (let i = 0; i < (quick ? 1 : 5); i++) {
    denovo.push(await secondsUntilDone(ours));
    try {
      qemu.push(await secondsUntilDone(theirs));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  yield { name: "linux: boot to DONE, Denovo", unit: "s", samples: denovo };
  if (qemu.length === 0) {
    console.warn("SKIPPED: linux in QEMU: qemu-system-x86_64 is not installed");
    return;
  }
  yield { name: "linux: boot to DONE, QEMU", unit: "s", samples: qemu };
  const ratios = denovo.map((value, i) => value / qemu[i]);
  yield { name: "linux: boot, ratio", unit: "x", samples: ratios, aim: "at most 1.25" };
}

/** QEMU's machine with the same devices. */
export function microvm(accel: "kvm" | "tcg"): string {
  return `microvm,accel=${accel},acpi=off,pit=on,pic=on,rtc=on,isa-serial=on,auto-kernel-cmdline=on`;
}

/** Options for Linux, whose kernel is unpacked into a folder; undefined, which is said, without it. */
export async function guestFiles(folder: string): Promise<string[] | undefined> {
  const kernel = `${folder}/vmlinux`;
  if (!await unpack(`${guests}/vmlinux-up.gz`, kernel)) {
    console.warn(`SKIPPED: linux: ${guests}/vmlinux-up.gz is not there`);
    return undefined;
  }
  const append = "console=ttyS0 reboot=k panic=-1";
  return ["-kernel", kernel, "-initrd", `${guests}/initrd-tiny.cpio`, "-append", append];
}

/** Unpacks a gzip file; false if it is not there. */
async function unpack(from: string, to: string): Promise<boolean> {
  try {
    const packed = await Deno.open(from);
    const plain = await Deno.create(to);
    await packed.readable.pipeThrough(new DecompressionStream("gzip")).pipeTo(plain.writable);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Seconds from a VMM's start until its guest prints DONE, or another text. */
export async function secondsUntilDone(argv: readonly string[], end = "DONE"): Promise<number> {
  const start = performance.now();
  const child = new Deno.Command(argv[0], {
    args: argv.slice(1),
    stdin: "null",
    stdout: "piped",
  }).spawn();
  let text = "";
  try {
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      if (text.includes(end)) return (performance.now() - start) / 1000;
    }
  } finally {
    stop(child);
    await child.status;
  }
  throw new Error(`${argv[0]} ended before the guest printed ${end}:\n${text.slice(-2000)}`);
}

/** Kills a process that may have ended by itself: the guest resets after DONE. */
function stop(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
}

/**
 * The software CPU: instructions and exits a second, and Linux's boot, beside QEMU's `-accel tcg`.
 *
 * What is measured is processor time, so that a busy host changes little; for Linux it is the time
 * until it is up. Denovo and QEMU take turns. Linux needs what `linux.ts` says, Debian's kernel is
 * fetched by apt.
 *
 * @module
 */
import { bundleCommand } from "../../cpr/update/bundle.ts";
import { layout } from "../guests/programs.ts";
import { stockLinux } from "../guests/stock_linux.ts";
import { guestFiles, microvm, secondsUntilDone } from "./linux.ts";
import { isInstalled, processorSeconds, sleep, Workspace } from "./program.ts";
import { type BenchOptions, compare, type Measurement } from "./statistics.ts";

/** What `compute` does by its letters: instructions, or exits, in a batch. */
const work = {
  s: { name: "loop of 34", unit: "M instructions/s", count: 34e-6 * layout.computeSmall },
  m: { name: "loop of 2,179", unit: "M instructions/s", count: 2179e-6 * layout.computeMedium },
  l: { name: "20,708 in a row", unit: "M instructions/s", count: 20708e-6 * layout.computeLarge },
  p: { name: "PIO write", unit: "exits/s", count: layout.computePorts },
};

const EXITS_AIM = "at least 10";

/** Measures each kind of work, and the boot. */
export async function* cpu({ quick }: BenchOptions): AsyncGenerator<Measurement> {
  await using workspace = await Workspace.create();
  const kernel = await workspace.guest("compute");
  const denovo = [...await bundleCommand(), "-accel", "tcg", "-cpu", "denovo64"];
  const qemu = ["qemu-system-x86_64", "-M", microvm("tcg"), "-cpu", "qemu64", "-nodefaults"];
  const hasQemu = await isInstalled(qemu[0]);
  if (!hasQemu) console.warn(`SKIPPED: QEMU's -accel tcg: ${qemu[0]} is not installed`);
  for (const [mode, { name, unit, count }] of Object.entries(work)) {
    const rest = ["-kernel", kernel, "-append", `mode=${mode}`, "-m", "64M", ...console_];
    const [ours, theirs]: number[][] = [[], []];
    for (let turn = 0; turn < (quick ? 1 : 5); turn++) {
      ours.push(count * await batchesPerSecond([...denovo, ...rest], quick ? 1 : 2));
      if (hasQemu) theirs.push(count * await batchesPerSecond([...qemu, ...rest], quick ? 1 : 2));
    }
    const aim = mode === "p" ? EXITS_AIM : undefined;
    yield* compare(`cpu: ${name}`, unit, ours, theirs, aim);
  }
  for (const { name, image, end, aim } of await boots(workspace.path)) {
    const [ours, theirs]: number[][] = [[], []];
    for (let turn = 0; turn < (quick ? 1 : 3); turn++) {
      ours.push(await secondsUntilDone([...denovo, ...image, ...console_], end));
      if (hasQemu) theirs.push(await secondsUntilDone([...qemu, ...image, ...console_], end));
    }
    yield* compare(`cpu: ${name}`, "s", ours, theirs, aim);
  }
}

interface Boot {
  readonly name: string;
  readonly image: readonly string[];
  /** What the guest prints when it is up. */
  readonly end: string;
  readonly aim: string;
}

/** The kernels that there are. */
async function boots(folder: string): Promise<Boot[]> {
  const list: Boot[] = [];
  const files = await guestFiles(folder);
  if (files) {
    const image = [...files, "-m", "128M"];
    list.push({ name: "Linux to DONE", image, end: "DONE", aim: "at most 3" });
  }
  const stock = await stockLinux();
  if (typeof stock === "string") console.warn(`SKIPPED: Debian's kernel: ${stock}`);
  else {
    const append = ["-append", "console=ttyS0 reboot=k panic=-1", "-m", "256M"];
    const image = ["-kernel", stock.kernel, "-initrd", stock.initrd, ...append];
    list.push({ name: "Debian's kernel to a shell", image, end: "STOCK UP", aim: "at most 6" });
  }
  return list;
}

const console_ = ["-display", "none", "-serial", "stdio", "-no-reboot"];

/** The letters that a guest prints in a second of its VMM's processor time, over `seconds` of it. */
async function batchesPerSecond(argv: readonly string[], seconds: number): Promise<number> {
  const child = new Deno.Command(argv[0], {
    args: argv.slice(1),
    stdin: "null",
    stdout: "piped",
  }).spawn();
  let letters = 0;
  const reading = (async () => {
    for await (const { length } of child.stdout) letters += length;
  })();
  try {
    await letterAfter(child.pid, () => letters, 0);
    const [from, start] = [letters, processorSeconds(child.pid)];
    while (processorSeconds(child.pid) - start < seconds) await sleep(10);
    const end = await letterAfter(child.pid, () => letters, letters);
    return (letters - from) / (end - start);
  } finally {
    child.kill("SIGKILL");
    await child.status;
    await reading;
  }
}

/** Waits for a letter; returns the processor time then. @throws {Error} if none comes in a minute */
async function letterAfter(pid: number, letters: () => number, before: number): Promise<number> {
  for (const start = performance.now(); letters() === before; await sleep(1)) {
    if (performance.now() - start > 60_000) throw new Error("The guest `compute` prints nothing");
  }
  return processorSeconds(pid);
}

/**
 * The pause of a guest that keeps a disk and a network card busy, beside that of one that has neither.
 *
 * Updates by cpr-transfer, each guest's in turns with the others'. What is measured is Denovo's own
 * account of the pause (`x-pause`): from the stop to the last vCPU's entry in the new VMM.
 *
 * @module
 */
import { bundleCommand } from "../../cpr/update/bundle.ts";
import { whyNoKvm } from "../../ffi/kvm/system.ts";
import { noTap, openHostEnd } from "../tap_peer.ts";
import { VmmProcess } from "./pause/vmm_process.ts";
import { makeUpdate } from "./pause/update.ts";
import { sleep, Workspace } from "./program.ts";
import { type BenchOptions, type Measurement, median } from "./statistics.ts";

const TAP = `dnvp${Deno.pid % 1_000_000}`;
const MACHINE = "-M microvm,acpi=off -m 64M -display none -serial null -no-reboot -nodefaults";
const IMAGE_SIZE = 64 << 20;
/** For so long it is at work before it is updated. */
const WARM_MS = 700;

/** What a guest is kept busy with. */
interface Load {
  readonly name: string;
  readonly disk: boolean;
  readonly tap: boolean;
}

const idle: Load = { name: "without devices", disk: false, tap: false };
const loads: readonly Load[] = [
  idle,
  { name: "a disk under writes", disk: true, tap: false },
  { name: "a tap under sends", disk: false, tap: true },
  { name: "both", disk: true, tap: true },
];

/** Measures the pause with each load. */
export async function* busy({ quick }: BenchOptions): AsyncGenerator<Measurement> {
  await using workspace = await Workspace.create();
  const image = `${workspace.path}/disk.img`;
  await Deno.writeFile(image, new Uint8Array(IMAGE_SIZE).fill(1));
  const kernels = {
    idle: await workspace.guest("counter_cpl3"),
    busy: await workspace.guest("virtio_bench"),
  };
  const denovo = await bundleCommand();
  const accelerator = whyNoKvm() === undefined ? "kvm" : "tcg";
  const possible = loads.filter(({ tap }) => !tap || noTap === undefined);
  if (noTap !== undefined) console.warn(`SKIPPED: pauses with a tap: ${noTap}`);
  const pauses = new Map<Load, number[]>(possible.map((load) => [load, []]));
  for (let turn = 0; turn < (quick ? 1 : 5); turn++) {
    for (const load of possible) {
      const kernel = load === idle ? kernels.idle : kernels.busy;
      const options = ["-accel", accelerator, ...MACHINE.split(" "), "-kernel", kernel];
      const command = [...denovo, ...options, ...deviceOptions(load, image)];
      const folder = await Deno.makeTempDir({ dir: workspace.path });
      pauses.get(load)!.push(...await pausesOf(command, load, folder, quick ? 1 : 4));
    }
  }
  for (const [load, samples] of pauses) {
    yield { name: `pause: ${load.name}, ${accelerator}`, unit: "us", samples };
    if (load === idle) continue;
    const without = median(pauses.get(idle)!);
    yield {
      name: `pause: ${load.name}, of that without, ${accelerator}`,
      unit: "x",
      samples: samples.map((one) => one / without),
      aim: "at most 1.5",
    };
  }
}

function deviceOptions({ disk, tap }: Load, image: string): string[] {
  const words = [...disk ? ["write"] : [], ...tap ? ["send"] : [], ...disk && tap ? ["both"] : []];
  return [
    ...["-append", `isa ${words.join(" ")}`],
    ...disk
      ? [
        ...["-blockdev", `driver=file,node-name=disk,filename=${image}`],
        ...["-device", "virtio-blk-device,drive=disk"],
      ]
      : [],
    ...tap
      ? [
        ...["-netdev", `tap,id=n,ifname=${TAP},script=no,downscript=no`],
        ...["-device", "virtio-net-device,netdev=n"],
      ]
      : [],
  ];
}

/** Starts a guest and updates it so many times. @returns the pauses in microseconds */
async function pausesOf(
  command: readonly string[],
  load: Load,
  folder: string,
  updates: number,
): Promise<number[]> {
  const pauses: number[] = [];
  let vmm = new VmmProcess(command, `${folder}/qmp`);
  try {
    await vmm.connect();
    if (load.tap) openHostEnd(TAP).close();
    for (let i = 0; i < updates; i++) {
      await atWork(vmm, load);
      await using update = makeUpdate("transfer", vmm, {
        path: (name) => `${folder}/${name}${i}`,
        hasRelay: true,
        counts: () => Promise.resolve(),
      });
      await update.prepare();
      await update.perform();
      vmm = (await update.finish()).vmm;
      const { "x-pause": pause } = await vmm.accounted();
      if (pause !== undefined) pauses.push(pause);
    }
  } finally {
    await vmm[Symbol.asyncDispose]();
  }
  return pauses;
}

/** Waits until the guest is at work, and some time more. @throws {Error} if it is not at its disk */
async function atWork(vmm: VmmProcess, { disk }: Load): Promise<void> {
  const before = disk ? await writes(vmm) : 0;
  await sleep(WARM_MS);
  if (disk && await writes(vmm) === before) throw new Error("The guest does not write to its disk");
}

async function writes(vmm: VmmProcess): Promise<number> {
  const [{ stats }] = await vmm.execute("query-blockstats") as {
    readonly stats: { readonly wr_operations: number };
  }[];
  return stats.wr_operations;
}

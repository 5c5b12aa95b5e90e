/**
 * Exits per second, beside a C program that does the same ioctls for the same guest.
 *
 * What KVM itself takes for an exit is the same for both, so the ratio shows what the loop in
 * TypeScript adds. The two take turns, so that a busy host slows both.
 *
 * @module
 */
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { layout } from "../guests/programs.ts";
import { readWord, startExits } from "./machines.ts";
import { sleep, Workspace } from "./program.ts";
import { type BenchOptions, type Measurement, median } from "./statistics.ts";

const modes = {
  p: "PIO write",
  r: "PIO read",
  s: "PIO string of 16",
  m: "MMIO write",
  l: "MMIO read",
};

/** Measures each kind of exit, from kernel mode. */
export async function* exits({ quick }: BenchOptions): AsyncGenerator<Measurement> {
  await using work = await Workspace.create();
  const image = await work.guest("exits");
  const reference = await compile(`${work.path}/exits-in-c`);
  const window = quick ? 200 : 1000;
  for (const [mode, name] of Object.entries(modes)) {
    await using vm = await startExits(image, mode);
    await sleep(window);
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let i = 0; i < (quick ? 3 : 9); i++) {
      ours.push(await rate(vm, window));
      vm.stop();
      if (reference) theirs.push(await runReference(reference, image, mode, window));
      vm.cont();
    }
    yield { name: `exits: ${name}, Denovo`, unit: "exits/s", samples: ours };
    if (!reference) continue;
    yield { name: `exits: ${name}, C`, unit: "exits/s", samples: theirs };
    const ratios = ours.map((value, i) => 100 * value / theirs[i]);
    yield { name: `exits: ${name}, ratio`, unit: "%", samples: ratios, aim: "at least 80 %" };
    const added = 1e6 / median(ours) - 1e6 / median(theirs);
    yield { name: `exits: ${name}, added by the loop`, unit: "us", samples: [added] };
  }
}

async function rate(vm: VirtualMachine, window: number): Promise<number> {
  const start = performance.now();
  const before = readWord(vm, layout.counter);
  await sleep(window);
  const after = readWord(vm, layout.counter);
  return (after - before) / (performance.now() - start) * 1000;
}

/** Compiles the C program; undefined where there is no compiler, which is said. */
async function compile(output: string): Promise<string | undefined> {
  const source = new URL("exits.c", import.meta.url).pathname;
  const command = new Deno.Command("gcc", { args: ["-O2", "-Wall", "-o", output, source] });
  try {
    const { success, stderr } = await command.output();
    if (!success) throw new Error(`gcc failed: ${new TextDecoder().decode(stderr)}`);
    return output;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.warn("SKIPPED: exits in C: gcc is not installed");
    return undefined;
  }
}

async function runReference(
  program: string,
  image: string,
  mode: string,
  window: number,
): Promise<number> {
  const command = new Deno.Command(program, { args: [image, mode, `${window}`] });
  const { success, stdout, stderr } = await command.output();
  if (!success) throw new Error(`${program} failed: ${new TextDecoder().decode(stderr)}`);
  return Number(new TextDecoder().decode(stdout));
}

/**
 * From the start of a process to the guest's first instruction.
 *
 * The clock starts in this process right before `posix_spawn` and stops when the first byte arrives
 * in the pipe that is the new process's stdout. `hello` prints within its first dozen instructions
 * and the byte takes one exit, so the first byte is the first instruction plus some 0.1 ms. Two
 * shorter paths tell what it is made of: a script of one line (Deno itself) and `--version` (the
 * bundle loaded, options parsed, no VM). A new version's first start finds nothing of it in Deno's
 * caches, in which is what it has analysed and compiled.
 *
 * @module
 */
import { bundleCommand } from "../../cpr/update/bundle.ts";
import { firstByte, Workspace } from "./program.ts";
import type { BenchOptions, Measurement } from "./statistics.ts";

/** Measures the start of a process in three stages. */
export async function* startup({ quick }: BenchOptions): AsyncGenerator<Measurement> {
  await using work = await Workspace.create();
  const script = `${work.path}/empty.js`;
  await Deno.writeTextFile(script, "console.log(1)");
  const denovo = await bundleCommand();
  const guest = [
    ...["-display", "none", "-serial", "stdio", "-kernel", await work.guest("hello")],
    ...["-device", "isa-debug-exit,iobase=0x501,iosize=2"],
  ];
  const cases = [
    { name: "Deno alone", argv: [...denovo.slice(0, -1), script] },
    { name: "bundle loaded (--version)", argv: [...denovo, "--version"] },
    { name: "guest's first byte", argv: [...denovo, ...guest] },
    { name: "guest's first byte, first start", argv: [...work.uncached, ...denovo, ...guest] },
  ];
  const samples = cases.map((): number[] => []);
  // The first round fills V8's code cache and is not counted.
  for (let round = -1; round < (quick ? 5 : 30); round++) {
    cases.forEach(({ argv }, i) => {
      work.emptyCache();
      const elapsed = firstByte(argv);
      if (round >= 0) samples[i].push(elapsed);
    });
  }
  for (const [i, { name }] of cases.entries()) {
    yield { name: `startup: ${name}`, unit: "ms", samples: samples[i] };
  }
}

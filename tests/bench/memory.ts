/**
 * Resident memory without the guest's RAM.
 *
 * The guest's RAM is a memfd, which the kernel counts as RssShmem; so what counts here is VmRSS
 * less RssShmem (Documentation/filesystems/proc.rst), which includes Deno's own code, shared with
 * other Deno processes through the page cache. Pss counts such pages by their share.
 *
 * @module
 */
import { bundleCommand } from "../../cpr/update/bundle.ts";
import { Qmp, sleep, Workspace } from "./program.ts";
import type { BenchOptions, Measurement } from "./statistics.ts";

/** Measures Deno alone, a running VM, and one whose monitor has been used. */
export async function* memory({ quick }: BenchOptions): AsyncGenerator<Measurement> {
  await using work = await Workspace.create();
  const script = `${work.path}/wait.js`;
  await Deno.writeTextFile(script, "setTimeout(() => {}, 1e6)");
  const denovo = await bundleCommand();
  const guest = ["-display", "none", "-kernel", await work.guest("counter_cpl3")];
  const socket = `${work.path}/qmp`;
  const cases = [
    { name: "Deno alone", argv: [...denovo.slice(0, -1), script] },
    { name: "VM, no monitor", argv: [...denovo, ...guest] },
    { name: "VM, first start of a version", argv: [...work.uncached, ...denovo, ...guest] },
    { name: "VM, QMP used", argv: [...denovo, ...guest, "-qmp", `unix:${socket},server,nowait`] },
  ];
  for (const { name, argv } of cases) {
    const resident: number[] = [];
    const shares: number[] = [];
    for (let i = 0; i < (quick ? 1 : 5); i++) {
      work.emptyCache();
      const child = new Deno.Command(argv[0], {
        args: argv.slice(1),
        stdin: "null",
        stdout: "null",
      }).spawn();
      if (argv.includes("-qmp")) {
        using qmp = await Qmp.connect(socket);
        await qmp.execute("query-cpus-fast");
      }
      await sleep(2000);
      const status = `/proc/${child.pid}/status`;
      resident.push(await kib(status, "VmRSS") - await kib(status, "RssShmem"));
      const rollup = `/proc/${child.pid}/smaps_rollup`;
      shares.push(await kib(rollup, "Pss") - await kib(rollup, "Pss_Shmem"));
      child.kill("SIGKILL");
      await child.status;
    }
    const mib = (values: number[]) => values.map((value) => value / 1024);
    yield { name: `memory: ${name}, resident`, unit: "MiB", samples: mib(resident) };
    yield { name: `memory: ${name}, proportional`, unit: "MiB", samples: mib(shares) };
  }
}

async function kib(path: string, field: string): Promise<number> {
  const text = await Deno.readTextFile(path);
  const found = text.match(new RegExp(`^${field}:\\s+(\\d+) kB`, "m"));
  if (!found) throw new Error(`${path} has no ${field}`);
  return Number(found[1]);
}

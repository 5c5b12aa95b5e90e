/**
 * `deno task lab`: runs a command in the working tree on a real KVM, on a host that has none.
 *
 * @module
 */
import { LabGone } from "./client.ts";
import { NoLab } from "./host.ts";
import { putTree, runCommand } from "./inside.ts";
import { makeLab } from "./recipe.ts";
import { endKept, LabVm } from "./vm.ts";

const HELP = `usage: deno task lab -- [--keep] COMMAND…
       deno task lab -- --down

Runs a command in the working tree inside a small Debian with a real /dev/kvm (kvm-amd), on a
processor that QEMU emulates: 10 to 20 times slower than this one. The lab is made at first use, of
Debian's packages, which takes root and a few minutes; it is kept in ~/.cache/denovo/lab.

--keep  leaves the lab up for the next command, which then starts at once
--down  ends a lab that was kept

DENOVO_LAB_QEMU names the QEMU that emulates it: a program, or debian, which fetches Debian sid's.
QEMU before 10.2 can lose a processor's interrupts there, or make one up.

The command's output comes as it is written, and its exit status is that of this command. What it
writes stays in the lab, and is gone with it. C-c ends both.`;

/** The lab that the command runs in. */
let current: LabVm | undefined;

/** Exit status where there is no lab to run the command in. */
const NO_LAB = 125;

async function main(args: string[]): Promise<number> {
  if (args[0] === "--") args.shift();
  let keep = false;
  for (; args[0]?.startsWith("-"); args.shift()) {
    if (args[0] === "--keep") keep = true;
    else if (args[0] === "--down") return down();
    else if (args[0] === "--help") return help(console.log, 0);
    else return help(console.error, 1, `${args[0]}: invalid option`);
  }
  if (args.length === 0) return help(console.error, 1, "COMMAND is missing");
  const lab = await makeLab();
  await using vm = current = await LabVm.kept(lab) ?? await LabVm.boot(lab, keep);
  if (keep) vm.keep();
  await putTree(vm.port);
  return await runCommand(vm.port, args, {
    stdout: (data) => writeAll(Deno.stdout, data),
    stderr: (data) => writeAll(Deno.stderr, data),
  });
}

function down(): number {
  if (!endKept()) console.error("lab: none was up");
  return 0;
}

function help(print: (text: string) => void, status: number, mistake?: string): number {
  if (mistake !== undefined) console.error(`lab: ${mistake}`);
  print(HELP);
  return status;
}

function writeAll(to: { writeSync(data: Uint8Array): number }, data: Uint8Array): void {
  for (let at = 0; at < data.length;) at += to.writeSync(data.subarray(at));
}

/** C-c and the like end everything; a QEMU that is booting ends with this process. */
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  Deno.addSignalListener(signal, () => {
    current?.end();
    Deno.exit(130);
  });
}
try {
  Deno.exit(await main([...Deno.args]));
} catch (error) {
  console.error(`lab: ${(error as Error).message}`);
  if (error instanceof LabGone && current) console.error(await current.state());
  Deno.exit(error instanceof NoLab ? NO_LAB : 1);
}

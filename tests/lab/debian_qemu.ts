/**
 * QEMU of Debian sid, beside whatever this host has: new enough for CPR, and to emulate SVM on several
 * threads.
 *
 * @module
 */
import { dirname } from "node:path";
import { cacheFolder, exists, run, step } from "./host.ts";

/** What is fetched, and what of it nobody reads. */
const COMMAND = [
  ...["mmdebstrap", "--variant=minbase", "--include=qemu-system-x86"],
  // A mirror that is kept for long is older than it says it may be.
  '--aptopt=Acquire::Check-Valid-Until "false"',
  ...["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"],
];

/**
 * Finds QEMU of Debian sid in the cache, and fetches it first where it is not there.
 *
 * @returns the path of a program that is it: a script, as it has other libraries than this host
 * @throws {Error} if it cannot be fetched: that takes root, Debian's mmdebstrap and its mirror
 */
export async function debianQemu(): Promise<string> {
  const root = `${dirname(cacheFolder())}/qemu-sid`;
  const script = `${root}/qemu-system-x86_64`;
  if (exists(script)) return script;
  // What an attempt that failed has left.
  if (exists(root)) await Deno.remove(root, { recursive: true });
  await Deno.mkdir(root, { recursive: true });
  await step("fetching QEMU of Debian sid", () => run([...COMMAND, "sid", `${root}/debian`]));
  await Deno.writeTextFile(script, scriptFor(`${root}/debian`), { mode: 0o755 });
  return script;
}

/** What starts the program with its own libraries, modules and firmware. */
function scriptFor(root: string): string {
  const libraries = `${root}/usr/lib/x86_64-linux-gnu`;
  const share = `${root}/usr/share`;
  return `#!/bin/sh
export QEMU_MODULE_DIR=${libraries}/qemu
exec ${root}/usr/lib64/ld-linux-x86-64.so.2 --library-path ${libraries}:${libraries}/pulseaudio \\
  ${root}/usr/bin/qemu-system-x86_64 -L ${share}/qemu -L ${share}/seabios "$@"
`;
}

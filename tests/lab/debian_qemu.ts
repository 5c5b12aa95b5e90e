/**
 * QEMU of Debian sid, beside whatever this host has: new enough for CPR, and to emulate SVM on several
 * threads.
 *
 * @module
 */
import { dirname } from "node:path";
import { cacheFolder, exists, run, step } from "./host.ts";

/** Seconds that Debian's mirror may take, before whoever asks does without. */
const LIMIT_S = 300;

/** What is fetched, and what of it nobody reads. */
const COMMAND = [
  // Ends all that it has started.
  ...["timeout", "--kill-after=10", `${LIMIT_S}`],
  ...["mmdebstrap", "--variant=minbase", "--include=qemu-system-x86"],
  // A mirror that is kept for long is older than it says it may be.
  '--aptopt=Acquire::Check-Valid-Until "false"',
  ...["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"],
];

/**
 * Finds QEMU of Debian sid in the cache, and fetches it first where it is not there.
 *
 * @returns the path of a program that is it: a script, as it has other libraries than this host
 * @throws {NoLab} if it cannot be fetched or does not start: it takes root, Debian's mmdebstrap and mirror
 */
export async function debianQemu(): Promise<string> {
  const root = `${dirname(cacheFolder())}/qemu-sid`;
  const script = `${root}/qemu-system-x86_64`;
  if (exists(script)) return script;
  // What an attempt that failed has left.
  if (exists(root)) await Deno.remove(root, { recursive: true });
  await Deno.mkdir(root, { recursive: true });
  await step("fetching QEMU of Debian sid", () => run([...COMMAND, "sid", `${root}/debian`]));
  // The script comes last: where it is, all is, and has been seen to start.
  const unproven = `${script}.new`;
  await Deno.writeTextFile(unproven, scriptFor(`${root}/debian`), { mode: 0o755 });
  await run([unproven, "-version"]);
  await Deno.rename(unproven, script);
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

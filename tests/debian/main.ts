/**
 * `deno task debian [--updates N] [--modes LIST] [-- OPTIONS…]`: an unmodified Debian boots from its
 * disk to a login, and works while its VMM is replaced N times (20) in each mode. It writes numbered
 * records, each on the disk before the next; has numbered blocks sent and given back over TCP, through a
 * tap, by a server in another network namespace; and answers as QEMU's guest agent. Then it powers off,
 * and the disk is looked at from outside: the file system is clean, no record is missing and none is
 * there twice. Neither end of the TCP connection found a byte that is not what it should be, and it was
 * one connection all the time. Ends with status 1 otherwise.
 *
 * OPTIONS are more of the VMM's, `-accel tcg` for example.
 *
 * @module
 */
import { bundleCommand } from "../../cpr/update/bundle.ts";
import { NoLab } from "../lab/host.ts";
import { debianImage } from "./image.ts";
import { readOptions } from "./options.ts";

/** Runs `work.ts` in namespaces of its own, with which all processes and interfaces end. */
async function workApart(folder: string): Promise<number> {
  const script = new URL("work.ts", import.meta.url).pathname;
  const child = new Deno.Command("unshare", {
    args: [
      ...["--net", "--pid", "--fork", "--kill-child", "--mount-proc"],
      ...[Deno.execPath(), "run", "-A", "--no-check", script, folder, ...Deno.args],
    ],
    stdin: "null",
  }).spawn();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => child.kill("SIGKILL"));
  }
  return (await child.status).code;
}

async function main(): Promise<number> {
  readOptions(Deno.args);
  // Here: there are no packages to be had in another network.
  await debianImage();
  await bundleCommand();
  const folder = await Deno.makeTempDir({ prefix: "denovo-debian-" });
  try {
    return await workApart(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

try {
  Deno.exitCode = await main();
} catch (error) {
  console.error((error as Error).message);
  Deno.exitCode = error instanceof NoLab ? 2 : 1;
}

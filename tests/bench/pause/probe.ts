/**
 * Asks the two VMMs what they can do before anything is measured.
 *
 * @module
 */
import type { PauseOptions } from "./options.ts";
import type { Skipped } from "./plan.ts";
import type { Subject } from "./results.ts";
import { VmmProcess } from "./vmm_process.ts";

/** The first version of QEMU with cpr-transfer; cpr-exec came with 10.2. */
const OLDEST_QEMU = [10, 0] as const;
const FIRST_WITH_EXEC = [10, 2] as const;

/** QEMU's version, e.g. `11.1.3`. @throws {Error} if there is none or it is too old */
export async function qemuVersion(path: string): Promise<string> {
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command(path, { args: ["--version"], stderr: "null" }).output();
  } catch (error) {
    throw new Error(`--qemu '${path}' cannot be started: ${(error as Error).message}`);
  }
  const text = new TextDecoder().decode(output.stdout);
  const version = text.match(/^QEMU emulator version ([\d.]+)/)?.[1];
  if (version === undefined) {
    throw new Error(`--qemu '${path}' is not QEMU: it printed '${text.split("\n")[0]}'`);
  }
  if (!atLeast(version, OLDEST_QEMU)) {
    throw new Error(
      `--qemu '${path}' is QEMU ${version}: give one of version 10.0 or newer, which knows CPR`,
    );
  }
  return version;
}

function atLeast(version: string, [major, minor]: readonly [number, number]): boolean {
  const [a, b] = version.split(".").map(Number);
  return a > major || (a === major && b >= minor);
}

/** Whether Denovo's way of cpr-exec can be chosen by a parameter. */
export async function hasRelayParameter(
  denovo: readonly string[],
  kernel: string,
  socket: string,
): Promise<boolean> {
  const guest = ["-kernel", kernel, "-nodefaults", "-display", "none", "-S"];
  await using vmm = new VmmProcess([...denovo, ...guest], socket);
  await vmm.connect();
  const parameters = await vmm.execute("query-migrate-parameters") as Record<string, unknown>;
  return "x-cpr-exec-relay" in parameters;
}

/** Leaves out what a VMM cannot do, and says why. */
export function able(
  subjects: readonly Subject[],
  options: PauseOptions,
  { hasRelay, qemu }: { readonly hasRelay: boolean; readonly qemu?: string },
): { readonly subjects: Subject[]; readonly skipped: Skipped[] } {
  const skipped: Skipped[] = [];
  const able = subjects.filter((subject) => {
    const reason = lacks(subject, hasRelay, qemu);
    if (reason !== undefined) skipped.push({ what: subject.name, reason });
    return reason === undefined;
  });
  if (options.qemu === undefined) {
    skipped.push({ what: "QEMU", reason: "no --qemu PATH was given" });
  }
  return { subjects: able, skipped };
}

function lacks({ vmm, mode }: Subject, hasRelay: boolean, qemu?: string): string | undefined {
  if (vmm === "denovo") {
    return mode === "exec-relay" && !hasRelay
      ? "this Denovo has no parameter x-cpr-exec-relay"
      : undefined;
  }
  return mode === "exec" && !atLeast(qemu!, FIRST_WITH_EXEC)
    ? `QEMU ${qemu} has no cpr-exec, which came with 10.2`
    : undefined;
}

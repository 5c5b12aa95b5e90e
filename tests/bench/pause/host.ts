/**
 * Describes the machine, and says what fits on it.
 *
 * @module
 */
import { getPriority } from "node:os";
import type { AcceleratorName } from "../../../vmm/accel/accelerator.ts";
import { createVm } from "../machines.ts";
import type { Capacity } from "./plan.ts";
import type { Host } from "./results.ts";

const root = new URL("../../../", import.meta.url).pathname;

/** What there is room for now. */
export async function capacity(): Promise<Capacity> {
  return { available: await memory("MemAvailable"), hugeFree: 2 ** 21 * await hugePages("free") };
}

/**
 * Describes the machine, and finds out what runs guests on it.
 *
 * @param kernel a small guest kernel, to ask for the frequency of the guest's TSC
 * @param qemu QEMU's version, if there is one
 * @param accel what shall run guests; undefined for what there is
 * @throws {Error} if that is not there
 */
export async function describeHost(
  kernel: string,
  qemu?: string,
  accel?: AcceleratorName,
): Promise<Host> {
  const cpuinfo = await read("/proc/cpuinfo") ?? "";
  const field = (name: string) => cpuinfo.match(new RegExp(`^${name}\\s*:\\s*(.*)`, "m"))?.[1];
  return {
    cpu: field("model name") ?? "unknown",
    cpus: navigator.hardwareConcurrency,
    hypervisor: field("flags")?.split(" ").includes("hypervisor") ?? false,
    memoryMiB: Math.round(await memory("MemTotal") / 2 ** 20),
    hugePages: `${await hugePages("nr")} of 2 MiB, ${await hugePages("free")} free`,
    governor: (await read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))?.trim() ??
      "none",
    kernel: Deno.osRelease(),
    deno: Deno.version.deno,
    denovo: await commit(),
    ...(qemu !== undefined && { qemu }),
    ...await describeGuests(kernel, accel),
    nice: Math.min(getPriority(), await groupNice()),
    loadBefore: Deno.loadavg(),
    loadAfter: Deno.loadavg(),
  };
}

/** What runs guests, and the frequency that it gives every new guest's TSC, whatever the VMM. */
async function describeGuests(
  kernel: string,
  accel?: AcceleratorName,
): Promise<Pick<Host, "accel" | "tscKhz">> {
  await using vm = await createVm({ kernel, ...(accel && { accelerators: [accel] }) });
  const { accelerator, hardware } = vm.machine;
  return { accel: accelerator.name, tscKhz: hardware.vcpus[0].tscKhz };
}

/** The priority of the session among all others, where the kernel groups tasks by sessions (sched(7)). */
async function groupNice(): Promise<number> {
  return Number((await read("/proc/self/autogroup"))?.match(/nice (-?\d+)/)?.[1] ?? 0);
}

async function memory(name: string): Promise<number> {
  const found = (await read("/proc/meminfo"))?.match(new RegExp(`^${name}:\\s+(\\d+) kB`, "m"));
  return Number(found?.[1] ?? 0) * 1024;
}

async function hugePages(kind: "nr" | "free"): Promise<number> {
  return Number(await read(`/sys/kernel/mm/hugepages/hugepages-2048kB/${kind}_hugepages`) ?? 0);
}

/** The checkout's commit, if it is one. */
async function commit(): Promise<string> {
  try {
    const git = new Deno.Command("git", { args: ["describe", "--always", "--dirty"], cwd: root });
    const { success, stdout } = await git.output();
    return success ? new TextDecoder().decode(stdout).trim() : "unknown";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "unknown";
    throw error;
  }
}

async function read(path: string): Promise<string | undefined> {
  return await Deno.readTextFile(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  });
}

/**
 * The lab's machine: QEMU's software CPU with AMD's SVM and nested paging, in which kvm-amd works.
 *
 * @module
 */
import { answers } from "./client.ts";
import { cacheFolder, exists, NoLab, step } from "./host.ts";
import { stateOfQemu } from "./post_mortem.ts";
import { AGENT_PORT, type Lab } from "./recipe.ts";

/** Milliseconds that it may take to come up, on the busiest host. */
const BOOT_LIMIT_MS = 180_000;
/** Milliseconds that the agent has to answer once. */
const ANSWER_LIMIT_MS = 5_000;

/**
 * The guest's kernel: no mitigations, which cost much where a processor is emulated, and no doubts
 * about its timers, which lag when the host is busy.
 */
const APPEND = "console=ttyS0 quiet mitigations=off nokaslr tsc=reliable no_timer_check panic=-1";

/** What is known of a machine that stays up. */
interface Kept {
  readonly pid: number;
  readonly port: number;
  /** The disk that it was started from, and what emulates it. */
  readonly disk: string;
  readonly emulator: string;
  /** Where its console is written. */
  readonly folder: string;
}

/** A lab that is up. */
export class LabVm implements AsyncDisposable {
  #keep = false;

  private constructor(
    /** QEMU's process. */
    readonly pid: number,
    /** Where the agent is to be reached on this host. */
    readonly port: number,
    private readonly lab: Lab,
    private readonly folder: string,
    private readonly child: Deno.ChildProcess | undefined,
  ) {}

  /**
   * Boots a lab.
   *
   * @param survives whether it outlives this process, as one that is kept does
   * @throws {NoLab} if it does not come up
   */
  static async boot(lab: Lab, survives: boolean): Promise<LabVm> {
    const folder = await Deno.makeTempDir({ prefix: "denovo-lab-" });
    const port = freePort();
    const [file, ...args] = [
      // QEMU must not outlive who started it, however that ended.
      ...(survives ? [] : ["setpriv", "--pdeathsig", "KILL", "--"]),
      ...commandOf(lab, port, folder),
    ];
    const child = new Deno.Command("sh", {
      args: ["-c", `exec "$@" >'${folder}/qemu' 2>&1`, "sh", file, ...args],
      stdin: "null",
      stdout: "null",
      stderr: "null",
      detached: survives,
    }).spawn();
    const vm = new LabVm(child.pid, port, lab, folder, child);
    try {
      await step("booting", () => vm.#up());
      return vm;
    } catch (error) {
      await vm[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The lab that was kept, if it still answers and is this one; another one is ended. */
  static async kept(lab: Lab): Promise<LabVm | undefined> {
    const kept = readKept();
    if (!kept) return undefined;
    const same = kept.disk === lab.disk && kept.emulator === lab.emulator;
    if (same && isQemu(kept) && await answers(kept.port, ANSWER_LIMIT_MS)) {
      const vm = new LabVm(kept.pid, kept.port, lab, kept.folder, undefined);
      vm.#keep = true;
      return vm;
    }
    endKept();
    return undefined;
  }

  /** Leaves the lab up for the next command. */
  keep(): void {
    this.#keep = true;
    const { pid, port, folder, lab: { disk, emulator } } = this;
    const kept: Kept = { pid, port, disk, emulator, folder };
    Deno.writeTextFileSync(keptFile(), JSON.stringify(kept));
    this.child?.unref();
  }

  /** Ends it, also if it was to be kept. */
  end(): void {
    this.#keep = false;
    killIfThere(this.pid);
    if (readKept()?.pid === this.pid) Deno.removeSync(keptFile());
    Deno.removeSync(this.folder, { recursive: true });
  }

  /** Ends it, unless it is kept. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#keep) return;
    this.end();
    await this.child?.status;
  }

  async #up(): Promise<void> {
    let ended = false;
    this.child!.status.then(() => ended = true);
    const deadline = performance.now() + BOOT_LIMIT_MS;
    while (!await answers(this.port, ANSWER_LIMIT_MS)) {
      if (ended) throw new NoLab(`The lab ended as it booted: ${this.#said()}`);
      if (performance.now() > deadline) {
        throw new NoLab(
          `The lab did not come up within ${BOOT_LIMIT_MS / 1000} s: ${this.#said()}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const failure = /LAB FAILED: .*/.exec(this.#said());
    if (failure) throw new NoLab(failure[0].trim());
  }

  /** What QEMU and its guest's console said last. */
  #said(): string {
    return ["qemu", "console"].map((name) => `${this.folder}/${name}`).filter(exists)
      .flatMap((path) => Deno.readTextFileSync(path).trim().split(/[\r\n]+/).slice(-5))
      .join("; ");
  }

  /** What can be known of it where it stands still, in lines; another second passes. */
  async state(): Promise<string> {
    return `${this.#said()}\n${await stateOfQemu(this.pid, `${this.folder}/monitor`)}`;
  }
}

/** Ends the lab that was kept. @returns whether there was one */
export function endKept(): boolean {
  const kept = readKept();
  if (!kept) return false;
  Deno.removeSync(keptFile());
  if (!isQemu(kept)) return false;
  killIfThere(kept.pid);
  Deno.removeSync(kept.folder, { recursive: true });
  return true;
}

function commandOf(lab: Lab, port: number, folder: string): string[] {
  return [
    ...[lab.emulator, "-name", "denovo-lab", "-nodefaults", "-display", "none"],
    // la57 is left out: a page walk of five levels costs more.
    ...["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max,+svm,+npt,-la57"],
    ...["-M", "q35", "-smp", "2", "-m", "4G", "-no-reboot", "-serial"],
    ...[`file:${folder}/console`, "-qmp", `unix:${folder}/monitor,server=on,wait=off`],
    ...["-kernel", lab.kernel, "-initrd", lab.initrd, "-append", APPEND],
    // What is written to the disk is gone with the machine.
    ...["-drive", `file=${lab.disk},if=virtio,format=raw,snapshot=on`],
    ...["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"],
    ...["-device", "virtio-net-pci,netdev=net", "-netdev"],
    `user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:${port}-:${AGENT_PORT}`,
  ];
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

function keptFile(): string {
  return `${cacheFolder()}/kept.json`;
}

function readKept(): Kept | undefined {
  if (!exists(keptFile())) return undefined;
  return JSON.parse(Deno.readTextFileSync(keptFile()));
}

/** Whether a process still is that QEMU, and not another one that has its id now. */
function isQemu({ pid, port }: Kept): boolean {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`).includes(`127.0.0.1:${port}-`);
  } catch {
    return false;
  }
}

function killIfThere(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

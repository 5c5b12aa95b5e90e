/**
 * `deno task debian [--updates N] [--modes LIST] [-- OPTIONS…]`: an unmodified Debian boots from its
 * disk to a login, and while it writes numbered records, each on the disk before the next, its VMM is
 * replaced N times (20) in each mode. Then it powers off, and the disk is looked at from outside: the
 * file system is clean, no record is missing and none is there twice. Ends with status 1 otherwise.
 *
 * OPTIONS are more of the VMM's, `-accel tcg` for example.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { type UpdateMode, updateModes, updateVmm } from "../../cpr/update/update.ts";
import { summarize } from "../bench/statistics.ts";
import { exists, NoLab, run, tree } from "../lab/host.ts";
import { Console } from "./console.ts";
import { debianImage, login, RECORDS, step } from "./image.ts";

/** Seconds for a boot, an answer of the shell: generous, since nothing is measured by them. */
const BOOT_SECONDS = 1800;
const ANSWER_SECONDS = 300;
const PROMPT = "root@denovo:~# ";
/** A shell that prints nothing but what it is asked for; its prompt is not what is typed here. */
const PLAIN_SHELL = "exec env TERM=dumb PS1='pl''ain# ' dash";
const PLAIN_PROMPT = "plain# ";

/** What the command line says. */
interface Options {
  readonly updates: number;
  readonly modes: readonly UpdateMode[];
  /** For the VMM. */
  readonly options: readonly string[];
}

function readOptions(args: readonly string[]): Options {
  const { values, positionals } = parseArgs({
    args: args[0] === "--" ? args.slice(1) : [...args],
    options: { updates: { type: "string" }, modes: { type: "string" } },
    allowPositionals: true,
  });
  const updates = Number(values.updates ?? 20);
  if (!Number.isInteger(updates) || updates < 0) {
    throw new Error(`--updates ${values.updates} is not a number`);
  }
  const modes = (values.modes ?? updateModes.join(",")).split(",").map((name) => {
    const mode = updateModes.find((mode) => mode === name);
    if (!mode) throw new Error(`--modes ${name}: the modes are ${updateModes.join(", ")}`);
    return mode;
  });
  return { updates, modes, options: positionals };
}

/** A Debian that runs, in whatever VMM has it at the moment. */
class Debian implements AsyncDisposable {
  readonly console: Console;
  readonly #socket: string;
  #pid: number;
  #isUpdating = false;

  constructor(readonly folder: string, command: readonly string[]) {
    this.#socket = `${folder}/qmp`;
    const [file, ...args] = command;
    this.#pid = new Deno.Command(file, { args, stdin: "null" }).spawn().pid;
    this.console = new Console(
      `${folder}/console`,
      () => this.hasEnded ? "the VMM has ended" : undefined,
      (line) => console.log(`debian: ${line}`),
    );
  }

  /** Whether nobody has the guest any more. */
  get hasEnded(): boolean {
    return !this.#isUpdating && !isAlive(this.#pid);
  }

  /** Executes a command in the shell. @returns what it printed */
  async sh(command: string): Promise<string> {
    await this.console.type(command);
    // The terminal shows what is typed.
    await this.console.expect(`${command}\n`, ANSWER_SECONDS);
    return (await this.console.expect(PLAIN_PROMPT, ANSWER_SECONDS)).trim();
  }

  /** Logs in on the serial console. */
  async logIn(): Promise<void> {
    await this.console.expect("denovo login: ", BOOT_SECONDS);
    await this.console.type(login.user);
    await this.console.expect("Password: ", ANSWER_SECONDS);
    await this.console.type(login.password);
    await this.console.expect(PROMPT, ANSWER_SECONDS);
    await this.console.type(PLAIN_SHELL);
    await this.console.expect(PLAIN_PROMPT, ANSWER_SECONDS);
  }

  /** Replaces the VMM. @returns for how long the guest stood still, in ms */
  async update(mode: UpdateMode): Promise<number> {
    this.#isUpdating = true;
    const { newPid, pauseUs = 0 } = await updateVmm({ socket: this.#socket, mode });
    this.#pid = newPid;
    this.#isUpdating = false;
    return pauseUs / 1000;
  }

  /** Waits until the guest has powered off. */
  async ended(): Promise<void> {
    const end = performance.now() + 1000 * BOOT_SECONDS;
    while (!this.hasEnded) {
      if (performance.now() > end) throw new Error("Debian does not power off");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  // deno-lint-ignore require-await -- what `await using` wants
  async [Symbol.asyncDispose](): Promise<void> {
    this.console[Symbol.dispose]();
    if (!this.hasEnded) Deno.kill(this.#pid, "SIGKILL");
  }
}

function isAlive(pid: number): boolean {
  return exists(`/proc/${pid}`) &&
    !/^State:\s+[ZX]/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
}

/** Looks at the disk of a Debian that was powered off. @returns how many records there are */
async function checkDisk(disk: string): Promise<number> {
  await run(["e2fsck", "-fn", disk]);
  const text = await run(["debugfs", "-R", `cat ${RECORDS}`, disk]);
  const records = text.trim().split("\n");
  records.forEach((record, i) => {
    if (Number(record) !== i + 1) throw new Error(`Record ${i + 1} of the disk is '${record}'`);
  });
  return records.length;
}

async function work({ updates, modes, options }: Options, folder: string): Promise<void> {
  const { disk, kernel, initrd } = await debianImage();
  await run(["cp", "--sparse=always", disk, `${folder}/disk.img`]);
  await using debian = new Debian(folder, [
    ...[Deno.execPath(), "run", "-A", "--no-check", `${tree}mod.ts`, "-m", "512M"],
    ...["-kernel", kernel, "-initrd", initrd, "-append", "root=/dev/vda console=ttyS0"],
    ...["-drive", `file=${folder}/disk.img,format=raw,if=virtio`, "-device", "virtio-rng-device"],
    ...["-display", "none", "-monitor", "none"],
    ...["-serial", `unix:${folder}/console,server=on,wait=off`],
    ...["-qmp", `unix:${folder}/qmp,server=on,wait=off`, ...options],
  ]);
  await step("Debian's boot to a shell", () => debian.logIn());
  await debian.sh("writer & sleep 1");
  for (const mode of updates > 0 ? modes : []) {
    const pauses: number[] = [];
    await step(`${updates} updates by ${mode}`, async () => {
      while (pauses.length < updates) {
        pauses.push(await debian.update(mode));
        const written = await debian.sh("cat /run/records");
        console.log(`${mode} ${pauses.length}: ${written} records, pause ${pauses.at(-1)} ms`);
      }
    });
    const { n, median, min, max } = summarize(pauses);
    console.log(`${mode}: pause ${median} ms (${min} to ${max}), n = ${n}`);
  }
  const written = Number(await debian.sh("kill %1; wait; wc -l < " + RECORDS));
  await debian.console.type("poweroff");
  await step("Debian's power-off", () => debian.ended());
  const found = await checkDisk(`${folder}/disk.img`);
  if (found !== written) throw new Error(`The disk has ${found} records of ${written}`);
  console.log(`${found} records, none lost, none twice; the file system is clean`);
}

const folder = await Deno.makeTempDir({ prefix: "denovo-debian-" });
try {
  await work(readOptions(Deno.args), folder);
} catch (error) {
  console.error((error as Error).message);
  Deno.exitCode = error instanceof NoLab ? 2 : 1;
} finally {
  await Deno.remove(folder, { recursive: true });
}

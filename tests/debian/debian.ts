/**
 * A Debian that runs, in whatever VMM has it at the moment.
 *
 * @module
 */
import { type UpdateMode, updateVmm } from "../../cpr/update/update.ts";
import { tree } from "../lab/host.ts";
import { isAlive } from "../processes.ts";
import { Console } from "./console.ts";
import type { DebianImage } from "./image.ts";
import { TAP } from "./network.ts";

/** Seconds for a boot, an answer of the shell: generous, since nothing is measured by them. */
const BOOT_SECONDS = 1800;
const ANSWER_SECONDS = 300;
const PROMPT = "root@denovo:~# ";
/** A shell that prints nothing but what it is asked for; its prompt is not what is typed here. */
const PLAIN_SHELL = "exec env TERM=dumb PS1='pl''ain# ' dash +m";
const PLAIN_PROMPT = "plain# ";
/** No messages of the kernel's on the console, nor of systemd's (SIGRTMIN+21), nor what is typed. */
const QUIET = "dmesg -n 1; kill -55 1; stty -echo";

/** The command line of its first VMM. */
function commandLine(folder: string, image: DebianImage, more: readonly string[]): string[] {
  const socket = (name: string) => `${folder}/${name},server=on,wait=off`;
  return [
    ...[Deno.execPath(), "run", "-A", "--no-check", `${tree}mod.ts`, "-m", "512M"],
    ...["-kernel", image.kernel, "-initrd", image.initrd],
    ...["-append", "root=/dev/vda console=ttyS0"],
    ...["-drive", `file=${image.disk},format=raw,if=virtio`, "-device", "virtio-rng-device"],
    ...["-netdev", `tap,id=n,ifname=${TAP},script=no,downscript=no`],
    ...["-device", "virtio-net-device,netdev=n"],
    ...["-chardev", `socket,id=a,path=${socket("agent")}`, "-device", "virtio-serial-device"],
    ...["-device", "virtserialport,chardev=a,name=org.qemu.guest_agent.0"],
    ...["-display", "none", "-monitor", "none", "-serial", `unix:${socket("console")}`],
    ...["-qmp", `unix:${socket("qmp")}`, ...more],
  ];
}

/** A guest with a console that somebody types at. */
export class Debian implements AsyncDisposable {
  readonly console: Console;
  readonly #socket: string;
  #pid: number;
  #isUpdating = false;

  /**
   * Starts it.
   *
   * @param folder where its sockets are: `agent` is the agent's port
   * @param image its disk, which it writes to
   * @param options further options of its VMM
   */
  constructor(folder: string, image: DebianImage, options: readonly string[]) {
    this.#socket = `${folder}/qmp`;
    const [file, ...args] = commandLine(folder, image, options);
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
    return (await this.console.expect(PLAIN_PROMPT, ANSWER_SECONDS)).trim();
  }

  /** Executes a command that prints a number, again and again until it prints more than `least`. */
  async count(command: string, least = -1): Promise<number> {
    const end = performance.now() + 1000 * ANSWER_SECONDS;
    for (;;) {
      const text = await this.sh(command);
      if (/^\d+$/.test(text) && Number(text) > least) return Number(text);
      if (performance.now() > end) throw new Error(`'${command}' says '${text}' for too long`);
      // Asking takes time from what is asked for.
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }

  /** Logs in on the serial console. */
  async logIn(): Promise<void> {
    await this.console.expect("denovo login: ", BOOT_SECONDS);
    await this.console.type("root");
    await this.console.expect(PROMPT, ANSWER_SECONDS);
    await this.console.type(PLAIN_SHELL);
    await this.console.expect(PLAIN_PROMPT, ANSWER_SECONDS);
    await this.sh(QUIET);
  }

  /** Replaces the VMM. @returns for how long the guest stood still, in ms */
  async update(mode: UpdateMode): Promise<number> {
    this.#isUpdating = true;
    const { newPid, pauseUs } = await updateVmm({ socket: this.#socket, mode });
    this.#pid = newPid;
    this.#isUpdating = false;
    if (pauseUs === undefined) throw new Error("The guest did not run before the update");
    return pauseUs / 1000;
  }

  /** Lets the guest power off. */
  async powerOff(): Promise<void> {
    await this.console.type("poweroff");
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

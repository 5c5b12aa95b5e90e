/**
 * The ways to replace a VMM under its guest, each as a user would do it by QMP. An update is in
 * three parts, so that only what belongs to it is in the window that is measured.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { sleep } from "../program.ts";
import type { Mode } from "./results.ts";
import { type MigrateInfo, until, VmmProcess } from "./vmm_process.ts";

/** How long a successor that listens is left alone: it is up, and done with what it does later. */
const SETTLE_MS = 150;

/** What an update works on. */
export interface UpdateContext {
  /** Paths of this update's sockets and files. */
  path(name: string): string;
  /** Whether Denovo's way of cpr-exec can be chosen. */
  readonly hasRelay: boolean;
  /** Waits until the guest's counters move. */
  readonly counts: () => Promise<void>;
}

/** One update. */
export interface Update extends AsyncDisposable {
  /** What happens before: the guest runs. */
  prepare(): Promise<void>;
  /** What is measured: done when the guest runs in the successor. */
  perform(): Promise<void>;
  /** What comes after. */
  finish(): Promise<{ readonly vmm: VmmProcess; readonly info: MigrateInfo }>;
}

/** Makes one update of a VMM. */
export function makeUpdate(mode: Mode, vmm: VmmProcess, context: UpdateContext): Update {
  switch (mode) {
    case "transfer":
      return new Transfer(vmm, context);
    case "exec":
    case "exec-relay":
      return new Exec(vmm, context, mode === "exec-relay");
    case "reboot":
      return new Reboot(vmm, context);
  }
}

/** cpr-transfer: the successor is up and waits. */
class Transfer implements Update {
  #next: VmmProcess | undefined;
  readonly #channels;

  constructor(readonly old: VmmProcess, readonly context: UpdateContext) {
    const channel = (type: "main" | "cpr") => ({
      "channel-type": type,
      addr: { transport: "socket", type: "unix", path: context.path(type) },
    });
    this.#channels = [channel("main"), channel("cpr")];
  }

  async prepare(): Promise<void> {
    const [main, cpr] = this.#channels;
    const incoming = ["-incoming", `unix:${main.addr.path}`, "-incoming", JSON.stringify(cpr)];
    this.#next = new VmmProcess(this.old.command, this.context.path("qmp"), incoming);
    await until(() => existsSync(cpr.addr.path), `the successor's cpr socket`);
    await sleep(SETTLE_MS);
    await this.old.execute("migrate-set-parameters", { mode: "cpr-transfer" });
  }

  async perform(): Promise<void> {
    await this.old.execute("migrate", { channels: this.#channels });
    await this.old.migrated();
    await this.context.counts();
  }

  async finish() {
    const vmm = this.#next!;
    await vmm.connect();
    const info = await vmm.running();
    await this.old.quit();
    await this.old[Symbol.asyncDispose]();
    this.#next = undefined;
    return { vmm, info };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#next?.[Symbol.asyncDispose]();
  }
}

/** cpr-exec: the same process, with a new program. */
class Exec implements Update {
  #info: MigrateInfo = {};

  constructor(
    readonly vmm: VmmProcess,
    readonly context: UpdateContext,
    readonly relay: boolean,
  ) {}

  get #uri(): string {
    return `file:${this.context.path("state")}`;
  }

  async prepare(): Promise<void> {
    await this.vmm.execute("migrate-set-parameters", {
      mode: "cpr-exec",
      "cpr-exec-command": [...this.vmm.argv, "-incoming", this.#uri],
      ...(this.context.hasRelay && { "x-cpr-exec-relay": this.relay ? "on" : "off" }),
    });
  }

  async perform(): Promise<void> {
    await this.vmm.execute("migrate", { uri: this.#uri });
    await this.vmm.execed();
    await this.vmm.connect();
    this.#info = await this.vmm.running();
    await this.context.counts();
  }

  finish() {
    return Promise.resolve({ vmm: this.vmm, info: this.#info });
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** cpr-reboot: state goes to a file, RAM stays in its own; the successor starts in the pause. */
class Reboot implements Update {
  #next: VmmProcess | undefined;

  constructor(readonly old: VmmProcess, readonly context: UpdateContext) {}

  async prepare(): Promise<void> {
    await chooseReboot(this.old);
  }

  async perform(): Promise<void> {
    const uri = `file:${this.context.path("state")}`;
    await this.old.execute("migrate", { uri });
    await this.old.migrated();
    await this.old.quit();
    await this.old[Symbol.asyncDispose]();
    const socket = this.context.path("qmp");
    this.#next = new VmmProcess(this.old.command, socket, ["-incoming", "defer"]);
    await this.#next.connect();
    await chooseReboot(this.#next);
    await this.#next.execute("migrate-incoming", { uri });
    await this.#next.migrated();
    await this.context.counts();
  }

  async finish() {
    const vmm = this.#next!;
    const info = await vmm.running();
    this.#next = undefined;
    return { vmm, info };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#next?.[Symbol.asyncDispose]();
  }
}

async function chooseReboot(vmm: VmmProcess): Promise<void> {
  await vmm.execute("migrate-set-capabilities", {
    capabilities: [{ capability: "x-ignore-shared", state: true }],
  });
  await vmm.execute("migrate-set-parameters", { mode: "cpr-reboot" });
}

/**
 * The network of a guest with a tap: a bridge in this network namespace leads to a server in another.
 *
 * @module
 */
import { run } from "../lab/host.ts";
import { addresses } from "./stream.ts";

/** The guest's interface on this host. */
export const TAP = "tap0";
const LISTENS_WITHIN_MS = 60_000;

/** The server, and what it has said. */
export class Network implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  readonly #said: string[] = [];
  #hasEnded = false;

  private constructor() {
    const server = new URL("server.ts", import.meta.url).pathname;
    this.#child = new Deno.Command("unshare", {
      args: ["--net", Deno.execPath(), "run", "-A", "--no-check", server],
      ...{ stdin: "null", stdout: "piped" },
    }).spawn();
    this.#reading = this.#read();
  }

  /** Makes it. Its interfaces are gone with the namespaces. @throws {Error} */
  static async make(): Promise<Network> {
    const network = new Network();
    await network.#until(() => network.#said.includes("listening"), LISTENS_WITHIN_MS);
    const { pid } = network.#child;
    for (
      const command of [
        "ip link add bridge0 type bridge",
        "ip link set bridge0 up",
        `ip tuntap add ${TAP} mode tap`,
        `ip link set ${TAP} master bridge0 up`,
        `ip link add server0 type veth peer name eth0 netns ${pid}`,
        "ip link set server0 master bridge0 up",
        `nsenter --target ${pid} --net ip address add ${addresses.server}/24 dev eth0`,
        `nsenter --target ${pid} --net ip link set eth0 up`,
      ]
    ) await run(command.split(" "));
    return network;
  }

  /** How many blocks the server has told of. */
  get blocks(): number {
    return Number(this.#said.findLast((line) => /^\d+$/.test(line)) ?? 0);
  }

  /** Waits until more blocks go to and fro. @throws {Error} if the connection is not as it should be */
  async moves(patienceMs: number): Promise<void> {
    const before = this.blocks;
    await this.#until(() => this.blocks > before, patienceMs);
  }

  /** Waits until the guest has closed the connection. @returns how many blocks there were */
  async ended(): Promise<number> {
    await this.#reading;
    const { success } = await this.#child.status;
    const count = /^end (\d+)$/.exec(this.#said.at(-1) ?? "")?.[1];
    if (!success || count === undefined) throw new Error("The server of the stream has failed");
    return Number(count);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#reading;
    await this.#child.status;
  }

  async #read(): Promise<void> {
    let line = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (line + text).split("\n");
      line = lines.pop()!;
      this.#said.push(...lines);
    }
    this.#hasEnded = true;
  }

  async #until(condition: () => boolean, patienceMs: number): Promise<void> {
    const end = performance.now() + patienceMs;
    while (!condition()) {
      if (this.#hasEnded) throw new Error(`The stream has ended after ${this.blocks} blocks`);
      if (performance.now() > end) throw new Error(`The stream stands at ${this.blocks} blocks`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

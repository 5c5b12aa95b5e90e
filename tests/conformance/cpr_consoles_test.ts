/** Consoles through live updates: connections stay, and no byte is lost. */
import assert from "node:assert/strict";
import { O, openFile, readFd, writeFd } from "../../ffi/fd.ts";
import {
  execUpdate,
  kvmTest,
  Laboratory,
  listens,
  type Qmp,
  transferUpdate,
  until,
  type Vmm,
} from "./program.ts";

/** Someone who types lines on the guest's console without a pause, and reads what is printed. */
class Typist implements Disposable {
  text = "";
  lines = 0;
  #stop = false;
  readonly #connection: Deno.UnixConn;
  readonly #typing: Promise<void>;
  readonly #reading: Promise<void>;

  private constructor(connection: Deno.UnixConn) {
    this.#connection = connection;
    this.#reading = this.#read();
    this.#typing = this.#type();
  }

  static async connect(path: string): Promise<Typist> {
    await listens(path);
    return new Typist(await Deno.connect({ transport: "unix", path }));
  }

  /** Stops typing once the current line is answered. */
  async finish(): Promise<void> {
    this.#stop = true;
    await this.#typing;
  }

  /** Waits until the VMM closes the connection. */
  async closed(): Promise<void> {
    await this.#reading;
  }

  [Symbol.dispose](): void {
    try {
      this.#connection.close();
    } catch {
      // The reader has seen the end and closed it.
    }
  }

  async #type(): Promise<void> {
    while (!this.#stop) {
      const line = `LINE ${++this.lines}`;
      await this.#connection.write(new TextEncoder().encode(`${line}\r`));
      await until(() => this.text.includes(`you said: ${line}\n`), () => `${line} in ${this.text}`);
    }
  }

  async #read(): Promise<void> {
    const buffer = new Uint8Array(4096);
    try {
      for (let n; (n = await this.#connection.read(buffer)) !== null;) {
        this.text += new TextDecoder().decode(buffer.subarray(0, n));
      }
    } catch {
      // Closed by us.
    }
  }
}

/** Fails if an answer is missing, torn, or there twice. */
function assertComplete(typist: Typist): void {
  const answers = typist.text.replaceAll("\r", "").split("\n")
    .filter((line) => line.startsWith("you said: "));
  const expected = Array.from({ length: typist.lines }, (_, i) => `you said: LINE ${i + 1}`);
  assert.deepEqual(answers, expected);
  assert.ok(typist.lines > 5, `only ${typist.lines} lines were typed`);
}

kvmTest("a client of the serial port notices nothing of five updates by cpr-exec", async () => {
  await using lab = await Laboratory.open();
  const serial = `unix:${lab.path("console")},server=on,wait=off`;
  const { vmm, qmp } = await lab.run("vmm", { serial });
  using typist = await Typist.connect(lab.path("console"));
  let monitor = qmp;
  for (let update = 0; update < 5; update++) {
    const lines = typist.lines;
    monitor = await execUpdate(lab, vmm, monitor);
    await monitor.reaches("running");
    await until(() => typist.lines > lines + 1, () => "another line");
  }
  await typist.finish();
  assertComplete(typist);
});

kvmTest("a client of the serial port notices nothing of five updates by cpr-transfer", async () => {
  await using lab = await Laboratory.open();
  const serial = `unix:${lab.path("console")},server=on,wait=off`;
  let { vmm, qmp } = await lab.run("vmm0", { serial });
  using typist = await Typist.connect(lab.path("console"));
  for (let update = 1; update <= 5; update++) {
    const lines = typist.lines;
    const next = await transferUpdate(lab, `vmm${update}`, qmp, { serial });
    await qmp.execute("quit");
    await vmm.ended();
    ({ vmm, qmp } = next);
    await until(() => typist.lines > lines + 1, () => "another line");
  }
  await typist.finish();
  assertComplete(typist);
});

kvmTest("an idle client's connection and the console's listener survive an update", async () => {
  await using lab = await Laboratory.open();
  const serial = `unix:${lab.path("console")},server=on,wait=off`;
  const { vmm, qmp } = await lab.run("vmm", { serial });
  const first = await Typist.connect(lab.path("console"));
  await first.finish();
  const next = await execUpdate(lab, vmm, qmp);
  first[Symbol.dispose]();
  using second = await Typist.connect(lab.path("console"));
  await second.finish();
  assert.equal(second.lines, 1);
  await next.execute("quit");
  await second.closed();
});

kvmTest("a pseudo-terminal stays the same through cpr-exec and cpr-transfer", async () => {
  await using lab = await Laboratory.open();
  let { vmm, qmp }: { vmm: Vmm; qmp: Qmp } = await lab.run("vmm", { serial: "pty" });
  const path = /\/dev\/pts\/\d+/.exec(vmm.output)?.[0];
  assert.ok(path, `No terminal in: ${vmm.output}`);
  using terminal = openFile(path, O.RDWR | O.NOCTTY | O.NONBLOCK);
  let text = "";
  const buffer = new Uint8Array(4096);
  const says = async (line: string) => {
    let tries = 0;
    await until(() => {
      // The VMM looks once a second whether somebody has opened the terminal; until then it is deaf.
      if (tries++ % 1000 === 0) writeFd(terminal.fd, new TextEncoder().encode(`${line}\r`));
      for (let n; (n = readFd(terminal.fd, buffer)) > 0;) {
        text += new TextDecoder().decode(buffer.subarray(0, n));
      }
      return text.includes(`you said: ${line}`);
    }, () => `the answer to ${line} in ${JSON.stringify(text)}`);
  };
  await says("ONE");
  qmp = await execUpdate(lab, vmm, qmp);
  await qmp.reaches("running");
  await says("TWO");
  ({ vmm, qmp } = await transferUpdate(lab, "next", qmp, { serial: "pty" }));
  await says("THREE");
});

/**
 * `-nographic` on a terminal: the guest's console and the monitor share it, keys switch.
 */
import assert from "node:assert/strict";
import { O, openFile, type OwnedFd, readFd, writeFd } from "../../ffi/fd.ts";
import { type ChildProcess, type ExitStatus, spawn } from "../../ffi/process.ts";
import { getTermios, openPty, setTermios } from "../../ffi/terminal.ts";
import { kvmTest, Program, program, TestFolder, until } from "./session.ts";

const SIGTERM = 15, SIGKILL = 9;
/** Where c_lflag lies in struct termios, and some of its flags. */
const LFLAG = 12, ISIG = 1, ICANON = 2, ECHO = 8;

/** The program on a terminal that is as a shell leaves it. */
class Terminal implements Disposable {
  readonly #master: OwnedFd;
  readonly #slave: OwnedFd;
  readonly #child: ChildProcess;
  readonly #buffer = new Uint8Array(4096);
  /** The terminal's settings before the program began. */
  readonly before: Uint8Array;
  #text = "";

  constructor(...args: string[]) {
    const { master, path } = openPty();
    this.#master = master;
    this.#slave = openFile(path, O.RDWR | O.NOCTTY);
    const settings = getTermios(this.#slave.fd);
    new DataView(settings.buffer).setUint32(LFLAG, ISIG | ICANON | ECHO, true);
    setTermios(this.#slave.fd, settings);
    this.before = getTermios(this.#slave.fd);
    const { fd } = this.#slave;
    this.#child = spawn([...program, ...args], { fds: [[fd, 0], [fd, 1], [fd, 2]] });
  }

  /** The terminal's settings now. */
  get settings(): Uint8Array {
    return getTermios(this.#slave.fd);
  }

  /** Types keys. */
  type(keys: string): void {
    const data = new TextEncoder().encode(keys);
    assert.equal(writeFd(this.#master.fd, data), data.length);
  }

  /** Takes what was printed, up to and including `end`, without carriage returns. */
  async take(end: string): Promise<string> {
    await until(
      () => this.#read().includes(end),
      () => `${JSON.stringify(end)} in ${JSON.stringify(this.#text)}`,
    );
    const length = this.#text.indexOf(end) + end.length;
    const taken = this.#text.slice(0, length);
    this.#text = this.#text.slice(length);
    return taken;
  }

  /** Asks the program to end. */
  terminate(): void {
    this.#child.kill(SIGTERM);
  }

  /** Waits for the program's end. */
  async ended(): Promise<ExitStatus> {
    let status: ExitStatus | undefined;
    await until(() => {
      this.#read();
      return (status = this.#child.poll()) !== undefined;
    }, () => `the end; printed: ${JSON.stringify(this.#text)}`);
    return status!;
  }

  /** Kills the program, if need be. */
  [Symbol.dispose](): void {
    this.#child.kill(SIGKILL);
    this.#child.wait();
    this.#child[Symbol.dispose]();
    this.#slave.close();
    this.#master.close();
  }

  #read(): string {
    for (let n; (n = readFd(this.#master.fd, this.#buffer)) > 0;) {
      this.#text += new TextDecoder().decode(this.#buffer.subarray(0, n)).replaceAll("\r", "");
    }
    return this.#text;
  }
}

for (const options of ["-nographic", "-nographic -serial mon:stdio", "-serial mon:stdio"]) {
  kvmTest(
    `${options} shares the terminal between console and monitor`,
    () => testSharedTerminal(options.split(" ")),
  );
}

async function testSharedTerminal(options: readonly string[]): Promise<void> {
  using folder = new TestFolder();
  using terminal = new Terminal("-kernel", folder.guest("demo"), ...options);
  await terminal.take("denovo demo guest");
  assert.notDeepEqual(terminal.settings, terminal.before);
  // What is typed reaches the guest, which echoes and answers.
  terminal.type("hello\r");
  await terminal.take("you said: HELLO");
  // The monitor greets when it is first switched to.
  terminal.type("\x01c");
  await terminal.take("type 'help' for more information\n(qemu) ");
  terminal.type("info status\r");
  await terminal.take("VM status: running\n");
  await terminal.take("(qemu) ");
  // Back to the console, and to the monitor again: no second greeting.
  terminal.type("\x01c");
  terminal.type("again\r");
  await terminal.take("you said: AGAIN");
  terminal.type("\x01cinfo name\r");
  const text = await terminal.take("(qemu) ");
  assert.ok(!text.includes("type 'help'"), text);
  terminal.type("\x01h");
  const help = await terminal.take("C-a C-a  sends C-a");
  for (const line of ["C-a h    print this help", "C-a x    exit emulator"]) {
    assert.ok(help.includes(line), help);
  }
  terminal.type("\x01x");
  await terminal.take("QEMU: Terminated");
  assert.deepEqual(await terminal.ended(), { code: 0 });
  assert.deepEqual(terminal.settings, terminal.before);
}

kvmTest(
  "a command that is piped into -nographic runs, although the pipe ends with it",
  async () => {
    using folder = new TestFolder();
    await using vmm = new Program("-kernel", folder.guest("hello"), "-nographic", "-S");
    await vmm.type("\x01cinfo name\nquit\n");
    await vmm.endInput();
    assert.equal(await vmm.ended(), 0);
    assert.match(vmm.stdout, /\(qemu\) .*quit/);
  },
);

kvmTest("-nographic puts the terminal back when SIGTERM ends the VM", async () => {
  using folder = new TestFolder();
  using terminal = new Terminal("-kernel", folder.guest("demo"), "-nographic");
  await terminal.take("denovo demo guest");
  assert.notDeepEqual(terminal.settings, terminal.before);
  terminal.terminate();
  await terminal.take("terminating on signal SIGTERM");
  assert.deepEqual(await terminal.ended(), { code: 0 });
  assert.deepEqual(terminal.settings, terminal.before);
});

kvmTest("-nographic puts the terminal back when the guest ends the VM", async () => {
  using folder = new TestFolder();
  using terminal = new Terminal(
    ...["-kernel", folder.guest("demo"), "-nographic"],
    ...["-device", "isa-debug-exit,iobase=0x501,iosize=2"],
  );
  await terminal.take("denovo demo guest");
  terminal.type("quit\r");
  assert.deepEqual(await terminal.ended(), { code: 1 });
  assert.deepEqual(terminal.settings, terminal.before);
});

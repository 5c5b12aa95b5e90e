/**
 * The examples of QEMU's documents on CPR, typed as they stand: into the monitor on stdio, file names
 * relative to the folder the program runs in. The program's name, the RAM's size, the place of its
 * file and devices that there are not here differ.
 */
import assert from "node:assert/strict";
import { freePort } from "../ports.ts";
import { kvmTest, listens } from "./program.ts";
import { type Json, Program, program, TestFolder, until } from "./session.ts";

/** What every `...` of the documents stands for. */
function rest(folder: TestFolder): string[] {
  const serial = `file,id=serial,path=${folder.file("serial")},append=on`;
  return ["-kernel", folder.guest("demo"), "-chardev", serial, "-serial", "chardev:serial"];
}

/** Starts the program in a folder, as a shell there does. */
function start(folder: TestFolder, ...args: string[]): Program {
  const home = Deno.cwd();
  Deno.chdir(folder.path);
  try {
    return new Program(...args);
  } finally {
    Deno.chdir(home);
  }
}

const BANNER = "monitor - type 'help' for more information\n";
const PROMPT = "(qemu) ";

/** A person at the monitor on stdio. */
class Person {
  /** How much of the output was read. */
  #read = 0;

  constructor(readonly vmm: Program) {}

  /** Reads up to a text and its end; returns what came before it. */
  async reads(wanted: string): Promise<string> {
    await until(
      () => this.vmm.stdout.indexOf(wanted, this.#read) !== -1,
      () => `${wanted} in ${this.vmm.stdout.slice(this.#read)}; ${this.vmm.stderr}`,
    );
    const at = this.vmm.stdout.indexOf(wanted, this.#read);
    const text = this.vmm.stdout.slice(this.#read, at);
    this.#read = at + wanted.length;
    return text;
  }

  /** Reads the greeting and the first prompt. */
  async greeted(): Promise<void> {
    await this.reads(BANNER + PROMPT);
  }

  /** Types a line; returns what is printed up to the next prompt. */
  async types(line: string): Promise<string> {
    await this.vmm.type(`${line}\n`);
    // The echo redraws the line for each key and ends with it.
    await this.reads("\n");
    return await this.reads(PROMPT);
  }

  /** Types lines that print nothing. */
  async typesSilently(...lines: string[]): Promise<void> {
    for (const line of lines) assert.equal(await this.types(line), "", line);
  }

  /** Asks for the status until it is the one that the document shows. */
  async sees(status: string): Promise<void> {
    let answer = "";
    const look = async () =>
      (answer = await this.types("info status")) === `VM status: ${status}\n`;
    await until(look, () => `${status}: ${answer}`);
  }
}

/** Waits until the guest prints more. */
async function guestPrints(folder: TestFolder): Promise<void> {
  const size = () => Deno.statSync(folder.file("serial")).size;
  const before = size();
  await until(() => size() > before, () => "the guest's output");
  const text = Deno.readTextFileSync(folder.file("serial"));
  assert.ok(text.split("denovo demo guest").length <= 2, "The guest has booted twice");
}

kvmTest("the document's example of cpr-reboot works as it is typed", async () => {
  using folder = new TestFolder();
  const options = [
    ...["-monitor", "stdio", "-object"],
    `memory-backend-file,id=ram0,size=64M,mem-path=${folder.file("dax0.0")},align=2M,share=on`,
    ...["-m", "64M", "-machine", "memory-backend=ram0", ...rest(folder)],
  ];
  {
    await using old = start(folder, ...options);
    const person = new Person(old);
    await person.greeted();
    await person.sees("running");
    await guestPrints(folder);
    await person.typesSilently(
      "migrate_set_parameter mode cpr-reboot",
      "migrate_set_capability x-ignore-shared on",
      "migrate -d file:vm.state",
    );
    await person.sees("paused (postmigrate)");
    await old.type("quit\n");
    assert.equal(await old.ended(), 0);
  }
  await using next = start(folder, ...options, "-incoming", "defer");
  const person = new Person(next);
  await person.greeted();
  assert.equal(await person.types("info status"), "VM status: paused (inmigrate)\n");
  await person.typesSilently(
    "migrate_set_parameter mode cpr-reboot",
    "migrate_set_capability x-ignore-shared on",
    "migrate_incoming file:vm.state",
  );
  await person.sees("running");
  await guestPrints(folder);
});

/** The memory of the documents' examples of cpr-transfer. */
const transferMemory = (folder: TestFolder) => [
  "-object",
  `memory-backend-file,id=ram0,size=64M,mem-path=${folder.file("ram0")},share=on`,
  ...["-m", "64M", "-machine", "memory-backend=ram0", "-machine", "aux-ram-share=on"],
];

/** The document's second `-incoming`, line breaks included. */
const cprChannel = `{"channel-type": "cpr",
    "addr": { "transport": "socket",
              "type": "unix", "path": "cpr.sock"}}`;

/** What is typed into the old VMM's QMP on stdio. */
class QmpOnStdio {
  #lines = 0;

  constructor(readonly vmm: Program) {}

  /** The next line that is no event. */
  async reads(): Promise<Json> {
    for (;;) {
      const lines = () => this.vmm.stdout.split("\n");
      await until(() => lines().length > this.#lines + 1, () => `a line; ${this.vmm.stderr}`);
      const line = JSON.parse(lines()[this.#lines++]);
      if (!("event" in line)) return line;
    }
  }

  async types(text: string): Promise<Json> {
    await this.vmm.type(`${text}\n`);
    return await this.reads();
  }
}

for (const defer of [false, true]) {
  const name = defer ? "with `-incoming defer`" : "with an incoming URI";
  kvmTest(`the document's example of cpr-transfer ${name} works as it is typed`, async () => {
    using folder = new TestFolder();
    const port = freePort();
    const memory = transferMemory(folder);
    // The document's machine has PCI without being asked; a port that is to come the guest has already.
    const pcie = defer ? ["-machine", "pcie=on"] : [];
    const port0 = defer ? ["-device", "pcie-root-port"] : [];
    await using old = start(folder, "-qmp", "stdio", ...memory, ...pcie, ...port0, ...rest(folder));
    const qmp = new QmpOnStdio(old);
    assert.ok("QMP" in await qmp.reads());
    assert.deepEqual(await qmp.types('{"execute":"qmp_capabilities"}'), { return: {} });
    await using next = start(
      folder,
      ...["-monitor", "stdio", ...memory, ...pcie, ...rest(folder)],
      ...["-incoming", defer ? "defer" : `tcp:0:${port}`, "-incoming", cprChannel],
    );
    await listens("cpr.sock");
    assert.deepEqual(await qmp.types('{"execute": "query-status"}'), {
      return: { status: "running", running: true },
    });
    // "New QEMU does not print the monitor prompt until old QEMU has issued the migrate command."
    assert.equal(next.stdout, "");
    assert.deepEqual(
      await qmp.types(`{"execute":"migrate-set-parameters",
        "arguments":{"mode":"cpr-transfer"}}`),
      { return: {} },
    );
    assert.deepEqual(
      await qmp.types(`{"execute": "migrate", "arguments": { "channels": [
        {"channel-type": "main",
         "addr": { "transport": "socket", "type": "inet", "host": "0", "port": "${port}" }},
        {"channel-type": "cpr",
         "addr": { "transport": "socket", "type": "unix", "path": "cpr.sock" }}]}}`),
      { return: {} },
    );
    const person = new Person(next);
    await person.greeted();
    if (defer) {
      assert.equal(await person.types("info status"), "VM status: paused (inmigrate)\n");
      await person.typesSilently(
        "device_add pcie-root-port",
        `migrate_incoming tcp:0:${port}`,
      );
      assert.match(await person.types("info pci"), /PCI bridge: PCI device 1b36:000c/);
    }
    await person.sees("running");
    await guestPrints(folder);
    // It is told a moment after the guest has gone on.
    const status = async () => (await qmp.types('{"execute": "query-status"}')).return.status;
    await until(async () => await status() === "postmigrate", () => "the old VMM to hear of it");
  });
}

/** The document's `-machine` and `-object` of cpr-exec. */
const execMemory = [
  ...["-object", "memory-backend-memfd,id=ram0,size=64M"],
  ...["-machine", "memory-backend=ram0", "-machine", "aux-ram-share=on"],
];

/** A word for the monitor, which splits as a shell's quoting does. */
const quoted = (word: string) =>
  /[\s'"\\]/.test(word) ? `'${word.replaceAll("'", "'\\''")}'` : word;

for (const defer of [false, true]) {
  const name = defer ? "with `-incoming defer`" : "with an incoming URI";
  kvmTest(`the document's example of cpr-exec ${name} works as it is typed`, async () => {
    using folder = new TestFolder();
    const options = ["-monitor", "stdio", ...execMemory, "-m", "64M", ...rest(folder)];
    await using vmm = start(folder, ...options);
    const person = new Person(vmm);
    await person.greeted();
    await person.sees("running");
    await guestPrints(folder);
    const command = [...program, ...options].map(quoted).join(" ");
    await person.typesSilently(
      "migrate_set_parameter mode cpr-exec",
      `migrate_set_parameter cpr-exec-command ${command} -incoming ${
        defer ? "defer" : "file:vm.state"
      }`,
    );
    await vmm.type("migrate -d file:vm.state\n");
    await person.reads("\n");
    await person.greeted();
    if (defer) {
      assert.equal(await person.types("info status"), "VM status: paused (inmigrate)\n");
      await person.typesSilently("migrate_incoming file:vm.state");
    }
    await person.sees("running");
    await guestPrints(folder);
    await vmm.type("quit\n");
    assert.equal(await vmm.ended(), 0);
    assert.equal(vmm.stderr, "");
  });
}

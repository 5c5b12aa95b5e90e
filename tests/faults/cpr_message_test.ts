/** Descriptor tables that are damaged or made up: refused by name, with nothing left open. */
import assert from "node:assert/strict";
import { collectHandover, encodeHandover } from "../../cpr/handover/handover.ts";
import { receiveCpr, type ReceivedCpr } from "../../cpr/handover/receive.ts";
import { Owner, Ownership } from "../../cpr/handover/ownership.ts";
import { encodeStream, type Section } from "../../cpr/stream/stream.ts";
import { OsError } from "../../ffi/errno.ts";
import { makePipe, O, openFile, type OwnedFd, readFd } from "../../ffi/fd.ts";
import { addSeals, makeMemfd, Seal } from "../../ffi/memory.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { connectUnix, listenUnix, socketPair } from "../../ffi/socket.ts";
import { sendMessage } from "../../ffi/socket_message.ts";
import type { MachineConfig } from "../../vmm/config.ts";
import { placement } from "../../vmm/threads/placement.ts";
import { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { kvmTest, until } from "../kvm/harness.ts";
import {
  assertNames,
  type Bytes,
  cut,
  doubled,
  encodeParts,
  flipped,
  join,
  withLength,
} from "./damage.ts";

const MEMORY = 1 << 20;
const MARK = new TextEncoder().encode("the guest's memory");

/**
 * The descriptors that this process has open, and what they are of. Those of event loops are left
 * out: each thread of the runtime has some, for as long as it likes.
 */
function openFds(): string[] {
  const link = (name: string) => {
    try {
      return [`${name} ${Deno.readLinkSync(`/proc/self/fd/${name}`)}`];
    } catch {
      // The one by which the list was read.
      return [];
    }
  };
  return [...Deno.readDirSync("/proc/self/fd")].flatMap(({ name }) => link(name))
    .filter((fd) => !/anon_inode:\[event(fd|poll)\]$/.test(fd));
}

/**
 * Waits until nothing is open that was not before. Threads that start or end have files of the
 * runtime open for a while; a descriptor that was forgotten stays for ever.
 */
async function assertNothingNew(before: readonly string[], what: string): Promise<void> {
  const left = () => openFds().filter((fd) => !before.includes(fd));
  await until(() => left().length === 0, () => `${left()} to be closed: ${what}`);
}

/** Closes all that was received. */
function closeReceived({ inheritance, connection }: ReceivedCpr): void {
  inheritance[Symbol.dispose]();
  connection.close();
}

/** Builds the VM that a table is for; its error, if there is one. Nothing stays open. */
async function build(source: Source, received: ReceivedCpr): Promise<Error | undefined> {
  const { inheritance } = received;
  try {
    placement.takeOver(inheritance);
    await using _vm = await VirtualMachine.create(source.config, {
      incoming: true,
      inheritance,
      detached: true,
      notice: () => {},
    });
    using _page = Ownership.takeOver(inheritance, "new");
    inheritance.checkEmpty();
  } catch (error) {
    assert.ok(error instanceof Error && error.name === "Error", `${error}`);
    return error;
  } finally {
    closeReceived(received);
    placement.restore();
  }
}

/** A VM with a connected console, what it would send to its successor, and the successor's ear. */
class Source implements AsyncDisposable {
  readonly #reactor = new Reactor();
  readonly #cleanup = new AsyncDisposableStack();
  readonly config: Partial<MachineConfig>;
  readonly ownership = Ownership.create();
  vm!: VirtualMachine;
  client!: OwnedFd;
  /** The table that it sends, and the descriptors in the order of the numbers in it. */
  sections!: Section[];
  fds!: number[];

  private constructor(readonly folder: string) {
    const bios = `${folder}/bios`;
    Deno.writeFileSync(bios, new Uint8Array(65536).fill(0xf4));
    const path = `${folder}/console`;
    this.config = {
      memory: MEMORY,
      bios,
      chardevs: [
        { backend: "socket", id: "c", family: "unix", path, server: true, wait: false },
        { backend: "file", id: "f", path: `${folder}/file`, append: false },
      ],
      serials: ["c", "f"],
    };
  }

  /** Creates one, with a client on its console. */
  static async create(): Promise<Source> {
    const source = new Source(await Deno.makeTempDir({ prefix: "denovo-message-" }));
    source.vm = await VirtualMachine.create(source.config);
    source.client = connectUnix(`${source.folder}/console`);
    const backend = source.vm.chardevs.get("c");
    while (!backend.connected) await new Promise((resolve) => setTimeout(resolve, 1));
    source.vm.machine.memory.write(0x100, MARK);
    const handover = collectHandover(source.vm, source.ownership, "neighbour");
    source.sections = encodeHandover(handover, (entry) => handover.fds.indexOf(entry));
    source.fds = handover.fds.map(({ fd }) => fd);
    return source;
  }

  /**
   * Sends messages, and hangs up unless it shall wait, to a successor that waits on its cpr socket.
   *
   * @returns what the successor got, or its refusal
   */
  async send(
    messages: readonly (readonly [bytes: Bytes, fds: readonly number[]])[],
    wait = false,
  ): Promise<ReceivedCpr | Error> {
    const path = `${this.folder}/cpr`;
    const received = receiveCpr({ transport: "socket", type: "unix", path }, this.#reactor)
      .catch((error: Error) => error);
    using connection = connectUnix(path);
    for (const [bytes, fds] of messages) {
      if (bytes.length > 0) sendMessage(connection.fd, bytes, fds);
    }
    if (!wait) connection.close();
    const result = await received;
    // To a sender that still listens the refusal is the end of the connection.
    if (wait && result instanceof Error) assert.ok(hasEnded(connection.fd));
    return result;
  }

  /** Sends one message that must be refused, by who reads it or who uses it; gives the reason. */
  async refusal(
    bytes: Bytes,
    what: string,
    fds: readonly number[] = this.fds,
    wait = false,
  ): Promise<string> {
    const before = openFds();
    const sent = await this.send([[bytes, fds]], wait);
    if (sent instanceof Error) assert.equal(sent.name, "StateError", `${what}: ${sent.stack}`);
    const result = sent instanceof Error ? sent : await build(this, sent);
    assert.ok(result, `${what} was not refused`);
    assert.ok(!result.message.includes("\n"), `${what}: ${result.message}`);
    await assertNothingNew(before, what);
    return result.message;
  }

  /** Fails unless the VM is as it was: it owns its guest, its memory and its client. */
  assertUnharmed(): void {
    assert.equal(this.ownership.owner, Owner.OLD);
    assert.deepEqual(this.vm.machine.memory.read(0x100, MARK.length), MARK);
    assert.ok(this.vm.chardevs.get("c").connected);
    this.vm.start();
    assert.equal(this.vm.runState, "running");
    this.vm.stop();
  }

  /** Makes a descriptor that is closed with the source. */
  own(fd: OwnedFd): number {
    this.#cleanup.use(fd);
    return fd.fd;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.close();
    this.ownership.close();
    await this.vm.close();
    await this.#cleanup.disposeAsync();
    await this.#reactor.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Whether the other side has closed a connection. */
function hasEnded(fd: number): boolean {
  try {
    return readFd(fd, new Uint8Array(1)) === 0;
  } catch (error) {
    // Closed before it had read everything.
    if (error instanceof OsError && error.code === "ECONNRESET") return true;
    throw error;
  }
}

/** Registers a test with a source, which must be unharmed afterwards. */
function sourceTest(name: string, run: (source: Source) => Promise<void>): void {
  kvmTest(name, async () => {
    await using source = await Source.create();
    await run(source);
    source.assertUnharmed();
  });
}

sourceTest(
  "a descriptor table with any byte changed is refused, and the error says where",
  async (source) => {
    const parts = encodeParts(source.sections);
    for (const { bytes, part, what } of flipped(parts)) {
      assertNames(await source.refusal(bytes, what), part, parts.length, what);
    }
  },
);

sourceTest(
  "a descriptor table that is cut anywhere is refused, and the error says where",
  async (source) => {
    const parts = encodeParts(source.sections);
    for (const { bytes, part, what } of cut(parts)) {
      const message = await source.refusal(bytes, what);
      assert.match(message, /^Stream ends within /);
      assertNames(message, part, parts.length, what);
    }
  },
);

sourceTest("a descriptor table with any byte twice is refused", async (source) => {
  for (const { bytes, what } of doubled(encodeParts(source.sections))) {
    await source.refusal(bytes, what);
  }
});

sourceTest("a descriptor table may come in pieces", async (source) => {
  const bytes = encodeStream(source.sections);
  for (const at of [1, 12, 50, bytes.length - 1]) {
    const before = openFds();
    const result = await source.send([[bytes.slice(0, at), source.fds], [bytes.slice(at), []]]);
    assert.ok(!(result instanceof Error), `cut at ${at}: ${result}`);
    assert.deepEqual(result.inheritance.idsOf("memory"), ["microvm.ram", "pc.bios"]);
    closeReceived(result);
    await assertNothingNew(before, "a table");
  }
});

sourceTest(
  "a table with an entry left out, twice, renamed or of another version is refused",
  async (source) => {
    const { sections } = source;
    for (const [i, section] of sections.entries()) {
      const what = `${section.name} ${section.id}`;
      const refuse = (changed: Section[], how: string) =>
        source.refusal(encodeStream(changed), `${what} ${how}`);
      if (section.name !== "chardev" || section.id !== "f") {
        await refuse(sections.toSpliced(i, 1), "left out");
      }
      assert.match(await refuse([...sections, section], "twice"), /twice|not passed|Unknown/);
      for (const version of [0, 2]) {
        const message = await refuse(sections.with(i, { ...section, version }), `v${version}`);
        assert.match(message, new RegExp(`^Unsupported version ${version} for '${section.name}'`));
      }
      const name = `x${section.name}`;
      assert.match(
        await refuse(sections.with(i, { ...section, name }), "renamed"),
        section.name.startsWith("fd/")
          ? new RegExp(`^Unknown value '${name}'|was not passed|sent .* but named`)
          : /is missing|has file descriptors but no state|^Unknown value/,
      );
      if (section.name === "chardev") continue;
      if (section.name === "processors") {
        const data = new Uint8Array(3);
        assert.match(
          await refuse(sections.with(i, { ...section, data }), "odd"),
          /^Section 'processors' has 3 bytes, expected an even number/,
        );
        continue;
      }
      for (const number of [99, 0xffff_ffff, (i + 1) % source.fds.length]) {
        const data = new Uint8Array(new Uint32Array([number]).buffer);
        await refuse(sections.with(i, { ...section, data }), `number ${number}`);
      }
    }
  },
);

sourceTest(
  "an entry that says a wrong length is refused, whatever its checksum",
  async (source) => {
    const parts = encodeParts(source.sections);
    for (const [i, { name, data }] of source.sections.entries()) {
      for (const length of ["one less", "one more", "largest", "huge"] as const) {
        const part = withLength(parts[i + 1], data.length, length);
        await source.refusal(join(parts.with(i + 1, part)), `${name} that says ${length}`);
      }
    }
  },
);

sourceTest(
  "more or fewer descriptors than the table names are refused, and closed",
  async (source) => {
    const bytes = encodeStream(source.sections);
    const { fds } = source;
    const spare = source.own(openFile("/dev/null", O.RDWR));
    for (let count = 0; count < fds.length; count++) {
      const message = await source.refusal(bytes, `${count} fds`, fds.slice(0, count), true);
      assert.match(message, /was not passed$/);
    }
    assert.equal(
      await source.refusal(bytes, "one more", [...fds, spare], true),
      `Old VMM sent ${fds.length + 1} file descriptors but named ${fds.length}`,
    );
    const many = Array<number>(253 - fds.length).fill(spare);
    assert.match(await source.refusal(bytes, "253", [...fds, ...many], true), /^Old VMM sent 253 /);
    const before = openFds();
    const late = await source.send([[bytes.slice(0, 20), fds], [bytes.slice(20), [spare]]]);
    assert.ok(late instanceof Error);
    assert.match(late.message, /more file descriptors/);
    await assertNothingNew(before, "a table");
  },
);

sourceTest(
  "descriptors of another kind than the table says are refused, by name",
  async (source) => {
    const bytes = encodeStream(source.sections);
    const memfd = (size: number, seals: number) => {
      const fd = makeMemfd("fake", size, { sealing: true });
      if (seals !== 0) addSeals(fd.fd, seals);
      return source.own(fd);
    };
    const readOnly = (fd: number) => source.own(openFile(`/proc/self/fd/${fd}`, O.RDONLY));
    const [reader] = makePipe().map((fd) => source.own(fd));
    const [socket] = socketPair("stream").map((fd) => source.own(fd));
    const file = source.own(openFile(`${source.folder}/plain`, O.RDWR | O.CREAT));
    const sealed = Seal.SHRINK | Seal.GROW | Seal.SEAL;
    const names = source.sections.map(({ name }) => name);
    const cases: [entry: string, fd: number, message: RegExp][] = [
      ["fd/memory", reader, /^File descriptor 'memory' microvm.ram is a fifo, expected a file$/],
      ["fd/memory", socket, /'memory' microvm.ram is a socket, expected a file$/],
      ["fd/memory", source.own(openFile("/dev/zero", O.RDWR)), /a character, expected a file$/],
      ["fd/memory", source.own(openFile(source.folder, O.RDONLY)), /a directory, expected a file$/],
      ["fd/memory", memfd(MEMORY, 0), /'memory' microvm.ram can shrink: it lacks the seal /],
      ["fd/memory", memfd(MEMORY, Seal.GROW), /can shrink: it lacks the seal F_SEAL_SHRINK$/],
      ["fd/ownership", reader, /^File descriptor 'ownership' is a fifo, expected a file$/],
      ["fd/ownership", file, /^File descriptor 'ownership' has 0 bytes, expected 4096$/],
      ["fd/ownership", memfd(4096, 0), /^File descriptor 'ownership' can shrink: /],
      ["fd/ownership", memfd(4095, sealed), /'ownership' has 4095 bytes, expected 4096$/],
      ["fd/ownership", memfd(4096, Seal.SEAL), /^File descriptor 'ownership' can shrink: /],
      ["fd/ownership", memfd(4096, sealed | Seal.WRITE), /'ownership' cannot be written$/],
      ["fd/ownership", readOnly(memfd(4096, sealed)), /'ownership' cannot be written$/],
    ];
    for (const [entry, fd, message] of cases) {
      const fds = source.fds.with(names.indexOf(entry), fd);
      assert.match(await source.refusal(bytes, `${entry} as ${message}`, fds, true), message);
    }
  },
);

sourceTest(
  "a table that is whole, but not of this machine, makes no VM and leaves nothing open",
  async (source) => {
    const parts = encodeParts(source.sections);
    let [refused, built, failed] = [0, 0, 0];
    for (const [i, section] of source.sections.entries()) {
      for (const member of ["name", "id", "data"] as const) {
        const value = section[member];
        const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
        for (let at = 0; at < bytes.length; at++) {
          const changed = bytes.slice();
          changed[at] ^= 1 << (at & 3);
          const text = new TextDecoder().decode(changed);
          const other = { ...section, [member]: member === "data" ? changed : text };
          const [, part] = encodeParts([other]);
          const before = openFds();
          const result = await source.send([[join(parts.with(i + 1, part)), source.fds]]);
          const what = `${section.name} ${section.id}: ${member} byte ${at}`;
          if (result instanceof Error) {
            assert.equal(result.name, "StateError", `${what}: ${result.stack}`);
            refused++;
          } else if (await build(source, result) === undefined) built++;
          else failed++;
          await assertNothingNew(before, what);
        }
      }
    }
    assert.ok(refused > 0 && built > 0 && failed > 0, `${[refused, built, failed]}`);
  },
);

sourceTest(
  "a descriptor that is not what a console needs makes no VM, and is closed",
  async (source) => {
    const bytes = encodeStream(source.sections);
    const names = source.sections.map(({ name }) => name);
    const [reader] = makePipe().map((fd) => source.own(fd));
    const memfd = source.own(makeMemfd("fake", 4096));
    const small = source.own(makeMemfd("fake", MEMORY / 2));
    const listener = source.own(listenUnix(`${source.folder}/other`));
    const [socket] = socketPair("stream").map((fd) => source.own(fd));
    const readable = source.own(openFile("/dev/null", O.RDONLY));
    const cases: [entry: string, fd: number, message: RegExp][] = [
      ["fd/memory", small, /^Size mismatch: microvm.ram: 0x80000 != 0x100000$/],
      [
        "fd/chardev/connection",
        reader,
        /^Kept file descriptor 'connection' of chardev 'c' is a fifo, expected a socket$/,
      ],
      ["fd/chardev/connection", memfd, /'connection' of chardev 'c' is a file, expected a socket$/],
      ["fd/chardev/connection", listener, /of chardev 'c' listens, expected a connection$/],
      [
        "fd/chardev/listener",
        socket,
        /^Kept file descriptor 'listener' of chardev 'c' does not lis/,
      ],
      ["fd/chardev/listener", reader, /'listener' of chardev 'c' is a fifo, expected a socket$/],
      ["fd/chardev/file", readable, /'file' of chardev 'f' cannot be written$/],
    ];
    for (const [entry, fd, message] of cases) {
      const before = openFds();
      const at = names.indexOf(entry);
      assert.notEqual(at, -1, `${entry} in ${names}`);
      const result = await source.send([[bytes, source.fds.with(at, fd)]]);
      assert.ok(!(result instanceof Error), `${entry}: ${result}`);
      assert.match((await build(source, result))?.message ?? "built", message);
      await assertNothingNew(before, `${entry} as ${message}`);
    }
  },
);

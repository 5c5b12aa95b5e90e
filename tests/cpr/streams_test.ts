/**
 * What released versions have sent to a successor, as it was recorded then: every later version must
 * take it, by whatever mode.
 */
import assert from "node:assert/strict";
import { Cpr } from "../../cpr/cpr.ts";
import { EXEC_STATE, receiveExec } from "../../cpr/modes/exec.ts";
import type { Received } from "../../cpr/handover/received.ts";
import { receiveOver } from "../../cpr/handover/receive.ts";
import { saveMachine } from "../../cpr/state/machine_state.ts";
import { Owner, Ownership } from "../../cpr/handover/ownership.ts";
import {
  bufferSource,
  type ByteSource,
  encodeStream,
  readSections,
  type Section,
} from "../../cpr/stream/stream.ts";
import { sectionFields } from "../../cpr/state/state_fields.ts";
import { readVm } from "../../cpr/state/vm_state.ts";
import { duplicate, O, openFile, type OwnedFd, writeAll } from "../../ffi/fd.ts";
import { addSeals, makeMemfd, mapShared, Seal } from "../../ffi/memory.ts";
import { listenUnix, socketPair } from "../../ffi/socket.ts";
import { sendMessage } from "../../ffi/socket_message.ts";
import type { MachineConfig } from "../../vmm/config.ts";
import { FdRegistry } from "../../vmm/monitor/fd_registry.ts";
import { placement } from "../../vmm/threads/placement.ts";
import { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { layout } from "../guests/programs.ts";
import { kvmTest } from "../needs_kvm.ts";
import { patience } from "../patience.ts";
import type { LayoutRecords } from "./streams/layouts.ts";
import { layouts, recordedConfig, type Recording, recordings } from "./streams/record.ts";

/** Sections whose contents or sizes are the recording host's: another has others. */
const HOST = ["cpu/cpuid", "cpu/msrs", "cpu/xsave", "cpu/tsc_offset"];
/** Sections that do not change by being loaded. */
const STILL = ["cpu/regs", "cpu/sregs", "isa-serial", "i8042", "isa-debugcon", "port92"];
const folder = new URL("./streams/", import.meta.url);
const versions = [...Deno.readDirSync(folder)].filter(({ name }) => name.startsWith("version-"));

async function unpack(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const file = await Deno.open(new URL(`${name}.gz`, folder));
  const stream = file.readable.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The streams of a recording, one after the other. */
async function streamsOf(version: string, recording: Recording): Promise<Section[][]> {
  const bytes = await unpack(`${version}/${recording}`);
  let read = 0;
  const source = bufferSource(bytes);
  const counting: ByteSource = (length) => {
    const part = source(length);
    read += part.length;
    return part;
  };
  const streams: Section[][] = [];
  while (read < bytes.length) streams.push([...readSections(counting)]);
  return streams;
}

/** What a host like this one would have recorded. */
function forThisHost(sections: readonly Section[], own: readonly Section[]): Section[] {
  return sections.map((section) => {
    if (!HOST.includes(section.name)) return section;
    const here = own.find(({ name, id }) => name === section.name && id === section.id);
    return here && (section.name === "cpu/cpuid" || here.data.length !== section.data.length)
      ? here
      : section;
  }).filter(({ name, id }) =>
    !HOST.includes(name) || own.some((here) => here.name === name && here.id === id)
  );
}

/** Fails unless a machine has the state of a stream, and its guest goes on. */
async function assertGoesOn(vm: VirtualMachine, sections: readonly Section[]): Promise<void> {
  const loaded = saveMachine(vm.machine);
  const still = sections.filter(({ name }) => STILL.includes(name));
  assert.ok(still.length >= 5);
  for (const { name, id, data } of still) {
    assert.deepEqual(loaded.find((one) => one.name === name && one.id === id)?.data, data);
  }
  const word = () => new DataView(vm.machine.memory.read(layout.counter, 8).buffer);
  const before = word().getBigUint64(0, true);
  assert.ok(before > 0n, "the recorded guest has not counted");
  vm.cont();
  const limit = performance.now() + patience(30_000);
  while (word().getBigUint64(0, true) <= before) {
    assert.ok(performance.now() < limit, "the guest does not go on");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The guest's memory as cpr-reboot recorded it, in a memfd as a VMM of that time had it. */
async function recordedRam(version: string): Promise<OwnedFd> {
  const [sections] = await streamsOf(version, "copy");
  const fd = makeMemfd("memory-backend-memfd", 8 << 20, { sealing: true });
  using memory = mapShared(fd.fd, 8 << 20);
  for (const { name, data } of sections) {
    if (name !== "ram") continue;
    const at = Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
    memory.write(at, data.subarray(8));
  }
  addSeals(fd.fd, Seal.SHRINK | Seal.GROW | Seal.SEAL);
  return fd;
}

/** A predecessor of a released version, as far as it is on record. */
class Recorded implements AsyncDisposable {
  readonly config: Partial<MachineConfig>;
  readonly #cleanup = new AsyncDisposableStack();
  #own: readonly Section[] = [];

  private constructor(readonly version: string, readonly folder: string) {
    // Only what waits for its state is built here.
    this.config = { ...recordedConfig(folder), startPaused: true };
    this.#cleanup.defer(() => Deno.remove(folder, { recursive: true }));
  }

  static async open(version: string): Promise<Recorded> {
    const folder = await Deno.makeTempDir({ prefix: "denovo-recorded-" });
    const recorded = new Recorded(version, folder);
    await using vm = await VirtualMachine.create(recorded.config, { incoming: true });
    recorded.#own = saveMachine(vm.machine);
    return recorded;
  }

  /** A recording's streams. */
  async streams(recording: Recording): Promise<Section[][]> {
    const streams = await streamsOf(this.version, recording);
    return streams.map((sections) => forThisHost(sections, this.#own));
  }

  /** The descriptors that a table names, in its order. */
  async descriptors(table: readonly Section[]): Promise<OwnedFd[]> {
    const fds: OwnedFd[] = [];
    for (const { name } of table) {
      if (name.startsWith("fd/")) fds.push(this.#cleanup.use(await this.#descriptor(name)));
    }
    return fds;
  }

  async #descriptor(name: string): Promise<OwnedFd> {
    switch (name) {
      case "fd/memory":
        return await recordedRam(this.version);
      case "fd/ownership": {
        using page = Ownership.create("old", Owner.HANDED_OVER);
        return duplicate(page.fd);
      }
      case "fd/chardev/listener":
        return listenUnix(`${this.folder}/c`);
      case "fd/chardev/connection": {
        const [theirs, client] = socketPair();
        this.#cleanup.use(client);
        return theirs;
      }
      case "fd/chardev/file":
        return openFile(`${this.folder}/f`, O.WRONLY | O.CREAT);
    }
    assert.fail(`No descriptor for ${name}`);
  }

  /** The VM that takes the guest, from what was received. */
  async successor(received: Received): Promise<{ vm: VirtualMachine; cpr: Cpr }> {
    const { inheritance } = received;
    placement.takeOver(inheritance);
    const vm = await VirtualMachine.create(this.config, { incoming: true, inheritance });
    this.#cleanup.use(vm);
    return { vm, cpr: new Cpr(vm, new FdRegistry(), received) };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#cleanup.disposeAsync();
  }
}

/** Loads a guest from a file, or over the channel that is there. */
async function arrive(cpr: Cpr, filename?: string): Promise<void> {
  const from = filename === undefined
    ? undefined
    : { transport: "file", filename, offset: 0 } as const;
  await (await cpr.migrateIncoming(from, true))();
  assert.equal(cpr.migration.error, undefined);
  assert.equal(cpr.migration.status, "completed");
}

for (const { name: version } of versions) {
  kvmTest(`the cpr-reboot of ${version} loads, and its guest goes on`, async () => {
    await using recorded = await Recorded.open(version);
    const [sections] = await recorded.streams("copy");
    await Deno.writeFile(`${recorded.folder}/state`, encodeStream(sections));
    await using vm = await VirtualMachine.create(recorded.config, { incoming: true });
    const cpr = new Cpr(vm, new FdRegistry());
    await arrive(cpr, `${recorded.folder}/state`);
    await assertGoesOn(vm, sections);
  });

  kvmTest(`the cpr-transfer of ${version} is taken, and its guest goes on`, async () => {
    await using recorded = await Recorded.open(version);
    const [table, constants, state] = await recorded.streams("transfer");
    const [ours, theirs] = socketPair();
    using _ours = ours;
    const fds = await recorded.descriptors(table);
    sendMessage(ours.fd, encodeStream(table), fds.map(({ fd }) => fd));
    const [main, theirMain] = socketPair();
    using _main = main;
    const { vm, cpr } = await recorded.successor({ ...receiveOver(theirs), main: theirMain });
    writeAll(main.fd, encodeStream(constants));
    writeAll(main.fd, encodeStream(state));
    await arrive(cpr);
    await assertGoesOn(vm, state);
  });

  kvmTest(`the cpr-exec of ${version} is taken, and its guest goes on`, async () => {
    await using recorded = await Recorded.open(version);
    const [table, state] = await recorded.streams("exec");
    const fds = (await recorded.descriptors(table)).map(({ fd }) => duplicate(fd).release());
    const numbered = table.map((section) => {
      if (!section.name.startsWith("fd/")) return section;
      return { ...section, data: new Uint8Array(new Uint32Array([fds.shift()!]).buffer) };
    });
    const about = makeMemfd("table", 0);
    writeAll(about.fd, encodeStream(numbered));
    Deno.env.set(EXEC_STATE, `${about.release()}`);
    const received = receiveExec()!;
    const { vm, cpr } = await recorded.successor(received);
    await Deno.writeFile(`${recorded.folder}/state`, encodeStream(state));
    await arrive(cpr, `${recorded.folder}/state`);
    received.wayBack![Symbol.dispose]();
    await assertGoesOn(vm, state);
  });

  Deno.test(`the state of ${version} is shown with all its fields`, async () => {
    for (const recording of recordings) {
      for (const section of (await streamsOf(version, recording)).flat()) {
        const { name } = section;
        if (name.startsWith("ram") || /^(fd\/|exec\/|processors)/.test(name)) continue;
        assert.ok("fields" in sectionFields(section), `${recording}: ${name}`);
      }
    }
  });
}

for (const { name: version } of versions) {
  Deno.test(`state is laid out as ${version} had it, wherever its version is the same`, () => {
    const text = Deno.readTextFileSync(new URL(`${version}/layouts.json`, folder));
    const now = layouts();
    for (const [name, records] of Object.entries<LayoutRecords[string]>(JSON.parse(text))) {
      for (const record of records) {
        const same = now[name]?.find((one) => one.version === record.version);
        assert.deepEqual(same, record, `raise the version of '${name}' and keep the one before`);
      }
    }
  });
}

kvmTest("the stream that was recorded before loads, and its guest goes on", async () => {
  const sections = [...readSections(bufferSource(await unpack("format-1")))];
  await using vm = await VirtualMachine.create({ memory: 8 << 20 }, { incoming: true });
  const stream = encodeStream(forThisHost(sections, saveMachine(vm.machine)));
  const state = readVm(vm.machine, bufferSource(stream));
  assert.equal(state.wasRunning, true);
  state.apply();
  vm.setRunState("paused");
  await assertGoesOn(vm, sections);
});

Deno.test("there are recordings of each version, of each mode", () => {
  assert.deepEqual(versions.map(({ name }) => name).sort(), ["version-1"]);
  for (const { name } of versions) {
    const files = [...Deno.readDirSync(new URL(`${name}/`, folder))].map(({ name }) => name);
    const wanted = ["layouts.json", ...recordings.map((one) => `${one}.gz`)];
    assert.deepEqual(files.sort(), wanted.sort());
  }
});

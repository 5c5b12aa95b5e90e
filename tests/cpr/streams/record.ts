/**
 * Records what this version sends to a successor, for later versions to take: `deno run -A
 * tests/cpr/streams/record.ts FOLDER` writes {@linkcode recordings}, compressed, and the layouts of
 * what is in them. To be run once for each released version; what it recorded then is never changed.
 *
 * @module
 */
import { GLOBAL_STATE, globalState, VmImage } from "../../../cpr/state/vm_state.ts";
import { collectHandover, encodeHandover } from "../../../cpr/handover/handover.ts";
import { constantSections } from "../../../cpr/state/machine_state.ts";
import { Ownership } from "../../../cpr/handover/ownership.ts";
import { ramSections } from "../../../cpr/state/ram.ts";
import { encodeStream, type Section, SectionWriter } from "../../../cpr/stream/stream.ts";
import { connectUnix } from "../../../ffi/socket.ts";
import { defaultConfig, type MachineConfig } from "../../../vmm/config.ts";
import { VirtualMachine } from "../../../vmm/virtual_machine.ts";
import { deviceTypes } from "../../../devices/registry.ts";
import { programs } from "../../guests/programs.ts";
import { describeLayouts, type LayoutRecords, versionsOf } from "./layouts.ts";

/**
 * What is recorded of one guest, stopped after a second:
 *
 * - `copy`: the stream of cpr-reboot, RAM, constants and state;
 * - `transfer`: the streams of cpr-transfer, one after the other: the descriptor table, the
 *   constants, the state with that of the character devices;
 * - `exec`: those of cpr-exec: the table with the way back, and the state file.
 */
export const recordings = ["copy", "transfer", "exec"] as const;

/** One of {@linkcode recordings}. */
export type Recording = typeof recordings[number];

/** What the recorded VM is made of: every type of device, and character devices with descriptors. */
export function recordedConfig(folder: string): Partial<MachineConfig> {
  const { machine } = defaultConfig();
  return {
    memory: 8 << 20,
    machine: { ...machine, rtc: true },
    chardevs: [
      {
        backend: "socket",
        id: "c",
        family: "unix",
        path: `${folder}/c`,
        server: true,
        wait: false,
      },
      { backend: "file", id: "f", path: `${folder}/f`, append: false },
    ],
    serials: ["c"],
    debugcon: "f",
    devices: [{ driver: "isa-debug-exit", properties: { iobase: 0x501, iosize: 2 } }],
  };
}

/** Records a guest that has run for a second. */
export async function record(): Promise<Record<Recording, Uint8Array<ArrayBuffer>>> {
  const folder = await Deno.makeTempDir({ prefix: "denovo-record-" });
  try {
    const kernel = `${folder}/kernel`;
    await Deno.writeFile(kernel, programs.demo.bytes);
    await using vm = await VirtualMachine.create({ ...recordedConfig(folder), kernel });
    using _client = connectUnix(`${folder}/c`);
    while (!vm.chardevs.get("c").connected) await new Promise((done) => setTimeout(done, 1));
    vm.start();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    vm.stop();
    return { copy: recordCopy(vm), transfer: recordTransfer(vm), exec: recordExec(vm) };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const run = { wasRunning: true, stoppedNs: 0 };

function recordCopy(vm: VirtualMachine): Uint8Array<ArrayBuffer> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  const writer = new SectionWriter((chunk) => void chunks.push(chunk));
  const statistics = { total: 0, duplicate: 0, normal: 0 };
  for (const section of ramSections(vm.machine.memory, statistics, false)) writer.write(section);
  for (const section of constantSections(vm.machine)) writer.write(section);
  for (const section of new VmImage(vm.machine).save(run)) writer.write(section);
  writer.end();
  return join(chunks);
}

function recordTransfer(vm: VirtualMachine): Uint8Array<ArrayBuffer> {
  using ownership = Ownership.create();
  const handover = collectHandover(vm, ownership, "neighbour");
  return join([
    encodeStream(encodeHandover(handover, (entry) => handover.fds.indexOf(entry))),
    encodeStream(constantSections(vm.machine)),
    encodeStream(new VmImage(vm.machine).save(run, vm.keepers)),
  ]);
}

function recordExec(vm: VirtualMachine): Uint8Array<ArrayBuffer> {
  using ownership = Ownership.create();
  const handover = collectHandover(vm, ownership, "same process");
  const state = encodeStream([
    ...constantSections(vm.machine),
    ...new VmImage(vm.machine).save(run),
  ]);
  const command = new TextEncoder().encode(JSON.stringify(["denovo"]));
  const about: Section[] = [
    { name: "exec/command", id: "", version: 1, data: command },
    { name: "exec/state", id: "", version: 1, data: state },
  ];
  return join([
    encodeStream([
      ...encodeHandover(handover, (entry) => handover.fds.indexOf(entry)),
      ...about,
    ]),
    state,
  ]);
}

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** The layouts of all state that this version knows. */
export function layouts(): LayoutRecords {
  return { [GLOBAL_STATE]: versionsOf(globalState), ...describeLayouts(deviceTypes) };
}

if (import.meta.main) {
  const [folder] = Deno.args;
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(`${folder}/layouts.json`, JSON.stringify(layouts()));
  for (const [name, bytes] of Object.entries(await record())) {
    const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
    await Deno.writeFile(`${folder}/${name}.gz`, stream);
  }
  Deno.exit(0);
}

/**
 * The preflight of cpr-exec: before the guest is stopped, the command is started once as a child
 * that parses its options, compares its machine with the guest's, answers and exits.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import {
  duplicate,
  fileStatus,
  makePipe,
  type OwnedFd,
  readAt,
  readFd,
  writeAll,
} from "../../ffi/fd.ts";
import { ANCHOR_VERSION } from "../../ffi/anchor_layout.ts";
import type { CpuidEntry } from "../../ffi/kvm/cpuid.ts";
import { type ChildProcess, spawn } from "../../ffi/process.ts";
import { openAccelerator } from "../../vmm/accel/open.ts";
import type { MachineConfig } from "../../vmm/config.ts";
import { describeDifference } from "../../vmm/cpu/compare.ts";
import type { HostCpu } from "../../vmm/cpu/definition.ts";
import { type CpuTables, cpuTables, hostCpu } from "../../vmm/cpu/tables.ts";
import { endSpareThreads, startSpareThreads } from "../../vmm/threads/vcpu.ts";
import { layoutFor, withDefaults } from "../../devices/device.ts";
import { knownVersions, sizeWithout } from "../../devices/saved_state.ts";
import { findDeviceType } from "../../vmm/bus/device_set.ts";
import { machineDevices } from "../../vmm/machine/devices.ts";
import { wantedBackends } from "../../vmm/machine/memory_set.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { makeMemfd } from "../../ffi/memory.ts";
import { deviceIdentities, differentDevice } from "../state/device_identity.ts";
import { DeviceState } from "../state/device_state.ts";
import { usualParts } from "../state/machine_state.ts";
import { awaitInput, PEER_LIMIT_MS } from "../channel/peer.ts";

/** Tells the child where it finds the guest's layout, and where its answer goes: two descriptors. */
const PREFLIGHT = "DENOVO_CPR_PREFLIGHT";
/** The answer of a command that would take the guest, directly or by way of a helper. */
const ACCEPTED = "OK relay";
/** The answer of one that knows nothing of helpers. */
const ACCEPTED_DIRECT = "OK";
const MAX_ANSWER = 4096;

/** The name of the guest's CPUID tables among what two machines must have in common. */
const CPUID = "CPUID";
/** The name of its virtio devices; there only where it has some. */
const DEVICES = "devices";
/** There only where the guest shall run on under the exec: what the command must know and have. */
const ANCHORED = "anchored exec";
const ANCHORED_VALUE = `version ${ANCHOR_VERSION} with KVM`;
/** What two machines must have in common, by the name that an error gives it. */
type Layout = Record<string, string>;
/** The same of a command: what it takes, its own first. Undefined is what need not be there. */
type Accepted = Record<string, readonly (string | undefined)[]>;

/** What is the same in both, and does not depend on versions. */
function layoutOf(config: MachineConfig, cpuid: readonly (readonly CpuidEntry[])[]): Layout {
  const layout: Layout = {
    "RAM size": `${config.memory}`,
    "number of CPUs": `${config.smp.cpus}`,
    pit: `${config.machine.pit}`,
    ...(!config.machine.acpi && { acpi: "off" }),
    ...(config.machine.acpi && !config.machine.ioapic2 && { ioapic2: "off" }),
    ...(config.machine.pcie && { pcie: "on" }),
    bios: `${config.bios !== undefined}`,
    [CPUID]: JSON.stringify(cpuid),
  };
  for (const backend of wantedBackends(config)) {
    layout[`memory backend '${backend.id}'`] = `${backend.size} bytes, share=${backend.share}`;
  }
  return layout;
}

const nameDevice = (id: string) => `device '${id}'`;
const nameSubsection = (id: string, field: string) => `subsection '${field}' of device '${id}'`;
const describeState = (version: number, size: number) => `${size} bytes of state v${version}`;
const describeDevice = (type: string, version: number, size: number) =>
  `${type}, ${describeState(version, size)}`;

/** The guest's machine, with the versions in which its state would be written now. */
function guestLayout({ config, machine }: VirtualMachine): Layout {
  const layout = layoutOf(config, machine.cpus.identities.map((vcpu) => vcpu.cpuid));
  const devices = deviceIdentities(machine.devices.description.devices, false);
  if (Object.keys(devices).length > 0) layout[DEVICES] = JSON.stringify(devices);
  for (const device of machine.devices.devices) {
    const { type: { name }, id } = device;
    const state = new DeviceState(device);
    const { version, data } = state.section;
    if (state.isNeeded) layout[nameDevice(id)] = describeDevice(name, version, data.length);
    for (const { field, section } of state.subsections()) {
      layout[nameSubsection(id, field)] = describeState(section.version, section.data.length);
    }
  }
  return layout;
}

/** What a command takes whose configuration is this, without building its machine. */
function acceptedBy(config: MachineConfig, cpuid: readonly (readonly CpuidEntry[])[]): Accepted {
  const accepted: Accepted = {};
  const layout = { ...usualParts, ...layoutOf(config, cpuid) };
  for (const [key, text] of Object.entries(layout)) accepted[key] = [text];
  accepted[DEVICES] = [JSON.stringify(deviceIdentities(machineDevices(config), false))];
  for (const { type: name, id, properties } of machineDevices(config)) {
    const type = findDeviceType(name);
    const layout = layoutFor(type, withDefaults(type, properties));
    const { state, subsections = [] } = layout;
    const texts = knownVersions(layout, sizeWithout(state, subsections))
      .map(({ version, size }) => describeDevice(name, version, size));
    accepted[nameDevice(id)] = type.needed ? [undefined, ...texts] : texts;
    for (const one of subsections) {
      const texts = knownVersions(one).map(({ version, size }) => describeState(version, size));
      accepted[nameSubsection(id, one.field)] = [undefined, ...texts];
    }
  }
  return accepted;
}

/**
 * Asks the command whether it would take the guest. The guest runs on meanwhile.
 *
 * @param abort ends the wait for its answer
 * @param isAnchored whether the command shall take the guest out of an anchor
 * @returns whether the command can take it by way of a helper; false as well if it cannot be started
 * @throws {Error} with the command's reason to refuse; not if the command cannot be started, which
 * is for the exec itself to report
 */
export async function preflight(
  vm: VirtualMachine,
  command: readonly string[],
  abort: AbortSignal,
  isAnchored = false,
): Promise<boolean> {
  const guest = { ...guestLayout(vm), ...(isAnchored && { [ANCHORED]: ANCHORED_VALUE }) };
  const layout = new TextEncoder().encode(JSON.stringify(guest));
  using question = makeMemfd("denovo-cpr-preflight", 0);
  writeAll(question.fd, layout);
  const [reader, writer] = makePipe();
  using answer = reader;
  using child = startChild(command, question, writer);
  if (!child) return false;
  const limit = AbortSignal.any([abort, AbortSignal.timeout(PEER_LIMIT_MS)]);
  let text: string;
  try {
    text = await readAnswer(vm, answer, limit);
  } catch (error) {
    child.kill(9);
    child.wait();
    abort.throwIfAborted();
    throw new Error(`cpr-exec-command ${command[0]} does not answer`, { cause: error });
  }
  await end(vm, child, limit);
  if (text === ACCEPTED || text === ACCEPTED_DIRECT) return text === ACCEPTED;
  throw new Error(
    text === ""
      ? `cpr-exec-command ${command[0]} ended without an answer: it must start Denovo`
      : `cpr-exec-command ${command[0]} cannot take the guest: ${text}`,
  );
}

function startChild(
  command: readonly string[],
  question: OwnedFd,
  answer: OwnedFd,
): ChildProcess | undefined {
  using own = answer;
  try {
    return spawn(command, {
      env: { [PREFLIGHT]: `${question.fd},${own.fd}` },
      fds: [[question.fd, question.fd], [own.fd, own.fd]],
    });
  } catch (error) {
    if (error instanceof OsError) return undefined;
    throw error;
  }
}

/** Waits for the end of a child that has answered, and leaves compiled code to the next. */
async function end(vm: VirtualMachine, child: ChildProcess, limit: AbortSignal): Promise<void> {
  try {
    await awaitInput(vm.reactor, child.pidfd.fd, limit);
  } catch {
    child.kill(9);
  }
  child.wait();
}

async function readAnswer(
  vm: VirtualMachine,
  answer: OwnedFd,
  limit: AbortSignal,
): Promise<string> {
  const bytes: number[] = [];
  const buffer = new Uint8Array(MAX_ANSWER);
  for (;;) {
    await awaitInput(vm.reactor, answer.fd, limit);
    const n = readFd(answer.fd, buffer);
    if (n <= 0 || bytes.length > MAX_ANSWER) return new TextDecoder().decode(new Uint8Array(bytes));
    bytes.push(...buffer.subarray(0, n));
  }
}

/** Whether this process is the child of a preflight. */
export function isPreflight(): boolean {
  return Deno.env.has(PREFLIGHT);
}

/**
 * The child's side: says whether this command line describes the guest's machine.
 *
 * The runtime keeps the code that it has compiled for whoever runs it next, if a process ends by
 * itself: the child of a new version saves its successor that work, a vCPU thread's as well.
 *
 * @param parse reads the command line; throws what is wrong with it
 * @returns the exit status
 */
export async function answerPreflight(parse: () => MachineConfig | undefined): Promise<number> {
  const [question, answer] = Deno.env.get(PREFLIGHT)!.split(",").map((fd) => duplicate(Number(fd)));
  const text = await judge(parse, question);
  writeAll(answer.fd, new TextEncoder().encode(text));
  if (text !== ACCEPTED) return 1;
  startSpareThreads(1);
  endSpareThreads();
  return 0;
}

async function judge(parse: () => MachineConfig | undefined, question: OwnedFd): Promise<string> {
  try {
    const config = parse();
    if (!config || config.incoming.length === 0) return "it has no -incoming option";
    await (await import("../channel/incoming_options.ts")).parseIncoming(config.incoming);
    const bytes = new Uint8Array(fileStatus(question.fd).size);
    readAt(question.fd, bytes, 0);
    using accelerator = await openAccelerator(config.accelerators);
    const tables = cpuTables(config, hostCpu(accelerator));
    const own: Accepted = {
      ...acceptedBy(config, tables.identities.map((vcpu) => vcpu.cpuid)),
      ...(accelerator.name === "kvm" && { [ANCHORED]: [undefined, ANCHORED_VALUE] }),
    };
    const guest: Layout = JSON.parse(new TextDecoder().decode(bytes));
    const differs = differentCpu(tables, guest[CPUID], hostCpu(accelerator));
    return differs ?? difference(own, guest) ?? ACCEPTED;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Says what is different about the first vCPU that is. */
function differentCpu({ identities }: CpuTables, guest: string, host: HostCpu): string | undefined {
  const saved: CpuidEntry[][] = JSON.parse(guest);
  if (saved.length !== identities.length) return undefined;
  const index = identities.findIndex(({ cpuid }, i) =>
    JSON.stringify(cpuid) !== JSON.stringify(saved[i])
  );
  if (index < 0) return undefined;
  return describeDifference(index, saved[index], identities[index].cpuid, host);
}

function difference(own: Accepted, guest: Layout): string | undefined {
  for (const key of new Set([...Object.keys(own), ...Object.keys(guest)])) {
    if (key === DEVICES) {
      const devices = differentDevices(own, guest);
      if (devices !== undefined) return devices;
      continue;
    }
    const accepted = own[key] ?? [undefined];
    const wanted = guest[key] ?? usualParts[key];
    if (accepted.includes(wanted)) continue;
    return `${key} differs: the guest has ${wanted ?? "none"}, the command ${
      accepted[0] ?? "none"
    }`;
  }
}

/** Says what is different about virtio devices, if the guest's are told. */
function differentDevices(
  { [DEVICES]: [own = "{}"] = [] }: Accepted,
  { [DEVICES]: guest }: Partial<Layout>,
): string | undefined {
  return guest === undefined ? undefined : differentDevice(JSON.parse(own), JSON.parse(guest));
}

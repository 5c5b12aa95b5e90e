import assert from "node:assert/strict";
import { decodeCpuid, encodeCpuid } from "../../ffi/kvm/cpuid.ts";
import { checkState, constantSections, saveMachine } from "../../cpr/state/machine_state.ts";
import type { Section } from "../../cpr/stream/stream.ts";
import type { FirmwareFileConfig } from "../../vmm/config.ts";
import { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { canonicalXsave } from "../kvm/xsave.ts";
import { kvmTest } from "../needs_kvm.ts";

async function withMachine(use: (vm: VirtualMachine) => void): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "denovo-state-" });
  const bios = `${folder}/bios`;
  await Deno.writeFile(bios, new Uint8Array(65536).fill(0xf4));
  await using vm = await VirtualMachine.create({ memory: 1 << 20, bios });
  use(vm);
  await vm.close();
  await Deno.remove(folder, { recursive: true });
}

function machineTest(name: string, use: (vm: VirtualMachine) => void): void {
  kvmTest(name, () => withMachine(use));
}

machineTest(
  "`checkState()` takes what `saveMachine()` gives, and applying it changes nothing",
  (vm) => {
    const before = saveMachine(vm.machine);
    checkState(vm.machine, before).apply();
    const after = saveMachine(vm.machine);
    const key = ({ name, id }: Section) => `${name} ${id}`;
    assert.deepEqual(after.map(key), before.map(key));
    // Clocks go on; everything else must be as it was, however a processor says it.
    const still = ["cpu/regs", "cpu/sregs", "cpu/cpuid", "cpu/xsave", "cpu/mp_state", "machine"];
    const cpuid = vm.machine.accelerator.supportedCpuid();
    const stands = (sections: Section[]) =>
      sections.filter(({ name }) => still.includes(name)).map((section) =>
        section.name === "cpu/xsave"
          ? { ...section, data: canonicalXsave(section.data, cpuid) }
          : section
      );
    assert.deepEqual(stands(after), stands(before));
  },
);

machineTest(
  "`checkState()` refuses any section that is missing, twice, torn, newer or unknown",
  (vm) => {
    const sections = saveMachine(vm.machine);
    const check = (changed: Section[]) => checkState(vm.machine, changed);
    sections.forEach((section, i) => {
      const others = sections.toSpliced(i, 1);
      const { name, id, data } = section;
      assert.throws(() => check(others), { name: "StateError", message: /is missing/ });
      assert.throws(() => check([...sections, section]), {
        message: /appears twice in the stream/,
      });
      const torn = { ...section, data: data.slice(0, -1) };
      if (data.length > 0) {
        assert.throws(() => check([...others, torn]), { name: "StateError" }, `${name} ${id}`);
      }
      const long = { ...section, data: new Uint8Array([...data, 0]) };
      assert.throws(() => check([...others, long]), { name: "StateError" }, `${name} ${id}`);
      const newer = { ...section, version: section.version + 1 };
      assert.throws(() => check([...others, newer]), { message: /^Unsupported version/ });
      const stranger = { ...section, id: `${id}x` };
      assert.throws(() => check([...sections, stranger]), { message: /^Unknown section or inst/ });
    });
  },
);

machineTest("a device that an older version does not know is as at power-on", (vm) => {
  const { devices } = vm.machine;
  const select = () => devices.with("fw_cfg", (device) => device.write(0, 0, 2, 0x8002));
  const first = () => devices.with("fw_cfg", (device) => device.read(0, 1, 1));
  const unused = saveMachine(vm.machine);
  assert.ok(unused.every(({ name }) => name !== "fw_cfg"), "an older version could not load it");
  select();
  const sections = saveMachine(vm.machine);
  assert.equal(first(), 1);
  checkState(vm.machine, sections.filter(({ name }) => name !== "fw_cfg")).apply();
  assert.equal(first(), "Q".charCodeAt(0));
  checkState(vm.machine, sections).apply();
  assert.equal(first(), 1);
});

kvmTest("`checkState()` wants the same -fw_cfg files, whose contents may not change", async () => {
  const create = (...firmwareFiles: FirmwareFileConfig[]) =>
    VirtualMachine.create({ memory: 1 << 20, firmwareFiles }, { incoming: true });
  await using plain = await create();
  await using one = await create({ name: "opt/a", text: "one" });
  await using same = await create({ name: "opt/a", text: "one" });
  await using other = await create({ name: "opt/a", text: "two" });
  const load = (from: VirtualMachine, into: VirtualMachine) =>
    checkState(into.machine, saveMachine(from.machine));
  load(one, same);
  const [crcOne, crcTwo] = [0x7a6c86f1, 0x11ca8a66].map((crc) =>
    `3 bytes, CRC ${crc.toString(16)}`
  );
  const refusals: [from: VirtualMachine, into: VirtualMachine, here: string, there: string][] = [
    [one, other, crcTwo, crcOne],
    [one, plain, "none", crcOne],
    [plain, one, crcOne, "none"],
  ];
  for (const [from, into, here, there] of refusals) {
    assert.throws(() => load(from, into), {
      name: "StateError",
      message: `fw_cfg file 'opt/a' differs: this VM has ${here}, the saved VM has ${there};` +
        " start with the same -fw_cfg",
    });
  }
  const damaged = saveMachine(one.machine).map((section) =>
    section.name === "firmware-files" ? { ...section, data: Uint8Array.of(0x7b) } : section
  );
  assert.throws(() => checkState(one.machine, damaged), {
    message: /'firmware-files' is not JSON/,
  });
});

machineTest("`checkState()` refuses another machine, and other CPUs", (vm) => {
  const sections = saveMachine(vm.machine);
  const change = (name: string, data: Uint8Array<ArrayBuffer>) =>
    sections.map((section) => section.name === name ? { ...section, data } : section);
  const machine = (text: string) => change("machine", new TextEncoder().encode(text));
  for (const text of ["{", "", "null", "[]", '"x"', '{"machine":"q35"}']) {
    assert.throws(() => checkState(vm.machine, machine(text)), { name: "StateError" }, text);
  }
  const own = sections.find(({ name }) => name === "machine")!.data;
  const more = { ...JSON.parse(new TextDecoder().decode(own)), "turbo\n": "on" };
  assert.throws(() => checkState(vm.machine, machine(JSON.stringify(more))), {
    message: "Machine differs: this VM has turbo\\n none, the saved VM has turbo\\n on",
  });
  const cpuid = sections.find(({ name }) => name === "cpu/cpuid")!.data.slice();
  cpuid[cpuid.length - 1] ^= 1;
  assert.throws(() => checkState(vm.machine, change("cpu/cpuid", cpuid)), {
    message: /^CPUID of CPU 0 differs/,
  });
});

machineTest("`checkState()` names what the saved CPU has and this host lacks", (vm) => {
  const sections = saveMachine(vm.machine);
  const change = (data: Uint8Array<ArrayBuffer>) =>
    sections.map((section) => section.name === "cpu/cpuid" ? { ...section, data } : section);
  const entries = decodeCpuid(sections.find(({ name }) => name === "cpu/cpuid")!.data);
  // IA-64 emulation: no host of ours has it.
  const alien = entries.map((entry) =>
    entry.function === 1 ? { ...entry, edx: (entry.edx | 1 << 30) >>> 0 } : entry
  );
  assert.throws(() => checkState(vm.machine, change(encodeCpuid(alien))), {
    message:
      /^CPU 0 of the saved VM has what this host lacks: CPUID\[eax=01h\]\.EDX\S* \[bit 30\]$/,
  });
  for (const bytes of [new Uint8Array(3), new Uint8Array(8).fill(255)]) {
    assert.throws(() => checkState(vm.machine, change(bytes)), {
      message: "CPUID of CPU 0 is cut short",
    });
  }
});

machineTest("`checkState()` compares the UUID if the saved VM says its own", (vm) => {
  const check = (sections: Section[]) => checkState(vm.machine, sections);
  const [, ...rest] = constantSections(vm.machine, true);
  const changing = saveMachine(vm.machine).slice(rest.length);
  const uuid = (text: string): Section => ({
    name: "uuid",
    id: "",
    version: 1,
    data: new TextEncoder().encode(text),
  });
  check([...constantSections(vm.machine, true), ...changing]);
  assert.throws(() => check([uuid("12345678-1234-1234-1234-123456789abc"), ...rest, ...changing]), {
    message: 'UUID received is "12345678-1234-1234-1234-123456789abc" and local is ' +
      '"00000000-0000-0000-0000-000000000000"',
  });
});

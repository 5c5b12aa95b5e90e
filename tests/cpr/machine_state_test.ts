import assert from "node:assert/strict";
import { checkState, saveMachine } from "../../cpr/machine_state.ts";
import type { Section } from "../../cpr/stream.ts";
import { whyNoKvm } from "../../ffi/kvm/system.ts";
import { VirtualMachine } from "../../vmm/virtual_machine.ts";

const noKvm = whyNoKvm();
if (noKvm !== undefined) console.warn(`SKIPPED: tests of a machine's state: ${noKvm}`);

async function withMachine(use: (vm: VirtualMachine) => void): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "denovo-state-" });
  const bios = `${folder}/bios`;
  await Deno.writeFile(bios, new Uint8Array(65536).fill(0xf4));
  await using vm = await VirtualMachine.create({ memory: 1 << 20, bios });
  use(vm);
  await vm.close();
  await Deno.remove(folder, { recursive: true });
}

function kvmTest(name: string, use: (vm: VirtualMachine) => void): void {
  Deno.test({ name, ignore: noKvm !== undefined, fn: () => withMachine(use) });
}

kvmTest(
  "`checkState()` takes what `saveMachine()` gives, and applying it changes nothing",
  (vm) => {
    const before = saveMachine(vm.machine);
    checkState(vm.machine, before).apply();
    const after = saveMachine(vm.machine);
    const key = ({ name, id }: Section) => `${name} ${id}`;
    assert.deepEqual(after.map(key), before.map(key));
    // Clocks go on; everything else must be as it was.
    const still = ["cpu/regs", "cpu/sregs", "cpu/cpuid", "cpu/xsave", "cpu/mp_state", "machine"];
    const stands = (sections: Section[]) => sections.filter(({ name }) => still.includes(name));
    assert.deepEqual(stands(after), stands(before));
  },
);

kvmTest(
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

kvmTest("`checkState()` refuses another machine, and other CPUs", (vm) => {
  const sections = saveMachine(vm.machine);
  const change = (name: string, data: Uint8Array<ArrayBuffer>) =>
    sections.map((section) => section.name === name ? { ...section, data } : section);
  const machine = (text: string) => change("machine", new TextEncoder().encode(text));
  for (const text of ["{", "", "null", "[]", '"x"', '{"machine":"q35"}']) {
    assert.throws(() => checkState(vm.machine, machine(text)), { name: "StateError" }, text);
  }
  const cpuid = sections.find(({ name }) => name === "cpu/cpuid")!.data.slice();
  cpuid[cpuid.length - 1] ^= 1;
  assert.throws(() => checkState(vm.machine, change("cpu/cpuid", cpuid)), {
    message: /^CPUID of CPU 0 differs/,
  });
});

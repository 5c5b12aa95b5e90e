/** State streams that were recorded by released versions: every later version must load them. */
import assert from "node:assert/strict";
import { saveMachine } from "../../cpr/machine_state.ts";
import { bufferSource, encodeStream, readSections, type Section } from "../../cpr/stream.ts";
import { readVm } from "../../cpr/vm_state.ts";
import { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { layout } from "../guests/programs.ts";
import { kvmTest } from "../needs_kvm.ts";
import { recordedConfig } from "./streams/record.ts";

/** Sections whose contents or sizes are the recording host's: another has others. */
const HOST = ["cpu/cpuid", "cpu/msrs", "cpu/xsave", "cpu/tsc_offset"];
const folder = new URL("./streams/", import.meta.url);
const recorded = [...Deno.readDirSync(folder)].filter(({ name }) => name.endsWith(".gz"));

async function unpack(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const file = await Deno.open(new URL(name, folder));
  const stream = file.readable.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The stream as a host like this one would have recorded it. */
function forThisHost(sections: Section[], own: readonly Section[]): Section[] {
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

for (const { name } of recorded) {
  kvmTest(`a stream that was recorded as ${name} loads, and its guest goes on`, async () => {
    const bytes = await unpack(name);
    await using vm = await VirtualMachine.create(recordedConfig, { incoming: true });
    const sections = [...readSections(bufferSource(bytes))];
    const stream = encodeStream(forThisHost(sections, saveMachine(vm.machine)));
    const state = readVm(vm.machine, bufferSource(stream));
    assert.equal(state.wasRunning, true);
    state.apply();
    const loaded = saveMachine(vm.machine);
    for (const { name, id, data } of sections) {
      if (!["cpu/regs", "cpu/sregs", "isa-serial", "i8042"].includes(name)) continue;
      assert.deepEqual(loaded.find((one) => one.name === name && one.id === id)?.data, data);
    }
    vm.setRunState("paused");
    const word = () => new DataView(vm.machine.memory.read(layout.counter, 8).buffer);
    const before = word().getBigUint64(0, true);
    assert.ok(before > 0n, "the recorded guest has not counted");
    vm.cont();
    const limit = performance.now() + 30_000;
    while (word().getBigUint64(0, true) <= before) {
      assert.ok(performance.now() < limit, "the guest does not go on");
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  });
}

Deno.test("there is a recorded stream of each format", () => {
  assert.deepEqual(recorded.map(({ name }) => name), ["format-1.gz"]);
});

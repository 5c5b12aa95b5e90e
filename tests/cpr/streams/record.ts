/**
 * Records a state stream of this version, for later versions to load: `deno run -A
 * tests/cpr/streams/record.ts FILE` writes it, compressed. To be run once for each format.
 *
 * @module
 */
import { VmImage } from "../../../cpr/vm_state.ts";
import { constantSections } from "../../../cpr/machine_state.ts";
import { ramSections } from "../../../cpr/ram.ts";
import { SectionWriter } from "../../../cpr/stream.ts";
import { VirtualMachine } from "../../../vmm/virtual_machine.ts";
import { programs } from "../../guests/programs.ts";

/** What the recorded VM is made of. */
export const recordedConfig = { memory: 8 << 20 } as const;

/** Records a guest that has run for a second. */
export async function record(): Promise<Uint8Array<ArrayBuffer>> {
  const kernel = await Deno.makeTempFile();
  try {
    await Deno.writeFile(kernel, programs.demo.bytes);
    await using vm = await VirtualMachine.create({ ...recordedConfig, kernel });
    vm.start();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    vm.stop();
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    const writer = new SectionWriter((chunk) => void chunks.push(chunk));
    const statistics = { total: 0, duplicate: 0, normal: 0 };
    for (const section of ramSections(vm.machine.memory, statistics, false)) writer.write(section);
    for (const section of constantSections(vm.machine)) writer.write(section);
    const run = { wasRunning: true, stoppedNs: 0 };
    for (const section of new VmImage(vm.machine).save(run)) writer.write(section);
    writer.end();
    return new Uint8Array(await new Blob(chunks).arrayBuffer());
  } finally {
    await Deno.remove(kernel);
  }
}

if (import.meta.main) {
  const stream = new Blob([await record()]).stream().pipeThrough(new CompressionStream("gzip"));
  await Deno.writeFile(Deno.args[0], stream);
  Deno.exit(0);
}

/**
 * A fault of the lab's emulator that is told from a fault of ours: a guest whose state is that of the
 * lab's own kernel.
 *
 * QEMU 7.2 has been seen to leave a guest (#VMEXIT) with the instruction pointer and stack that the
 * kernel had at its VMRUN. KVM takes them for the guest's, which is lost then: it stands still, or resets
 * by a triple fault. KVM's trace event `kvm_exit` tells it: no guest of the tests has code there.
 *
 * @module
 */
import { Output, runCommand } from "./inside.ts";

/** Has the lab's kernel note exits of guests that are within its own `__svm_vcpu_run`, which has VMRUN. */
const ARM = `
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
cd /sys/kernel/tracing || exit 1
start=$(sed -n 's/^\\([0-9a-f]*\\) . __svm_vcpu_run\\t.*/\\1/p' /proc/kallsyms)
[ -n "$start" ] || exit 1
end=$(printf '%x' $((0x$start + 0x400)))
echo "guest_rip >= 0x$start && guest_rip < 0x$end" >events/kvm/kvm_exit/filter
echo 1 >events/kvm/kvm_exit/enable`;

/** The first exit since it was last asked for. */
const ASK = `
sed -n 's/.*kvm_exit: //p' /sys/kernel/tracing/trace | head -n 1
echo >/sys/kernel/tracing/trace`;

async function inLab(port: number, command: string): Promise<string> {
  const output = new Output();
  const status = await runCommand(port, ["sh", "-c", command], output);
  if (status !== 0) throw new Error(`The lab cannot watch its guests: ${output.text}`);
  return output.text.trim();
}

/** Has a lab watch its guests. @throws {Error} if its kernel cannot */
export async function watchGuests(port: number): Promise<void> {
  await inLab(port, ARM);
}

/**
 * The first exit of a guest that had the state of the lab's kernel, since this was last asked for;
 * undefined if there was none.
 */
export async function findAstray(port: number): Promise<string | undefined> {
  return await inLab(port, ASK) || undefined;
}

/**
 * What the trace of the lab's kernel tells of guests: which of them have ended, and a fault of the lab's
 * emulator that is told from a fault of ours, a guest whose state is that of the lab's own kernel.
 *
 * QEMU 7.2 has been seen to leave a guest (#VMEXIT) with the instruction pointer and stack that the
 * kernel had at its VMRUN. KVM takes them for the guest's, which is lost then: it stands still, or resets
 * by a triple fault. KVM's trace event `kvm_exit` tells it: no guest of the tests has code there.
 *
 * @module
 */
import { Output, runCommand } from "./inside.ts";

/** What has been seen of guests. */
export interface GuestsSeen {
  /** The first exit of one that had the state of the lab's kernel. */
  readonly astray?: string;
  /**
   * The last exits by a triple fault (#VMEXIT SHUTDOWN) or of guests that the processor would not enter
   * (VMEXIT_INVALID), each a line with the guest's instruction pointer; tests may mean them.
   */
  readonly ends: readonly string[];
}

/**
 * Has the lab's kernel note exits of guests that are within its own `__svm_vcpu_run`, which has VMRUN, and
 * in a trace of their own those that end a guest (AMD APM volume 2, appendix C: 0x7f, -1).
 */
const ARM = `
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
cd /sys/kernel/tracing || exit 1
start=$(sed -n 's/^\\([0-9a-f]*\\) . __svm_vcpu_run\\t.*/\\1/p' /proc/kallsyms)
[ -n "$start" ] || exit 1
end=$(printf '%x' $((0x$start + 0x400)))
mkdir -p instances/ends
echo "guest_rip >= 0x$start && guest_rip < 0x$end" >events/kvm/kvm_exit/filter
echo 'exit_reason == 0x7f || exit_reason == 0xffffffff' >instances/ends/events/kvm/kvm_exit/filter
echo 1 >events/kvm/kvm_exit/enable
echo 1 >instances/ends/events/kvm/kvm_exit/enable`;

/** How many of the last exits that end a guest are told. */
const MOST_ENDS = 5;

/** The first exit astray since it was last asked for, in a line that is empty without; then guests' ends. */
const ASK = `
cd /sys/kernel/tracing
sed -n 's/.*kvm_exit: //p' trace | head -n 1 | grep . || echo
sed -n 's/.*kvm_exit: //p' instances/ends/trace | tail -n ${MOST_ENDS}
echo >trace
echo >instances/ends/trace`;

async function inLab(port: number, command: string): Promise<string> {
  const output = new Output();
  const status = await runCommand(port, ["sh", "-c", command], output);
  if (status !== 0) throw new Error(`The lab cannot watch its guests: ${output.text}`);
  return output.text;
}

/** Has a lab watch its guests. @throws {Error} if its kernel cannot */
export async function watchGuests(port: number): Promise<void> {
  await inLab(port, ARM);
}

/** What has been seen of guests since this was last asked for. */
export async function lookForGuests(port: number): Promise<GuestsSeen> {
  const [astray, ...ends] = (await inLab(port, ASK)).trimEnd().split("\n");
  return { astray: astray || undefined, ends };
}

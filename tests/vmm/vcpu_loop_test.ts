import assert from "node:assert/strict";
import { Errno, OsError } from "../../ffi/errno.ts";
import { Exit, RunResult } from "../../ffi/kvm/run.ts";
import { MemoryLost } from "../../ffi/memory.ts";
import {
  controlBlockSize,
  GuestEvent,
  ThreadControl,
  Wanted,
} from "../../vmm/threads/control_block.ts";
import { vcpuLoop, type VcpuThread } from "../../vmm/threads/vcpu_loop.ts";

/** An access to a port, as the run page has it. */
const portWrite = { exitReason: Exit.IO, ioPort: 0x514, ioSize: 4, ioCount: 1, ioIsWrite: true };

const failures: [what: string, enter: () => number, writePort: () => void, errno: number][] = [
  [
    "an entry for which there is no memory",
    () => {
      throw new OsError("KVM_RUN", Errno.EFAULT);
    },
    () => {},
    Errno.EFAULT,
  ],
  [
    "an entry that fails otherwise",
    () => {
      throw new OsError("KVM_RUN", Errno.ENOMEM);
    },
    () => {},
    Errno.ENOMEM,
  ],
  [
    "a device that the guest sends where there is no memory",
    () => RunResult.EXIT,
    () => {
      throw new MemoryLost("guest RAM 'm'");
    },
    Errno.EFAULT,
  ],
];

for (const [what, enter, writePort, errno] of failures) {
  Deno.test(`\`vcpuLoop()\` reports ${what}, and parks`, () => {
    const control = new ThreadControl(new SharedArrayBuffer(controlBlockSize(1)), 0);
    control.wanted = Wanted.RUN;
    const run = { immediateExit: false, ...portWrite, ioGet: () => 0 };
    let entries = 0;
    const runner = {
      run,
      enter() {
        if (run.immediateExit) return RunResult.INTERRUPTED;
        entries++;
        return enter();
      },
    };
    const wantedAtNotice: number[] = [];
    const notify = () => {
      wantedAtNotice.push(control.wanted);
      control.wanted = Wanted.EXIT;
    };
    const parts = { runner, bus: { writePort }, control, all: [control] };
    const vcpu = { ...parts, notify, learn: () => {} };
    vcpuLoop(vcpu as unknown as VcpuThread);
    assert.deepEqual(control.take(), { event: GuestEvent.RUN_FAILED, argument: errno });
    assert.deepEqual(wantedAtNotice, [Wanted.PARK]);
    assert.equal(entries, 1);
  });
}

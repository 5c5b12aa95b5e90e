import assert from "node:assert/strict";
import { Errno, OsError } from "../../ffi/errno.ts";
import { RunResult } from "../../ffi/kvm/run.ts";
import type { VcpuRunner } from "../../vmm/accel/accelerator.ts";
import {
  controlBlockSize,
  GuestEvent,
  ThreadControl,
  Wanted,
} from "../../vmm/threads/control_block.ts";
import { vcpuLoop, type VcpuThread } from "../../vmm/threads/vcpu_loop.ts";

Deno.test("`vcpuLoop()` reports an entry that fails, and parks", () => {
  const control = new ThreadControl(new SharedArrayBuffer(controlBlockSize(1)), 0);
  control.wanted = Wanted.RUN;
  const run = { immediateExit: false };
  let failures = 0;
  const runner = {
    run,
    enter() {
      if (run.immediateExit) return RunResult.INTERRUPTED;
      failures++;
      throw new OsError("KVM_RUN", Errno.EFAULT);
    },
  } as unknown as VcpuRunner;
  const wantedAtNotice: number[] = [];
  const notify = () => {
    wantedAtNotice.push(control.wanted);
    control.wanted = Wanted.EXIT;
  };
  vcpuLoop({ runner, control, all: [control], notify } as unknown as VcpuThread);
  assert.deepEqual(control.take(), { event: GuestEvent.RUN_FAILED, argument: Errno.EFAULT });
  assert.deepEqual(wantedAtNotice, [Wanted.PARK]);
  assert.equal(failures, 1);
});

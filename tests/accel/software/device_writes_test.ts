/** Code that a device writes, under a CPU that has decoded what was there. */
import assert from "node:assert/strict";
import { RunResult } from "../../../ffi/kvm/run.ts";
import { makeMemfd, mapShared } from "../../../ffi/memory.ts";
import type { SoftwareRunnerDescription } from "../../../vmm/accel/software/description.ts";
import { SoftwareRunner } from "../../../vmm/accel/software/runner.ts";
import { SoftwareAccelerator } from "../../../vmm/accel/software/system.ts";
import { softwareThread } from "../../../vmm/accel/software/thread.ts";
import { GuestRam } from "../../../vmm/bus/device_memory.ts";
import { kvmRegs, kvmSregs } from "../../../ffi/kvm/structs.ts";

const SIZE = 1 << 20;
const [CODE, ROUTINE] = [0x1000, 0x2000];
const [WRITE_PORT, END_PORT] = [0x10, 0x11];

/** `mov al, VALUE; ret`. */
const routine = (value: number) => Uint8Array.of(0xb0, value, 0xc3);

Deno.test("code that a device writes is executed as written, at once", async () => {
  using accelerator = await SoftwareAccelerator.open();
  using vm = accelerator.createVm({
    pic: false,
    pit: false,
    cpus: [{ apicId: 0, cpuid: accelerator.supportedCpuid() }],
  });
  using fd = makeMemfd("test-ram", SIZE);
  using mapping = mapShared(fd.fd, SIZE);
  const { address } = mapping;
  const file = { fd, offset: 0 };
  vm.setMemory({ slot: 0, gpa: 0, size: SIZE, address, file, readonly: false });
  const [vcpu] = vm.vcpus;
  const lines = softwareThread.openInterrupts(vm.interruptsDescription);
  const range = { gpa: 0, size: SIZE, address, name: "ram", readonly: false };
  const memory = new GuestRam([range], () => lines.ramWritten());
  // In real mode: call ROUTINE; out WRITE_PORT, al; again, four times in all; out END_PORT, al; hlt.
  const call = (at: number) => [0xe8, ...word(ROUTINE - (CODE + at + 3))];
  const program = [0, 5, 10, 15].flatMap((at) => [...call(at), 0xe6, WRITE_PORT]);
  memory.write(CODE, Uint8Array.from([...program, 0xe6, END_PORT, 0xf4]));
  memory.write(ROUTINE, routine(1));

  const seen: number[] = [];
  const serve = () => {
    if (vcpu.run.ioPort === END_PORT) return vcpu.halt();
    seen.push(vcpu.run.ioGet(0, 1));
    if (seen.length === 3) memory.zero(ROUTINE + 1, 1);
    else memory.write(ROUTINE, routine(seen.length + 1));
  };
  const runner = new SoftwareRunner(vcpu.description as SoftwareRunnerDescription, serve);
  const sregs = kvmSregs.alloc();
  vcpu.read("sregs", sregs.bytes);
  Object.assign(sregs.view.cs, { base: 0n, selector: 0 });
  vcpu.write("sregs", sregs.bytes);
  const regs = kvmRegs.alloc({ rip: BigInt(CODE), rsp: 0x8000n, rflags: 2n });
  vcpu.write("regs", regs.bytes);
  assert.equal(runner.enter(), RunResult.INTERRUPTED);
  assert.deepEqual(seen, [1, 2, 3, 0]);
});

function word(value: number): number[] {
  return [value & 0xff, value >> 8 & 0xff];
}

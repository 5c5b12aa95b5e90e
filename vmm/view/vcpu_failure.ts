/**
 * What is printed when a vCPU cannot go on: the reason, its registers and its code, in QEMU's shape.
 *
 * @module
 */
import { describeErrno, Errno } from "../../ffi/errno.ts";
import { exitName } from "../../ffi/kvm/run.ts";
import { MemoryLost } from "../../ffi/memory.ts";
import type { Machine } from "../machine/machine.ts";
import { GuestEvent } from "../threads/control_block.ts";
import type { Vcpu } from "../threads/vcpu.ts";
import { dumpRegisters, instructionAddress } from "./registers.ts";

/**
 * Why a vCPU has stopped for good, with its registers and code. The vCPU is parked.
 *
 * @param event a `GuestEvent` that nobody can answer
 * @param argument what came with it: an exit reason, an errno, a hardware error
 */
export function vcpuFailure(
  machine: Machine,
  vcpu: Vcpu,
  event: number,
  argument: number,
): string {
  const reason = failureReason(machine, vcpu, event, argument);
  return `${reason}\n${registersOf(machine, vcpu)}${codeAt(machine, vcpu)}`;
}

/** The registers of all vCPUs, as `-d cpu_reset` logs them. All vCPUs are parked. */
export function registersAtReset(machine: Machine): string {
  return machine.vcpus.map((vcpu) => `CPU Reset (CPU ${vcpu.index})\n${registersOf(machine, vcpu)}`)
    .join("");
}

function failureReason(machine: Machine, vcpu: Vcpu, event: number, argument: number): string {
  switch (event) {
    case GuestEvent.INTERNAL_ERROR: {
      const data = vcpu.hardware.run.internalData.map((word, i) =>
        `\nextra data[${i}]: 0x${word.toString(16).padStart(16, "0")}`
      );
      return `KVM internal error. Suberror: ${argument}${data.join("")}`;
    }
    case GuestEvent.FAILED_ENTRY:
      return `KVM: entry failed, hardware error 0x${argument.toString(16)}`;
    case GuestEvent.RUN_FAILED:
      return runFailed(machine, argument);
    default:
      return `KVM: unexpected exit ${exitName(argument)}`;
  }
}

/** QEMU's sentence, and what a bad address means: the only ones that KVM uses are in guest memory. */
function runFailed({ memory }: Machine, error: number): string {
  const text = `error: kvm run failed ${describeErrno(error)}`;
  return error === Errno.EFAULT
    ? `${text}\n${new MemoryLost(memory.ram.mapping.name).message}`
    : text;
}

function registersOf({ hardware: { layout } }: Machine, { hardware }: Vcpu): string {
  return dumpRegisters(hardware, layout);
}

/** The bytes around the instruction pointer, as QEMU prints them after the registers. */
function codeAt({ memory }: Machine, { hardware }: Vcpu): string {
  const at = hardware.translate(instructionAddress(hardware));
  if (at === undefined || !memory.contains(Number(at), 16)) return "";
  const bytes = memory.read(Number(at), 16);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0"));
  return `Code=<${hex[0]}> ${hex.slice(1).join(" ")}`;
}

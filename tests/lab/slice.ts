/**
 * The lab slice: tests that together prove each promise once on a real KVM.
 *
 * @module
 */

/** Tests of one file, by their names. */
export interface Selection {
  readonly file: string;
  readonly names: readonly string[];
}

/** The slice. */
export const slice: readonly Selection[] = [
  // The guest's hardware: exits of each kind, start-up of several processors. Not the UART's check: its
  // character timeout may run out between two instructions of a guest that is so slow.
  {
    file: "tests/kvm/programs_test.ts",
    names: [
      "`start()` runs a guest to the exit status that it chose",
      "`bios` starts at the reset vector and reaches long mode",
      "the RTC tells the host's time and interrupts at 1024 Hz",
      "a triple fault resets the machine, again and again",
      "a jump to real mode's reset vector resets the machine",
      "4 vCPUs all come up and count, and all stand still when stopped",
    ],
  },
  {
    file: "tests/kvm/access_test.ts",
    names: [
      "addresses that nobody claims read as all ones and ignore writes",
      "`rep outsb` writes each byte once, also when it is stopped all the time",
    ],
  },
  {
    file: "tests/kvm/pause_test.ts",
    names: [
      "`stop()` holds a guest still in the middle of any kind of exit",
      "registers, memory and clocks of counter_cpl3 survive 50 stops",
      "`enterOnce()` runs vCPUs and leaves the machine as it was",
    ],
  },
  {
    file: "tests/kvm/states_test.ts",
    names: ["`injectNmi()` interrupts every vCPU, whether or not the guest runs"],
  },
  // Not without ACPI: where the lab is starved, the 8254's ticks take all that there is of its processor.
  {
    file: "tests/kvm/stock_linux_test.ts",
    names: ["a stock kernel finds the machine by ACPI, and reaches user space"],
  },
  // Devices beyond the chips: doorbells that KVM rings, the second I/O APIC's messages.
  {
    file: "tests/kvm/acpi_test.ts",
    names: ["the power button interrupts the guest, which powers off by S5"],
  },
  {
    file: "tests/kvm/virtio_test.ts",
    names: ["a guest that malforms a packed ring in 10 ways resets and goes on"],
  },
  {
    file: "tests/kvm/disk_test.ts",
    names: ["a guest keeps its records on a disk, split ring, cache.direct: false, aio: threads"],
  },
  // What a vCPU's state is: reading and writing it disturbs nothing.
  {
    file: "tests/vmm/cpu_tables_test.ts",
    names: ["cpuTables() gives tables that this host's KVM takes when the model is any"],
  },
  {
    file: "tests/cpr/machine_state_test.ts",
    names: ["`checkState()` takes what `saveMachine()` gives, and applying it changes nothing"],
  },
  // A transfer of two vCPUs. What executes a successor in the lab (cpr_guest_test, cpr_relay_test, demo_test
  // and cpr_way_back_test) is not here: guests have started anew there in an update, on QEMU 7.2 and 11.1,
  // which is not understood yet. They are run by hand (`deno task test --lab`).
  {
    file: "tests/conformance/cpr_transfer_test.ts",
    names: ["cpr-transfer keeps all vCPUs counting when there are two"],
  },
  // Who owns the guest.
  {
    file: "tests/faults/transfer_test.ts",
    names: [
      "the old VMM takes the guest back when the successor dies after the stream",
      "the old VMM never runs the guest again when the successor has taken it",
    ],
  },
  // A session with the monitor, by a program that is not ours.
  { file: "tests/conformance/program_test.ts", names: ["socat is a QMP client"] },
];

/** The `--filter` of `deno test` for tests of these names. */
export function nameFilter(names: readonly string[]): string {
  const escaped = names.map((name) => name.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  return `/^(?:${escaped.join("|")})$/`;
}

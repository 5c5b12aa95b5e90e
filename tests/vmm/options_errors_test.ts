import assert from "node:assert/strict";
import { parseCommandLine } from "../../vmm/options/command_line.ts";
import { assertOptionError, testDevices, words } from "./options_fixture.ts";

function assertFails(args: string[], message: string) {
  assertOptionError(() => parseCommandLine(args, testDevices), message, args.join(" "));
}

Deno.test("parseCommandLine() fails with one line that names the option", () => {
  const cases: [line: string, message: string][] = [
    ["-foo", "-foo: invalid option"],
    ["--foo", "--foo: invalid option"],
    ["-", "-: invalid option"],
    ["--", "--: invalid option"],
    ["-no-reboot=on", "-no-reboot=on: invalid option"],
    ["-kernel", "-kernel: requires an argument"],
    ["-S -m", "-m: requires an argument"],
    [
      "disk.img",
      "disk.img: unexpected argument, options begin with '-'; only the first word may be update," +
      " state or img",
    ],
    ["-M pc", '-M pc: unsupported machine type: "pc", the one there is is microvm'],
    [
      "-machine type=q35",
      '-machine type=q35: unsupported machine type: "q35", the one there is is microvm',
    ],
    ["-M microvm,foo=on", "-M microvm,foo=on: Property 'microvm-machine.foo' not found"],
    ["-M toString=on", "-M toString=on: Property 'microvm-machine.toString' not found"],
    ["-M pit.x=on", "-M pit.x=on: Property 'microvm-machine.pit' not found"],
    ["-M microvm,pit", "-M microvm,pit: Expected '=' after parameter 'pit'"],
    ["-M pit=maybe", "-M pit=maybe: Parameter 'pit' does not accept value 'maybe'"],
    ["-M isa-serial=maybe", "-M isa-serial=maybe: Parameter 'isa-serial' expects 'on' or 'off'"],
    ["-M acpi=maybe", "-M acpi=maybe: Parameter 'acpi' does not accept value 'maybe'"],
    ["-M accel=xen", "-M accel=xen: invalid accelerator xen"],
    [
      "-M kernel-irqchip=split",
      "-M kernel-irqchip=split: Parameter 'kernel-irqchip' does not accept value 'split'",
    ],
    ["-accel xen", "-accel xen: invalid accelerator xen"],
    [
      "-accel tcg,thread=single",
      "-accel tcg,thread=single: Parameter 'thread' does not accept value 'single'",
    ],
    ["-M accel=kvm:hax", "-M accel=kvm:hax: invalid accelerator hax"],
    ["-accel kvm,foo=1", "-accel kvm,foo=1: Property 'kvm-accel.foo' not found"],
    ["-m abc", "-m abc: Parameter 'size' expects a non-negative number below 2^64"],
    ["-m 1.5", "-m 1.5: Parameter 'size' expects a non-negative number below 2^64"],
    ["-m 8P", "-m 8P: Value '8P' is out of range for parameter 'size'"],
    ["-m 8589934592", "-m 8589934592: ram size too large"],
    ["-m foo=1", "-m foo=1: Invalid parameter 'foo'"],
    ["-smp 0", "-smp 0: Invalid CPU topology: CPU topology parameters must be greater than zero"],
    ["-uuid foo", "-uuid foo: failed to parse UUID string: wrong format"],
    ["-name a,b=1", "-name a,b=1: Invalid parameter 'b'"],
    [
      "-name a,debug-threads=x",
      "-name a,debug-threads=x: Parameter 'debug-threads' expects 'on' or 'off'",
    ],
    ["-action foo=bar", "-action foo=bar: Invalid parameter 'foo'"],
    ["-action panic=foo", "-action panic=foo: Parameter 'panic' does not accept value 'foo'"],
    ["-sandbox foo", "-sandbox foo: Parameter 'enable' expects 'on' or 'off'"],
    ["-sandbox on,spawn=x", "-sandbox on,spawn=x: invalid argument for spawn"],
    ["-sandbox on,foo=deny", "-sandbox on,foo=deny: Invalid parameter 'foo'"],
    ["-d foo", "-d foo: unknown log item 'foo', known are cpu_reset, guest_errors"],
    ["-display gtk", "-display gtk: Parameter 'type' does not accept value 'gtk'"],
    ["-vga std", "-vga std: unknown vga type: std"],
    ["-append x", "-append only allowed with -kernel option"],
    ["-initrd x", "-initrd only allowed with -kernel option"],
    ["-global foo", "-global foo: Invalid parameter 'foo'"],
    [
      "-global driver=a",
      "-global driver=a: options 'driver', 'property', and 'value' are required",
    ],
    ["-global foo.bar=1", "-global foo.bar=1: global foo.bar has invalid class name"],
    ["-global gadget.foo=1", "-global gadget.foo=1: Property 'gadget.foo' not found"],
    ["-global gadget.small=x", "-global gadget.small=x: Parameter 'small' expects integer"],
    ["-device nope", "-device nope: 'nope' is not a valid device model name"],
    [
      "-device gadget,id=a -device gadget,id=a",
      "-device gadget,id=a: Duplicate ID 'a' for device",
    ],
    [
      "-device isa-serial,chardev=x",
      "-device isa-serial,chardev=x: Property 'isa-serial.chardev' can't find value 'x'",
    ],
    [
      "-chardev null,id=x -monitor chardev:x -device isa-serial,chardev=x",
      "-device isa-serial,chardev=x: Property 'isa-serial.chardev' can't take value 'x', it's in use",
    ],
    ["-device loader", "-device loader: please include valid arguments"],
    [
      "-device loader,addr=1",
      "-device loader,addr=1: cpu_num must be specified when setting a program counter",
    ],
    [
      "-device loader,data=1",
      "-device loader,data=1: Both data and data-len must be specified",
    ],
    [
      "-device loader,data=0x10000000000000000,data-len=8",
      "-device loader,data=0x10000000000000000,data-len=8: Parameter 'data' expects uint64_t",
    ],
    [
      "-mem-path x -object memory-backend-ram,id=r,size=128M -M memory-backend=r",
      "-mem-path x: '-mem-path' can't be used together with '-machine memory-backend'",
    ],
    [
      "-device loader,file=f,cpu-num=2 -smp 2",
      "-device loader,file=f,cpu-num=2: Specified boot CPU#2 is nonexistent",
    ],
    [
      "-object nope",
      "-object nope: Parameter 'qom-type' does not accept value 'nope': there are iothread," +
      " memory-backend-file, memory-backend-memfd, memory-backend-ram, memory-backend-shm," +
      " rng-builtin, rng-random, throttle-group",
    ],
    [
      "-object memory-backend-ram,id=a,size=1M -object memory-backend-shm,id=a,size=1M",
      "-object memory-backend-shm,id=a,size=1M: Duplicate ID 'a' for object",
    ],
    ["-M memory-backend=b", "-machine memory-backend=b: Memory backend 'b' not found"],
    [
      "-M memory-backend=a -m 64 -object memory-backend-ram,id=a,size=1M",
      "-m 64: Machine memory size does not match the size of the memory backend",
    ],
    ["-chardev null", "-chardev null: chardev: no id specified"],
    [
      "-chardev null,id=a -chardev pty,id=a",
      "-chardev pty,id=a: Duplicate ID 'a' for chardev",
    ],
    [
      "-serial null -chardev null,id=serial0",
      "-serial null: Duplicate ID 'serial0' for chardev",
    ],
    ["-mon mode=control", "-mon mode=control: Parameter 'chardev' is missing"],
    ["-mon x", '-mon x: chardev "x" not found'],
    ["-mon x,mode=foo", "-mon x,mode=foo: Parameter 'mode' does not accept value 'foo'"],
    ["-mon x,pretty=on", "-mon x,pretty=on: 'pretty' is not compatible with HMP monitors"],
    ["-chardev null,id=a -mon a -mon chardev=a", "-mon chardev=a: Device 'a' is in use"],
    ["-chardev null,id=a -mon a -serial chardev:a", "-serial chardev:a: Device 'a' is in use"],
    ["-qmp none", "-qmp none: 'none' is not a valid char driver"],
    ["-serial chardev:x", '-serial chardev:x: chardev "x" not found'],
    ["-debugcon nope", "-debugcon nope: 'nope' is not a valid char driver"],
    ["-debugcon null -debugcon pty", "-debugcon pty: already have a debugcon device"],
    [
      "-serial null -serial null -serial null -serial null -serial pty",
      "-serial pty: Max. supported number of ISA serial ports is 4",
    ],
    [
      "-serial stdio -monitor stdio",
      "-serial stdio: cannot use stdio by multiple character devices",
    ],
    [
      "-nographic -serial stdio",
      "-serial stdio: cannot use stdio by multiple character devices",
    ],
    ["-nographic -daemonize", "-nographic cannot be used with -daemonize"],
    ["-daemonize -serial stdio", "-serial stdio: cannot use stdio with -daemonize"],
  ];
  for (const [line, message] of cases) assertFails(words(line), message);
  assertFails(
    [""],
    ": unexpected argument, options begin with '-'; only the first word may be update, state or img",
  );
  assertFails(["-cpu", ""], "-cpu option cannot be empty");
  assertFails(
    ["-m", "a\nb"],
    "-m a\\nb: Parameter 'size' expects a non-negative number below 2^64",
  );
});

Deno.test("parseCommandLine() lets four frontends share a backend when it is multiplexed", () => {
  const shared = ["-chardev", "null,id=c,mux=on", "-serial", "chardev:c"];
  const monitors = (n: number) => Array.from({ length: n }, () => ["-monitor", "chardev:c"]).flat();
  const { config } = parseCommandLine([...shared, ...monitors(3)], testDevices);
  assert.equal(config?.monitors.length, 3);
  assertFails(
    [...monitors(4), ...shared],
    "-serial chardev:c: too many uses of multiplexed chardev 'c' (maximum is 4)",
  );
});

Deno.test("parseCommandLine() fails when help is asked for about what does not exist", () => {
  assertFails(
    ["-device", "nope,help"],
    "-device nope,help: 'nope' is not a valid device model name",
  );
  assertFails(
    ["-M", "pc,help"],
    '-M pc,help: unsupported machine type: "pc", the one there is is microvm',
  );
});

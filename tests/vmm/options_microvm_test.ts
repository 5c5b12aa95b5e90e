/**
 * Every property of QEMU 11.1's `-M microvm,help`, and the lines that QEMU's documents and libvirt
 * write: each works, or is refused with one sentence.
 *
 * @module
 */
import assert from "node:assert/strict";
import { deviceTypes } from "../../devices/registry.ts";
import { defaultConfig, type MachineConfig } from "../../vmm/config.ts";
import { OptionError, parseCommandLine } from "../../vmm/options/command_line.ts";
import { machineHelp } from "../../vmm/options/machine.ts";
import { words } from "./options_fixture.ts";

const NO_CARD = "there is no network card by this option: say -netdev ...,id=n" +
  " -device virtio-net-device,netdev=n";

const TREE = "guests find the machine without a device tree";
const ENCRYPTED = "guest memory is not encrypted";

/** What a value of a property does: a part of the configuration, or after `!` why it is refused. */
type Outcome =
  | Partial<Omit<MachineConfig, "machine">> & {
    machine?: Partial<MachineConfig["machine"]>;
  }
  | string;

const NOTHING: Outcome = {};
const absent = (what: string) => ({ off: NOTHING, auto: NOTHING, on: `! no ${what}` });

/** QEMU's properties, with values and what becomes of them. */
const properties: Record<string, Record<string, Outcome>> = {
  acpi: { on: NOTHING, auto: NOTHING, off: { machine: { acpi: false } } },
  append: { "console=ttyS0": "! -append only allowed with -kernel option" },
  "auto-kernel-cmdline": { on: NOTHING, off: { machine: { autoKernelCmdline: false } } },
  "aux-ram-share": {
    on: { machine: { auxRamShare: true } },
    off: { machine: { auxRamShare: false } },
  },
  "boot.menu": { on: { boot: { menu: true } } },
  "boot.order": { c: NOTHING, q: "! Invalid boot device 'q'" },
  "bus-lock-ratelimit": { 0: NOTHING, 5: "! bus locks are not counted" },
  "confidential-guest-support": { sev0: `! ${ENCRYPTED}` },
  "dt-compatible": { x: `! ${TREE}` },
  dtb: { x: `! ${TREE}` },
  "dump-guest-core": { on: NOTHING, off: { machine: { dumpGuestCore: false } } },
  dumpdtb: { x: `! ${TREE}` },
  firmware: { "bios.bin": { bios: "bios.bin" } },
  graphics: { off: NOTHING, on: "! no graphics" },
  "igvm-cfg": { x: `! ${ENCRYPTED}` },
  initrd: { x: "! -initrd only allowed with -kernel option" },
  ioapic2: { on: NOTHING, auto: NOTHING, off: { machine: { ioapic2: false } } },
  "isa-serial": { on: NOTHING, off: { machine: { isaSerial: false } } },
  kernel: { vmlinux: { kernel: "vmlinux" } },
  "mem-merge": { on: NOTHING, off: { machine: { memMerge: false } } },
  "memory-backend": { ram0: "! Memory backend 'ram0' not found" },
  "memory-encryption": { sev0: `! ${ENCRYPTED}` },
  "memory.size": { "64M": { memory: 64 << 20 } },
  pcie: { off: NOTHING, auto: NOTHING, on: { machine: { pcie: true } } },
  "phandle-start": { 1: `! ${TREE}` },
  pic: { on: NOTHING, auto: NOTHING, off: { machine: { pic: false } } },
  pit: { on: NOTHING, auto: NOTHING, off: { machine: { pit: false } } },
  rtc: { off: NOTHING, auto: NOTHING, on: { machine: { rtc: true } } },
  "sgx-epc.0.memdev": { mem0: "! Property 'microvm-machine.sgx-epc' not found" },
  shim: { x: "! there is no UEFI that would check a kernel" },
  smm: absent("system management mode"),
  "smp.cpus": { 2: { smp: { ...defaultConfig().smp, cpus: 2, maxcpus: 2, cores: 2 } } },
  "smp-cache.0.cache": { l1d: "! Property 'microvm-machine.smp-cache' not found" },
  "suppress-vmdesc": { on: NOTHING, off: NOTHING },
  usb: { off: NOTHING, on: "! no USB" },
  "x-oem-id": {
    ABCDEF: { machine: { oemId: "ABCDEF" } },
    ABCDEFG: "! User specified x-oem-id value is bigger than 6 bytes",
  },
  "x-oem-table-id": {
    ABCDEFGH: { machine: { oemTableId: "ABCDEFGH" } },
    ABCDEFGHI: "! User specified x-oem-table-id value is bigger than 8 bytes",
  },
  "x-option-roms": { on: NOTHING, off: NOTHING },
};

function config(args: readonly string[]): MachineConfig {
  const { config } = parseCommandLine(["-nodefaults", ...args], deviceTypes);
  assert.ok(config);
  return config;
}

for (const [name, values] of Object.entries(properties)) {
  Deno.test(`-M microvm,${name}= works, or one sentence says why not`, () => {
    for (const [value, outcome] of Object.entries(values)) {
      const args = ["-M", `microvm,${name}=${value}`];
      if (typeof outcome === "string") {
        assert.throws(() => config(args), (error) => {
          assert.ok(error instanceof OptionError);
          assert.ok(error.message.includes(outcome.slice(2)), error.message);
          assert.doesNotMatch(error.message, /\n|\.$/);
          return true;
        });
      } else {
        const { machine, ...rest } = outcome;
        const expected = defaultConfig();
        assert.deepEqual(config(args), {
          ...expected,
          ...rest,
          machine: { ...expected.machine, ...machine },
        });
      }
    }
    const type = values.off !== undefined || values.on !== undefined;
    if (type) assert.throws(() => config(["-M", `microvm,${name}=maybe`]), OptionError);
  });
}

Deno.test("-M microvm,help has all of QEMU's properties that are one value", () => {
  const help = machineHelp("microvm,help") ?? "";
  for (const name of Object.keys(properties).filter((name) => !name.includes("."))) {
    assert.match(help, new RegExp(`^ {2}${RegExp.escape(name)}=`, "m"));
  }
});

Deno.test("-M kernel, initrd, append and firmware are the options of these names", () => {
  const made = config(["-M", "kernel=k,initrd=i,append=a b,,c,firmware=f"]);
  const { kernel, initrd, append, bios } = made;
  assert.deepEqual([kernel, initrd, append, bios], ["k", "i", "a b,c", "f"]);
});

/** Lines from QEMU's docs/system/i386/microvm.rst and from libvirt, less what needs devices. */
const lines: readonly string[] = [
  "-M microvm,x-option-roms=off,pit=off,pic=off,isa-serial=off,rtc=off -enable-kvm -cpu host -m 512m" +
  " -smp 2 -kernel vmlinux -append root=/dev/vda -nodefaults -no-user-config -nographic",
  "-M microvm,x-option-roms=off,isa-serial=off,rtc=off -m 512m -kernel vmlinux",
  "-M microvm -enable-kvm -cpu host -m 512m -smp 2 -kernel vmlinux -append earlyprintk=ttyS0" +
  " -nodefaults -no-user-config -nographic -serial stdio -monitor none",
  "-name guest=vm1,debug-threads=on -S -machine microvm,usb=off,dump-guest-core=off," +
  "memory-backend=ram,acpi=off -accel kvm -cpu host,migratable=on -m size=262144k" +
  " -object memory-backend-ram,id=ram,size=268435456 -overcommit mem-lock=off" +
  " -smp 2,sockets=2,cores=1,threads=1 -uuid 550e8400-e29b-41d4-a716-446655440000 -display none" +
  " -no-user-config -nodefaults -chardev socket,id=charmonitor,path=qmp,server=on,wait=off" +
  " -mon chardev=charmonitor,id=monitor,mode=control -rtc base=utc -no-shutdown -boot strict=on" +
  " -kernel vmlinux -append console=ttyS0 -chardev pty,id=charserial0" +
  " -device isa-serial,chardev=charserial0,id=serial0,index=0" +
  " -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny" +
  " -msg timestamp=on",
  "-no-reboot -nodefaults -device isa-debug-exit,iobase=0xf4,iosize=0x4 -vnc none -serial stdio" +
  " -machine accel=kvm -kernel test.flat -smp 1 -cpu max",
];

for (const line of lines) {
  Deno.test(`${line.slice(0, 72)}… is taken`, () => {
    const { config } = parseCommandLine(words(line), deviceTypes);
    assert.ok(config?.kernel);
  });
}

/** What is asked for and is not there: the option, and the end of the sentence. */
const refusals: readonly (readonly [line: string, message: string])[] = [
  ["-m 128M,slots=2", "slots specified but no max-size"],
  ["-m slots=2", "slots specified but no max-size"],
  ["-m slots=0", "missing 'size' option value"],
  [
    "-m 128M,maxmem=64M",
    "invalid value of maxmem: maximum memory size (0x4000000) must be at least the initial memory" +
    " size (0x8000000)",
  ],
  [
    "-m 128M,slots=2,maxmem=128M",
    "invalid value of maxmem: memory slots were specified but maximum memory size (0x8000000) is" +
    " equal to the initial memory size (0x8000000)",
  ],
  ["-numa nodeid=1", "Parameter 'type' is missing"],
  ["-numa nodes", "Parameter 'type' does not accept value 'nodes'"],
  [
    "-numa node,cpus=0-1",
    "NUMA is not supported by this machine-type: all CPUs and all memory are one node",
  ],
  [
    "-numa type=node,nodeid=0,memdev=ram0",
    "NUMA is not supported by this machine-type: all CPUs and all memory are one node, whose memory" +
    " is -machine memory-backend=ram0",
  ],
  [
    "-numa dist,src=0,dst=1,val=20",
    "NUMA is not supported by this machine-type: all CPUs and all memory are one node",
  ],
  ["-overcommit x=1", "Invalid parameter 'x'"],
  ["-overcommit mem-lock=maybe", "Parameter 'mem-lock' does not accept value 'maybe'"],
  [
    "-overcommit mem-lock=on",
    "Parameter 'mem-lock' does not accept value 'on': guest RAM is not locked: -object" +
    " memory-backend-memfd,prealloc=on allocates it ahead",
  ],
  [
    "-overcommit cpu-pm=on",
    "Parameter 'cpu-pm' does not accept value 'on': the guest's idle instructions always give the" +
    " processor to the host",
  ],
  [
    "-run-with async-teardown=on",
    "Parameter 'async-teardown' does not accept value 'on': RAM is given back by the process that" +
    " had it",
  ],
  [
    "-run-with chroot=/x",
    "Parameter 'chroot' does not accept value '/x': the VMM does not change its root: start it by" +
    " chroot(1)",
  ],
  [
    "-run-with user=nobody",
    "Parameter 'user' does not accept value 'nobody': the VMM does not change its user: start it by" +
    " setpriv(1)",
  ],
  [
    "-compat deprecated-input=reject",
    "Parameter 'deprecated-input' does not accept value 'reject': only what is never refused and" +
    " never hidden is there: accept",
  ],
  [
    "-compat deprecated-output=crash",
    "Parameter 'deprecated-output' does not accept value 'crash'",
  ],
  ["-nic user", NO_CARD],
  ["-net user", NO_CARD],
  ["-vnc :1", "there is no VNC server: none is all that can be said"],
  ["-sandbox on,obsolete=x", "invalid argument for obsolete"],
  ["-sandbox on,resourcecontrol=children", "invalid argument for resourcecontrol"],
  ["-msg foo=on", "Invalid parameter 'foo'"],
  ["-watchdog-action x", "Parameter 'watchdog' does not accept value 'x'"],
  ["-M smp=2", "Property 'microvm-machine.smp' not found"],
  ["-M boot.menu.x=on", "Parameter 'boot.menu' expects a value"],
];

for (const [line, message] of refusals) {
  Deno.test(`${line} is refused`, () => {
    assert.throws(() => config(words(line)), {
      name: "OptionError",
      message: `${line}: ${message}`,
    });
  });
}

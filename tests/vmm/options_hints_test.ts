/** What is said to who types what another machine would take, or what nothing is connected to. */
import assert from "node:assert/strict";
import { deviceTypes } from "../../devices/registry.ts";
import { cardName, orphanWarnings } from "../../vmm/machine/orphans.ts";
import { parseCommandLine } from "../../vmm/options/command_line.ts";
import { assertOptionError, words } from "./options_fixture.ts";

const parse = (line: string) => parseCommandLine(words(line), deviceTypes).config!;

const many = Array(24).fill("-device virtio-rng-device").join(" ");
const few = Array(8).fill("-device virtio-rng-device").join(" ");
const drive = "-blockdev null-co,node-name=d";

const refusals: [line: string, message: string][] = [
  [
    "-device virtio-blk-pci,drive=x",
    "-device virtio-blk-pci,drive=x: No 'PCI' bus found for device 'virtio-blk-pci': say" +
    " virtio-blk-device, or -machine pcie=on",
  ],
  [
    "-device virtio-net-pci-non-transitional",
    "-device virtio-net-pci-non-transitional: No 'PCI' bus found for device 'virtio-net-pci': say" +
    " virtio-net-device, or -machine pcie=on",
  ],
  [
    "-device virtio-net-pci-transitional",
    "-device virtio-net-pci-transitional: 'virtio-net-pci-transitional' is not a valid device model" +
    " name: virtio 1 is virtio-net-pci",
  ],
  [
    "-device virtio-blk,drive=d",
    "-device virtio-blk,drive=d: No 'PCI' bus found for device 'virtio-blk-pci': say" +
    " virtio-blk-device, or -machine pcie=on",
  ],
  ...([
    ["acpi=off", "", "Parameter 'pcie' does not accept value 'on': it needs acpi=on"],
    ["", "bus=pcie.1", "Bus 'pcie.1' not found"],
    [
      "",
      "addr=0",
      "PCI: slot 0 function 0 not available for virtio-rng-pci, in use by gpex-root,id=",
    ],
    ["", "addr=20", "Property 'virtio-rng-pci.addr' doesn't take value '20'"],
    [
      "",
      "addr=1.1",
      "Property 'virtio-rng-pci.addr' doesn't take value '1.1': devices here have function 0 only",
    ],
    ["", "vectors=2049", "vectors property must be at most 2048, not 2049"],
    ["", "disable-legacy=off", "Property 'disable-legacy' does not accept value 'off': on or auto"],
    [
      "",
      "disable-modern=on",
      "Property 'disable-modern' does not accept value 'on': virtio 1 is all there is",
    ],
    ["", "romfile=x", 'failed to find romfile "x": there are no option ROMs'],
    [
      "",
      "addr=1 -device virtio-rng-pci,id=r,addr=01.0",
      "PCI: slot 1 function 0 not available for virtio-rng-pci, in use by virtio-rng-pci,id=" +
      "virtio-rng-pci.0",
    ],
  ].map(([machine, device, message]): [string, string] => {
    const options = [`-machine pcie=on,${machine}`, `-device virtio-rng-pci,${device}`];
    const culprit = machine ? options[0] : `-device ${options[1].split("-device ").at(-1)}`;
    return [options.join(" "), `${culprit}: ${message}`];
  })),
  [
    `-machine pcie=on ${Array(32).fill("-device virtio-rng-pci").join(" ")}`,
    "-device virtio-rng-pci: PCI: no slot/function available for virtio-rng-pci, all in use or" +
    " reserved",
  ],
  ...([
    ...[["ide-hd", "IDE", "blk"], ["scsi-hd", "SCSI", "blk"], ["nvme", "PCI", "blk"]],
    ["e1000", "PCI", "net"],
  ].map(([driver, bus, here]): [string, string] => [
    `-device ${driver}`,
    `-device ${driver}: No '${bus}' bus found for device '${driver}': say virtio-${here}-device`,
  ])),
  [
    "-machine pcie=on -device ioh3420,id=p",
    "-device ioh3420,id=p: 'ioh3420' is not a valid device model name: the only bridges are of" +
    " pcie-root-port",
  ],
  [
    "-device pcie-root-port,id=p",
    "-device pcie-root-port,id=p: No 'PCI' bus found for device 'pcie-root-port': say -machine pcie=on",
  ],
  ...([
    [
      "-device pcie-root-port,id=q",
      "Can't add chassis slot, error -16: slot 0 of chassis 0 is another port's",
    ],
    [
      "-device pcie-root-port,id=q,slot=1,bus=p",
      "Device 'pcie-root-port' can't go on bus 'p': root ports are on pcie.0",
    ],
    [
      "-device pcie-root-port,slot=8192",
      "Property 'slot' does not accept value '8192': at most 8191",
    ],
    [
      "-device virtio-rng-pci,bus=p,addr=3",
      "PCI: slot 3 is not valid for virtio-rng-pci, parent device only allows plugging into slot 0.",
    ],
    ["-device virtio-rng-pci,bus=q", "Bus 'q' not found"],
  ].map(([device, message]): [string, string] => [
    `-machine pcie=on -device pcie-root-port,id=p ${device}`,
    `${device}: ${message}`,
  ])),
  [
    "-machine pcie=on -device pcie-root-port,id=p -device virtio-rng-pci,bus=p -device virtio-net-pci,bus=p",
    "-device virtio-net-pci,bus=p: PCI: no slot/function available for virtio-net-pci, all in use or" +
    " reserved",
  ],
  ["-device virtio-gpu", "-device virtio-gpu: 'virtio-gpu' is not a valid device model name"],
  ["-device toString", "-device toString: 'toString' is not a valid device model name"],
  [
    "-drive help",
    "-drive help: Must specify either driver or file: say file=FILE,format=raw or" +
    " file=FILE,format=qcow2",
  ],
  [
    "-object iothreads,id=i",
    "-object iothreads,id=i: Parameter 'qom-type' does not accept value 'iothreads': there are" +
    " iothread, memory-backend-file, memory-backend-memfd, memory-backend-ram," +
    " memory-backend-shm, rng-builtin, rng-random, throttle-group",
  ],
  ["-device ahci-pci", "-device ahci-pci: 'ahci-pci' is not a valid device model name"],
  [
    "-hda a,b.qcow2",
    "-hda: invalid option, say -drive file=a,,b.qcow2,if=virtio,format=FORMAT with FORMAT raw or qcow2",
  ],
  [
    "--cdrom -nographic",
    "--cdrom: invalid option, say -drive file=FILE,if=virtio,media=cdrom,format=FORMAT with FORMAT raw" +
    " or qcow2",
  ],
  [
    "-fda",
    "-fda: invalid option, say -drive file=FILE,if=virtio,format=FORMAT with FORMAT raw or qcow2",
  ],
  ["-toString", "-toString: invalid option"],
  [
    "-netdev toString,id=n",
    "-netdev toString,id=n: Parameter 'type' does not accept value 'toString'",
  ],
  [
    `${many} -device virtio-net-device`,
    "-device virtio-net-device: No 'virtio-bus' bus found for device 'virtio-net-device'",
  ],
  [
    `-M acpi=off ${few} -device virtio-net-device`,
    "-device virtio-net-device: No 'virtio-bus' bus found for device 'virtio-net-device'",
  ],
  [
    "-device vmgenid,guid=x",
    "-device vmgenid,guid=x: Property 'vmgenid.guid' doesn't take value 'x'",
  ],
  [
    "-device virtio-net-device,mac=xx",
    "-device virtio-net-device,mac=xx: Property 'virtio-net-device.mac' doesn't take value 'xx'",
  ],
  [
    "-device virtio-net-device,rx_queue_size=3",
    "-device virtio-net-device,rx_queue_size=3: Invalid rx_queue_size (= 3), must be a power of 2" +
    " between 256 and 1024.",
  ],
  [
    `${drive} -device virtio-blk-device,drive=d,logical_block_size=3`,
    "-device virtio-blk-device,drive=d,logical_block_size=3: Property .logical_block_size doesn't" +
    " take value 3 (minimum: 512, maximum: 2097152)",
  ],
  [
    "-device virtio-serial-device,max_ports=4000000000",
    "-device virtio-serial-device,max_ports=4000000000: maximum ports supported: 31, not 4000000000",
  ],
];

for (const [line, message] of refusals) {
  Deno.test(`'${line.slice(-60)}' is refused in QEMU's words, with what to say instead`, () => {
    assertOptionError(() => parse(line), message, line);
  });
}

Deno.test("there is room for as many virtio devices as there are transports", () => {
  assert.equal(parse(many).devices.length, 24);
  assert.equal(parse(`${few} -M acpi=off`).devices.length, 8);
});

Deno.test("drives, backends and cards to which nothing is connected are warned of", () => {
  const warnings = (line: string) => orphanWarnings(parse(line));
  const file = "-drive file=x,format=raw";
  const orphan = (id: string) =>
    `warning: Orphaned drive without device: id=${id},if=none; say if=virtio, or -device` +
    ` virtio-blk-device,drive=${id}`;
  assert.deepEqual(warnings(file), [orphan("none0")]);
  assert.deepEqual(warnings(`${file},if=virtio`), []);
  assert.deepEqual(warnings(`${file},id=d -device virtio-blk-device,drive=d`), []);
  assert.deepEqual(warnings(`${file},id=d -blockdev raw,node-name=n,file=d`), []);
  // Nothing is lost without a medium, and a node may be for later.
  assert.deepEqual(warnings("-drive if=none,id=d -blockdev null-co,node-name=n"), []);
  const net = "-netdev user,id=n";
  assert.deepEqual(warnings(net), ["warning: netdev n has no peer"]);
  assert.deepEqual(warnings(`${net} -device virtio-net-device,netdev=n`), []);
  assert.deepEqual(
    warnings(
      `${net} -device virtio-net-device -device virtio-rng-device -device virtio-net-device,id=c` +
        " -device virtio-net-device",
    ),
    [
      "warning: netdev n has no peer",
      "warning: nic virtio-net-device.0 has no peer",
      "warning: nic c has no peer",
      "warning: nic virtio-net-device.2 has no peer",
    ],
  );
});

Deno.test("a card without an id is called after its model, as in QEMU", () => {
  const config = parse("-device virtio-rng-device -device virtio-net-device");
  assert.equal(cardName(config.devices[1], config), "virtio-net-device.0");
});

/** What a successor's command line must have in common with the guest's virtio devices. */
import assert from "node:assert/strict";
import { deviceIdentities, differentDevice } from "../../cpr/state/device_identity.ts";
import { machineOf } from "../../cpr/update/command_line.ts";
import { machineDevices } from "../../vmm/machine/devices.ts";

/** What is said of the devices of a command line. */
function identities(options: string) {
  const config = machineOf(options.split(" "), "The test's options");
  return deviceIdentities(machineDevices(config), false);
}

const DRIVE = "-drive file=x,format=raw,if=none,id=";
const SAME = "; start with the same -device options, in the same order";

const differences: [before: string, after: string, difference: string | undefined][] = [
  ["-device virtio-rng-device", "-device virtio-rng-device,max-bytes=9,period=1", undefined],
  [
    `${DRIVE}d -device virtio-blk-device,drive=d,werror=stop,share-rw=on,write-cache=on`,
    `${DRIVE}e -device virtio-blk-device,drive=e,rerror=stop`,
    undefined,
  ],
  [
    `${DRIVE}d -device virtio-blk-device,drive=d,id=root,num-queues=1,serial=`,
    `${DRIVE}d -device virtio-blk-device,drive=d,id=root`,
    undefined,
  ],
  [
    `${DRIVE}d -device virtio-blk-device,drive=d,id=root`,
    `${DRIVE}d -device virtio-blk-device,drive=d,id=root,serial=new`,
    "Device 'root' differs: this VM has serial new, the saved VM has \"\"" + SAME,
  ],
  [
    `${DRIVE}d -device virtio-blk-device,drive=d,id=root,num-queues=4`,
    `${DRIVE}d -device virtio-blk-device,drive=d,id=root,num-queues=2`,
    "Device 'root' differs: this VM has num-queues 2, the saved VM has 4" + SAME,
  ],
  [
    `${DRIVE}d -device virtio-blk-device,drive=d,id=root`,
    `${DRIVE}d -device virtio-blk-device,drive=d,id=root,queue-size=128`,
    "Device 'root' differs: this VM has queue-size 128, the saved VM has 256" + SAME,
  ],
  [
    "-device virtio-net-device,id=n",
    "-device virtio-net-device,id=n,packed=on",
    "Device 'n' differs: this VM has packed on, the saved VM has off" + SAME,
  ],
  [
    "-device virtio-net-device -device virtio-net-device,id=n",
    "-device virtio-net-device -device virtio-net-device,id=n,mac=02:00:00:00:00:01",
    "Device 'n' differs: this VM has mac 02:00:00:00:00:01, the saved VM has 52:54:00:12:34:57" +
    SAME,
  ],
  [
    "-device virtio-serial-device -device virtserialport,id=p,name=a",
    "-device virtio-serial-device -device virtserialport,id=p,name=b",
    "Device 'p' differs: this VM has name b, the saved VM has a" + SAME,
  ],
  [
    "-device virtio-serial-device,id=s -device virtserialport,id=p",
    "-device virtio-serial-device,id=s -device virtconsole,id=p",
    "Device 'p' differs: this VM has type virtconsole, the saved VM has virtserialport" + SAME,
  ],
  [
    "-device virtio-serial-device,id=s -device virtio-serial-device,id=t -device virtconsole,id=p",
    "-device virtio-serial-device,id=s -device virtio-serial-device,id=t" +
    " -device virtconsole,id=p,bus=t.0",
    "Device 'p' differs: this VM has parent t, the saved VM has s" + SAME,
  ],
  [
    "-device virtio-rng-device,id=r -device virtio-net-device,id=n",
    "-device virtio-net-device,id=n -device virtio-rng-device,id=r",
    "Device 'n' differs: this VM has mmio-base 0xfeb02e00, the saved VM has 0xfeb02c00" + SAME,
  ],
  [
    "-machine pcie=on -device virtio-rng-pci,id=r",
    "-machine pcie=on -device virtio-rng-pci,id=r,addr=1,bus=pcie.0,disable-legacy=on",
    undefined,
  ],
  [
    "-machine pcie=on -device virtio-rng-pci,id=r",
    "-machine pcie=on -device virtio-rng-pci,id=r,addr=2",
    "Device 'r' differs: this VM has config-base 0xe0010000, the saved VM has 0xe0008000" + SAME,
  ],
  [
    "-machine pcie=on -device virtio-rng-pci,id=r",
    "-machine pcie=on -device virtio-rng-pci,id=r,vectors=0",
    "Device 'r' differs: this VM has vectors 0, the saved VM has none" + SAME,
  ],
  [
    "-device virtio-rng-device,id=r -device virtio-net-device,id=n",
    "-device virtio-rng-device,id=r",
    "Device 'n' (virtio-net-device) of the saved VM is missing in this VM: start it with the same" +
    " -device",
  ],
  [
    "-device virtio-rng-device,id=r",
    "-device virtio-rng-device,id=r -device virtio-net-device,id=n",
    "Device 'n' (virtio-net-device) of this VM is missing in the saved VM: start this one without it",
  ],
];

for (const [before, after, expected] of differences) {
  Deno.test(`a guest of '${before}' in a VMM of '${after}'`, () => {
    const saved = JSON.parse(JSON.stringify(identities(before)));
    assert.equal(differentDevice(identities(after), saved), expected);
    assert.equal(differentDevice(identities(before), saved), undefined);
  });
}

Deno.test("what is saved of a machine without virtio devices says nothing", () => {
  assert.deepEqual(identities("-device isa-debug-exit -device vmgenid"), {});
});

Deno.test("what came of devices may be anything", () => {
  const own = identities("-device virtio-rng-device,id=r");
  for (const value of [null, 5, "x", [], {}, { type: {} }, { type: "virtio-rng-device\n" }]) {
    assert.match(differentDevice(own, { r: value })!, /^Device 'r' differs: this VM has [^\n]*$/);
    assert.match(differentDevice(own, { "x\n": value })!, /^Device 'x\\n' \([^\n]*$/);
  }
});

Deno.test("what the backends are found to be is compared where they are open", () => {
  const found = (extra: object) =>
    deviceIdentities([{
      ...{ type: "virtio-net-device", id: "n" },
      properties: { "mmio-base": 0xfeb0_0000, irq: 5, mac: "52:54:00:12:34:56", ...extra },
    }], true);
  assert.equal(
    differentDevice(found({ "vnet-hdr": false }), found({ "vnet-hdr": true })),
    "Device 'n' differs: this VM has vnet-hdr off, the saved VM has on" + SAME,
  );
});

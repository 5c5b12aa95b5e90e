/** vhost's structures and requests, as linux/vhost.h makes their numbers of them. */
import assert from "node:assert/strict";
import { Errno, OsError } from "../../ffi/errno.ts";
import { makeEventfd } from "../../ffi/event.ts";
import {
  MOST_RANGES,
  NO_BACKEND,
  VhostDevice,
  vhostMemory,
  VhostVsock,
  vringAddress,
  vringFile,
  vringState,
} from "../../ffi/vhost.ts";

/** _IOC() of linux/ioctl.h, of vhost's type. */
function request(direction: "none" | "write" | "read" | "both", number: number, size: number) {
  const bits = { none: 0, write: 1, read: 2, both: 3 }[direction];
  return (bits << 30 | size << 16 | 0xaf << 8 | number) >>> 0;
}

Deno.test("vhost's structures are as large as in C", () => {
  assert.deepEqual(
    [vringState.size, vringFile.size, vringAddress.size, vhostMemory.offsets.regions],
    [8, 8, 40, 8],
  );
  assert.equal(vhostMemory.size, 8 + 32 * MOST_RANGES);
});

Deno.test("each call is its request with its structure", () => {
  const seen: [request: number, bytes: number[]][] = [];
  const device = new VhostDevice(7, (fd, number, bytes) => {
    assert.equal(fd, 7);
    seen.push([number, [...bytes ?? []]]);
    if (number === request("both", 0x12, 8)) bytes!.set([0x34, 0x12], 4);
    return 0;
  });
  const word = (value: number, size = 4) =>
    Array.from({ length: size }, (_, i) => Math.floor(value / 256 ** i) % 256);
  assert.equal(device.features, 0n);
  device.setFeatures(0x1_0000_0001n);
  device.setOwner();
  device.resetOwner();
  device.setMemory([{ gpa: 0x1000, size: 0x2000, address: 0x7f00_0000_3000 }]);
  device.setRing({
    ...{ index: 1, size: 256, base: 9, kick: 10, call: 11 },
    ...{ desc: 0x7f00_0000_4000, avail: 0x7f00_0000_5000, used: 0x7f00_0000_6000 },
  });
  assert.equal(device.base(1), 0x1234);
  device.setNetBackend(1, NO_BACKEND);
  const memory = seen[4][1];
  assert.deepEqual(memory.slice(0, 40), [
    ...[word(1), word(0), word(0x1000, 8), word(0x2000, 8)].flat(),
    ...[word(0x7f00_0000_3000, 8), word(0, 8)].flat(),
  ]);
  seen[4][1] = [];
  assert.deepEqual(seen, [
    [request("read", 0, 8), word(0, 8)],
    [request("write", 0, 8), word(0x1_0000_0001, 8)],
    [request("none", 1, 0), []],
    [request("none", 2, 0), []],
    [request("write", 3, 8), []],
    [request("write", 0x10, 8), [...word(1), ...word(256)]],
    [request("write", 0x12, 8), [...word(1), ...word(9)]],
    [
      request("write", 0x11, 40),
      [
        ...[word(1), word(0), word(0x7f00_0000_4000, 8)].flat(),
        ...[word(0x7f00_0000_6000, 8), word(0x7f00_0000_5000, 8), word(0, 8)].flat(),
      ],
    ],
    [request("write", 0x20, 8), [...word(1), ...word(10)]],
    [request("write", 0x21, 8), [...word(1), ...word(11)]],
    [request("both", 0x12, 8), [...word(1), ...word(0)]],
    [request("write", 0x30, 8), [...word(1), 255, 255, 255, 255]],
  ]);
});

Deno.test("a socket device's calls are its requests", () => {
  const seen: [request: number, bytes: number[]][] = [];
  const device = new VhostVsock(7, (_fd, number, bytes) => {
    seen.push([number, [...bytes!]]);
    return 0;
  });
  device.setGuestCid(0xfedc_ba98);
  device.setRunning(true);
  device.setRunning(false);
  assert.deepEqual(seen, [
    [request("write", 0x60, 8), [0x98, 0xba, 0xdc, 0xfe, 0, 0, 0, 0]],
    [request("write", 0x61, 4), [1, 0, 0, 0]],
    [request("write", 0x61, 4), [0, 0, 0, 0]],
  ]);
});

Deno.test("a descriptor of something else is no vhost device", () => {
  using event = makeEventfd();
  const device = new VhostDevice(event.fd);
  for (
    const call of [
      () => device.features,
      () => device.setOwner(),
      () => device.setNetBackend(0, event.fd),
    ]
  ) {
    assert.throws(
      call,
      (error) => error instanceof OsError && error.errno === Errno.ENOTTY,
    );
  }
});

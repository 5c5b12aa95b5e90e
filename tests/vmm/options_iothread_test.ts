/** The object `iothread`, and the disks that name one. */
import assert from "node:assert/strict";
import { deviceTypes } from "../../devices/registry.ts";
import { parseCommandLine } from "../../vmm/options/command_line.ts";
import { parseObject } from "../../vmm/options/object.ts";
import { assertOptionError, words } from "./options_fixture.ts";

const parse = (line: string) => parseCommandLine(words(line), deviceTypes).config!;

Deno.test("`parseObject()` reads an iothread, with QEMU's defaults", () => {
  assert.deepEqual(parseObject("iothread,id=a"), {
    ...{ qomType: "iothread", id: "a", aioMaxBatch: 0 },
    ...{ pollGrow: 0, pollMaxNs: 32768, pollShrink: 0, pollWeight: 0 },
  });
  const options = { "qom-type": "iothread", id: "b", "poll-max-ns": 5, "aio-max-batch": 6 };
  assert.deepEqual(parseObject({ ...options, "thread-pool-max": 1, "poll-weight": 3 }), {
    ...{ qomType: "iothread", id: "b", aioMaxBatch: 6 },
    ...{ pollGrow: 0, pollMaxNs: 5, pollShrink: 0, pollWeight: 3 },
  });
  for (const wrong of ["thread-pool-max=0", "thread-pool-min=65"]) {
    assertOptionError(
      () => parseObject(`iothread,id=a,${wrong}`),
      "bad thread-pool-min/thread-pool-max values",
    );
  }
  assertOptionError(() => parseObject("iothread,id=a,foo=1"), "Invalid parameter 'foo'");
});

Deno.test("a disk names an iothread that there is, and nothing else", () => {
  const disk = "-blockdev null-co,node-name=d -device virtio-blk-device,drive=d,iothread=a";
  const device = disk.slice(disk.indexOf("-device"));
  const { iothreads, rngs, devices } = parse(
    `${disk} -object iothread,id=a -object rng-builtin,id=b`,
  );
  assert.deepEqual([iothreads, rngs].map((list) => list.map(({ id }) => id)), [["a"], ["b"]]);
  assert.equal(devices[0].properties.iothread, "a");
  assertOptionError(() => parse(disk), `${device}: Device 'a' not found`);
  for (const other of ["rng-builtin,id=a", "memory-backend-memfd,id=a,size=1M"]) {
    assertOptionError(
      () => parse(`-object ${other} ${disk}`),
      `${device}: Invalid parameter type for 'iothread', expected: iothread`,
    );
  }
  assertOptionError(
    () => parse("-object iothread,id=a -device virtio-rng-device,rng=a"),
    "-device virtio-rng-device,rng=a: Invalid parameter type for 'rng', expected: rng-backend",
  );
  assertOptionError(
    () => parse("-object rng-builtin,id=a -object iothread,id=a"),
    "-object iothread,id=a: Duplicate ID 'a' for object",
  );
});

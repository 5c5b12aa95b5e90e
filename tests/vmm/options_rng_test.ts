/** Objects that are sources of random numbers, and the devices that name them. */
import assert from "node:assert/strict";
import { deviceTypes } from "../../devices/registry.ts";
import { parseCommandLine } from "../../vmm/options/command_line.ts";
import { parseObject } from "../../vmm/options/object.ts";
import { assertOptionError, words } from "./options_fixture.ts";

const parse = (line: string) => parseCommandLine(words(line), deviceTypes).config!;

Deno.test("`parseObject()` reads sources of random numbers", () => {
  assert.deepEqual(parseObject("rng-random,id=r"), {
    qomType: "rng-random",
    id: "r",
    filename: "/dev/urandom",
  });
  assert.deepEqual(parseObject({ "qom-type": "rng-random", id: "r", filename: "/f" }), {
    qomType: "rng-random",
    id: "r",
    filename: "/f",
  });
  assert.deepEqual(parseObject("rng-builtin,id=r"), { qomType: "rng-builtin", id: "r" });
  assertOptionError(
    () => parseObject("rng-builtin,id=r,filename=/f"),
    "Invalid parameter 'filename'",
  );
});

Deno.test("sources of random numbers are apart from memory, and have ids as all objects do", () => {
  const { rngs, objects } = parse(
    "-object rng-builtin,id=a -object memory-backend-memfd,id=m,size=1M -object rng-random,id=b",
  );
  assert.deepEqual(rngs.map(({ id }) => id), ["a", "b"]);
  assert.deepEqual(objects.map(({ id }) => id), ["m"]);
  assertOptionError(
    () => parse("-object rng-builtin,id=a -object memory-backend-memfd,id=a,size=1M"),
    "-object memory-backend-memfd,id=a,size=1M: Duplicate ID 'a' for object",
  );
});

Deno.test("an entropy device names a source that there is", () => {
  const { devices } = parse("-device virtio-rng-device,rng=a -object rng-builtin,id=a");
  assert.deepEqual(devices[0].properties, { rng: "a" });
  const line = "-device virtio-rng-device,rng=a";
  assertOptionError(() => parse(line), `${line}: Device 'a' not found`);
});

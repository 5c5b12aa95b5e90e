import assert from "node:assert/strict";
import { withChanges } from "../../vmm/device_changes.ts";

const words = [
  ...["deno", "mod.ts", "-device", "virtio-rng-pci,id=a,bus=p", "-m", "64"],
  ...["--device", '{"driver": "virtio-rng-pci", "id": "b"}', "-device", "virtio-rng-pci"],
  ...["-name", "id=a"],
];

Deno.test("`withChanges()` adds what has come, and leaves out what has gone, by its id", () => {
  assert.deepEqual(withChanges(words, { plugged: [], unplugged: [] }), words);
  const plugged = [{ driver: "virtio-net-pci", id: "n", bus: "q", mac: "52:54:00:12:34:56" }];
  const json = '{"driver":"virtio-net-pci","id":"n","bus":"q","mac":"52:54:00:12:34:56"}';
  assert.deepEqual(withChanges(words, { plugged, unplugged: ["a", "b", "64"] }), [
    ...["deno", "mod.ts", "-m", "64", "-device", "virtio-rng-pci", "-name", "id=a"],
    ...["-device", json],
  ]);
});

Deno.test("`withChanges()` takes a program's last word for what it is", () => {
  assert.deepEqual(withChanges(["-device"], { plugged: [], unplugged: ["a"] }), ["-device"]);
});

/** fw_cfg as a guest reads it. */
import assert from "node:assert/strict";
import { kvmTest } from "../needs_kvm.ts";
import { Probe } from "./probe.ts";

const UUID = "550e8400-e29b-41d4-a716-446655440000";

/** Reads an item by the ports. */
async function item(probe: Probe, key: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
  probe.out(0x510, key, 2);
  return Uint8Array.from(await probe.in(0x511, length));
}

/** The files of the directory, by name: key and size. */
async function directory(probe: Probe): Promise<Map<string, { key: number; size: number }>> {
  const count = new DataView((await item(probe, 0x19, 4)).buffer).getUint32(0);
  const files = new Map<string, { key: number; size: number }>();
  for (let i = 0; i < count; i++) {
    const entry = Uint8Array.from(await probe.in(0x511, 64));
    const view = new DataView(entry.buffer);
    const name = new TextDecoder().decode(entry.subarray(8)).replace(/\0+$/, "");
    files.set(name, { key: view.getUint16(4), size: view.getUint32(0) });
  }
  return files;
}

kvmTest("a guest reads QEMU's standard items", async () => {
  await using probe = await Probe.start({
    uuid: UUID,
    cpus: 2,
    boot: { menu: true, splashTime: 5000 },
    firmwareFiles: [{ name: "opt/x", text: "hello" }],
  });
  const items: [key: number, hex: string][] = [
    [0x00, "51454d55"],
    [0x01, "03000000"],
    [0x02, UUID.replaceAll("-", "")],
    [0x03, "0000000400000000"],
    [0x04, "0000"],
    [0x05, "0200"],
    [0x0d, "00000000"],
    [0x0e, "0100"],
    [0x0f, "0200"],
    [0x8002, "01000000"],
  ];
  for (const [key, hex] of items) {
    assert.equal((await item(probe, key, hex.length / 2)).toHex(), hex, `item ${key}`);
  }
  const files = await directory(probe);
  assert.deepEqual([...files.keys()], [
    "bios-geometry",
    "bootorder",
    "etc/acpi/rsdp",
    "etc/acpi/tables",
    "etc/boot-fail-wait",
    "etc/boot-menu-wait",
    "etc/e820",
    "etc/table-loader",
    "opt/x",
  ]);
  const contents: [name: string, hex: string][] = [
    ["bios-geometry", ""],
    ["bootorder", ""],
    ["etc/boot-fail-wait", "ffffffff"],
    ["etc/boot-menu-wait", "8813"],
    [
      "etc/e820",
      "00c0fffe000000000040000000000000020000000000000000000000000000040000000001000000",
    ],
    ["opt/x", "68656c6c6f"],
  ];
  for (const [name, hex] of contents) {
    const { key, size } = files.get(name)!;
    assert.equal(size, hex.length / 2, name);
    assert.equal((await item(probe, key, size)).toHex(), hex, name);
  }
  assert.equal(await probe.leave(), 1);
});

kvmTest("a guest reads a file by DMA", async () => {
  const path = await Deno.makeTempFile();
  const bytes = crypto.getRandomValues(new Uint8Array(20_000));
  await Deno.writeFile(path, bytes);
  await using probe = await Probe.start({ firmwareFiles: [{ name: "opt/big", path }] });
  await Deno.remove(path);
  const { key, size } = (await directory(probe)).get("opt/big")!;
  assert.equal(size, bytes.length);
  const [command, target] = [0x20_0000, 0x30_0000];
  const words = [key << 16 | 8 | 2, size + 16, 0, target];
  // All numbers are big-endian.
  const swap = (value: number) => new DataView(Uint32Array.of(value).buffer).getUint32(0);
  words.forEach((word, i) => probe.store(command + 4 * i, swap(word)));
  probe.store(target + size, 0xffff_ffff);
  probe.out(0x514, 0, 4);
  probe.out(0x518, swap(command), 4);
  assert.deepEqual(await probe.load(command, 4), [0, 0, 0, 0]);
  assert.deepEqual(probe.test.vm.machine.memory.read(target, size), bytes);
  assert.deepEqual(await probe.load(target + size, 4), [0, 0, 0, 0]);
});

kvmTest("a reset selects the signature, and the files are what they were", async () => {
  await using probe = await Probe.start({ firmwareFiles: [{ name: "opt/x", text: "hello" }] });
  const { key } = (await directory(probe)).get("opt/x")!;
  assert.equal((await item(probe, key, 2)).toHex(), "6865");
  probe.test.vm.reset();
  await probe.test.printed("probe ", 2);
  const { text } = probe.test;
  probe.test.type("i 511\n");
  await probe.test.printed("\n", text.split("\n").length);
  assert.equal(probe.test.text.slice(text.length), "51\n");
});

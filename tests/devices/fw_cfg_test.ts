import assert from "node:assert/strict";
import { fwCfg } from "../../devices/isa/fw_cfg.ts";
import { decodeItems, encodeItems, refuseName } from "../../devices/isa/fw_cfg_items.ts";
import { deviceTest, Rig } from "./fake_context.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const content = encodeItems(
  [{ key: 0, data: encode("QEMU") }, { key: 0x8002, data: Uint8Array.of(1, 0, 0, 0) }],
  [{ name: "opt/b", data: encode("second") }, { name: "opt/a", data: encode("first file") }],
);

const DMA = 1;
const CONTROL = { ERROR: 1, READ: 2, SKIP: 4, SELECT: 8, WRITE: 16 };
/** Where the tests put a command and the bytes that it reads, in the rig's RAM. */
const COMMAND = 0x1f00, TARGET = 0x1100;

function select(rig: Rig, key: number): void {
  rig.write(0, key, 2);
}

function take(rig: Rig, length: number): string {
  return String.fromCharCode(...Array.from({ length }, () => rig.read(1)));
}

function swap32(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value);
  return view.getUint32(0, true);
}

/** Gives a command; returns what control is afterwards. */
function command(rig: Rig, control: number, length: number, target = BigInt(TARGET)): number {
  const view = new DataView(new ArrayBuffer(16));
  view.setUint32(0, control);
  view.setUint32(4, length);
  view.setBigUint64(8, target);
  rig.context.memory.write(COMMAND, new Uint8Array(view.buffer));
  rig.write(0, 0, 4, DMA);
  rig.write(4, swap32(COMMAND), 4, DMA);
  return new DataView(rig.context.memory.read(COMMAND, 4)!.buffer).getUint32(0);
}

function ram(rig: Rig, length: number): string {
  return String.fromCharCode(...rig.context.memory.read(TARGET, length)!);
}

const test = (name: string, run: (rig: Rig) => void) => deviceTest(name, fwCfg, run, {}, content);

test("an item is read byte by byte, and zeros behind its end", (rig) => {
  assert.equal(take(rig, 6), "QEMU\0\0");
  select(rig, 0x8002);
  assert.equal(take(rig, 5), "\x01\0\0\0\0");
  select(rig, 0);
  assert.equal(rig.read(1, 4), 0x554d4551);
});

test("an item that does not exist reads as zeros", (rig) => {
  for (const key of [0x30, 0x7fff, 0xffff, 0x8000]) {
    select(rig, key);
    assert.equal(take(rig, 2), "\0\0");
  }
});

test("the bit to write selects the same item, and nothing is written", (rig) => {
  select(rig, 0x4000);
  rig.write(1, 0x55);
  assert.equal(take(rig, 4), "QEMU");
});

test("the directory has the files in the order of their names, big-endian", (rig) => {
  select(rig, 0x19);
  assert.equal(take(rig, 4), "\0\0\0\x02");
  assert.equal(take(rig, 64), `\0\0\0\x0a\0\x20\0\0opt/a${"\0".repeat(51)}`);
  assert.equal(take(rig, 64), `\0\0\0\x06\0\x21\0\0opt/b${"\0".repeat(51)}`);
  select(rig, 0x21);
  assert.equal(take(rig, 6), "second");
});

test("the ports of DMA read as its signature", (rig) => {
  const bytes = Array.from({ length: 8 }, (_, i) => rig.read(i, 1, DMA));
  assert.equal(String.fromCharCode(...bytes), "QEMU CFG");
  assert.equal(rig.read(0, 4, DMA), 0x554d4551);
});

test("a command selects, skips and reads, and goes on where the last one ended", (rig) => {
  rig.context.memory.bytes.fill(0xee);
  assert.equal(command(rig, 0x20_0000 | CONTROL.SELECT | CONTROL.READ, 3), 0);
  assert.equal(ram(rig, 4), "fir\xee");
  assert.equal(command(rig, CONTROL.SKIP, 3), 0);
  assert.equal(command(rig, CONTROL.READ, 6), 0);
  assert.equal(ram(rig, 7), "file\0\0\xee");
  // The ports are at the same place in the same item.
  assert.equal(take(rig, 2), "\0\0");
  select(rig, 0x20);
  assert.equal(take(rig, 2), "fi");
  assert.equal(command(rig, CONTROL.READ, 2), 0);
  assert.equal(ram(rig, 2), "rs");
  assert.equal(command(rig, 0, 9), 0);
  assert.equal(take(rig, 2), "t ");
});

test("a command that cannot be done says so, and changes no RAM", (rig) => {
  select(rig, 0x20);
  const end = BigInt(0x2000 - 4);
  assert.equal(command(rig, CONTROL.READ, 5, end), CONTROL.ERROR);
  assert.equal(command(rig, CONTROL.READ, 5, 0n), CONTROL.ERROR);
  assert.equal(command(rig, CONTROL.READ, 5, 2n ** 64n - 1n), CONTROL.ERROR);
  assert.equal(command(rig, CONTROL.READ, 0xffff_ffff), CONTROL.ERROR);
  assert.equal(command(rig, CONTROL.WRITE, 1), CONTROL.ERROR);
  assert.equal(command(rig, CONTROL.WRITE, 0), 0);
  assert.equal(command(rig, CONTROL.READ, 0, 0n), 0);
  assert.equal(take(rig, 5), "first");
});

test("a command that is not in RAM does nothing", (rig) => {
  for (const address of [0, 0xfff, 0x1ff8, 0xffff_fff0]) rig.write(4, swap32(address), 4, DMA);
  rig.write(0, swap32(1), 4, DMA);
  rig.write(4, swap32(COMMAND), 4, DMA);
  assert.ok(rig.context.memory.bytes.every((byte) => byte === 0));
  // The high half is good for one command.
  assert.equal(command(rig, 0x20_0000 | CONTROL.SELECT | CONTROL.READ, 1), 0);
  assert.equal(ram(rig, 1), "f");
});

test("a reset selects the signature", (rig) => {
  select(rig, 0x20);
  rig.read(1);
  rig.call((device) => device.reset());
  assert.equal(take(rig, 4), "QEMU");
});

Deno.test("a state of zeros is that of power-on", () => {
  const rig = new Rig(fwCfg, "kept", {}, content);
  assert.ok(rig.bytes.length > 0 && rig.bytes.every((byte) => byte === 0));
});

Deno.test("decodeItems() gives what encodeItems() was given, and nothing of nothing", () => {
  const items = decodeItems(content);
  assert.deepEqual([...items.keys()], [0, 0x8002, 0x19, 0x20, 0x21]);
  assert.deepEqual(Uint8Array.from(items.get(0x20)!), encode("first file"));
  assert.equal(decodeItems(new Uint8Array()).size, 0);
});

Deno.test("encodeItems() has names as the bytes that were given", () => {
  const items = decodeItems(encodeItems([], [{ name: "opt/\udce9", data: new Uint8Array() }]));
  assert.equal(String.fromCharCode(...items.get(0x19)!.subarray(12, 18)), "opt/\xe9\0");
});

Deno.test("refuseName() says what a name cannot be", () => {
  const others = [{ name: "opt/a", data: new Uint8Array() }];
  assert.equal(refuseName("opt/b", others), undefined);
  assert.equal(refuseName("x".repeat(55), others), undefined);
  assert.equal(refuseName("x".repeat(56), others), "name too long (max. 55 char)");
  assert.equal(refuseName("ä".repeat(28), others), "name too long (max. 55 char)");
  assert.equal(refuseName("opt/a", others), "duplicate fw_cfg file name: opt/a");
});

/** What a guest's accesses to ports and to memory outside of RAM do, from real mode. */
import assert from "node:assert/strict";
import { kvmTest, TestVm, until } from "./harness.ts";

const CODE = 0x1000;
const RESULTS = 0x2000;
const DONE = 0x2030;
const TEXT = 0x2100;
const TEXT_BYTES = 4000;

/** Runs at 0x1000 in a machine with 64 KiB of RAM, so that 0xa0000 is nobody's. */
const program = Uint8Array.fromHex(
  [
    "fc", // cld
    "ba7e00", // mov dx, 0x7e: a port that nobody claims
    "ec a20020", // in al, dx; mov [0x2000], al
    "ed a30220", // in ax, dx; mov [0x2002], ax
    "66ed 66a30420", // in eax, dx; mov [0x2004], eax
    "bafe03", // mov dx, 0x3fe: the serial port's MSR and SCR, and two ports behind it
    "66ed 66a30820", // in eax, dx; mov [0x2008], eax
    "ba7e00 66ef", // mov dx, 0x7e; out dx, eax
    "bf1020 b90800 f36c", // mov di, 0x2010; mov cx, 8; rep insb
    "b800a0 8ee0", // mov ax, 0xa000; mov fs, ax
    "6466a30000", // mov fs:[0], eax
    "64a00000 a22020", // mov al, fs:[0]; mov [0x2020], al
    "64a10000 a32220", // mov ax, fs:[0]; mov [0x2022], ax
    "6466a10000 66a32420", // mov eax, fs:[0]; mov [0x2024], eax
    "31f6 bf2820 b90200 6466f3a5", // mov si, 0; mov di, 0x2028; mov cx, 2; rep movsd fs:[si]
    "6466a1fd0f 66a33420", // mov eax, fs:[0xffd]; mov [0x2034], eax: over the end of a page
    "b8ff0f 8ee0", // mov ax, 0xfff; mov fs, ax
    "6466a10e00 66a33820", // mov eax, fs:[14]; mov [0x2038], eax: over the end of RAM
    "66b85a5a5a5a 6466a30e00", // mov eax, 0x5a5a5a5a; mov fs:[14], eax
    "be0021 b9a00f bae900 f36e", // mov si, 0x2100; mov cx, 4000; mov dx, 0xe9; rep outsb
    "c606302001", // mov byte ptr [0x2030], 1
    "f4 ebfd", // hlt; jmp to it
  ].join("").replaceAll(" ", ""),
);

/** What is printed: no two pages of it are alike. */
const text = Array.from({ length: TEXT_BYTES / 8 }, (_, i) => `line ${`${i}`.padStart(3, "0")}`)
  .map((line) => line.slice(0, 8)).join("");

/** Starts the program; its debug console goes to the file `output`. */
async function startProgram(folder: string, output: string): Promise<TestVm> {
  const code = `${folder}/code`;
  const data = `${folder}/text`;
  await Deno.writeFile(code, program);
  await Deno.writeTextFile(data, text);
  return await TestVm.start({
    memory: 0x10000,
    loaders: [{ file: code, addr: CODE, cpuNum: 0 }, { file: data, addr: TEXT }],
    chardevs: [{ backend: "file", id: "debug", path: output, append: false }],
    debugcon: "debug",
  });
}

const isDone = (test: TestVm) => test.vm.machine.memory.read(DONE, 1)[0] === 1;

kvmTest("addresses that nobody claims read as all ones and ignore writes", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denovo-access-" });
  await using test = await startProgram(folder, `${folder}/output`);
  await until(() => isDone(test), () => "the program's end");
  const results = new DataView(test.vm.machine.memory.read(RESULTS, 0x3c).buffer);
  const u32 = (offset: number) => results.getUint32(offset, true);
  assert.equal(results.getUint8(0), 0xff);
  assert.equal(results.getUint8(1), 0);
  assert.equal(results.getUint16(2, true), 0xffff);
  assert.equal(u32(4), 0xffff_ffff);
  assert.equal(u32(8), 0xffff_00b0);
  assert.equal(results.getBigUint64(0x10, true), 2n ** 64n - 1n);
  assert.equal(results.getUint8(0x20), 0xff);
  assert.equal(results.getUint8(0x21), 0);
  assert.equal(results.getUint16(0x22, true), 0xffff);
  assert.equal(u32(0x24), 0xffff_ffff);
  assert.equal(results.getBigUint64(0x28, true), 2n ** 64n - 1n);
  assert.equal(u32(0x34), 0xffff_ffff);
  assert.equal(u32(0x38), 0xffff_0000);
  assert.deepEqual(test.vm.machine.memory.read(0xfffe, 2), Uint8Array.of(0x5a, 0x5a));
  assert.equal(test.vm.runState, "running");
  await Deno.remove(folder, { recursive: true });
});

kvmTest("`rep outsb` writes each byte once, also when it is stopped all the time", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denovo-access-" });
  await using test = await startProgram(folder, `${folder}/output`);
  for (let stops = 0; !isDone(test); stops++) {
    assert.ok(stops < 100_000, "the program does not end");
    test.vm.stop();
    test.vm.cont();
    // A guest that is stopped before it has run at all makes no way.
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.equal(await Deno.readTextFile(`${folder}/output`), text);
  await Deno.remove(folder, { recursive: true });
});

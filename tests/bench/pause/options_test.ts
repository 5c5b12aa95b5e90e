import assert from "node:assert/strict";

import { parseOptions } from "./options.ts";

Deno.test("parseOptions() asks for everything 30 times when nothing is given", () => {
  const options = parseOptions([]);
  assert.equal(options.runs, 30);
  assert.deepEqual(options.modes, ["transfer", "exec", "exec-relay", "reboot"]);
  assert.deepEqual(options.guests, ["cpl3", "cpl0", "dirty"]);
  assert.deepEqual(options.ram, [2 ** 28, 2 ** 30, 2 ** 32, 2 ** 34]);
  assert.deepEqual(options.pages, ["4K", "2M"]);
  assert.deepEqual(options.cpus, [1, 2, 4]);
  assert.deepEqual(options.populate, [false, true]);
  assert.equal(options.qemu, undefined);
  assert.equal(options.accel, undefined);
  assert.equal(parseOptions(["--accel", "tcg"]).accel, "tcg");
  assert.equal(options.observe, true);
  assert.equal(parseOptions(["--observe", "off"]).observe, false);
});

Deno.test("parseOptions() measures only the base when it is to be quick", () => {
  const options = parseOptions(["--quick"]);
  assert.equal(options.runs, 3);
  assert.deepEqual(options.ram, [2 ** 28]);
  assert.deepEqual(options.guests, ["cpl3"]);
  assert.deepEqual(options.cpus, []);
});

Deno.test("parseOptions() takes what was asked for also when it is to be quick", () => {
  const options = parseOptions(["--quick", "--runs=5", "--ram", "1G, 512M", "--cpus", "2"]);
  assert.equal(options.runs, 5);
  assert.deepEqual(options.ram, [2 ** 30, 2 ** 29]);
  assert.deepEqual(options.cpus, [2]);
});

const refusals: readonly (readonly [string, string[], RegExp])[] = [
  ["an unknown option", ["--speed"], /^pause: Unknown option '--speed'; 'pause --help' lists/],
  ["a stray word", ["exits"], /^pause: Unexpected argument 'exits'/],
  ["an option without its value", ["--ram"], /^pause: Option '--ram <value>' argument missing/],
  ["0 runs", ["--runs", "0"], /^--runs takes whole numbers above 0, not '0'$/],
  ["half a vCPU", ["--cpus", "0.5"], /^--cpus takes whole numbers above 0, not '0.5'$/],
  ["a size without a unit", ["--ram", "256"], /^--ram takes sizes of at least 128M .*, not '256'$/],
  ["too little RAM", ["--ram", "1G,64M"], /^--ram takes sizes of at least 128M .*, not '64M'$/],
  ["an unknown mode", ["--modes", "transfer,copy"], /^--modes does not know 'copy': give any of /],
  ["an unknown accelerator", ["--accel", "xen"], /^--accel does not know 'xen': .*kvm, tcg$/],
  [
    "the guest of --cpus",
    ["--guests", "smp"],
    /^--guests does not know 'smp': .*cpl3, cpl0, dirty$/,
  ],
];
for (const [what, args, message] of refusals) {
  Deno.test(`parseOptions() refuses ${what} in one sentence`, () => {
    assert.throws(() => parseOptions(args), (error: Error) => {
      assert.match(error.message, message);
      return true;
    });
  });
}

/**
 * Every combination of the options that bind consoles, with what QEMU makes of it (found by asking
 * its `info chardev`); QEMU's own parallel port, which it makes besides, left out.
 *
 * @module
 */
import assert from "node:assert/strict";
import { deviceTypes } from "../../devices/registry.ts";
import { OptionError, parseCommandLine } from "../../vmm/options/command_line.ts";
import { words } from "./options_fixture.ts";

/** A line, and what it makes: backends, who uses them, or after `!` why it is refused. */
const combinations: readonly (readonly [line: string, outcome: string])[] = [
  ["-nographic", "serial0=stdio+mux COM1:serial0 hmp:serial0"],
  ["-nographic -serial mon:stdio", "serial0=stdio+mux COM1:serial0 hmp:serial0"],
  ["-nographic -serial stdio", "! -serial stdio: cannot use stdio by multiple character devices"],
  [
    "-nographic -serial null",
    "compat_monitor0=stdio serial0=null COM1:serial0 hmp:compat_monitor0",
  ],
  ["-nographic -serial none", "compat_monitor0=stdio COM1:none hmp:compat_monitor0"],
  ["-nographic -monitor none", "serial0=stdio COM1:serial0"],
  [
    "-nographic -monitor null",
    "compat_monitor0=null serial0=stdio COM1:serial0 hmp:compat_monitor0",
  ],
  ["-nographic -monitor stdio", "! -nographic: cannot use stdio by multiple character devices"],
  ["-nographic -serial none -monitor stdio", "compat_monitor0=stdio COM1:none hmp:compat_monitor0"],
  [
    "-nographic -serial null -monitor stdio",
    "compat_monitor0=stdio serial0=null COM1:serial0 hmp:compat_monitor0",
  ],
  ["-nographic -serial stdio -monitor none", "serial0=stdio COM1:serial0"],
  [
    "-nographic -serial stdio -monitor null",
    "compat_monitor0=null serial0=stdio COM1:serial0 hmp:compat_monitor0",
  ],
  [
    "-nographic -serial stdio -monitor stdio",
    "! -serial stdio: cannot use stdio by multiple character devices",
  ],
  ["-nographic -serial mon:stdio -monitor none", "serial0=stdio+mux COM1:serial0 hmp:serial0"],
  [
    "-nographic -serial mon:stdio -monitor stdio",
    "! -serial mon:stdio: cannot use stdio by multiple character devices",
  ],
  [
    "-nographic -serial mon:stdio -monitor null",
    "compat_monitor0=null serial0=stdio+mux COM1:serial0 hmp:compat_monitor0 hmp:serial0",
  ],
  [
    "-nographic -serial mon:stdio -serial mon:stdio",
    "! -serial mon:stdio: cannot use stdio by multiple character devices",
  ],
  [
    "-nographic -serial mon:stdio -serial stdio",
    "! -serial stdio: cannot use stdio by multiple character devices",
  ],
  [
    "-nographic -serial mon:stdio -serial null",
    "serial0=stdio+mux serial1=null COM1:serial0 COM2:serial1 hmp:serial0",
  ],
  ["-nographic -qmp null", "compat_monitor0=null serial0=stdio COM1:serial0 qmp:compat_monitor0"],
  ["-nographic -qmp stdio", "! -nographic: cannot use stdio by multiple character devices"],
  [
    "-nographic -qmp stdio -serial null",
    "compat_monitor0=stdio serial0=null COM1:serial0 qmp:compat_monitor0",
  ],
  [
    "-nographic -qmp stdio -serial mon:stdio",
    "! -serial mon:stdio: cannot use stdio by multiple character devices",
  ],
  [
    "-nographic -qmp null -serial mon:stdio",
    "compat_monitor0=null serial0=stdio+mux COM1:serial0 qmp:compat_monitor0 hmp:serial0",
  ],
  [
    "-nographic -debugcon mon:stdio",
    "! -debugcon mon:stdio: cannot use stdio by multiple character devices",
  ],
  [
    "-nographic -debugcon stdio",
    "! -debugcon stdio: cannot use stdio by multiple character devices",
  ],
  [
    "-nographic -serial null -debugcon mon:stdio",
    "! -debugcon mon:stdio: cannot use stdio by multiple character devices",
  ],
  [
    "-nographic -serial none -monitor none -debugcon mon:stdio",
    "debugcon=stdio+mux COM1:none debugcon:debugcon hmp:debugcon",
  ],
  [
    "-nographic -chardev stdio,id=c,mux=on -serial chardev:c -monitor chardev:c",
    "c=stdio+mux COM1:c hmp:c",
  ],
  ["-nographic -chardev stdio,id=c,mux=on -serial chardev:c -mon c", "c=stdio+mux COM1:c hmp:c"],
  [
    "-nographic -chardev stdio,id=c,mux=on,signal=off -serial chardev:c -mon chardev=c,mode=readline",
    "c=stdio+mux COM1:c hmp:c",
  ],
  [
    "-nographic -chardev stdio,id=c -serial chardev:c",
    "! -nographic: cannot use stdio by multiple character devices",
  ],
  [
    "-nographic -chardev stdio,id=c -serial chardev:c -monitor chardev:c",
    "! -serial chardev:c: Device 'c' is in use",
  ],
  [
    "-nographic -chardev stdio,id=c,mux=on -serial chardev:c -serial chardev:c -mon c",
    "c=stdio+mux COM1:c COM2:c hmp:c",
  ],
  [
    "-nographic -chardev stdio,id=c,mux=on -serial chardev:c -serial chardev:c -serial chardev:c -serial chardev:c -mon c",
    "! -serial chardev:c: too many uses of multiplexed chardev 'c' (maximum is 4)",
  ],
  [
    "-nographic -chardev stdio,id=c,mux=on -mon c,mode=control -serial chardev:c",
    "c=stdio+mux COM1:c qmp:c",
  ],
  ["-nographic -chardev stdio,id=c -mon c -serial none", "c=stdio COM1:none hmp:c"],
  ["-nographic -nodefaults", ""],
  ["-nographic -nodefaults -serial mon:stdio", "serial0=stdio+mux COM1:serial0 hmp:serial0"],
  ["-nographic -nodefaults -serial stdio", "serial0=stdio COM1:serial0"],
  ["-nographic -nodefaults -monitor stdio", "compat_monitor0=stdio hmp:compat_monitor0"],
  ["-display none", "serial0=null COM1:serial0"],
  ["-display none -serial mon:stdio", "serial0=stdio+mux COM1:serial0 hmp:serial0"],
  ["-display none -serial stdio", "serial0=stdio COM1:serial0"],
  [
    "-display none -monitor stdio",
    "compat_monitor0=stdio serial0=null COM1:serial0 hmp:compat_monitor0",
  ],
  [
    "-display none -monitor stdio -serial stdio",
    "! -serial stdio: cannot use stdio by multiple character devices",
  ],
  [
    "-display none -serial mon:stdio -monitor stdio",
    "! -serial mon:stdio: cannot use stdio by multiple character devices",
  ],
  [
    "-display none -serial stdio -qmp null",
    "compat_monitor0=null serial0=stdio COM1:serial0 qmp:compat_monitor0",
  ],
  [
    "-display none -chardev stdio,id=c,mux=on -serial chardev:c -monitor chardev:c",
    "c=stdio+mux COM1:c hmp:c",
  ],
  [
    "-display none -nodefaults -serial mon:stdio -qmp null",
    "compat_monitor0=null serial0=stdio+mux COM1:serial0 qmp:compat_monitor0 hmp:serial0",
  ],
  [
    "-nographic -serial mon:chardev:c -chardev null,id=c",
    "! -serial mon:chardev:c: 'chardev:c' is not a valid char driver",
  ],
  ["-nographic -serial mon:null", "serial0=null+mux COM1:serial0 hmp:serial0"],
  ["-nographic -serial mon:none", "! -serial mon:none: 'none' is not a valid char driver"],
  ["-nographic -serial mon:", "! -serial mon:: '' is not a valid char driver"],
  ["-nographic -serial chardev:nope", '! -serial chardev:nope: chardev "nope" not found'],
  ["-nographic -monitor mon:stdio", "! -nographic: cannot use stdio by multiple character devices"],
  [
    "-nographic -monitor mon:stdio -serial null",
    "compat_monitor0=stdio+mux serial0=null COM1:serial0 hmp:compat_monitor0 hmp:compat_monitor0",
  ],
  [
    "-nographic -qmp mon:stdio -serial null",
    "compat_monitor0=stdio+mux serial0=null COM1:serial0 hmp:compat_monitor0 qmp:compat_monitor0",
  ],
  ["-display none -serial mon:stdio -monitor none", "serial0=stdio+mux COM1:serial0 hmp:serial0"],
  [
    "-nographic -device isa-serial",
    "compat_monitor0=stdio isa-serial:undefined hmp:compat_monitor0",
  ],
  [
    "-nographic -device isa-serial,chardev=c -chardev stdio,id=c",
    "! -nographic: cannot use stdio by multiple character devices",
  ],
  [
    "-nographic -device isa-serial,chardev=c -chardev stdio,id=c,mux=on -mon c",
    "c=stdio+mux isa-serial:c hmp:c",
  ],
  [
    "-nographic -serial none -serial mon:stdio",
    "serial1=stdio+mux COM1:none COM2:serial1 hmp:serial1",
  ],
  ["-nographic -parallel none", "serial0=stdio+mux COM1:serial0 hmp:serial0"],
  ["-nographic -serial vc", "compat_monitor0=stdio serial0=null COM1:serial0 hmp:compat_monitor0"],
  [
    "-display none -serial vc -monitor stdio",
    "compat_monitor0=stdio serial0=null COM1:serial0 hmp:compat_monitor0",
  ],
  ["-nographic -echr 2", "serial0=stdio+mux+2 COM1:serial0 hmp:serial0"],
  ["-nographic -echr 0x14 -serial mon:stdio", "serial0=stdio+mux+20 COM1:serial0 hmp:serial0"],
  [
    "-nographic -chardev null,id=a -chardev null,id=a",
    "! -chardev null,id=a: Duplicate ID 'a' for chardev",
  ],
  [
    "-nographic -chardev stdio,id=a -chardev stdio,id=b",
    "! -chardev stdio,id=b: cannot use stdio by multiple character devices",
  ],
];

function outcome(line: string): string {
  try {
    const { config } = parseCommandLine(words(line), deviceTypes);
    assert.ok(config);
    const backends = config.chardevs.map(({ id, backend, mux, escape }) =>
      `${id}=${backend}${mux ? "+mux" : ""}${escape === undefined ? "" : `+${escape}`}`
    );
    return [
      ...backends,
      ...config.serials.map((id, i) => `COM${i + 1}:${id}`),
      ...config.devices.map(({ driver, properties }) => `${driver}:${properties.chardev}`),
      ...(config.debugcon === undefined ? [] : [`debugcon:${config.debugcon}`]),
      ...config.monitors.map((one) => `${one.mode === "control" ? "qmp" : "hmp"}:${one.chardev}`),
    ].join(" ");
  } catch (error) {
    assert.ok(error instanceof OptionError, `${line}: ${error}`);
    return `! ${error.message}`;
  }
}

for (const [line, expected] of combinations) {
  Deno.test(`consoles of ${line}`, () => assert.equal(outcome(line), expected));
}

Deno.test("-parallel asks for no port, which is what there is", () => {
  assert.equal(outcome("-nographic -parallel null"), outcome("-nographic"));
  const refusal = "this machine has no parallel port: none is all that can be asked for";
  assert.equal(outcome("-parallel stdio"), `! -parallel stdio: ${refusal}`);
});

Deno.test("-echr takes a byte in C's spelling", () => {
  assert.match(outcome("-nographic -echr 0"), /^serial0=stdio\+mux\+0 /);
  assert.equal(outcome("-echr x"), "! -echr x: Parameter 'echr' expects integer");
  assert.equal(outcome("-echr 256"), "! -echr 256: Parameter 'echr' expects uint8_t");
});

/** `-boot`, `-fw_cfg` and `-rtc`: QEMU's words and what becomes of them. */
import assert from "node:assert/strict";
import type { MachineConfig } from "../../vmm/config.ts";
import { parseCommandLine } from "../../vmm/options/command_line.ts";
import { assertOptionError, testDevices, words } from "./options_fixture.ts";

function config(line: string): MachineConfig {
  const { config } = parseCommandLine(words(line), testDevices);
  assert.ok(config, line);
  return config;
}

function refused(line: string, message: string): void {
  assertOptionError(() => config(line), `${line}: ${message}`);
}

Deno.test("-boot tells firmware what to do, and its drives are checked", () => {
  const cases: [line: string, boot: MachineConfig["boot"]][] = [
    ["", { menu: false }],
    ["-boot c", { menu: false }],
    ["-boot order=cad,once=d,strict=on", { menu: false }],
    ["-boot menu=on", { menu: true }],
    ["-boot menu=on,splash-time=5000,reboot-timeout=-1", {
      menu: true,
      splashTime: 5000,
      rebootTimeout: -1,
    }],
    ["-boot splash-time=0,reboot-timeout=65535", {
      menu: false,
      splashTime: 0,
      rebootTimeout: 65535,
    }],
    ["-boot menu=on -boot splash-time=7 -boot order=n", { menu: true, splashTime: 7 }],
  ];
  for (const [line, boot] of cases) assert.deepEqual(config(line).boot, boot, line);
  refused("-boot order=q", "Invalid boot device 'q'");
  refused("-boot once=cc", "Boot device 'c' was given twice");
  refused("-boot foo=1", "Invalid parameter 'foo'");
  const splash = "splash time is invalid, it should be a value between 0 and 65535";
  for (const value of ["-1", "65536"]) refused(`-boot splash-time=${value}`, splash);
  const reboot = "reboot timeout is invalid, it should be a value between -1 and 65535";
  for (const value of ["-2", "65536"]) refused(`-boot reboot-timeout=${value}`, reboot);
  refused("-boot splash=a.jpg", "there is no display that could show a splash picture");
});

Deno.test("-fw_cfg takes a name with a file or a text", () => {
  const line = "-fw_cfg name=opt/a,file=f -fw_cfg opt/b,string=x,,y -fw_cfg name=c,string==";
  assert.deepEqual(config(line).firmwareFiles, [
    { name: "opt/a", path: "f" },
    { name: "opt/b", text: "x,y" },
    { name: "c", text: "=" },
  ]);
  const needed = "name, plus exactly one of file, string and gen_id, are needed";
  for (
    const value of [
      "name=opt/a",
      "string=b",
      "name=opt/a,string=x,file=f",
      "name=opt/a,string=",
      "name=,string=x",
    ]
  ) refused(`-fw_cfg ${value}`, needed);
  refused("-fw_cfg name=opt/a,gen_id=x", "Cannot find object ID 'x'");
});

Deno.test("-rtc says what the clock shows at the start", () => {
  const cases: [line: string, base: MachineConfig["rtcBase"]][] = [
    ["", "utc"],
    ["-rtc base=utc", "utc"],
    ["-rtc utc,clock=host,driftfix=none", "utc"],
    ["-rtc base=localtime", "localtime"],
    ["-rtc base=2006-06-17T16:01:21", Date.UTC(2006, 5, 17, 16, 1, 21) / 1000],
    ["-rtc base=2006-06-17", Date.UTC(2006, 5, 17) / 1000],
    ["-rtc base=1969-12-31T23:59:59", -1],
    ["-rtc base=2000-2-29", Date.UTC(2000, 1, 29) / 1000],
  ];
  for (const [line, base] of cases) assert.equal(config(line).rtcBase, base, line);
  const format = "invalid datetime format, valid formats: '2006-06-17T16:01:21' or '2006-06-17'";
  for (
    const base of ["now", "2006-06-17T16:01", "2006-13-01", "2006-02-30", "2006-01-01T24:00:00", ""]
  ) refused(`-rtc base=${base}`, format);
  refused("-rtc clock=x", "invalid option value 'x'");
  refused("-rtc driftfix=x", "invalid option value 'x'");
  refused("-rtc clock=vm", "clock=vm is not there: the clock follows the host's (clock=host)");
  refused("-rtc driftfix=slew", "driftfix=slew is not there: lost ticks stay lost (driftfix=none)");
});

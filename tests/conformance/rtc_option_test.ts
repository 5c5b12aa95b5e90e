/** `-rtc` as the guest sees it. */
import assert from "node:assert/strict";
import { kvmTest, program, TestFolder } from "./session.ts";

/** What the guest reads from the clock, as if it were UTC, in milliseconds. */
async function clockOf(options: readonly string[], timeZone: string): Promise<number> {
  using folder = new TestFolder();
  const [deno, ...rest] = program;
  const { stdout, stderr } = await new Deno.Command(deno, {
    args: [
      ...[...rest, "-kernel", folder.guest("rtc"), "-M", "rtc=on", ...options],
      ...["-serial", "stdio", "-device", "isa-debug-exit,iobase=0x501,iosize=2"],
    ],
    env: { TZ: timeZone },
    stdin: "null",
  }).output();
  const text = new TextDecoder().decode(stdout);
  const time = /^rtc: (.*)\r?\nrtc: irqs ok/.exec(text)?.[1];
  assert.ok(time, `${text}${new TextDecoder().decode(stderr)}`);
  return Date.parse(`${time.replace(" ", "T")}Z`);
}

/** Kolkata is 5:30 ahead of UTC all the year round. */
const KOLKATA_MS = 330 * 60_000;
const DATE = "2006-06-17T16:01:21";

const cases: [options: string[], shows: (nowMs: number) => number][] = [
  [[], (nowMs) => nowMs],
  [["-rtc", "base=utc"], (nowMs) => nowMs],
  [["-rtc", "base=localtime"], (nowMs) => nowMs + KOLKATA_MS],
];

for (const [options, shows] of cases) {
  kvmTest(`the clock shows what '${options.join(" ")}' says`, async () => {
    const before = Math.floor(Date.now() / 1000) * 1000;
    const shown = await clockOf(options, "Asia/Kolkata");
    assert.ok(shown >= shows(before) && shown <= shows(Date.now()), `${new Date(shown)}`);
  });
}

kvmTest("the clock begins at the time that -rtc base says", async () => {
  const begin = Date.now();
  const shown = await clockOf(["-rtc", `base=${DATE}`], "Asia/Kolkata") - Date.parse(`${DATE}Z`);
  assert.ok(shown >= 0 && shown <= Date.now() - begin, `${shown} ms later`);
});

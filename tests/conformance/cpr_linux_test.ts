/**
 * Linux through live updates. Its kernel and initial RAM disk are no part of the project: they are
 * in the folder that DENOVO_LINUX names, or in `shared/guests` beside the project.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { patience } from "../patience.ts";
import { kvmTest, Laboratory, until } from "./program.ts";
import { Chain, FifoConsole, modes } from "./updates.ts";

const folder = Deno.env.get("DENOVO_LINUX") ??
  new URL("../../../shared/guests", import.meta.url).pathname;
const kernel = `${folder}/vmlinux-up.gz`;
const noLinux = !existsSync(kernel);
if (noLinux) console.warn(`SKIPPED: Linux is not updated: there is no ${kernel}`);

/** The options that make a VMM boot Linux; `-kernel` and `-m` override what all guests have. */
function linuxOptions(lab: Laboratory): string[] {
  const image = lab.path("vmlinux");
  Deno.writeFileSync(image, gunzipSync(Deno.readFileSync(kernel)));
  return [
    ...["-kernel", image, "-initrd", `${folder}/initrd-klibc.cpio`, "-m", "64"],
    // What the kernel has to say of a slow host is no error, so it is not printed amid other lines.
    ...["-append", "console=ttyS0 reboot=k panic=-1 loglevel=4"],
    ...["-cpu", "host,-cx16", "-no-reboot"],
  ];
}

/** Ten seconds where nothing else runs. */
const BOOT_PATIENCE_MS = patience(180_000);
/** Updates by each mode, in turns. */
const ROUNDS = 20;

/** Prints `<1><2><3>...` from the background, five numbers a second, for ever. */
const TICKER = '(i=0; while :; do i=$((i+1)); echo -n "<$i>"; sleep 0.2; done) &';

/** Someone at the shell's prompt, who types command after command beside a ticker. */
class ShellTypist implements Disposable {
  /** What the console must show, were there no ticker. */
  #expected = "# ";
  readonly #from: number;
  readonly #typing: Promise<void>;
  #stop = false;
  #commands = 0;

  /** @param from where in the console's text the prompt comes at which to begin */
  constructor(readonly console: FifoConsole, from: number) {
    this.#from = from;
    this.#typing = this.#type();
  }

  /** Waits until some more commands are done, and the ticker has gone on. */
  async goesOn(): Promise<void> {
    const [commands, ticks] = [this.#commands, this.#ticks.length];
    await until(
      () => this.#commands > commands + 1 && this.#ticks.length > ticks,
      () => `commands and ticks after ${commands} in ${JSON.stringify(this.#text.slice(-300))}`,
    );
  }

  /** Stops; fails unless shell and ticker have printed everything once, and nothing else. */
  async finish(): Promise<void> {
    this.#stop = true;
    await this.#typing;
    assert.equal(this.#session, this.#expected);
    const ticks = this.#ticks.split(">").length - 1;
    const numbers = Array.from({ length: ticks }, (_, i) => `<${i + 1}>`).join("");
    assert.ok(this.#ticks.startsWith(numbers) && ticks > 10, this.#ticks);
  }

  [Symbol.dispose](): void {
    this.#stop = true;
  }

  get #text(): string {
    return this.console.text.slice(this.#from);
  }

  /** Ticker and shell print side by side, characters mixed: but no character is both's. */
  get #ticks(): string {
    return this.#text.replaceAll(/[^<>0-9]/g, "");
  }

  get #session(): string {
    return this.#text.replaceAll(/[<>0-9]/g, "");
  }

  async #type(): Promise<void> {
    for (;;) {
      // The next one comes at the prompt: what is typed ahead is echoed amid the answer.
      await until(
        () => this.#session.length >= this.#expected.length,
        () => `${JSON.stringify(this.#expected.slice(-200))} in ${JSON.stringify(this.#text)}`,
      );
      if (this.#stop) return;
      const word = `${++this.#commands}`.replaceAll(/\d/g, (digit) => "abcdefghij"[Number(digit)]);
      await this.console.type(`echo line ${word}\n`);
      this.#expected += `echo line ${word}\nline ${word}\n# `;
    }
  }
}

if (!noLinux) {
  kvmTest(
    `Linux's shell and ticker go on through ${ROUNDS} updates by each mode, and to their end`,
    async () => {
      await using lab = await Laboratory.open();
      using console = await FifoConsole.open(lab.path("console"));
      const special = { options: linuxOptions(lab), serial: console.serial };
      const chain = await Chain.start(lab, special);
      const prompt = () => console.text.includes("SHELL-READY\n# ");
      await until(prompt, () => `a prompt in ${console.text}`, BOOT_PATIENCE_MS);
      await console.type(`${TICKER}\n`);
      await console.printed("done) &\n");
      using typist = new ShellTypist(console, console.text.indexOf("done) &\n") + 8);
      for (let round = 0; round < ROUNDS; round++) {
        for (const mode of modes) await chain.update(mode);
        await typist.goesOn();
      }
      await typist.finish();
      const from = console.text.length;
      await console.type("dmesg; echo 'end of' messages\n");
      await console.printed("end of messages", from);
      assert.doesNotMatch(console.text, /BUG|Oops|Call Trace|soft lockup|bad: scheduling/);
      await console.type("reboot\n");
      assert.deepEqual(await chain.vmm.ended(), { code: 0 }, chain.story);
    },
  );
}

import assert from "node:assert/strict";
import { Readline } from "../../vmm/monitor/readline.ts";

const up = "\x1b[A", down = "\x1b[B", right = "\x1b[C", left = "\x1b[D", erase = "\x1b[K";

/** A line editor; `type` returns what it writes, `lines` are those entered. */
function edit(words: readonly string[] = []) {
  let output = "";
  const lines: string[] = [];
  const readline = new Readline("(qemu) ", {
    write: (bytes) => output += bytes,
    complete: (line) => words.filter((word) => word.startsWith(line.split(" ").at(-1)!)),
  });
  readline.start();
  output = "";
  const type = (keys: string) => {
    for (const key of keys) {
      const line = readline.receive(key);
      if (line === undefined) continue;
      lines.push(line);
      readline.start();
    }
    const written = output;
    output = "";
    return written;
  };
  return { readline, lines, type };
}

Deno.test("Readline echoes by redrawing the line", () => {
  const { type, lines } = edit();
  assert.equal(type("in"), `i${erase}${left}in${erase}`);
  assert.equal(type("\x7f\x08"), `${left}${left}i${erase}${left}${erase}`);
  assert.equal(type("ok\r"), `o${erase}${left}ok${erase}\r\n(qemu) `);
  assert.equal(type("\n"), "\r\n(qemu) ");
  assert.deepEqual(lines, ["ok", ""]);
});

Deno.test("Readline moves and edits in the middle of the line", () => {
  const cases = [
    [`bc\x01a`, "abc"],
    [`ac${left}b`, "abc"],
    [`ab\x01\x05c`, "abc"],
    [`xabc\x01\x1b[3~`, "abc"],
    [`xabc\x1b[H\x04\x1b[Fd`, "abcd"],
    [`xabc\x1b[1~${right}\x08\x1b[4~d`, "abcd"],
    [`abc def${left}${left}${left}\x0b`, "abc "],
    [`abc def${left}${left}${left}\x15`, "def"],
    ["nmi x y\x17\x17", "nmi "],
    ["a\x03b", "ab"],
    ["a\x1bdb\x1b[5~c", "abc"],
    [`a${left}${left}${left}b${right}${right}c`, "bac"],
  ];
  for (const [keys, line] of cases) {
    const { type, lines } = edit();
    type(`${keys}\r`);
    assert.deepEqual(lines, [line], JSON.stringify(keys));
  }
});

Deno.test("Readline redraws from the cursor's place", () => {
  const { type } = edit();
  type("abcd\x01");
  assert.equal(type(right + right), right + right);
  assert.equal(type("X"), `${left}${left}abXcd${erase}${left}${left}`);
  assert.equal(type("\x0c"), `\x1b[2J\x1b[1;1H(qemu) abXcd${erase}${left}${left}`);
});

Deno.test("Readline recalls lines, the latest first, each once", () => {
  const { type, readline } = edit();
  type("stop\rcont\rstop\r\r");
  assert.deepEqual(readline.history, ["cont", "stop"]);
  assert.equal(type(up), `stop${erase}`);
  assert.equal(type(up), `${left.repeat(4)}cont${erase}`);
  assert.equal(type(up), "");
  assert.equal(type("\x1bOB"), `${left.repeat(4)}stop${erase}`);
  assert.equal(type(down), `${left.repeat(4)}${erase}`);
});

Deno.test("Readline keeps 64 lines and 4095 bytes a line", () => {
  const { type, readline, lines } = edit();
  for (let i = 0; i < 70; i++) type(`line ${i}\r`);
  assert.equal(readline.history.length, 64);
  assert.equal(readline.history[0], "line 6");
  type("x".repeat(5000) + "\r");
  assert.equal(lines.at(-1)!.length, 4095);
});

Deno.test("Readline completes a word, or lists what it may become", () => {
  const { type, lines } = edit(["status", "stats", "stop"]);
  assert.ok(type("sto\t").endsWith(`stop ${erase}`));
  type("\x15");
  assert.ok(
    type("info sta\t").endsWith(
      `\r\nstatus    stats     \r\n(qemu) info stat${erase}`,
    ),
  );
  assert.equal(type("\x15").length > 0, true);
  assert.equal(type("zzz\t").endsWith(`zzz${erase}`), true);
  type("\r");
  assert.deepEqual(lines, ["zzz"]);
});

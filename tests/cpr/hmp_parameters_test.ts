import assert from "node:assert/strict";
import { splitCommand } from "../../cpr/commands/hmp_parameters.ts";

Deno.test("`splitCommand()` splits as a shell's quoting does, without any expansion", () => {
  const commands: Record<string, string[]> = {
    "": [],
    "  a \t b\n": ["a", "b"],
    "a 'b c' d": ["a", "b c", "d"],
    'a "b c"d': ["a", "b cd"],
    "'' \"\"": ["", ""],
    "a\\ b": ["a b"],
    "'a\\b'": ["a\\b"],
    '"a\\"b\\\\c\\d"': ['a"b\\c\\d'],
    "$HOME *.ts `id` ~": ["$HOME", "*.ts", "`id`", "~"],
    "it\\'s": ["it's"],
    "-name 'it'\\''s'": ["-name", "it's"],
  };
  for (const [text, words] of Object.entries(commands)) {
    assert.deepEqual(splitCommand(text), words, text);
  }
});

Deno.test("`splitCommand()` refuses a quote that is not closed", () => {
  assert.throws(() => splitCommand("a 'b"), {
    message: "Text ended before matching quote was found for '. (The text was 'a 'b')",
  });
  assert.throws(() => splitCommand('a "b'), {
    message: "Text ended before matching quote was found for \". (The text was 'a \"b')",
  });
});

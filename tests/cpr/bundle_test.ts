import assert from "node:assert/strict";

import { bundlePath } from "../../cpr/update/bundle.ts";

/** What `deno info --json` says of a module. */
interface Module {
  readonly specifier: string;
  readonly dependencies?: readonly { readonly specifier: string; readonly isDynamic?: boolean }[];
}

Deno.test("Deno finds no late import in the bundle, and so loads nothing that is not run at once", async () => {
  const program = await bundlePath();
  for (const path of [program, ...["vcpu_worker.js", "io_worker.js"].map(beside)]) {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["info", "--json", "--no-config", path],
      stderr: "inherit",
    });
    const { modules } = JSON.parse(new TextDecoder().decode((await command.output()).stdout)) as {
      readonly modules: readonly Module[];
    };
    assert.ok(modules.some(({ specifier }) => specifier === `file://${path}`));
    for (const { specifier, dependencies = [] } of modules) {
      // What comes with Deno is not read from a file.
      const late = dependencies.filter((one) =>
        one.isDynamic && !one.specifier.startsWith("node:")
      );
      assert.deepEqual(late, [], specifier);
    }
  }

  function beside(name: string): string {
    return program.replace(/[^/]*$/, name);
  }
});

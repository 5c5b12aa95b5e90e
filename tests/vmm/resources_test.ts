import assert from "node:assert/strict";
import { duplicate, isOpen } from "../../ffi/fd.ts";
import { defaultConfig, type MachineConfig } from "../../vmm/config.ts";
import { Inheritance } from "../../vmm/inheritance.ts";
import { Resources } from "../../vmm/resources.ts";
import { until } from "../devices/chardev_testing.ts";

const RAM = 1 << 20;

function config(changes: Partial<MachineConfig> = {}): MachineConfig {
  return { ...defaultConfig(), memory: RAM, ...changes };
}

/** Resources of which nothing is open, closed at the end of a scope whatever became of them. */
class Stage implements AsyncDisposable {
  readonly parts: Resources = new Resources(() => {}, () => {}, {
    event: () => {},
    connected: () => {},
    claimed: () => {},
  }, { connected: () => {} });

  /** Everything that is handed over, as `NAME ID`. */
  get handed(): string[] {
    return this.parts.keepers.flatMap((keeper) =>
      keeper.handOver("neighbour").fds.map(({ name, id }) => `${name} ${id}`)
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.parts.close();
  }
}

Deno.test("`open()` makes memory and character devices, which are handed over", async () => {
  await using stage = new Stage();
  const folder = await Deno.makeTempDir({ prefix: "denovo-resources-" });
  try {
    const path = `${folder}/log`;
    const log = { backend: "file", id: "log", path, append: false } as const;
    await stage.parts.open(config({ chardevs: [log] }), undefined, {});
    assert.equal(stage.parts.memory.ram(config()).config.size, RAM);
    assert.deepEqual([...stage.parts.chardevs.backends.keys()], ["log"]);
    const [ram, ...chardev] = stage.handed;
    assert.match(ram, /^memory /);
    assert.ok(chardev.some((key) => key.endsWith(" log")), `${chardev}`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("`open()` goes on with a predecessor's memory, and with nothing but what is known", async () => {
  await using old = new Stage();
  await old.parts.open(config(), undefined, {});
  old.parts.memory.ram(config()).mapping.write(7, Uint8Array.of(1, 2, 3));
  await using next = new Stage();
  using inheritance = new Inheritance(true);
  for (
    const { name, id, fd } of old.parts.keepers.flatMap((one) => one.handOver("neighbour").fds)
  ) {
    inheritance.addFd(name, id, duplicate(fd));
  }
  await next.parts.open(config(), inheritance, { successor: true });
  inheritance.checkEmpty();
  assert.deepEqual([...next.parts.memory.ram(config()).mapping.read(7, 3)], [1, 2, 3]);
});

Deno.test("`close()` closes what was open when `open()` failed", async () => {
  const stage = new Stage();
  const nowhere = "/nonexistent/folder/log";
  const log = { backend: "file", id: "log", path: nowhere, append: false } as const;
  await assert.rejects(stage.parts.open(config({ chardevs: [log] }), undefined, {}), {
    message: `Could not open '${nowhere}': No such file or directory`,
  });
  const { fd } = stage.parts.memory.ram(config()).fd!;
  assert.equal(isOpen(fd), true);
  await stage.parts.close();
  assert.equal(isOpen(fd), false);
});

Deno.test("`withConsole()` gives the first serial port streams, which end with the resources", async () => {
  const { parts } = new Stage();
  const full = parts.withConsole(config());
  assert.deepEqual(full.serials, ["console"]);
  await parts.open(full, undefined, {});
  const frontend = {
    typed: "",
    inputRoom: () => 16,
    input: (data: Uint8Array) => void (frontend.typed += new TextDecoder().decode(data)),
    event: () => {},
    writable: () => {},
  };
  parts.chardevs.attach("console", frontend);
  const keyboard = parts.console!.writable.getWriter();
  await keyboard.write(new TextEncoder().encode("ls\n"));
  await until(() => frontend.typed === "ls\n");
  const screen = parts.console!.readable.getReader();
  await parts.close();
  assert.equal((await screen.read()).done, true);
  await assert.rejects(keyboard.write(new Uint8Array(1)), { message: "Console is closed" });
});

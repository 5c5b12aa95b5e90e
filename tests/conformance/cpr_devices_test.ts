/** What a guest has begun with a device it finishes after a live update, in every mode. */
import assert from "node:assert/strict";
import { beginTransfer, kvmTest, Laboratory, startSuccessor } from "./program.ts";
import { Chain, FifoConsole, modes } from "./updates.ts";

/** The guest `probe`, on a console that outlives every VMM. */
class ProbeConsole implements Disposable {
  #taken = 0;

  private constructor(readonly console: FifoConsole) {}

  static async open(lab: Laboratory): Promise<ProbeConsole> {
    return new ProbeConsole(await FifoConsole.open(lab.path("console")));
  }

  /** Waits until the guest is there. */
  async started(): Promise<void> {
    await this.#line();
  }

  /** Tells it to do something. */
  async tell(command: string): Promise<void> {
    await this.console.type(`${command}\n`);
  }

  /** Reads bytes from a port. */
  async in(port: number, length: number): Promise<number[]> {
    const bytes: number[] = [];
    for (let i = 0; i < length; i++) {
      await this.tell(`i ${port.toString(16)}`);
      bytes.push(parseInt(await this.#line(), 16));
    }
    return bytes;
  }

  [Symbol.dispose](): void {
    this.console[Symbol.dispose]();
  }

  async #line(): Promise<string> {
    await this.console.printed("\n", this.#taken);
    const end = this.console.text.indexOf("\n", this.#taken);
    const line = this.console.text.slice(this.#taken, end);
    this.#taken = end + 1;
    return line;
  }
}

/**
 * The user's fw_cfg file in hexadecimal: files count from 20 by their names, and bios-geometry,
 * bootorder, etc/acpi/rsdp, etc/acpi/tables, etc/boot-fail-wait, etc/e820 and etc/table-loader come
 * before it.
 */
const FILE = "27";

for (const mode of modes) {
  kvmTest(`a guest reads on in a fw_cfg file after ${mode}`, async () => {
    await using lab = await Laboratory.open();
    using probe = await ProbeConsole.open(lab);
    const file = lab.path("file");
    await Deno.writeTextFile(file, "firmware");
    const options = ["-fw_cfg", `name=opt/x,file=${file}`];
    const chain = await Chain.start(lab, {
      guest: "probe",
      serial: probe.console.serial,
      options,
    });
    await probe.started();
    await probe.tell(`w 510 ${FILE}`);
    const text = await probe.in(0x511, 4);
    await chain.update(mode);
    text.push(...await probe.in(0x511, 5));
    assert.equal(String.fromCharCode(...text), "firmware\0");
  });
}

for (const mode of modes) {
  kvmTest(`keys that are held and keys that wait are typed after ${mode}`, async () => {
    await using lab = await Laboratory.open();
    using probe = await ProbeConsole.open(lab);
    const chain = await Chain.start(lab, { guest: "probe", serial: probe.console.serial });
    await probe.started();
    // The update takes less time than that: the keys are released after it.
    const holdMs = mode === "cpr-reboot" ? 6000 : 4000;
    const keys = (...names: string[]) => names.map((data) => ({ type: "qcode", data }));
    await chain.qmp.execute("send-key", { keys: keys("ctrl", "up"), "hold-time": holdMs });
    await chain.qmp.execute("send-key", { keys: keys("a"), "hold-time": 1 });
    const codes = await readKeys(probe, 3);
    await chain.update(mode);
    codes.push(...await readKeys(probe, 7));
    const expected = [0x14, 0xe0, 0x75, 0xe0, 0xf0, 0x75, 0xf0, 0x14, 0x1c, 0xf0];
    assert.deepEqual(codes, expected);
    assert.deepEqual(await readKeys(probe, 1), [0x1c]);
  });
}

/** Reads what the keyboard says; waits for it. */
async function readKeys(probe: ProbeConsole, count: number): Promise<number[]> {
  const codes: number[] = [];
  while (codes.length < count) {
    const [status] = await probe.in(0x64, 1);
    if (status & 1) codes.push(...await probe.in(0x60, 1));
  }
  return codes;
}

kvmTest(
  "cpr-transfer refuses another fw_cfg file, and the guest goes on where it was",
  async () => {
    await using lab = await Laboratory.open();
    using probe = await ProbeConsole.open(lab);
    const special = {
      guest: "probe",
      serial: probe.console.serial,
      options: ["-fw_cfg", "name=opt/x,string=one"],
    } as const;
    const { qmp } = await lab.run("old", special);
    await probe.started();
    const other = { ...special, options: ["-fw_cfg", "name=opt/x,string=two"] };
    const next = await startSuccessor(lab, "new", other);
    await beginTransfer(qmp, next.channels);
    await qmp.logged("MIGRATION failed");
    const reason =
      "fw_cfg file 'opt/x' differs: this VM has 3 bytes, CRC 11ca8a66, the saved VM has" +
      " 3 bytes, CRC 7a6c86f1; start with the same -fw_cfg";
    const { "error-desc": told } = await qmp.execute<{ "error-desc": string }>("query-migrate");
    assert.ok(told.includes(reason), told);
    await probe.tell(`w 510 ${FILE}`);
    assert.equal(String.fromCharCode(...await probe.in(0x511, 3)), "one");
  },
);

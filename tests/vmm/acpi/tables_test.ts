import assert from "node:assert/strict";
import {
  acpiFiles,
  type AcpiOptions,
  acpiSegments,
  RSDP_ADDRESS,
} from "../../../vmm/firmware/acpi/acpi.ts";
import { acpiOptions } from "../../../vmm/firmware/acpi/options.ts";
import { defaultConfig, type MachineTypeConfig } from "../../../vmm/config.ts";
import { machineDevices } from "../../../vmm/machine/devices.ts";
import { pcieWindow64, virtioTransports } from "../../../vmm/machine/microvm.ts";

function optionsOf(machine: Partial<MachineTypeConfig> = {}, apicIds = [0]): AcpiOptions {
  const { machine: standard, ...rest } = defaultConfig();
  const config = { ...rest, machine: { ...standard, ...machine }, serials: ["a", "none", "b"] };
  return acpiOptions(config, machineDevices(config), apicIds, 40)!;
}

/** Guest RAM with tables in it. */
class Tables {
  readonly #ram = new Uint8Array(1 << 20);
  readonly #view = new DataView(this.#ram.buffer);
  /** Tables by their signatures, checked. */
  readonly all = new Map<string, DataView>();

  constructor(segments: readonly { gpa: number; bytes: Uint8Array }[], rsdp: number) {
    for (const { gpa, bytes } of segments) this.#ram.set(bytes, gpa);
    assert.equal(this.#text(rsdp, 8), "RSD PTR ");
    assert.equal(this.#sum(rsdp, 20), 0);
    assert.equal(this.#sum(rsdp, 36), 0);
    const xsdt = this.#table(this.#address(rsdp + 24), "XSDT");
    for (let at = 36; at < xsdt.byteLength; at += 8) {
      this.#table(Number(xsdt.getBigUint64(at, true)));
    }
    const fadt = this.all.get("FACP")!;
    this.#table(Number(fadt.getBigUint64(140, true)), "DSDT");
  }

  #table(gpa: number, expected?: string): DataView {
    const signature = this.#text(gpa, 4);
    if (expected) assert.equal(signature, expected);
    const length = this.#view.getUint32(gpa + 4, true);
    assert.equal(this.#sum(gpa, length), 0, `checksum of ${signature}`);
    const table = new DataView(this.#ram.buffer, gpa, length);
    this.all.set(signature, table);
    return table;
  }

  #address(at: number): number {
    return Number(this.#view.getBigUint64(at, true));
  }

  #text(at: number, length: number): string {
    return new TextDecoder().decode(this.#ram.subarray(at, at + length));
  }

  #sum(at: number, length: number): number {
    return this.#ram.subarray(at, at + length).reduce((sum, byte) => sum + byte & 0xff, 0);
  }
}

const placed = (options: AcpiOptions) => new Tables(acpiSegments(options), RSDP_ADDRESS).all;

/** Entries of a MADT as arrays of bytes. */
function entries(madt: DataView): number[][] {
  const list: number[][] = [];
  for (let at = 44; at < madt.byteLength; at += list.at(-1)!.length) {
    const length = madt.getUint8(at + 1);
    list.push([...new Uint8Array(madt.buffer, madt.byteOffset + at, length)]);
  }
  return list;
}

Deno.test("acpiSegments() makes tables that are found from the BIOS area, with valid checksums", () => {
  const tables = placed(optionsOf());
  assert.deepEqual([...tables.keys()], ["XSDT", "FACP", "APIC", "DSDT"]);
  const last = acpiSegments(optionsOf({}, Array.from({ length: 255 }, (_, i) => i))).at(-1)!;
  assert.ok(last.gpa + last.bytes.length < 1 << 20);
});

Deno.test("the FADT is that of a hardware-reduced machine, with the registers of QEMU's microvm", () => {
  const fadt = placed(optionsOf()).get("FACP")!;
  const register = (at: number) => [
    ...new Uint8Array(fadt.buffer, fadt.byteOffset + at, 4),
    fadt.getBigUint64(at + 4, true),
  ];
  assert.equal(fadt.byteLength, 276);
  assert.equal(fadt.getUint32(112, true), 1 << 20 | 1 << 10 | 1 << 5 | 1 << 4 | 1);
  assert.deepEqual(register(116), [0, 8, 0, 1, 0xfea00202n]);
  assert.equal(fadt.getUint8(128), 0x42);
  assert.deepEqual(register(244), [0, 8, 0, 1, 0xfea00200n]);
  assert.deepEqual(register(256), [0, 8, 0, 1, 0xfea00201n]);
  assert.equal(fadt.getUint16(109, true), 1 << 1 | 1 << 2 | 1 << 5);
  assert.equal(placed(optionsOf({ rtc: true })).get("FACP")!.getUint16(109, true), 1 << 1 | 1 << 2);
});

Deno.test("the MADT has a local APIC a vCPU, an x2APIC entry for ids that do not fit, and the IOAPICs", () => {
  const madt = placed(optionsOf({}, [0, 2, 254, 255])).get("APIC")!;
  assert.equal(madt.getUint32(36, true), 0xfee00000);
  assert.equal(madt.getUint32(40, true), 1);
  assert.deepEqual(entries(madt), [
    [0, 8, 0, 0, 1, 0, 0, 0],
    [0, 8, 1, 2, 1, 0, 0, 0],
    [0, 8, 2, 254, 1, 0, 0, 0],
    [9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0],
    [1, 12, 0, 0, 0x00, 0x00, 0xc0, 0xfe, 0, 0, 0, 0],
    [1, 12, 1, 0, 0x00, 0x00, 0xc1, 0xfe, 24, 0, 0, 0],
    [4, 6, 255, 0, 0, 1],
    [10, 12, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0],
  ]);
  const less = placed(optionsOf({ pic: false, ioapic2: false })).get("APIC")!;
  assert.equal(less.getUint32(40, true), 0);
  assert.equal(entries(less).filter(([type]) => type === 1).length, 1);
});

Deno.test("tables name who made them, as x-oem-id and x-oem-table-id say", () => {
  const named = (options: AcpiOptions) => {
    const { buffer, byteOffset } = placed(options).get("DSDT")!;
    return new TextDecoder().decode(new Uint8Array(buffer, byteOffset + 10, 14));
  };
  assert.equal(named(optionsOf()), "DENOVOMICROVM ");
  assert.equal(named(optionsOf({ oemId: "A", oemTableId: "TABLE" })), "A     TABLE   ");
});

Deno.test("the MCFG has the configuration space of 256 buses, where QEMU's microvm has it", () => {
  assert.equal(placed(optionsOf()).has("MCFG"), false);
  const table = placed(optionsOf({ pcie: true })).get("MCFG")!;
  assert.equal(table.byteLength, 60);
  assert.equal(table.getBigUint64(44, true), 0xe000_0000n);
  assert.deepEqual([...new Uint8Array(table.buffer, table.byteOffset + 52, 4)], [0, 0, 0, 255]);
});

Deno.test("the DSDT tells of the PCI Express bus by the bytes of QEMU's own", () => {
  const bytes = (options: AcpiOptions) => {
    const { buffer, byteOffset, byteLength } = placed(options).get("DSDT")!;
    return new Uint8Array(buffer, byteOffset, byteLength).toHex();
  };
  const zeros = (count: number) => "00".repeat(count);
  const text = (ascii: string) => new TextEncoder().encode(ascii).toHex();
  const parts = {
    "bus numbers": `880d00020c00${zeros(4)}ff0000000001`,
    "32-bit window": `871700000c01${zeros(4)}000000c0ffffffdf${zeros(4)}00000020`,
    "64-bit window": `8a2b00000c01${zeros(8)}00000000c0000000ffffffffff000000${zeros(8)}` +
      "0000000040000000",
    "configuration space": `8a2b00000c01${zeros(8)}000000e000000000ffffffef00000000${zeros(8)}` +
      "0000001000000000",
    "pin B of device 2": `040cffff020001${text("GSI3")}00`,
    "what control of the bus is asked for by": "5b4ddb33f71f1c4096577441c03dd766",
    "the fourth wire": "890600010113000000",
  };
  const [without, dsdt, lowIrqs] = [
    optionsOf(),
    optionsOf({ pcie: true }),
    optionsOf({ pcie: true, ioapic2: false }),
  ].map(bytes);
  for (const [name, part] of Object.entries(parts)) {
    assert.ok(dsdt.includes(part), `${name} is not in ${dsdt}`);
    assert.equal(without.includes(part), false, name);
  }
  assert.ok(lowIrqs.includes("89060001010f000000"), lowIrqs);
});

Deno.test("64-bit addresses of PCI are the last quarter of what the processor has, up to 47 bits", () => {
  assert.deepEqual(pcieWindow64(40), { base: 0xc0_0000_0000, size: 0x40_0000_0000 });
  assert.deepEqual(pcieWindow64(52), pcieWindow64(47));
});

Deno.test("there are no tables with acpi=off", () => {
  assert.equal(optionsOf({ acpi: false }), undefined);
});

/** Does what SeaBIOS does with a script: the files by name, at addresses. */
function runScript(files: readonly { name: string; data: Uint8Array }[]) {
  const script = files.find(({ name }) => name === "etc/table-loader")!.data;
  const placedAt = new Map<string, { gpa: number; bytes: Uint8Array<ArrayBuffer> }>();
  const text = (at: number) =>
    new TextDecoder().decode(script.subarray(at, at + 56)).replace(/\0.*$/s, "");
  const view = new DataView(script.buffer, script.byteOffset);
  let next = { high: 0x8_0000, bios: 0xf_5000 };
  for (let at = 0; at < script.length; at += 128) {
    const name = text(at + 4);
    const word = (offset: number) => view.getUint32(at + offset, true);
    const command = word(0);
    if (command === 1) {
      assert.ok([16, 64].includes(word(60)));
      const zone = script[at + 64] === 2 ? "bios" : "high";
      const { data } = files.find((file) => file.name === name)!;
      placedAt.set(name, { gpa: next[zone], bytes: Uint8Array.from(data) });
      next = { ...next, [zone]: next[zone] + 0x1000 };
    } else if (command === 2) {
      const { bytes } = placedAt.get(name)!;
      const target = placedAt.get(text(at + 60))!;
      assert.equal(script[at + 120], 8);
      const pointer = new DataView(bytes.buffer);
      const offset = word(116);
      pointer.setBigUint64(offset, pointer.getBigUint64(offset, true) + BigInt(target.gpa), true);
    } else {
      assert.equal(command, 3);
      const { bytes } = placedAt.get(name)!;
      const range = bytes.subarray(word(64), word(64) + word(68));
      bytes[word(60)] -= range.reduce((sum, byte) => sum + byte, 0);
    }
  }
  return placedAt;
}

Deno.test("acpiFiles() tells firmware how to place and link the same tables", () => {
  const options = optionsOf();
  const files = runScript(acpiFiles(options));
  const { gpa } = files.get("etc/acpi/rsdp")!;
  const found = new Tables([...files.values()], gpa).all;
  const direct = placed(options);
  for (const signature of ["DSDT", "APIC"]) {
    const bytes = ({ buffer, byteOffset, byteLength }: DataView) =>
      new Uint8Array(buffer, byteOffset, byteLength).toHex();
    assert.equal(bytes(found.get(signature)!), bytes(direct.get(signature)!));
  }
});

/** Runs iasl in a folder. */
async function iasl(cwd: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("iasl", { args, cwd }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assert.ok(success, text);
  return text;
}

async function hasIasl(): Promise<boolean> {
  try {
    await new Deno.Command("iasl", { args: ["-v"], stdout: "null" }).output();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

const isThere = await hasIasl();
if (!isThere) {
  console.error(
    "tests/vmm/acpi: no iasl here, which reads our tables: apt-get install acpica-tools",
  );
}

Deno.test({
  name: "iasl reads the tables, and compiles its own reading of the DSDT to the same bytes",
  ignore: !isThere,
  fn: async () => {
    const transports = new Map(
      [...virtioTransports({ acpi: true, ioapic2: false }).entries()].slice(6),
    );
    const tables = placed({
      ...optionsOf({ rtc: true, pcie: true }),
      transports,
      generationId: 0xfea10000,
    });
    const folder = await Deno.makeTempDir({ prefix: "denovo-acpi-" });
    try {
      for (const [signature, { buffer, byteOffset, byteLength }] of tables) {
        const bytes = new Uint8Array(buffer, byteOffset, byteLength);
        await Deno.writeFile(`${folder}/${signature}.aml`, bytes);
        const text = await iasl(folder, "-d", `${signature}.aml`);
        assert.doesNotMatch(text, /error|warning|Invalid|could not|terminates/i);
      }
      const source = await Deno.readTextFile(`${folder}/DSDT.dsl`);
      const devices = [...source.matchAll(/Device \((\w+)\)/g)].map(([, device]) => device);
      assert.deepEqual(
        devices,
        [
          ...["FWCF", "KBD", "COM1", "COM2", "RTC", "VGEN", "GED", "PWRB", "VR06", "VR07"],
          ...["GSI0", "GSI1", "GSI2", "GSI3", "PCI0", "RES0"],
        ],
      );
      const remarks = await iasl(folder, "-p", "again", "DSDT.dsl");
      assert.match(remarks, /Compilation successful. 0 Errors, 0 Warnings/);
      const again = await Deno.readFile(`${folder}/again.aml`);
      const dsdt = tables.get("DSDT")!;
      const ours = new Uint8Array(dsdt.buffer, dsdt.byteOffset, dsdt.byteLength);
      assert.equal(again.subarray(36).toHex(), ours.subarray(36).toHex());
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

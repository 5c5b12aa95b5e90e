import assert from "node:assert/strict";
import { dumpState } from "../../cpr/state/state_dump.ts";
import { type Plain, sectionFields } from "../../cpr/state/state_fields.ts";
import { bufferSource, encodeStream, type Section } from "../../cpr/stream/stream.ts";
import { globalState } from "../../cpr/state/vm_state.ts";
import { deviceTypes } from "../../devices/registry.ts";
import { sizeWithout } from "../../devices/saved_state.ts";
import { kvmIrqchip, kvmMsrEntry, kvmRegs } from "../../ffi/kvm/structs.ts";

const section = (name: string, data: Uint8Array<ArrayBuffer>, id = "", version = 1): Section => ({
  name,
  id,
  version,
  data,
});

const dump = (...sections: Section[]) => dumpState(bufferSource(encodeStream(sections)));

/** The fields of a section, which there must be. */
function fieldsOf(saved: Section): Record<string, Plain> {
  const result = sectionFields(saved);
  assert.ok("fields" in result, JSON.stringify(result));
  return result.fields as Record<string, Plain>;
}

function u64s(...values: bigint[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new BigUint64Array(values).buffer);
}

Deno.test("`sectionFields()` keeps all bits of 64-bit numbers, through JSON", () => {
  const { bytes } = kvmRegs.alloc({ rip: 0xffff_ffff_8123_4567n, rax: 2n ** 64n - 1n, rbx: 1n });
  const { rip, rax, rbx, rcx } = JSON.parse(JSON.stringify(fieldsOf(section("cpu/regs", bytes))));
  assert.deepEqual(
    [rip, rax, rbx, rcx],
    ["0xffffffff81234567", "0xffffffffffffffff", "0x1", "0x0"],
  );
});

Deno.test("`sectionFields()` gives MSRs by index", () => {
  const entries = [[0x10, 2n ** 63n], [0xc000_0080, 0xd01n]] as const;
  const data = new Uint8Array(8 + entries.length * kvmMsrEntry.size);
  new DataView(data.buffer).setUint32(0, entries.length, true);
  entries.forEach(([index, value], i) =>
    Object.assign(kvmMsrEntry.view(data.buffer, 8 + i * kvmMsrEntry.size), { index, data: value })
  );
  assert.deepEqual(fieldsOf(section("cpu/msrs", data, "0")), {
    "0x10": "0x8000000000000000",
    "0xc0000080": "0xd01",
  });
});

Deno.test("`sectionFields()` finds LAPIC registers, interrupt chips and XSAVE states", () => {
  const lapic = new Uint8Array(1024);
  lapic[0x20 + 3] = 1;
  lapic[0x320] = 0xec;
  lapic[0x3e0] = 11;
  lapic[0x270] = 5;
  const registers = fieldsOf(section("cpu/lapic", lapic, "0"));
  assert.deepEqual(
    [registers.id, registers.lvt_timer, registers.timer_divide, registers.irr],
    [0x0100_0000, 0xec, 11, [0, 0, 0, 0, 0, 0, 0, 5]],
  );
  const { bytes } = kvmIrqchip.alloc({ chip_id: 1 });
  bytes[8 + 2] = 0xfe;
  const pic = fieldsOf(section("irqchip", bytes, "pic_slave"));
  assert.deepEqual([pic.chip_id, (pic.chip as Record<string, Plain>).imr], [1, 0xfe]);
  const ioapic = fieldsOf(section("irqchip", bytes, "ioapic")).chip as Record<string, Plain>;
  assert.equal(ioapic.base_address, "0xfe0000");
  const xsave = new Uint8Array(4096);
  xsave.set([0x7f, 3]);
  xsave[160] = 0xab;
  xsave[512] = 7;
  xsave[576] = 0xcd;
  const { fcw, xmm, xstate_bv, extended } = fieldsOf(section("cpu/xsave", xsave, "0"));
  assert.deepEqual([fcw, xstate_bv, extended], [0x37f, "0x7", "cd"]);
  assert.equal((xmm as string[])[0], `ab${"00".repeat(15)}`);
});

Deno.test("`sectionFields()` knows boot ids, TSC offsets and character devices", () => {
  const { bytes } = globalState.state.alloc({
    stopped_ns: 7n,
    boot_id_low: 0xffff_ffff_ffff_fffen,
    boot_id_high: 1n,
    was_running: 1,
  });
  assert.deepEqual(fieldsOf(section("globalstate", bytes)), {
    stopped_ns: "0x7",
    boot_id_low: "0xfffffffffffffffe",
    boot_id_high: "0x1",
    was_running: 1,
  });
  const offset = section("cpu/tsc_offset", u64s(2n ** 64n - 5n), "1");
  assert.deepEqual(fieldsOf(offset), { tsc_offset: "0xfffffffffffffffb" });
  const state = { connected: true, port: 4 };
  const data = new TextEncoder().encode(JSON.stringify(state));
  assert.deepEqual(fieldsOf(section("chardev", data, "serial0")), state);
});

Deno.test("`sectionFields()` knows every device by the fields of its state", () => {
  for (const { name, version, state, subsections = [] } of deviceTypes) {
    const main = new Uint8Array(sizeWithout(state, subsections));
    const fields = Object.keys(fieldsOf(section(name, main, "id", version)));
    const parts = subsections.map(({ field }) => field);
    assert.deepEqual([...fields, ...parts], Object.keys(state.fields), name);
    for (const part of subsections) {
      const data = new Uint8Array(part.state.size);
      const shown = fieldsOf(section(`${name}/${part.field}`, data, "id", part.version));
      assert.deepEqual(Object.keys(shown), Object.keys(part.state.fields), part.field);
    }
  }
});

Deno.test("`sectionFields()` says why it shows bytes instead of fields", () => {
  const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
  const cases: [Section, RegExp][] = [
    [section("virtio-net", bytes), /^unknown section$/],
    [section("irqchip", bytes, "apic"), /^unknown section$/],
    [section("cpu/regs", bytes), /^100 bytes, expected 144$/],
    [section("cpu/regs", bytes, "0", 2), /^version 2, newest known is 1$/],
    [section("cpu/msrs", bytes), /^100 bytes are not a table of 'kvm_msr_entry'$/],
    [section("cpu/cpuid", bytes.slice(0, 3)), /^3 bytes are not a table/],
    [section("cpu/xsave", bytes), /^100 bytes, expected 576$/],
    [section("machine", bytes), /JSON/],
  ];
  for (const [saved, reason] of cases) {
    const result = sectionFields(saved);
    assert.ok("undecoded" in result, saved.name);
    assert.match(result.undecoded, reason);
    assert.equal(result.hex, saved.data.slice(0, 64).toHex());
  }
});

Deno.test("`dumpState()` gives sections in order, with the checksums of the stream", () => {
  const json = new TextEncoder().encode('{"cpus":"2"}');
  const bytes = encodeStream([section("machine", json), section("odd", Uint8Array.of(1), "x", 7)]);
  const checksum = new DataView(bytes.buffer).getUint32(bytes.length - 12 - 4, true);
  assert.deepEqual(dumpState(bufferSource(new Uint8Array([...bytes, 1, 2, 3]))), {
    format: 1,
    length: bytes.length,
    rest: 3,
    sections: [
      {
        name: "machine",
        id: "",
        version: 1,
        length: 12,
        checksum: "0x7a1be925",
        fields: { cpus: "2" },
      },
      {
        name: "odd",
        id: "x",
        version: 7,
        length: 1,
        checksum: `0x${checksum.toString(16).padStart(8, "0")}`,
        undecoded: "unknown section",
        hex: "01",
      },
    ],
  });
});

Deno.test("`dumpState()` sums RAM up by region: ranges, bytes, pages of zeros", () => {
  const page = 4096;
  const chunk = (offset: number, ...pages: number[]) => {
    const data = new Uint8Array(8 + pages.length * page);
    data.set(u64s(BigInt(offset)));
    pages.forEach((byte, i) => data[8 + (i + 1) * page - 1] = byte);
    return section("ram", data, "low");
  };
  const zero = (offset: number, length: number) =>
    section("ram/zero", u64s(BigInt(offset), BigInt(length)), "low");
  const high = section("ram", u64s(0n, 1n), "high");
  const { sections } = dump(
    chunk(0, 1, 0, 2),
    zero(3 * page, 2 * page),
    chunk(9 * page, 3),
    high,
    section("ram", new Uint8Array(3), "low"),
  );
  assert.deepEqual(sections.slice(0, 2), [
    {
      name: "ram",
      id: "low",
      count: 3,
      bytes: 6 * page,
      pages: 6,
      zeroPages: 3,
      ranges: [{ offset: "0x0", length: "0x5000" }, { offset: "0x9000", length: "0x1000" }],
    },
    {
      name: "ram",
      id: "high",
      count: 1,
      bytes: 8,
      pages: 1,
      zeroPages: 0,
      ranges: [{ offset: "0x0", length: "0x8" }],
    },
  ]);
  assert.equal((sections[2] as { hex: string }).hex, "000000");
});

Deno.test("`dumpState()` names the section in which a stream is damaged or ends", () => {
  const bytes = encodeStream([section("one", new Uint8Array(9)), section("two", u64s(1n), "b")]);
  const damaged = bytes.slice();
  damaged[bytes.length - 12 - 4 - 1] ^= 1;
  assert.throws(() => dumpState(bufferSource(damaged)), {
    name: "StateError",
    message: "Checksum of section 1 ('two' b) is wrong",
  });
  assert.throws(() => dumpState(bufferSource(bytes.slice(0, 45))), {
    name: "StateError",
    message: /^Stream ends within section 0 \('one'\): 0 of 4 bytes$|section 1/,
  });
});

/** Saved states that are damaged or made up: refused by name, with nothing changed. */
import assert from "node:assert/strict";
import { deviceTypes } from "../../devices/registry.ts";
import { ramSections } from "../../cpr/state/ram.ts";
import { bufferSource, encodeStream, type Section } from "../../cpr/stream/stream.ts";
import { constantSections } from "../../cpr/state/machine_state.ts";
import { FramedImage, readVm, VmImage } from "../../cpr/state/vm_state.ts";
import { duplicate } from "../../ffi/fd.ts";
import { defaultConfig, type MachineConfig } from "../../vmm/config.ts";
import { Inheritance, type Keeper } from "../../vmm/inheritance.ts";
import { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { kvmTest, still } from "../kvm/harness.ts";
import { testAccelerator } from "../needs_kvm.ts";
import {
  assertNames,
  type Bytes,
  cut,
  doubled,
  encodeParts,
  flipped,
  join,
  refusal,
  withLength,
} from "./damage.ts";

const MEMORY = 1 << 20;
const guest = { wasRunning: true, stoppedNs: 5 };

/** A VM whose state is saved, and one that waits for it over the same memory or its own. */
class Pair implements AsyncDisposable {
  private constructor(
    readonly old: VirtualMachine,
    readonly successor: VirtualMachine,
    readonly image: string,
  ) {}

  /** Creates both; `inPlace` if the successor is passed the memory, as in cpr-transfer. */
  static async create(inPlace: boolean): Promise<Pair> {
    const image = await Deno.makeTempFile({ prefix: "denovo-bios-" });
    await Deno.writeFile(image, new Uint8Array(65536).fill(0xf4));
    const config: Partial<MachineConfig> = {
      memory: MEMORY,
      bios: image,
      machine: { ...defaultConfig().machine, rtc: true },
    };
    const old = await VirtualMachine.create(config);
    const inheritance = inPlace ? new Inheritance(false) : undefined;
    for (const [id, { fd }] of old.backends) inheritance?.addFd("memory", id, duplicate(fd!.fd));
    const successor = await VirtualMachine.create(config, { incoming: true, inheritance });
    return new Pair(old, successor, image);
  }

  /** The old VM's state. */
  get sections(): Section[] {
    const { machine } = this.old;
    return [...constantSections(machine), ...new VmImage(machine).save(guest)];
  }

  /** The old VM's state with its RAM. */
  get copy(): Section[] {
    const statistics = { total: 0, duplicate: 0, normal: 0 };
    return [...ramSections(this.old.machine.memory, statistics, false), ...this.sections];
  }

  /** Reads a stream as the successor does. */
  read(bytes: Bytes): ReturnType<typeof readVm> {
    return readVm(this.successor.machine, bufferSource(bytes));
  }

  /** Fails unless the successor is as it was while `action` runs; time alone goes on. */
  assertUntouched(action: () => void): void {
    const before = still(this.successor);
    action();
    assert.deepEqual(still(this.successor), before);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.successor.close();
    await this.old.close();
    await Deno.remove(this.image);
  }
}

/** Registers a test with a pair of VMs. */
function pairTest(name: string, inPlace: boolean, run: (pair: Pair) => void): void {
  kvmTest(name, async () => {
    await using pair = await Pair.create(inPlace);
    run(pair);
  });
}

const key = ({ name, id }: Section) => id === "" ? `'${name}'` : `'${name}' ${id}`;

pairTest("a state with any byte changed is refused, and the error says where", true, (pair) => {
  const parts = encodeParts(pair.sections);
  pair.assertUntouched(() => {
    for (const { bytes, part, what } of flipped(parts)) {
      assertNames(refusal(() => pair.read(bytes), what), part, parts.length, what);
    }
  });
  pair.read(join(parts)).apply();
});

pairTest("a state that is cut anywhere is refused, and the error says where", true, (pair) => {
  const parts = encodeParts(pair.sections);
  pair.assertUntouched(() => {
    for (const { bytes, part, what } of cut(parts)) {
      const message = refusal(() => pair.read(bytes), what);
      assert.match(message, /^Stream ends within /);
      assertNames(message, part, parts.length, what);
    }
  });
});

pairTest("a state with a byte twice is refused", true, (pair) => {
  const parts = encodeParts(pair.sections);
  pair.assertUntouched(() => {
    for (const { bytes, what } of doubled(parts, 7)) refusal(() => pair.read(bytes), what);
  });
});

pairTest("a state with a section left out, twice or unknown is refused by name", true, (pair) => {
  const { sections } = pair;
  pair.assertUntouched(() => {
    sections.forEach((section, i) => {
      const name = key(section);
      const refuses = (changed: Section[], wanted: string, what: string) => {
        const message = refusal(() => pair.read(encodeStream(changed)), `${name} ${what}`);
        assert.ok(message.includes(wanted), `${name} ${what}: ${message}`);
      };
      const isDevice = deviceTypes.some((type) => type.name === section.name);
      const missing = isDevice ? `Device '${section.id}' (${section.name}) of this VM` : name;
      refuses(sections.toSpliced(i, 1), missing, "left out");
      refuses(sections.toSpliced(i, 0, section), name, "twice");
      refuses([...sections, section], name, "once more at the end");
      for (const version of [0, section.version + 1, 0xffff_ffff]) {
        refuses(sections.with(i, { ...section, version }), name, `of version ${version}`);
      }
      const data = new Uint8Array([...section.data, 0]);
      if (section.name !== "cpu/cpuid" && section.name !== "machine") {
        refuses(sections.with(i, { ...section, data }), name, "one byte longer");
      }
      for (
        const stranger of [
          { ...section, id: `${section.id}\n` },
          { ...section, name: `${section.name}x` },
          { ...section, name: "\u{feff}" + section.name },
        ]
      ) {
        const shown = key({ ...stranger, id: stranger.id.replace("\n", "\\n") });
        refuses([...sections, stranger], shown, "and a stranger");
        refuses(sections.with(i, stranger), missing, "renamed");
      }
    });
  });
});

pairTest("what differs from a successor's own frame is refused in the same words", true, (pair) => {
  const { machine } = pair.successor;
  const target = new FramedImage(machine);
  const image = new FramedImage(pair.old.machine);
  const sections = image.save(guest);
  const parts = encodeParts(sections);
  const read = (bytes: Bytes, ahead?: Bytes) =>
    readVm(machine, bufferSource(bytes), { agreed: true, target }, ahead);
  const refuses = (bytes: Bytes, what: string) => {
    const wanted = refusal(() => read(bytes), what);
    assert.equal(refusal(() => read(bytes, bytes), what), wanted);
    return wanted;
  };
  pair.assertUntouched(() => {
    for (const { bytes, what } of flipped(parts)) refuses(bytes, what);
    for (const { bytes, what } of cut(parts)) refuses(bytes, what);
    sections.forEach((section, i) => {
      const name = key(section);
      refuses(encodeStream(sections.toSpliced(i, 1)), `${name} left out`);
      refuses(encodeStream([...sections, section]), `${name} once more at the end`);
    });
    const msrs = sections.findIndex(({ name }) => name === "cpu/msrs");
    const data = Uint8Array.from(sections[msrs].data);
    data.set(data.subarray(24, 28), 8);
    const others = encodeStream(sections.with(msrs, { ...sections[msrs], data }));
    assert.match(refuses(others, "an MSR twice"), /^Section 'cpu\/msrs' 0: MSR 0x\w+ comes twice$/);
  });
  // Also where only a part has come so far, and where more follows than the frame.
  const whole = image.encode(sections);
  for (const ahead of [whole, whole.subarray(0, 100), whole.subarray(0, 0)]) {
    read(whole, ahead).apply();
    assert.deepEqual(still(pair.successor), still(pair.old));
  }
  const change = { name: "chardev", id: "mux0", data: Uint8Array.of(1, 2) };
  const arrived: string[] = [];
  const keeper: Keeper = {
    changing: change.name,
    handOver: () => ({ fds: [], values: [] }),
    changes: () => [change],
    arrive: (changes) => () => arrived.push(...changes.map(({ id, data }) => `${id} ${data}`)),
  };
  const longer = image.encode(image.save(guest, [keeper]));
  const options = { agreed: true, target, keepers: [keeper] };
  for (const ahead of [longer, undefined]) {
    const state = readVm(machine, bufferSource(longer), options, ahead);
    assert.deepEqual(arrived, []);
    state.takeOver();
    assert.deepEqual(arrived.splice(0), ["mux0 1,2"]);
  }
  assert.match(refusal(() => read(longer, longer), "nobody's"), /^Unknown section or instance/);
  const strict = { ...keeper, arrive: () => assert.fail("mux0 is odd") };
  const refused = () =>
    readVm(machine, bufferSource(longer), { ...options, keepers: [strict] }, longer);
  assert.equal(refusal(refused, "a change"), "mux0 is odd");
});

pairTest("the order of a state's sections does not matter", true, (pair) => {
  const { sections } = pair;
  pair.read(encodeStream(sections.toReversed())).apply();
  const wanted = still(pair.old);
  assert.deepEqual(still(pair.successor), wanted);
});

pairTest("a section that says a wrong length is refused, whatever its checksum", true, (pair) => {
  const { sections } = pair;
  const parts = encodeParts(sections);
  pair.assertUntouched(() => {
    sections.forEach(({ data }, i) => {
      for (const length of ["one less", "one more", "largest", "huge"] as const) {
        if (length === "one less" && data.length === 0) continue;
        const part = withLength(parts[i + 1], data.length, length);
        const what = `${key(sections[i])} that says ${length}`;
        const message = refusal(() => pair.read(join(parts.with(i + 1, part))), what);
        // The first three may look right until something else does not fit.
        if (length === "huge") assertNames(message, i + 1, parts.length, what);
      }
    });
  });
});

pairTest(
  "a byte of a section changed on purpose is refused by name, or is a value that loads",
  true,
  (pair) => {
    const { sections } = pair;
    const good = encodeStream(sections);
    const parts = encodeParts(sections);
    const loads = new Map<string, number>();
    sections.forEach((section, i) => {
      // Of long registers such as XSAVE's every fifth byte: the bit that changes goes round too.
      const step = section.data.length > 1000 ? 5 : 1;
      for (let at = 0; at < section.data.length; at += step) {
        const data = section.data.slice();
        data[at] ^= 1 << (at & 7);
        const [, changed] = encodeParts([{ ...section, data }]);
        const bytes = join(parts.with(i + 1, changed));
        try {
          pair.read(bytes).apply();
          loads.set(section.name, (loads.get(section.name) ?? 0) + 1);
        } catch (error) {
          const { name, message } = error as Error;
          assert.equal(name, "StateError", `${key(section)} byte ${at}: ${message}`);
          const says = section.name === "machine"
            ? /^Machine differs|'machine'/
            : section.name === "cpu/cpuid"
            ? /^CPUID of CPU 0 |^CPU 0 of the saved VM has what this host lacks: CPUID/
            : new RegExp(
              `KVM refuses the saved state: KVM_SET_IRQCHIP|${section.name}' ?${section.id}`,
            );
          assert.match(message, says, `${key(section)} byte ${at}`);
        }
      }
      pair.read(good).apply();
      assert.deepEqual(still(pair.successor), still(pair.old), `after ${key(section)}`);
    });
    // Data is data: were nothing of this to load, the test would have tested nothing.
    assert.ok(loads.get("cpu/regs") === 144 && loads.get("isa-serial")! > 0, `${[...loads]}`);
    for (const name of ["machine", "cpu/cpuid"]) assert.equal(loads.get(name), undefined, name);
  },
);

pairTest("what a section is of cannot be changed", true, (pair) => {
  const { sections } = pair;
  const change = (name: string, id: string, at: number, value: number) => {
    const i = sections.findIndex((section) => section.name === name && section.id === id);
    const data = sections[i].data.slice();
    data[at] = value;
    return () => pair.read(encodeStream(sections.with(i, { ...sections[i], data })));
  };
  pair.assertUntouched(() => {
    for (
      const [read, message] of [
        [
          change("irqchip", "pic_slave", 0, 0),
          /^Section 'irqchip' pic_slave is of chip 0, expected 1$/,
        ],
        [change("cpu/msrs", "0", 0, 1), /^Section 'cpu\/msrs' 0: \d+ bytes are no list of MSRs$/],
        [change("cpu/msrs", "0", 3, 1), /^Section 'cpu\/msrs' 0: \d+ bytes are no list of MSRs$/],
        [change("globalstate", "", 24, 2), /^Section 'globalstate' has was_running 2$/],
      ] as const
    ) assert.throws(read, { name: "StateError", message });
  });
  for (const value of ['{"toString":1}', '{"a":"\\n"}', '["x"]', "1e999", "null"]) {
    const data = new TextEncoder().encode(`{"machine":${value}}`);
    const i = sections.findIndex(({ name }) => name === "machine");
    const bytes = encodeStream(sections.with(i, { ...sections[i], data }));
    assert.match(refusal(() => pair.read(bytes), value), /^Machine differs: this VM has machine/);
  }
});

pairTest("the accelerator's refusal of a part of the state names the section", true, (pair) => {
  const { sections } = pair;
  const i = sections.findIndex(({ name }) => name === "cpu/mp_state");
  const data = new Uint8Array(4).fill(0xff);
  const { apply } = pair.read(encodeStream(sections.with(i, { ...sections[i], data })));
  assert.throws(apply, {
    name: "StateError",
    message: testAccelerator === "kvm"
      ? "KVM refuses section 'cpu/mp_state' 0: KVM_SET_MP_STATE: Invalid argument"
      : "the software CPU refuses section 'cpu/mp_state' 0: KVM_SET_MP_STATE 4294967295:" +
        " Invalid argument",
  });
});

pairTest("a state without its RAM is refused by a VM that has not got it", false, (pair) => {
  pair.assertUntouched(() =>
    assert.equal(
      refusal(() => pair.read(encodeStream(pair.sections)), "no RAM"),
      `RAM of 'ram-below-4g' is missing from the stream: 0 of ${MEMORY} bytes came`,
    )
  );
});

pairTest("RAM is refused by a VM that has got it already", true, (pair) => {
  pair.assertUntouched(() =>
    assert.equal(
      refusal(() => pair.read(encodeStream(pair.copy)), "RAM in place"),
      "Section 'ram' ram-below-4g brings RAM that nobody awaits",
    )
  );
});

pairTest(
  "RAM that is damaged, cut, left out, twice or elsewhere leaves no trace",
  false,
  (pair) => {
    pair.old.machine.memory.write(0x1234, new TextEncoder().encode("not zero"));
    const sections = pair.copy;
    const parts = encodeParts(sections);
    const isRam = ({ name }: Section) => name.startsWith("ram");
    const at = (section: Section, offset: bigint) => {
      const data = section.data.slice();
      new DataView(data.buffer).setBigUint64(0, offset, true);
      return { ...section, data };
    };
    pair.assertUntouched(() => {
      // Prime steps, so that all kinds of places are met.
      for (const { bytes, part, what } of flipped(parts, 6421)) {
        assertNames(refusal(() => pair.read(bytes), what), part, parts.length, what);
      }
      for (const { bytes, what } of cut(parts, 7919)) refusal(() => pair.read(bytes), what);
      sections.forEach((section, i) => {
        const refuses = (changed: Section[], what: string) =>
          refusal(() => pair.read(encodeStream(changed)), `${key(section)} ${what}`);
        refuses(sections.toSpliced(i, 1), "left out");
        refuses(sections.toSpliced(i, 0, section), "twice");
        for (const version of [0, 2]) refuses(sections.with(i, { ...section, version }), "version");
        if (!isRam(section)) return;
        for (const offset of [1n, 4096n, BigInt(MEMORY), 2n ** 53n, 2n ** 64n - 1n]) {
          refuses(sections.with(i, at(section, offset)), `at ${offset}`);
        }
        for (const length of [0, 7, 8, 15, 17, section.data.length - 1]) {
          const data = section.data.slice(0, length);
          refuses(sections.with(i, { ...section, data }), `of ${length} bytes`);
        }
        const data = new Uint8Array(new BigUint64Array([0n, 2n ** 64n - 1n]).buffer);
        refuses(sections.with(i, { ...section, name: "ram/zero", data }), "endless");
        refuses(sections.with(i, { ...section, id: "elsewhere" }), "elsewhere");
        refuses(
          [...sections.slice(1, i + 1), sections[0], ...sections.slice(i + 1)],
          "unannounced",
        );
      });
      for (const data of [[], [2], [0, 0], [0xff]]) {
        const begin = { ...sections[0], data: Uint8Array.from(data) };
        refusal(() => pair.read(encodeStream(sections.with(0, begin))), `capabilities ${data}`);
      }
    });
    pair.read(join(parts)).apply();
    assert.deepEqual(still(pair.successor), still(pair.old));
  },
);

pairTest("RAM that came with a state which KVM refuses is zero again", false, (pair) => {
  const sections = pair.copy;
  const i = sections.findIndex(({ name }) => name === "cpu/mp_state");
  const data = new Uint8Array(4).fill(0xff);
  const { apply } = pair.read(encodeStream(sections.with(i, { ...sections[i], data })));
  assert.throws(apply, { name: "StateError" });
  for (const { gpa, size } of pair.successor.machine.memory.regions) {
    assert.ok(pair.successor.machine.memory.read(gpa, size).every((byte) => byte === 0));
  }
});

pairTest("a state without end takes a bounded amount of memory", true, (pair) => {
  const [head] = encodeParts([]);
  let made = 0;
  let waiting: Bytes = head;
  const source = (length: number): Bytes => {
    while (waiting.length < length) {
      const data = new Uint8Array(8 << 20);
      const [, section] = encodeParts([{ name: "junk", id: `${made++}`, version: 1, data }]);
      waiting = join([waiting, section]);
    }
    const taken = waiting.slice(0, length);
    waiting = waiting.slice(length);
    return taken;
  };
  const message = refusal(() => readVm(pair.successor.machine, source), "no end");
  assert.match(message, /^State has more than 67108864 bytes at 'junk' 8$/);
});

import { deepEqual, equal, ok } from "node:assert/strict";
import { parseSimd, simdTableSource } from "../../../vmm/accel/software/simd_table.ts";

const folder = new URL("../../../vmm/accel/software/", import.meta.url);

Deno.test("core/simd_table.ts is what simd_instructions.ts says", async () => {
  equal(await Deno.readTextFile(new URL("core/simd_table.ts", folder)), simdTableSource());
});

Deno.test("every SIMD instruction has its place in the opcode map to itself", () => {
  const seen = new Map<string, string>();
  for (const form of parseSimd()) {
    ok(form.prefix >= 0 && form.map >= 0 && form.opcode >= 0 && form.opcode < 256, form.mnemonic);
    const rm = form.operands.find((operand) => !"VPG".includes(operand[0])) ?? "";
    for (const mod of ["memory", "register"]) {
      if (mod === "memory" ? "UN".includes(rm[0]) : rm[0] === "M") continue;
      const place = [form.prefix, form.map, form.opcode, form.group, form.wide, mod].join(" ");
      equal(
        seen.get(place),
        undefined,
        `${form.mnemonic} and ${seen.get(place)} are both at ${place}`,
      );
      seen.set(place, form.mnemonic);
    }
  }
});

Deno.test("every handler of core/simd_table.ts has an instruction", () => {
  const names = /enum Simd \{([^}]*)\}/.exec(simdTableSource())![1].match(/\w+/g)!;
  deepEqual(names.toSorted(), [...new Set(parseSimd().map((form) => form.handler))].toSorted());
});

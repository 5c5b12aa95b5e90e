/**
 * From the list of SIMD instructions to the tables that the software CPU decodes with.
 *
 * @module
 */
import { FLOAT_SIMD, INTEGER_SIMD } from "./simd_instructions.ts";

/** One instruction in one of its forms, as its line in `simd_instructions.ts` has it. */
export interface SimdForm {
  /** Mandatory prefix: 0 none, 1 66, 2 F3, 3 F2. */
  readonly prefix: number;
  /** Opcode map: 0 0F, 1 0F38, 2 0F3A. */
  readonly map: number;
  readonly opcode: number;
  /** Value of ModRM.reg that selects the instruction, if it does. */
  readonly group: number | undefined;
  /** The form for REX.W = 1, of which the form before is the other. */
  readonly wide: boolean;
  readonly mnemonic: string;
  /** Destination and source: see `OPERANDS`. */
  readonly operands: readonly string[];
  readonly immediate: boolean;
  /** It returns CF, PF, AF, ZF and SF for RFLAGS. */
  readonly flags: boolean;
  /** It may raise #XM. */
  readonly float: boolean;
  /** It is called by a function of its own. */
  readonly special: boolean;
  /** It needs neither CR4.OSFXSR nor CR0.TS = 0. */
  readonly unchecked: boolean;
  /** Name of what executes it; several forms may share it. */
  readonly handler: string;
}

/**
 * Operand letters, as in the SDM's opcode maps: V, P, G are an xmm, mm or general register by ModRM.reg;
 * U, N a register by ModRM.rm (mod = 3 only); W, Q, E that or memory, M memory only, followed by the
 * number of bytes in memory; 16 bytes have to be aligned but for those with a `u`.
 */
const OPERANDS = /^(?:[VPGUN]|[WQEM](?:16u?|[1248]))$/;

const PREFIXES = ["NP", "66", "F3", "F2"];
const MAPS = ["0F", "0F38", "0F3A"];

function parseLine(line: string, float: boolean, before: SimdForm | undefined): SimdForm {
  const [prefix, map, code, mnemonic, ...rest] = line.split(" ");
  const wide = prefix === "W1";
  const [opcode, group] = code.split("/");
  const operands = rest.filter((word) => OPERANDS.test(word));
  return {
    prefix: wide ? before!.prefix : PREFIXES.indexOf(prefix),
    map: MAPS.indexOf(map),
    opcode: parseInt(opcode, 16),
    group: group === undefined ? undefined : Number(group),
    wide,
    mnemonic,
    operands,
    immediate: rest.includes("I"),
    flags: rest.includes("flags"),
    float,
    special: rest.includes("special"),
    unchecked: rest.includes("unchecked"),
    handler: rest.find((word) => word.startsWith("="))?.slice(1) ?? mnemonic.toLowerCase(),
  };
}

/** All forms, in the order of the list. */
export function parseSimd(): SimdForm[] {
  const forms: SimdForm[] = [];
  for (const [text, float] of [[INTEGER_SIMD, false], [FLOAT_SIMD, true]] as const) {
    for (const line of text.trim().split("\n")) forms.push(parseLine(line, float, forms.at(-1)));
  }
  return forms;
}

/** Bits of a form word; `core/simd_table.ts` has them as constants. */
const FORM_BITS = {
  HANDLER: 0x1ff,
  REG_SHIFT: 9,
  RM_SHIFT: 11,
  REGISTER_ONLY: 1 << 13,
  RM_IS_DESTINATION: 1 << 14,
  IMMEDIATE: 1 << 15,
  SIZE_SHIFT: 16,
  ALIGNED: 1 << 19,
  WIDE_FOLLOWS: 1 << 20,
  FLAGS: 1 << 21,
  MMX: 1 << 22,
  FLOAT: 1 << 23,
  SPECIAL: 1 << 24,
  UNCHECKED: 1 << 25,
  MM_DESTINATION: 1 << 26,
  MM_SOURCE: 1 << 27,
} as const;

/** Register files as the form word numbers them: 0 is none, for ModRM.rm memory only. */
const FILES: Record<string, number> = { V: 1, U: 1, W: 1, P: 2, N: 2, Q: 2, G: 3, E: 3, M: 0 };

function formWord(form: SimdForm, handler: number, wideFollows: boolean): number {
  const isReg = (operand: string) => "VPG".includes(operand[0]);
  const reg = form.operands.find(isReg);
  const rm = form.operands.find((operand) => !isReg(operand));
  const size = Number(rm?.match(/\d+/)?.[0] ?? 0);
  const [destination, source] = form.operands;
  const mm = (operand: string | undefined) => operand !== undefined && "PNQ".includes(operand[0]);
  let word = handler;
  if (reg) word |= FILES[reg[0]] << FORM_BITS.REG_SHIFT;
  if (rm) word |= FILES[rm[0]] << FORM_BITS.RM_SHIFT;
  if (rm && "UN".includes(rm)) word |= FORM_BITS.REGISTER_ONLY;
  if (rm && rm === destination) word |= FORM_BITS.RM_IS_DESTINATION;
  if (form.immediate) word |= FORM_BITS.IMMEDIATE;
  if (size) word |= (Math.log2(size) + 1) << FORM_BITS.SIZE_SHIFT;
  if (size === 16 && !rm!.endsWith("u")) word |= FORM_BITS.ALIGNED;
  if (wideFollows) word |= FORM_BITS.WIDE_FOLLOWS;
  if (form.flags) word |= FORM_BITS.FLAGS;
  if (form.operands.some(mm)) word |= FORM_BITS.MMX;
  if (form.float) word |= FORM_BITS.FLOAT;
  if (form.special) word |= FORM_BITS.SPECIAL;
  if (form.unchecked) word |= FORM_BITS.UNCHECKED;
  if (mm(destination)) word |= FORM_BITS.MM_DESTINATION;
  if (mm(source)) word |= FORM_BITS.MM_SOURCE;
  return word >>> 0;
}

/** Opcode and mod to form number; 0x8000 and a number of eight entries in `groups` where reg selects. */
function indexTables(forms: readonly SimdForm[]): { index: number[]; groups: number[] } {
  const index = new Array<number>(3 * 4 * 2 * 256).fill(0);
  const groups: number[] = [];
  forms.forEach((form, i) => {
    if (form.wide) return;
    const rm = form.operands.find((operand) => !"VPG".includes(operand[0])) ?? "";
    for (const register of [0, 1]) {
      if (register === 0 ? "UN".includes(rm[0]) : rm[0] === "M") continue;
      const key = ((form.map * 4 + form.prefix) * 2 + register) * 256 + form.opcode;
      if (form.group === undefined) {
        index[key] = i + 1;
      } else {
        if (!index[key]) {
          index[key] = 0x8000 | (groups.length / 8);
          groups.push(...new Array<number>(8).fill(0));
        }
        groups[(index[key] & 0x7fff) * 8 + form.group] = i + 1;
      }
    }
  });
  return { index, groups };
}

const numbers = (values: readonly number[]) =>
  values.map((value, i) => (i % 24 === 0 ? "\n  " : " ") + value + ",").join("");

/**
 * Handlers in the order of the switches that execute them (core/simd_integer.ts, simd_permute.ts): the
 * compiler makes a jump table only of a switch over neighbours.
 */
const SWITCH_ORDER = `
  mov4 mov8 movhlps storehigh storedword movmskps movmskpd pmovmskb pextrw_mmx pextrw pextrb
  pextrd pextrq ptest pcmpestrm pcmpestrm_w pcmpestri pcmpestri_w pcmpistrm pcmpistri

  mov16 movd movq pinsrw_mmx psrlw_i psraw_i psllw_i psrld_i psrad_i pslld_i psrlq_i psllq_i
  psrlw psraw psllw psrld psrad pslld psrlq psllq pmovsxbw pmovsxbd pmovsxbq pmovsxwd
  pmovsxwq pmovsxdq pmovzxbw pmovzxbd pmovzxbq pmovzxwd pmovzxwq pmovzxdq

  punpcklbw punpcklwd punpckldq punpcklqdq punpckhbw punpckhwd punpckhdq punpckhqdq
  punpckhbw_mmx punpckhwd_mmx punpckhdq_mmx packsswb packuswb packssdw packusdw packsswb_mmx
  packuswb_mmx packssdw_mmx movsldup movshdup movddup pshufb pshufb_mmx pshufd pshuflw
  pshufhw shufps shufpd palignr palignr_mmx psrldq pslldq blendps blendpd pblendw pinsrb
  pinsrw pinsrd pinsrq insertps insertps_m phminposuw mpsadbw

  pand pandn por pxor pcmpeqb pcmpeqw pcmpeqd pcmpeqq pcmpgtb pcmpgtw pcmpgtd pcmpgtq paddb
  paddw paddd paddq psubb psubw psubd psubq paddsb paddsw paddusb paddusw psubsb psubsw
  psubusb psubusw pminub pmaxub pminsb pmaxsb pminsw pmaxsw pminuw pmaxuw pminsd pmaxsd
  pminud pmaxud pavgb pavgw pmullw pmulld pmulhw pmulhuw pmulhrsw pmaddubsw pmaddwd pmuludq
  pmuldq psadbw phaddw phaddsw phsubw phsubsw phaddd phsubd phaddw_mmx phaddsw_mmx
  phsubw_mmx phsubsw_mmx phaddd_mmx phsubd_mmx psignb psignw psignd pabsb pabsw pabsd
  pblendvb blendvps blendvpd
`;

/** Handlers by their numbers; floating point comes last. */
function handlersOf(forms: readonly SimdForm[]): string[] {
  return [...new Set([...SWITCH_ORDER.trim().split(/\s+/), ...forms.map((form) => form.handler)])];
}

/** The word that `core/simd_table.ts` has for each form, in their order. */
export function simdFormWords(forms: readonly SimdForm[]): number[] {
  const handlers = handlersOf(forms);
  return forms.map((form, i) =>
    formWord(form, handlers.indexOf(form.handler), forms[i + 1]?.wide ?? false)
  );
}

/** The text of `core/simd_table.ts`. */
export function simdTableSource(): string {
  const forms = parseSimd();
  const handlers = handlersOf(forms);
  const firstFloat = handlers.indexOf(forms.find((form) => form.float)!.handler);
  const words = simdFormWords(forms);
  const { index, groups } = indexTables(forms);
  const constants = Object.entries(FORM_BITS).map(([name, value]) =>
    `export const FORM_${name}: u32 = ${value};`
  );
  return `// Written by \`deno task core\` from ../simd_instructions.ts; do not edit.

/** What executes a form. */
export const enum Simd {
${handlers.map((name) => `  ${name},`).join("\n")}
}

/** Handlers from this number on are floating-point arithmetic. */
export const FIRST_FLOAT: u32 = ${firstFloat};

${constants.join("\n")}

const FORMS: StaticArray<u32> = [0,${numbers(words)}
];

const INDEX: StaticArray<u16> = [${numbers(index)}
];

const GROUPS: StaticArray<u16> = [${numbers(groups)}
];

/**
 * The form word of an instruction, 0 if there is none.
 *
 * prefix: 0 none, 1 66, 2 F3, 3 F2; map: 0 0F, 1 0F38, 2 0F3A; wide: REX.W.
 */
export function simdForm(prefix: u32, map: u32, opcode: u32, modrm: u32, wide: bool): u32 {
  const register: u32 = modrm >= 0xc0 ? 1 : 0;
  let number: u32 = unchecked(INDEX[((map * 4 + prefix) * 2 + register) * 256 + opcode]);
  if (number & 0x8000) number = unchecked(GROUPS[(number & 0x7fff) * 8 + ((modrm >> 3) & 7)]);
  const form = unchecked(FORMS[number]);
  return wide && (form & FORM_WIDE_FOLLOWS) !== 0 ? unchecked(FORMS[number + 1]) : form;
}
`;
}

/**
 * The guests' kernels as files.
 *
 * @module
 */
import { type ProgramName, programs } from "../../guests/programs.ts";
import type { Configuration } from "./results.ts";

const names: Readonly<Record<Configuration["guest"], ProgramName>> = {
  cpl3: "counter_cpl3",
  cpl0: "counter_cpl0",
  dirty: "dirty",
  smp: "smp",
};

/** Writes a guest's ELF file into a folder. @returns its path */
export async function guestFile(folder: string, guest: Configuration["guest"]): Promise<string> {
  const path = `${folder}/${names[guest]}`;
  await Deno.writeFile(path, programs[names[guest]].bytes);
  return path;
}

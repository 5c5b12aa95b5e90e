/**
 * What `core.wasm` exports.
 *
 * @module
 */

/** The module's exports. */
export interface CoreExports {
  run(budget: number): number;
  budgetLeft(): number;
  /** After `run`, whichever way that was left: the CPU accesses no RAM until the next. */
  goOutside(): void;
  deliverFault(): number;
  refresh(): void;
  powerOn(bootProcessor: number, signature: number): void;
  init(): void;
  startUp(vector: number): void;
  cpuidTable(): number;
  cpuidChanged(count: number): void;
  /** Finds or decodes the block at RIP; throws as a fetch faults. */
  findBlock(): number;
  /** How often all decoded blocks have been forgotten. */
  blockGeneration(): number;
  /** Makes room for the addresses of a compiled region's blocks; 0 if there is none. */
  makeRegion(count: number, entry: number): number;
  /** Has the compiled region in place of one of its blocks. */
  placeCompiled(block: number, blocks: number, index: number): void;
  /** Whether the flags meet a condition, the low four bits of Jcc. */
  condition(code: number): number;
  /** Executes a decoded operation that does not end its block; throws as it faults. */
  plainly(code: number, operation: number): void;
  /** The functions that the CPU calls by number: compiled regions. */
  readonly table: WebAssembly.Table;
}

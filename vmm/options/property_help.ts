/**
 * How QEMU prints lists of properties.
 *
 * @module
 */

/** One property of a machine, an object or a device. */
export interface PropertyLine {
  /** What the user types before `=`. */
  readonly name: string;
  /** Its type, in QEMU's words. */
  readonly type: string;
  /** What it is for. */
  readonly help: string;
  /** Its value when not given. */
  readonly default?: string | number | boolean;
}

/** `NAME options:` and one line a property, sorted by name. */
export function propertyHelp(owner: string, properties: readonly PropertyLine[]): string {
  const lines = properties
    .toSorted((a, b) => a.name < b.name ? -1 : 1)
    .map((property) => {
      const head = `  ${property.name}=<${property.type}>`.padEnd(24);
      const tail = property.default === undefined ? "" : ` (default: ${property.default})`;
      return `${head} - ${property.help}${tail}`;
    });
  return [`${owner} options:`, ...lines].join("\n");
}

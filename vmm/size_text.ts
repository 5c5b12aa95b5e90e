/**
 * Sizes as QEMU shows them.
 *
 * @module
 */

/** A size in the unit in which it has up to four digits, of which three are shown (`%0.3g`). */
export function sizeText(bytes: number): string {
  const units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
  let value = bytes, unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toPrecision(3))} ${units[unit]}B`;
}

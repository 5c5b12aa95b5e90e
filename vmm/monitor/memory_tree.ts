/**
 * `info mtree`: address spaces as a tree of regions, and flattened to what is visible where.
 *
 * @module
 */
import type { AddressSpaceInfo, MemoryRegionInfo } from "./control.ts";

const hex = (value: bigint) => value.toString(16).padStart(16, "0");
const range = (start: bigint, end: bigint) => `${hex(start)}-${hex(end)}`;

/** Names of address spaces that share a root, by root. */
function byRoot(spaces: readonly AddressSpaceInfo[]): Map<MemoryRegionInfo, string[]> {
  const names = new Map<MemoryRegionInfo, string[]>();
  for (const { name, root } of spaces) names.set(root, [...names.get(root) ?? [], name]);
  return names;
}

/** The regions of each address space, indented by depth. */
export function memoryTreeText(spaces: readonly AddressSpaceInfo[]): string {
  return [...byRoot(spaces)].map(([root, names]) =>
    names.map((name) => `address-space: ${name}\n`).join("") + `${regionText(root, "  ")}\n`
  ).join("");
}

function regionText(region: MemoryRegionInfo, indent: string): string {
  const { name, start, end, priority, kind, alias, children = [] } = region;
  const target = alias ? `alias ${name} @${alias.of} ${range(alias.start, alias.end)}` : name;
  return `${indent}${range(start, end)} (prio ${priority}, ${kind}): ${target}\n` +
    children.map((child) => regionText(child, `${indent}  `)).join("");
}

/** A part of a region that no other region hides. */
interface VisibleRange {
  readonly start: bigint;
  readonly end: bigint;
  readonly region: MemoryRegionInfo;
}

/** What is visible in each address space, in the order of addresses. */
export function flatViewText(spaces: readonly AddressSpaceInfo[]): string {
  return [...byRoot(spaces)].map(([root, names], index) =>
    `FlatView #${index}\n` +
    names.map((name) => ` AS "${name}", root: ${root.name}\n`).join("") +
    ` Root memory region: ${root.name}\n` +
    flatten(root).map(visibleText).join("") + "\n"
  ).join("");
}

function visibleText({ start, end, region }: VisibleRange): string {
  const { alias, kind, priority } = region;
  const offset = start - region.start + (alias?.start ?? 0n);
  // RAM and ROM are memory slots of KVM's; everything else exits to the VMM.
  return `  ${range(start, end)} (prio ${priority}, ${kind}): ${alias?.of ?? region.name}` +
    `${offset === 0n ? "" : ` @${hex(offset)}`}` +
    `${kind === "ram" || kind === "rom" ? " KVM" : ""}\n`;
}

/** Leaves of the tree, the higher priority in front of the lower. */
function flatten(root: MemoryRegionInfo): VisibleRange[] {
  const visible: VisibleRange[] = [];
  const show = (region: MemoryRegionInfo, from: bigint, to: bigint) => {
    const start = region.start > from ? region.start : from;
    const end = region.end < to ? region.end : to;
    if (start > end) return;
    const children = [...region.children ?? []].sort((a, b) => b.priority - a.priority);
    for (const child of children) show(child, start, end);
    if (region.kind !== "container") cover(visible, { start, end, region });
  };
  show(root, root.start, root.end);
  return visible;
}

/** Adds the parts of a range that nothing covers yet; the list stays in order. */
function cover(visible: VisibleRange[], { start, end, region }: VisibleRange): void {
  const parts: VisibleRange[] = [];
  let from = start;
  for (const other of visible) {
    if (other.end < from || other.start > end) continue;
    if (other.start > from) parts.push({ start: from, end: other.start - 1n, region });
    from = other.end + 1n;
  }
  if (from <= end) parts.push({ start: from, end, region });
  visible.push(...parts);
  visible.sort((a, b) => a.start < b.start ? -1 : 1);
}

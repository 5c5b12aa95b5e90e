/**
 * The page's style sheet, for light and dark backgrounds.
 *
 * @module
 */

/** CSS. */
export const style = `
:root {
  color-scheme: light dark;
  --text: #1c2127; --faint: #5f6b76; --grid: #dfe4e8; --page: #ffffff; --stripe: #f5f7f9;
  --denovo: #0b6bcb; --qemu-microvm: #d9730d; --qemu-q35: #8a4baf; --floor: #8b959e;
  --s0: #0b6bcb; --s1: #f2a541; --s2: #3aa66f; --s3: #c8553d;
  --s4: #7a6ff0; --s5: #1fa2b8; --s6: #b5517f; --s7: #8b959e; --bad: #c62828;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e3e8ec; --faint: #9aa6b1; --grid: #323a42; --page: #15191d; --stripe: #1c2227;
    --denovo: #5aa9f5; --qemu-microvm: #f0a04b; --qemu-q35: #c08be0; --floor: #75808a;
    --bad: #ff7b72;
  }
}
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: var(--text);
  background: var(--page); max-width: 920px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0.2rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 0.4rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.3rem; }
ul { color: var(--faint); padding-left: 1.2rem; overflow-wrap: anywhere; }
.note { color: var(--faint); margin: 0.3rem 0 0.6rem; }
.legend span { margin-right: 0.3rem; }
.legend > span { margin-right: 1.2rem; white-space: nowrap; }
.swatch { display: inline-block; width: 0.75em; height: 0.75em; border-radius: 3px; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, "DejaVu Sans", sans-serif; }
svg text { fill: var(--text); }
svg .tick { fill: var(--faint); font-size: 12px; }
svg .value { font-weight: 600; }
svg .panel { font-weight: 600; font-size: 14px; }
svg .on-bar { fill: #ffffff; font-weight: 600; }
.grid { stroke: var(--grid); stroke-width: 1; }
.axis { stroke: var(--faint); stroke-width: 1; }
.median { stroke: var(--text); stroke-width: 2; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 12px; }
.run { fill-opacity: 0.65; }
.trend { fill: none; stroke-width: 1.5; stroke-opacity: 0.6; }
.range { stroke-width: 2; stroke-opacity: 0.75; }
.floor-line { stroke: var(--floor); stroke-width: 2; }
circle.floor { fill: var(--floor); fill-opacity: 0.7; }
.denovo { fill: var(--denovo); stroke: var(--denovo); }
.qemu-microvm { fill: var(--qemu-microvm); stroke: var(--qemu-microvm); }
.qemu-q35 { fill: var(--qemu-q35); stroke: var(--qemu-q35); }
circle.run { stroke: none; }
polyline.trend { fill: none; }
.swatch.denovo { background: var(--denovo); }
.swatch.qemu-microvm { background: var(--qemu-microvm); }
.swatch.qemu-q35 { background: var(--qemu-q35); }
.swatch.floor { background: var(--floor); }
${
  Array.from({ length: 8 }, (_, i) =>
    `.segment.s${i} { fill: var(--s${i}); } .swatch.s${i} { background: var(--s${i}); }`).join("\n")
}
.segment { stroke: var(--page); stroke-width: 1; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--faint); font-weight: 600; vertical-align: bottom; }
th, td { padding: 0.2rem 0.6rem 0.2rem 0; white-space: nowrap; }
.wide th { white-space: normal; }
tr:nth-child(odd) td { background: var(--stripe); }
.number { text-align: right; }
.failed { color: var(--bad); font-weight: 700; }
`;

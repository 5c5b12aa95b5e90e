/**
 * SVG as text: elements, and the scale of an axis.
 *
 * @module
 */

/** Attributes of an element. */
export type Attributes = Readonly<Record<string, string | number>>;

/** Makes text safe inside of HTML and SVG, in attributes too. */
export function escapeText(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

/** One element; `children` are elements, already escaped. */
export function element(name: string, attributes: Attributes, ...children: string[]): string {
  const list = Object.entries(attributes).map(([key, value]) =>
    ` ${key}="${typeof value === "number" ? round(value) : escapeText(value)}"`
  ).join("");
  return `<${name}${list}>${children.join("")}</${name}>`;
}

/** A text. @param anchor start, middle or end */
export function label(
  text: string,
  x: number,
  y: number,
  anchor: "start" | "middle" | "end" = "start",
  type = "label",
): string {
  return element("text", { x, y, "text-anchor": anchor, class: type }, escapeText(text));
}

/** A straight line. */
export function line(x1: number, y1: number, x2: number, y2: number, type: string): string {
  return element("line", { x1, y1, x2, y2, class: type });
}

/** A picture of a size in units of CSS pixels, which shrinks with the page. @param name for people */
export function picture(name: string, width: number, height: number, content: string[]): string {
  const attributes = {
    viewBox: `0 0 ${round(width)} ${round(height)}`,
    style: `max-width:${round(width)}px`,
    role: "img",
    "aria-label": name,
  };
  return element("svg", attributes, ...content);
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** From a value to a place on an axis. */
export interface Scale {
  at(value: number): number;
  readonly ticks: readonly number[];
}

/** A logarithmic axis around values above 0, with ticks at 1, 2 and 5 times powers of ten. */
export function logScale(values: readonly number[], from: number, to: number): Scale {
  const positive = values.filter((value) => value > 0);
  const low = Math.log10(Math.min(...positive) / 1.15);
  const high = Math.log10(Math.max(...positive) * 1.15);
  const all: number[] = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    for (const digit of [1, 2, 5]) all.push(digit * 10 ** power);
  }
  const inside = all.filter((tick) => Math.log10(tick) >= low && Math.log10(tick) <= high);
  // Three decades and more have room for the powers of ten alone.
  const tens = inside.filter((tick) => Number.isInteger(Math.log10(tick)));
  return {
    at: (value) =>
      from + (to - from) * (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low),
    ticks: high - low > 3 && tens.length > 1 ? tens : inside,
  };
}

/** An axis from 0 to a value, with about five round ticks. */
export function linearScale(max: number, from: number, to: number): Scale {
  const rough = max / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= rough)!;
  const count = Math.floor(max / step + 1e-9);
  return {
    at: (value) => from + (to - from) * value / max,
    ticks: Array.from({ length: count + 1 }, (_, i) => i * step),
  };
}

/** A number of milliseconds at an axis: `0.05`, `2`, `100`. */
export function tickText(value: number): string {
  return `${Number(value.toPrecision(3))}`;
}

/**
 * How messages begin (`-msg`).
 *
 * @module
 */
import type { MachineConfig } from "./config.ts";

/**
 * A message as it is written: behind the time in UTC, if that is wanted, and the guest's name.
 *
 * @param config whose `messages` and `name` are looked at; none before it is known
 * @param now microseconds since 1970
 */
export function stampMessage(
  config: Pick<MachineConfig, "messages" | "name"> | undefined,
  text: string,
  now: number = Math.round((performance.timeOrigin + performance.now()) * 1000),
): string {
  const parts = [text];
  if (config?.messages.guestName && config.name !== undefined) parts.unshift(config.name);
  if (config?.messages.timestamp) {
    const whole = new Date(Math.floor(now / 1000)).toISOString().slice(0, -1);
    parts.unshift(`${whole}${String(now % 1000).padStart(3, "0")}Z`);
  }
  return parts.join(" ");
}

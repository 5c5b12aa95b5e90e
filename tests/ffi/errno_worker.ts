/** Provokes errors on a thread of its own, while the runtime collects garbage, and checks each. */
import { checkErrnos } from "./errno_testing.ts";

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<number>) => void) | null;
  postMessage(wrong: string[]): void;
};

scope.onmessage = ({ data }) => scope.postMessage(checkErrnos(data));

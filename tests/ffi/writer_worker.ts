/** Writes on a thread of its own, so that a test can be the slow reader. */
import { writeAll } from "../../ffi/fd.ts";

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<{ fd: number; data: Uint8Array<ArrayBuffer> }>) => void) | null;
  postMessage(message: string): void;
};

scope.onmessage = ({ data: { fd, data } }) => {
  writeAll(fd, data);
  scope.postMessage("done");
};

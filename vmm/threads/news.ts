/**
 * How a thread learns that a device has come or gone: it is busy in one call for as long as there is the
 * machine, so it looks for messages itself when it goes on after it was parked. The machine stands still
 * while they are sent.
 *
 * @module
 */
import type { DeviceNews } from "../bus/thread_devices.ts";

/** What a thread is given to look for messages. */
export interface NewsSource {
  readonly port: MessagePort;
  /** Counts the messages sent: a look at it is all that going on takes as a rule. */
  readonly count: SharedArrayBuffer;
}

/** The main thread's end. */
export class NewsSender implements Disposable {
  readonly #port: MessagePort;
  readonly #count = new Int32Array(new SharedArrayBuffer(4));
  /** The thread's end, to be sent to it. */
  readonly source: NewsSource;

  /** Nothing is sent yet. */
  constructor() {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.source = { port: port2, count: this.#count.buffer };
  }

  /** Sends a message; the thread is parked. */
  send(news: DeviceNews): void {
    this.#port.postMessage(news);
    Atomics.add(this.#count, 0, 1);
  }

  /** Closes the channel. */
  [Symbol.dispose](): void {
    this.#port.close();
  }
}

/** The thread's end. */
export class NewsReader {
  readonly #count: Int32Array<SharedArrayBuffer>;
  readonly #receive: () => DeviceNews | undefined;
  #taken = 0;

  /** @param receive takes a message that is there */
  constructor(count: SharedArrayBuffer, receive: () => DeviceNews | undefined) {
    this.#count = new Int32Array(count);
    this.#receive = receive;
  }

  /**
   * Takes what was sent.
   *
   * @returns whether there was anything
   */
  take(learn: (news: DeviceNews) => void): boolean {
    const count = Atomics.load(this.#count, 0);
    if (count === this.#taken) return false;
    for (; this.#taken !== count; this.#taken++) {
      const news = this.#receive();
      if (!news) throw new Error("A message about a device has not come");
      learn(news);
    }
    return true;
  }
}

/** Opens a thread's end; the module that can is loaded only where there is one. */
export async function openNews(source: NewsSource | undefined): Promise<NewsReader | undefined> {
  if (!source) return undefined;
  const { receiveMessageOnPort } = await import("node:worker_threads");
  const { port, count } = source;
  return new NewsReader(
    count,
    () => receiveMessageOnPort(port as never)?.message as DeviceNews | undefined,
  );
}

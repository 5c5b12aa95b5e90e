/**
 * The socket between the process of a relayed cpr-exec and its helper: who wants the guest asks on
 * it, and gets the two connections of a cpr-transfer.
 *
 * @module
 */
import { type OwnedFd, readFd } from "../ffi/fd.ts";
import type { Reactor } from "../ffi/reactor.ts";
import { setTimeouts, socketPair } from "../ffi/socket.ts";
import { receiveMessage, sendMessage } from "../ffi/socket_message.ts";
import { StateError } from "./stream.ts";
import { awaitInput, PEER_LIMIT_MS } from "./transfer.ts";

const ASK = Uint8Array.of(0x41);
const GRANT = Uint8Array.of(0x47);

/** The two connections of a cpr-transfer. */
export interface RelayChannels {
  readonly cpr: OwnedFd;
  readonly main: OwnedFd;
}

/** One end of the link. */
export class RelayLink implements Disposable {
  /** @param fd a connected UNIX socket */
  constructor(readonly fd: OwnedFd) {
    setTimeouts(fd.fd, PEER_LIMIT_MS);
  }

  /** Asks for the guest, and waits for the connections. @throws {StateError} if nobody answers */
  ask(): RelayChannels {
    let answer: ReturnType<typeof receiveMessage>;
    let cause: unknown;
    try {
      sendMessage(this.fd.fd, ASK);
      answer = receiveMessage(this.fd.fd, new Uint8Array(1), 2);
    } catch (error) {
      cause = error;
    }
    if (answer?.fds.length === 2) return { cpr: answer.fds[0], main: answer.fds[1] };
    for (const fd of answer?.fds ?? []) fd.close();
    const text = "The VMM that has the guest does not answer on the relay's link";
    throw new StateError(text, { cause });
  }

  /** Waits until the other side asks; false if it has ended instead. */
  async asked(reactor: Reactor, abort: AbortSignal): Promise<boolean> {
    await awaitInput(reactor, this.fd.fd, abort);
    return readFd(this.fd.fd, new Uint8Array(1)) === 1;
  }

  /** Answers the other side with connections; gives the own ends of them. */
  grant(): RelayChannels {
    const [cpr, theirCpr] = socketPair();
    const [main, theirMain] = socketPair();
    using _theirCpr = theirCpr;
    using _theirMain = theirMain;
    sendMessage(this.fd.fd, GRANT, [theirCpr.fd, theirMain.fd]);
    return { cpr, main };
  }

  /** Closes this end, which the other side notices. */
  [Symbol.dispose](): void {
    this.fd.close();
  }
}

/** Closes connections of which an update may not have come to use both. */
export function closeChannels({ cpr, main }: RelayChannels): void {
  cpr.close();
  main.close();
}

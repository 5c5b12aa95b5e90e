/**
 * The socket between the process of a relayed cpr-exec and its helper: who wants the guest asks on
 * it, and gets the two connections of a cpr-transfer.
 *
 * @module
 */
import { type OwnedFd, readFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { setTimeouts, socketPair } from "../../ffi/socket.ts";
import { receiveMessage, sendMessage } from "../../ffi/socket_message.ts";
import { StateError } from "../stream/stream.ts";
import { awaitInput, PEER_LIMIT_MS } from "../channel/peer.ts";

const ASK = Uint8Array.of(0x41);
const GRANT = Uint8Array.of(0x47);
/** An exit status follows. */
const ENDED = 0x45;

/** The guest has ended in the helper. */
export class GuestEnded extends Error {
  /** @param status the exit status of its VM */
  constructor(readonly status: number) {
    super(`The guest has ended during the update, with exit status ${status}`);
  }
}

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

  /**
   * Asks for the guest, and waits for the connections.
   *
   * @throws {GuestEnded} if it has ended meanwhile
   * @throws {StateError} if nobody answers
   */
  ask(): RelayChannels {
    const buffer = new Uint8Array(2);
    let answer: ReturnType<typeof receiveMessage>;
    let cause = this.#tell(ASK);
    try {
      // One that has ended may have said so before.
      answer = receiveMessage(this.fd.fd, buffer, 2);
    } catch (error) {
      cause ??= error;
    }
    if (answer?.fds.length === 2) return { cpr: answer.fds[0], main: answer.fds[1] };
    for (const fd of answer?.fds ?? []) fd.close();
    if (answer?.length === buffer.length && buffer[0] === ENDED) throw new GuestEnded(buffer[1]);
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

  /** Leaves word for whoever asks later that the guest has ended. */
  ended(status: number): void {
    this.#tell(Uint8Array.of(ENDED, status));
  }

  /** Returns why it could not be said, if so. */
  #tell(message: Uint8Array<ArrayBuffer>): unknown {
    try {
      sendMessage(this.fd.fd, message);
    } catch (error) {
      return error;
    }
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

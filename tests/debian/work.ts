/**
 * What `main.ts` does in a network namespace of its own: Debian works while its VMM is replaced.
 *
 *     deno run -A --no-check tests/debian/work.ts FOLDER [the words of main.ts]
 *
 * @module
 */
import type { UpdateMode } from "../../cpr/update/update.ts";
import { summarize } from "../bench/statistics.ts";
import { run } from "../lab/host.ts";
import { Agent } from "./agent.ts";
import { Debian } from "./debian.ts";
import { debianImage, RECORD_COUNT, RECORDS, step } from "./image.ts";
import { Network } from "./network.ts";
import { type Options, readOptions } from "./options.ts";
import { BLOCK_SIZE, STREAM_COUNT } from "./stream.ts";

/** How long the guest may need to go on after an update: generous, since nothing is measured by it. */
const PATIENCE_MS = 300_000;

/** A Debian that writes, talks to a server and answers as its agent. */
interface Workplace {
  readonly debian: Debian;
  readonly network: Network;
  readonly agent: Agent;
}

/** Starts all that works in the guest, and sees that it does. */
async function begin({ debian, network, agent }: Workplace): Promise<void> {
  await debian.sh("writer & writer=$!");
  await debian.sh("stream 2>/run/stream.error & stream=$!");
  await debian.count(`cat ${RECORD_COUNT}`, 0);
  await step("the stream's first blocks", () => network.moves(PATIENCE_MS));
  await step("the agent's first answers", () => agent.responds(PATIENCE_MS));
}

/** Replaces the VMM once, and sees that all goes on. @returns the pause in ms */
async function update({ debian, network, agent }: Workplace, mode: UpdateMode): Promise<number> {
  const written = await debian.count(`cat ${RECORD_COUNT}`);
  agent.mayEnd(mode === "reboot");
  const pause = await debian.update(mode);
  await network.moves(PATIENCE_MS);
  await agent.responds(PATIENCE_MS);
  agent.mayEnd(false);
  await debian.count(`cat ${RECORD_COUNT}`, written);
  return pause;
}

async function updates(place: Workplace, mode: UpdateMode, count: number): Promise<void> {
  const pauses: number[] = [];
  while (pauses.length < count) {
    const pause = await update(place, mode);
    pauses.push(pause);
    console.log(
      `${mode} ${pauses.length}: pause ${pause} ms; ${place.network.blocks} blocks, ` +
        `${place.agent.answers} answers over ${place.agent.connections} connections`,
    );
  }
  const { n, median, min, max } = summarize(pauses);
  console.log(`${mode}: pause ${median} ms (${min} to ${max}), n = ${n}`);
}

/** Ends the programs in the guest. @returns how many records and blocks there are, as the guest has it */
async function end({ debian }: Workplace): Promise<{ records: number; blocks: number }> {
  await debian.sh("kill $stream $writer; wait $stream $writer");
  const error = await debian.sh("cat /run/stream.error");
  if (error !== "") throw new Error(`The stream in the guest: ${error}`);
  return {
    blocks: await debian.count(`cat ${STREAM_COUNT}`),
    records: await debian.count(`wc -l < ${RECORDS}`),
  };
}

/** Looks at the disk of a Debian that was powered off. @returns how many records there are */
async function checkDisk(disk: string): Promise<number> {
  await run(["e2fsck", "-fn", disk]);
  const text = await run(["debugfs", "-R", `cat ${RECORDS}`, disk]);
  const records = text.trim().split("\n");
  records.forEach((record, i) => {
    if (Number(record) !== i + 1) throw new Error(`Record ${i + 1} of the disk is '${record}'`);
  });
  return records.length;
}

async function work(folder: string, { count, modes, options }: Options): Promise<void> {
  const original = await debianImage();
  const image = { ...original, disk: `${folder}/disk.img` };
  await run(["cp", "--sparse=always", original.disk, image.disk]);
  await using network = await Network.make();
  await using debian = new Debian(folder, image, options);
  await step("Debian's boot to a shell", () => debian.logIn());
  const wrote = await atWork({ debian, network }, folder, async (place) => {
    for (const mode of count > 0 ? modes : []) {
      await step(`${count} updates by ${mode}`, () => updates(place, mode, count));
    }
  });
  const served = await network.ended();
  await step("Debian's power-off", () => debian.powerOff());
  const found = await checkDisk(image.disk);
  if (found !== wrote.records) throw new Error(`The disk has ${found} records of ${wrote.records}`);
  if (served !== wrote.blocks) {
    throw new Error(`The server had ${served} of ${wrote.blocks} blocks`);
  }
  console.log(
    `${found} records, none lost, none twice; the file system is clean; one connection with ` +
      `${served} blocks of ${BLOCK_SIZE} bytes each way, none damaged; ${wrote.answers} answers of the agent`,
  );
}

/** Has something done while all works. @returns what there was in the end */
async function atWork(
  { debian, network }: Pick<Workplace, "debian" | "network">,
  folder: string,
  action: (place: Workplace) => Promise<void>,
): Promise<{ records: number; blocks: number; answers: number }> {
  await using agent = new Agent(`${folder}/agent`);
  const place = { debian, network, agent };
  await begin(place);
  await action(place);
  return { ...await end(place), answers: agent.answers };
}

const [folder, ...args] = Deno.args;
try {
  await work(folder, readOptions(args));
} catch (error) {
  console.error((error as Error).message);
  Deno.exit(1);
}

/**
 * Opening an image on a thread, with those that it is made of.
 *
 * @module
 */
import { type Image, type ImageDescription, openBase, type PartDescription } from "./image.ts";
import { type Backing, Qcow2Image } from "./qcow2/image.ts";
import { Storage } from "./qcow2/storage.ts";
import { partSize } from "./words.ts";

/** Opens an image on this thread. */
export function openImage(description: ImageDescription): Image {
  return description.kind === "qcow2" ? openQcow2(description) : openBase(description);
}

/** Opens a qcow2 image on this thread. */
export function openQcow2(
  description: Extract<ImageDescription, { kind: "qcow2" }>,
): Qcow2Image {
  const { storage, limit, backing } = description;
  return new Qcow2Image(description, openStorage(storage, limit), backing && openBacking(backing));
}

/** Opens the file that an image is in. */
export function openStorage({ image, offset, noFlush }: PartDescription, limit?: number): Storage {
  return new Storage(openImage(image), offset, limit, noFlush);
}

function openBacking(part: PartDescription): Backing {
  const { image, offset } = part;
  return { image: openImage(image), offset, size: () => partSize(part) };
}

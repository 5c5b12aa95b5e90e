/**
 * The FXSAVE image in the software CPU's state, from and to what the processor stores.
 *
 * The CPU keeps the x87 registers by their physical numbers, so that a push changes TOP and moves nothing;
 * FXSAVE's image has them by their distance from the top of the stack.
 *
 * @module
 */

const FSW = 2;
const REGISTERS = 32;
const REGISTER_SIZE = 16;

function rotate(
  image: Uint8Array<ArrayBufferLike>,
  by: number,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(image);
  for (let i = 0; i < 8; i++) {
    const from = REGISTERS + ((i + by) & 7) * REGISTER_SIZE;
    out.set(image.subarray(from, from + REGISTER_SIZE), REGISTERS + i * REGISTER_SIZE);
  }
  return out;
}

const topOf = (image: Uint8Array<ArrayBufferLike>) => (image[FSW + 1] >> 3) & 7;

/**
 * An image as FXSAVE writes it.
 *
 * @param state the image in the CPU's state, 512 bytes
 */
export function fxsaveOut(state: Uint8Array<ArrayBufferLike>): Uint8Array<ArrayBuffer> {
  return rotate(state, topOf(state));
}

/**
 * The image for the CPU's state.
 *
 * @param image as FXSAVE has written it, 512 bytes
 */
export function fxsaveIn(image: Uint8Array<ArrayBufferLike>): Uint8Array<ArrayBuffer> {
  return rotate(image, -topOf(image) & 7);
}

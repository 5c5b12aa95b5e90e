/**
 * Text that is bytes to the host: arguments, file names, environment variables.
 *
 * Linux asks of them only that they hold no NUL. A byte that is not part of valid UTF-8 stands in a
 * string as a lone surrogate, 0x80 as U+DC80 to 0xff as U+DCFF, which no valid text has; so the same
 * bytes go out as came in.
 *
 * @module
 */
const encoder = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The surrogate of byte 0. */
const BYTE_0 = 0xdc00;

/** Bytes as text. */
export function decodeText(bytes: Uint8Array): string {
  return decodeStrictly(bytes) ?? decodePieces(bytes);
}

function decodeStrictly(bytes: Uint8Array): string | undefined {
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

function decodePieces(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length;) {
    const piece = bytes.subarray(at, at + sequenceLength(bytes[at]));
    const valid = decodeStrictly(piece);
    text += valid ?? String.fromCharCode(BYTE_0 + bytes[at]);
    at += valid === undefined ? 1 : piece.length;
  }
  return text;
}

/** How long a UTF-8 sequence is that begins with a byte, if it is one. */
function sequenceLength(byte: number): number {
  if (byte < 0xc0) return 1;
  return byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/**
 * Text as bytes.
 *
 * @throws {TypeError} if the text has a surrogate that stands for no byte
 */
export function encodeText(text: string): Uint8Array<ArrayBuffer> {
  if (text.isWellFormed()) return encoder.encode(text);
  const bytes: number[] = [];
  for (const character of text) {
    const byte = character.charCodeAt(0) - BYTE_0;
    if (character.isWellFormed()) bytes.push(...encoder.encode(character));
    else if (byte >= 0x80 && byte <= 0xff) bytes.push(byte);
    else throw new TypeError(`String ${JSON.stringify(text)} holds a surrogate that is no byte`);
  }
  return Uint8Array.from(bytes);
}

// RCPPS and RSQRTPS: approximations with a relative error of at most 1.5 * 2^-12, which every processor
// has tables of its own for. Neither sets flags nor looks at MXCSR; denormals count as zeros (SDM 2).

const EXPONENT_MASK: u32 = 0x7f800000;
const SIGN_BIT: u32 = 0x80000000;
/** 2^126: the reciprocals of this and more are no normal numbers, and become zero. */
const UNDERFLOWS: u32 = 0x7e800000;

/** 13 bits of significand, rounded to nearest. */
function shorten(value: f32): u32 {
  const bits = reinterpret<u32>(value);
  return (bits + 0x400) & ~0x7ff;
}

export function approximateReciprocal(bits: u32): u32 {
  const magnitude = bits & ~SIGN_BIT;
  if (magnitude > EXPONENT_MASK) return bits | 0x400000;
  if (magnitude >= UNDERFLOWS) return bits & SIGN_BIT;
  if ((bits & EXPONENT_MASK) == 0) return (bits & SIGN_BIT) | EXPONENT_MASK;
  return shorten(<f32>1 / reinterpret<f32>(bits));
}

export function approximateRoot(bits: u32): u32 {
  const magnitude = bits & ~SIGN_BIT;
  if (magnitude > EXPONENT_MASK) return bits | 0x400000;
  if ((bits & EXPONENT_MASK) == 0) return (bits & SIGN_BIT) | EXPONENT_MASK;
  if ((bits & SIGN_BIT) != 0) return 0xffc00000;
  if (magnitude == EXPONENT_MASK) return 0;
  return shorten(<f32>1 / sqrt<f32>(reinterpret<f32>(bits)));
}

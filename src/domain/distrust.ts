import { ceilDivide, type Nano } from './money.ts'

const PPM = 1_000_000n

/**
 * The most that holds of a distrusted route are raised by: to a hundred times the worst case. What is billed beyond that
 * is booked as an overage as ever; a hold that large fits few envelopes, so that such a route is hardly used at all.
 */
export const MAX_DISTRUST_PPM = 99_000_000

/**
 * By how much a charge was above the worst case that its hold was made of, in parts per million, rounded up; 0 when it
 * was within the hold. A hold that was raised already by `raisedPpm` counts from before that.
 *
 * @example held 1_000n and charged 1_501n: 501 000; the same with a hold that was raised by 1 000 000: 2 002 000
 */
export function excessPpm(held: Nano, charged: Nano, raisedPpm = 0): number {
  if (charged <= held) return 0
  if (held <= 0n) return MAX_DISTRUST_PPM
  const ppm = ceilDivide(charged * (PPM + BigInt(raisedPpm)), held) - PPM
  return ppm > BigInt(MAX_DISTRUST_PPM) ? MAX_DISTRUST_PPM : Number(ppm)
}

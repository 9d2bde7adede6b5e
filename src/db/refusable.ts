/** The most of anything, in nano, tokens or calls, that the ledger's functions take: they refuse one more by name. */
const MOST = 10n ** 15n

/** A number that no column holds, as the nearest that is refused by name: it does not fail the statement it comes in. */
export function refusable(value: bigint): bigint {
  if (value < 0n) return -1n
  return value > MOST ? MOST + 1n : value
}

/** A row of the journal, as far as a run's money goes. `side` says which way a counted pocket or debt moved. */
export interface JournalEntry {
  readonly id: string
  readonly code: string
  readonly amount: bigint
  readonly released: bigint
  readonly callId: string | null
  readonly attempt: number | null
  readonly certainty: 'billed' | 'estimated' | 'unknown' | null
  readonly use: 'useful' | 'wasted' | null
  /** Which money it is: balance class and currency of the pocket it belongs to. */
  readonly money: string
  /** `out`: away from the payer (to a provider, or home to the wallet). `in`: towards the payer. */
  readonly direction: 'out' | 'in'
}

/** What the journal says of one attempt, in nano. */
export interface AttemptSums {
  readonly held: bigint
  readonly captured: bigint
  readonly released: bigint
  readonly overage: bigint
  /** Truth minus estimate; negative when money came back. */
  readonly corrected: bigint
  readonly charged: bigint
  readonly certainty: JournalEntry['certainty']
  readonly use: JournalEntry['use']
  readonly open: boolean
  readonly transfers: readonly string[]
}

/** What the journal says of one pocket, in nano. */
export interface PocketSums {
  readonly funded: bigint
  readonly spent: bigint
  readonly held: bigint
  readonly returned: bigint
  /** Carved for child runs, less what came back from them. */
  readonly inChildren: bigint
}

const SPENDING: ReadonlySet<string> = new Set(['capture', 'overage', 'correction'])
const RESOLVING: ReadonlySet<string> = new Set(['capture', 'void', 'expire'])

/** Money that left for a provider, signed: a correction may bring some back. */
export function spendOf(entry: JournalEntry): bigint {
  if (!SPENDING.has(entry.code)) return 0n
  return entry.direction === 'out' ? entry.amount : -entry.amount
}

/** Folds one attempt's entries, in ledger order: the labels are those of the last entry that charged. */
export function foldAttempt(entries: readonly JournalEntry[]): AttemptSums {
  const sums = { held: 0n, captured: 0n, overage: 0n, corrected: 0n, charged: 0n }
  let labelled: JournalEntry | undefined
  let isResolved = false
  for (const entry of entries) {
    const spent = spendOf(entry)
    sums.charged += spent
    if (entry.code === 'hold') sums.held += entry.amount
    else if (entry.code === 'capture') sums.captured += entry.amount
    else if (entry.code === 'overage') sums.overage += spent
    else if (entry.code === 'correction') sums.corrected += spent
    if (entry.certainty !== null) labelled = entry
    isResolved ||= RESOLVING.has(entry.code) || (entry.code !== 'hold' && entry.released > 0n)
  }
  return {
    ...sums,
    released: isResolved ? sums.held - sums.captured : 0n,
    certainty: labelled?.certainty ?? null,
    use: labelled?.use ?? null,
    open: !isResolved,
    transfers: entries.map((entry) => entry.id),
  }
}

/** Folds the entries of one kind of money. */
export function foldPocket(entries: readonly JournalEntry[]): PocketSums {
  const sums = { funded: 0n, spent: 0n, held: 0n, returned: 0n, inChildren: 0n }
  for (const entry of entries) {
    const { code, amount, released, direction } = entry
    sums.spent += spendOf(entry)
    sums.held += code === 'hold' ? amount : -released
    if (code === 'top_up' && direction === 'in') sums.funded += amount
    else if (code === 'carve' && direction === 'in') sums.funded += amount
    else if (code === 'carve') sums.inChildren += amount
    else if (code === 'return' && direction === 'out') sums.returned += amount
    else if (code === 'return') sums.inChildren -= amount
  }
  return sums
}

export function sum(values: readonly bigint[]): bigint {
  return values.reduce((total, value) => total + value, 0n)
}

/** How much of their holds attempts cost, in thousandths: what a worst case is worth. */
export interface HoldAccuracy {
  readonly attempts: number
  readonly p50: bigint
  readonly p95: bigint
  readonly most: bigint
}

/** Of the attempts whose cost is known for sure; undefined when there is none. */
export function holdAccuracy(attempts: Iterable<AttemptSums>): HoldAccuracy | undefined {
  const shares: bigint[] = []
  for (const { certainty, held, charged } of attempts) {
    if (certainty === 'billed' && held > 0n) shares.push((charged * 1_000n + held - 1n) / held)
  }
  const sorted = shares.toSorted((one, other) => (one < other ? -1 : one > other ? 1 : 0))
  const at = (percent: number) => sorted[Math.max(0, Math.ceil((sorted.length * percent) / 100) - 1)] ?? 0n
  return sorted.length === 0 ? undefined : { attempts: sorted.length, p50: at(50), p95: at(95), most: at(100) }
}

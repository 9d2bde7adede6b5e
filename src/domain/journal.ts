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

/** Money that left for a provider, signed: a correction may bring some back. */
export function spendOf(entry: JournalEntry): bigint {
  if (!SPENDING.has(entry.code)) return 0n
  return entry.direction === 'out' ? entry.amount : -entry.amount
}

/** Folds one attempt's entries, in ledger order: the labels are those of the last entry that charged. */
export function foldAttempt(entries: readonly JournalEntry[]): AttemptSums {
  const amountOf = (code: string) => sum(entries.filter((entry) => entry.code === code).map((entry) => entry.amount))
  const held = amountOf('hold')
  const captured = amountOf('capture')
  const resolution = entries.find((entry) => entry.code !== 'hold' && entry.released > 0n) ?? resolutionOf(entries)
  const labelled = entries.findLast((entry) => entry.certainty !== null)
  return {
    held,
    captured,
    released: resolution ? held - captured : 0n,
    overage: sum(entries.filter((entry) => entry.code === 'overage').map(spendOf)),
    corrected: sum(entries.filter((entry) => entry.code === 'correction').map(spendOf)),
    charged: sum(entries.map(spendOf)),
    certainty: labelled?.certainty ?? null,
    use: labelled?.use ?? null,
    open: resolution === undefined,
    transfers: entries.map((entry) => entry.id),
  }
}

function resolutionOf(entries: readonly JournalEntry[]): JournalEntry | undefined {
  return entries.find((entry) => entry.code === 'capture' || entry.code === 'void' || entry.code === 'expire')
}

/** Folds the entries of one kind of money. */
export function foldPocket(entries: readonly JournalEntry[]): PocketSums {
  const held = sum(entries.map((entry) => (entry.code === 'hold' ? entry.amount : -entry.released)))
  const moved = (code: string, direction: JournalEntry['direction']) =>
    sum(entries.filter((entry) => entry.code === code && entry.direction === direction).map((entry) => entry.amount))
  return {
    funded: moved('top_up', 'in') + moved('carve', 'in'),
    spent: sum(entries.map(spendOf)),
    held,
    returned: moved('return', 'out'),
    inChildren: moved('carve', 'out') - moved('return', 'in'),
  }
}

export function sum(values: readonly bigint[]): bigint {
  return values.reduce((total, value) => total + value, 0n)
}

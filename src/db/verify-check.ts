/** What one check of a verification found. */
export interface VerifyCheck {
  readonly name: string
  /** What must hold, as one sentence. */
  readonly claim: string
  readonly ok: boolean
  /** How many rows were looked at. */
  readonly rows: number
  readonly ms: number
  /** The first row that is wrong, with what is wrong about it. */
  readonly firstWrong: string | null
  /** What is not wrong, and has to be known to read the result right. */
  readonly note: string | null
}

export interface Claim {
  readonly name: string
  readonly claim: string
}

export interface Finding {
  readonly rows: number
  readonly firstWrong: string | null
  readonly note?: string | null
}

/** Runs one check and takes its time. A row that cannot even be computed with is what this check finds wrong. */
export async function timed({ name, claim }: Claim, work: () => Promise<Finding>): Promise<VerifyCheck> {
  const startedMs = performance.now()
  const {
    rows,
    firstWrong,
    note = null,
  } = await work().catch((error: unknown): Finding => {
    const reason = unreadable(error)
    if (reason === undefined) throw error
    return { rows: 0, firstWrong: `a row that cannot be read: ${reason}` }
  })
  return { name, claim, ok: firstWrong === null, rows, ms: Math.round(performance.now() - startedMs), firstWrong, note }
}

/** SQLSTATE class 22: a value that is out of range or no value of its type, which only a hand can have written. */
const DATA_EXCEPTION = '22'

/** What the database says when a value in it cannot be computed with; undefined for every other failure. */
export function unreadable(error: unknown): string | undefined {
  const isOfData = error instanceof Error && 'code' in error && String(error.code).startsWith(DATA_EXCEPTION)
  return isOfData ? error.message : undefined
}

/** Statements that may run beside each other: what they add up is independent of their order. */
const LANES = 2

/** Visits what `next` gives until it gives nothing, on few lanes. `next` is never called beside itself. */
export async function inLanes<Item>(
  next: () => Promise<Item | undefined>,
  visit: (item: Item) => Promise<void>,
): Promise<void> {
  let turn: Promise<Item | undefined> = Promise.resolve(undefined)
  const take = (): Promise<Item | undefined> => {
    turn = after(turn, next)
    return turn
  }
  const lane = async (): Promise<void> => {
    for (let item = await take(); item !== undefined; item = await take()) await visit(item)
  }
  await Promise.all(Array.from({ length: LANES }, lane))
}

/** Makes checks on few lanes, and gives them in their own order. */
export async function besideEachOther(works: readonly (() => Promise<VerifyCheck>)[]): Promise<readonly VerifyCheck[]> {
  const made = new Map<number, VerifyCheck>()
  const entries = works.entries()
  await inLanes(
    () => Promise.resolve(entries.next().value),
    async ([index, work]) => void made.set(index, await work()),
  )
  return [...made].toSorted(([left], [right]) => left - right).map(([, check]) => check)
}

async function after<Item>(earlier: Promise<unknown>, next: () => Promise<Item>): Promise<Item> {
  await earlier
  return next()
}

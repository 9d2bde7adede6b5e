import pLimit from 'p-limit'

/** Of a new measurement in the mean. */
const WEIGHT = 0.2

/** Most rows that are held ahead, for each place. */
const MOST_AHEAD = 0.5
/** Most rows that are begun and not over, for each place: held ahead, at the provider or being settled. */
const MOST_OPEN = 2

/** Lets a request to its provider when there is a place for it. */
export type InTurn = <Result>(send: () => Promise<Result>) => Promise<Result>

/** Places at a provider, and rows that are held for them. */
export interface Places {
  /** Does a row's work, which goes to the provider by `inTurn`; waits before until it is worth to begin. */
  run(row: (inTurn: InTurn) => Promise<void>): Promise<void>
}

/**
 * Places for so many rows at once. A hold takes a commit, in which a place would stand empty: as many rows are held ahead as
 * are answered in that time, and not more, for what is held and not sent is what a crash leaves unknown. Where the provider
 * takes seconds that is one row.
 */
export function createPlaces(count: number): Places {
  const atProvider = pLimit(count)
  const begun = pLimit(count)
  const open = pLimit(MOST_OPEN * count)
  let holdMs = 0
  let sendMs = 0

  function keepHeldAhead(): void {
    const ahead = sendMs > 0 ? Math.ceil((count * holdMs) / sendMs) : 0
    begun.concurrency = count + Math.min(Math.ceil(MOST_AHEAD * count), ahead)
  }

  function send<Result>(work: () => Promise<Result>): Promise<Result> {
    return atProvider(async () => {
      const sinceMs = performance.now()
      try {
        return await work()
      } finally {
        sendMs = meanOf(sendMs, performance.now() - sinceMs)
        keepHeldAhead()
      }
    })
  }

  /** Returns when the row's answer is received; what is left of the row is told to `over`. */
  async function begin(row: (inTurn: InTurn) => Promise<void>, over: PromiseWithResolvers<void>): Promise<void> {
    const received = Promise.withResolvers<void>()
    const sinceMs = performance.now()
    const inTurn: InTurn = (work) => {
      holdMs = meanOf(holdMs, performance.now() - sinceMs)
      return send(work).finally(received.resolve)
    }
    row(inTurn).then(over.resolve, over.reject).finally(received.resolve)
    await received.promise
  }

  return {
    run: (row) =>
      open(async () => {
        const over = Promise.withResolvers<void>()
        await begun(() => begin(row, over))
        await over.promise
      }),
  }
}

function meanOf(mean: number, next: number): number {
  return mean === 0 ? next : mean + WEIGHT * (next - mean)
}

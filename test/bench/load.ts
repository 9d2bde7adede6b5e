import { percentile } from './frame.ts'

/** One of the callers that press a contender at the same time: each waits for its answer before it asks again. */
export interface Caller {
  /** One operation, until it is acknowledged after its commit. */
  next(): Promise<void>
  /** Ends what is begun, after the time. */
  finish(): Promise<void>
}

export interface Contender {
  readonly name: string
  /** Makes ready, before the time begins, what so many operations need that is none themselves. */
  prepare(operations: number): Promise<void>
  caller(): Caller
}

export interface Load {
  readonly callers: number
  /** Time before it counts, in which every caller gets going. */
  readonly leadInMs: number
  readonly measureMs: number
}

export interface Measured {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/** Presses for a while; counts the operations that were acknowledged within the time. */
export async function press(contender: Contender, load: Load): Promise<Measured> {
  const fromMs = performance.now() + load.leadInMs
  const untilMs = fromMs + load.measureMs
  const latencies: number[] = []
  await runCallers(contender, load.callers, async (caller) => {
    for (let nowMs = performance.now(); nowMs < untilMs;) {
      const beganMs = nowMs
      await caller.next()
      nowMs = performance.now()
      if (nowMs >= fromMs && nowMs < untilMs) latencies.push(nowMs - beganMs)
    }
  })
  return {
    perSecond: (latencies.length / load.measureMs) * 1_000,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
  }
}

/** Presses until so many operations are done. */
export async function pressCount(
  contender: Contender,
  load: { readonly callers: number; readonly operations: number },
): Promise<void> {
  let left = load.operations
  await runCallers(contender, load.callers, async (caller) => {
    while (left > 0) {
      left -= 1
      await caller.next()
    }
  })
}

async function runCallers(contender: Contender, count: number, work: (caller: Caller) => Promise<void>): Promise<void> {
  const callers = Array.from({ length: count }, () => contender.caller())
  await Promise.all(callers.map(work))
  await Promise.all(callers.map((caller) => caller.finish()))
}

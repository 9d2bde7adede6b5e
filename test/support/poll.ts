import { setTimeout as delay } from 'node:timers/promises'

export interface PollOptions {
  /** What is awaited, for the message when it does not come. */
  readonly what: string
  readonly deadlineMs?: number
  readonly intervalMs?: number
}

const DEADLINE_MS = 10_000
const INTERVAL_MS = 50

/**
 * Asks again until the answer is neither `undefined` nor `false`, and returns it.
 * @throws when the deadline passes; an error of the last attempt is its cause.
 */
export async function pollUntil<Answer>(
  ask: () => Answer | Promise<Answer>,
  options: PollOptions,
): Promise<Exclude<Answer, undefined | false>> {
  const { what, deadlineMs = DEADLINE_MS, intervalMs = INTERVAL_MS } = options
  const deadline = performance.now() + deadlineMs
  for (;;) {
    let failure: unknown
    try {
      const answer = await ask()
      if (isGiven(answer)) return answer
    } catch (error) {
      failure = error
    }
    if (performance.now() > deadline) throw new Error(`Not within ${deadlineMs} ms: ${what}.`, { cause: failure })
    await delay(intervalMs)
  }
}

function isGiven<Answer>(answer: Answer): answer is Exclude<Answer, undefined | false> {
  return answer !== undefined && answer !== false
}

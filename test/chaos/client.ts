import { setTimeout as delay } from 'node:timers/promises'
import { ApiProblem } from '#client/api-problem.ts'
import type { PurserClient } from '#client/purser-client.ts'

/** What a client waits before it asks again. */
const AGAIN_MS = 300
/** Longer than everything takes to come back on a slow machine. */
const PATIENCE_MS = 300_000
const SERVER_FAULT = 500

/** A client that knows nothing of kills: it asks again, with the same key, until it is answered. */
export class PatientClient {
  readonly api: PurserClient
  /** Requests that were answered, and those that had to be sent again before. */
  readonly counts = { answered: 0, repeated: 0 }

  constructor(api: PurserClient) {
    this.api = api
  }

  /** What changes anything carries an idempotency key, which makes its repetitions one request. */
  async ask<Answer>(question: (api: PurserClient) => Promise<Answer>): Promise<Answer> {
    const deadline = performance.now() + PATIENCE_MS
    for (;;) {
      try {
        const answer = await question(this.api)
        this.counts.answered += 1
        return answer
      } catch (error) {
        if (isRefusal(error) || performance.now() > deadline) throw error
        this.counts.repeated += 1
        await delay(AGAIN_MS)
      }
    }
  }
}

/** An answer that would be the same the next time. */
function isRefusal(error: unknown): boolean {
  return error instanceof ApiProblem && error.status < SERVER_FAULT
}

import { setTimeout as delay } from 'node:timers/promises'
import type { z } from 'zod'
import { type ApiClient, ApiProblem, type Post } from '#src/cli/api-client.ts'

/** What a client waits before it asks again. */
const AGAIN_MS = 300
/** Longer than everything takes to come back on a slow machine. */
const PATIENCE_MS = 300_000
const SERVER_FAULT = 500

/** A client that knows nothing of kills: it asks again, with the same key, until it is answered. */
export class PatientClient {
  readonly api: ApiClient
  /** Requests that were answered, and those that had to be sent again before. */
  readonly counts = { answered: 0, repeated: 0 }

  constructor(api: ApiClient) {
    this.api = api
  }

  get<Schema extends z.ZodType>(path: string, schema: Schema): Promise<z.output<Schema>> {
    return this.#untilAnswered(() => this.api.get(path, schema))
  }

  /** The key makes the repetitions one request. */
  async post<Schema extends z.ZodType>(
    path: string,
    request: Post<Schema> & { readonly idempotencyKey: string },
  ): Promise<z.output<Schema>> {
    return (await this.#untilAnswered(() => this.api.post(path, request))).body
  }

  async #untilAnswered<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
    const deadline = performance.now() + PATIENCE_MS
    for (;;) {
      try {
        const answer = await ask()
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

import { setTimeout as delay } from 'node:timers/promises'
import { isLastEvent } from '#contracts/api-event.ts'
import type { PurserClient } from '#client/purser-client.ts'

/** What the stream tells its clients to wait before they come back. */
const RETRY_MS = 1_000

/** Follows the events of a run as a browser does: whenever the stream ends, it comes back with the last id it has. */
export class Follower {
  readonly runId: string
  /** The ids, in the order in which they came. */
  readonly heard: string[] = []
  /** How often it had to come back. */
  returns = 0
  /** Until the run's last event, or until it is told to give up. */
  readonly done: Promise<void>

  constructor(api: PurserClient, runId: string, signal: AbortSignal) {
    this.runId = runId
    this.done = this.#follow(api, signal)
  }

  async #follow(api: PurserClient, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      if (await this.#hear(api, signal).catch(() => false)) return
      this.returns += 1
      await delay(RETRY_MS, undefined, { signal }).catch(() => undefined)
    }
  }

  /** Answers whether it heard the last event. */
  async #hear(api: PurserClient, signal: AbortSignal): Promise<boolean> {
    const after = this.heard.at(-1)
    for await (const event of api.events(this.runId, { signal, ...(after !== undefined && { after }) })) {
      this.heard.push(event.id)
      if (isLastEvent(event)) return true
    }
    return false
  }
}

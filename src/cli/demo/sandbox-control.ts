import type { RunningSandbox } from '#local/stack-sandbox.ts'
import { z } from 'zod'

const loggedRequestSchema = z.object({
  callKey: z.string().nullable(),
  attempt: z.int().nullable(),
  model: z.string().nullable(),
  status: z.int(),
  begun: z.boolean(),
  billed: z.string(),
})

/** One request as the provider saw it. `begun`: it was not refused, so work had begun. `billed` in USD. */
export type LoggedRequest = z.infer<typeof loggedRequestSchema>

const holdSchema = z.object({ id: z.string() })

const CONTROL_TIMEOUT_MS = 10_000

/** The sandbox provider as its operator sees it: its own log, and requests kept open on demand. */
export class SandboxControl {
  readonly #sandbox: Pick<RunningSandbox, 'controlUrl' | 'controlKey'>

  constructor(sandbox: Pick<RunningSandbox, 'controlUrl' | 'controlKey'>) {
    this.#sandbox = sandbox
  }

  async readLog(): Promise<readonly LoggedRequest[]> {
    return z.array(loggedRequestSchema).parse(await this.#ask('GET', '/log'))
  }

  /** Lets so many requests pass, keeps the next one open, and tells `notifyUrl` when it does. Answers the hold's id. */
  async armHold(order: { readonly afterRequests: number; readonly notifyUrl: string }): Promise<string> {
    return holdSchema.parse(await this.#ask('POST', '/holds', order)).id
  }

  async release(holdId: string): Promise<void> {
    await this.#ask('POST', `/holds/${holdId}/release`)
  }

  /** Makes an upstream model take its time before each answer; 0 makes it fast again. */
  async slowDown(upstreamModel: string, delayFirstByteMs: number): Promise<void> {
    await this.#ask('PUT', `/faults/${upstreamModel}`, { delayFirstByteMs })
  }

  async #ask(method: 'GET' | 'POST' | 'PUT', path: string, body?: unknown): Promise<unknown> {
    const response = await fetch(this.#sandbox.controlUrl + path, {
      method,
      headers: { 'x-sandbox-control': this.#sandbox.controlKey, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(CONTROL_TIMEOUT_MS),
    })
    if (!response.ok) throw new Error(`The sandbox provider answered ${response.status} to ${method} ${path}.`)
    return response.json()
  }
}

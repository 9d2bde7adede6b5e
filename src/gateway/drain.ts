import { Draining } from '#calls/gate-watch.ts'
import type { Engine } from '#calls/engine.ts'
import type { FastifyInstance } from 'fastify'
import { setTimeout as delay } from 'node:timers/promises'

/** After the drain, aborted calls are settled and told; beyond this the process ends as if it were killed. */
const SETTLE_TIMEOUT_MS = 10_000
const POLL_MS = 10

declare module 'fastify' {
  interface FastifyInstance {
    /** Of the calls that are in flight: aborted when the server must end. */
    openCalls: Set<AbortController>
  }
}

/**
 * A server that ends lets what is in flight finish for so long. What is left then is aborted: it is settled, and its client
 * is told.
 */
export function drainOnClose(app: FastifyInstance, { instance }: Engine, timeoutMs: number): void {
  const inFlight = new Set<object>()
  app.decorate('openCalls', new Set<AbortController>())
  app.addHook('onRequest', (_request, { raw }, done) => {
    inFlight.add(raw)
    raw.once('close', () => inFlight.delete(raw))
    done()
  })
  app.addHook('preClose', async () => {
    await until(() => inFlight.size === 0, timeoutMs)
    for (const controller of app.openCalls) controller.abort(new Draining())
    // Calls outlive their requests where a client has gone.
    await until(() => inFlight.size === 0 && instance.owners.size === 0, SETTLE_TIMEOUT_MS)
  })
}

async function until(isDone: () => boolean, timeoutMs: number): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs
  while (!isDone() && performance.now() < deadlineMs) await delay(POLL_MS)
}

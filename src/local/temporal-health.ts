import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { Connection } from '@temporalio/client'

export const NAMESPACE = 'default'
const CHECK_TIMEOUT_MS = 5_000
const POLL_MS = 50

type Prepare = (connection: Connection) => Promise<unknown>

/** Waits until a Temporal server serves and has its namespace; false when it ends or the time does. */
export async function waitUntilServing(options: {
  readonly address: string
  readonly timeoutMs: number
  readonly hasEnded: () => boolean
  /** Done once it serves, before its namespace is looked for; again when it fails. */
  readonly prepare?: Prepare
}): Promise<boolean> {
  const { address, timeoutMs, hasEnded, prepare } = options
  const deadline = performance.now() + timeoutMs
  while (performance.now() < deadline && !hasEnded()) {
    if (await isServing(address, prepare)) return !hasEnded()
    await delay(POLL_MS)
  }
  return false
}

/** Serving, and the namespace is there: the dev server makes it a moment after it begins to listen. */
async function isServing(address: string, prepare: Prepare | undefined): Promise<boolean> {
  if (!(await isListening(address))) return false // the client would back off for a second
  const connection = Connection.lazy({ address })
  try {
    await connection.withDeadline(Date.now() + CHECK_TIMEOUT_MS, async () => {
      await connection.healthService.check({ service: 'temporal.api.workflowservice.v1.WorkflowService' })
      await prepare?.(connection)
      await connection.workflowService.describeNamespace({ namespace: NAMESPACE })
    })
    return true
  } catch {
    return false // not listening yet, or not ready: the caller asks again until its deadline
  } finally {
    await connection.close()
  }
}

function isListening(address: string): Promise<boolean> {
  const { hostname, port } = new URL(`tcp://${address}`)
  return new Promise((resolve) => {
    const socket = connect({ host: hostname, port: Number(port), timeout: CHECK_TIMEOUT_MS })
    const answer = (listening: boolean) => {
      socket.destroy()
      resolve(listening)
    }
    socket.once('connect', () => answer(true))
    socket.once('timeout', () => answer(false))
    socket.once('error', () => answer(false))
  })
}

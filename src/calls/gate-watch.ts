import { closingEnvelopes, listenForGates, type GateListener } from '#db/gate.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'

/** A cancel reaches every process within this time even when its notification is lost. */
const POLL_MS = 1_000

/** Tells requests in flight that their envelope is closing. */
export interface GateWatch {
  /** A signal that aborts when the envelope's gate closes; `release` when the request is over. */
  watch(envelopeId: string): { readonly signal: AbortSignal; release(): void }
  stop(): Promise<void>
}

interface Watched {
  readonly controller: AbortController
  users: number
}

export async function startGateWatch(options: {
  readonly db: Kysely<Database>
  readonly databaseUrl: string
}): Promise<GateWatch> {
  const watched = new Map<string, Watched>()
  let listener: GateListener | undefined
  let connecting = false
  let stopped = false

  async function look(ids: readonly string[]): Promise<void> {
    const closing = await closingEnvelopes(options.db, ids).catch(() => [])
    for (const id of closing) watched.get(id)?.controller.abort(new GateClosed())
  }

  /** The poll stands behind the notifications, so a connection that cannot be had is tried again with the next one. */
  async function listen(): Promise<void> {
    if (connecting || stopped || listener?.isAlive()) return
    connecting = true
    const onChange = (id: string) => {
      if (watched.has(id)) void look([id])
    }
    const made = await listenForGates(options.databaseUrl, onChange).catch(() => undefined)
    connecting = false
    if (stopped) await made?.stop()
    else listener = made
  }

  async function tick(): Promise<void> {
    await Promise.all([listen(), look([...watched.keys()])])
  }

  await tick()
  const timer = setInterval(() => void tick(), POLL_MS)
  timer.unref()
  return {
    watch(envelopeId) {
      const entry = watched.get(envelopeId) ?? { controller: new AbortController(), users: 0 }
      entry.users += 1
      watched.set(envelopeId, entry)
      return {
        signal: entry.controller.signal,
        release() {
          entry.users -= 1
          if (entry.users === 0) watched.delete(envelopeId)
        },
      }
    },
    async stop() {
      stopped = true
      clearInterval(timer)
      await listener?.stop()
    },
  }
}

/** The reason of an abort that came from the envelope's gate. */
export class GateClosed extends Error {
  override readonly name = 'GateClosed'
  constructor() {
    super('the envelope is closing')
  }
}

/** The reason of an abort because this process ends: the call goes on elsewhere. */
export class Draining extends Error {
  override readonly name = 'Draining'
  constructor() {
    super('this process is ending')
  }
}

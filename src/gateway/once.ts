import { callIdOf } from '#calls/execute.ts'
import type { CallBody } from '#calls/call.ts'
import type { Engine } from '#calls/engine.ts'
import { canonical, loadCall } from '#db/call.ts'
import { claimKey } from '#db/idempotency.ts'
import { newId, sha256 } from '#db/ids.ts'
import type { Payer } from './payer.ts'
import { Refusal } from './refusal.ts'

const KEY = /^[\x21-\x7e]{1,255}$/
/** Until whoever has it in flight is done. */
const RETRY_AFTER_SECONDS = 1

/** Where a request stands in its envelope: its path makes its call's key, with the digest of what is asked. */
export interface Place {
  readonly path: string
  /** Of a call that nobody names again: whose time its ids begin with. */
  readonly anchor?: string
  /** The same request came before: its answer is given again, or what is left of it is done. */
  readonly isRepeated: boolean
}

/**
 * The place of a request. With an Idempotency-Key, which belongs to the API key, the same request is one call however
 * often it is sent; without one, each request is a call.
 *
 * @param kind which surface asks: the same body means another answer in each
 */
export async function placeOf(
  engine: Engine,
  request: { readonly payer: Payer; readonly model: string; readonly body: CallBody; readonly kind: string },
  header: string | readonly string[] | undefined,
): Promise<Place> {
  const { payer, model, body, kind } = request
  if (header === undefined) {
    const anchor = newId(engine.nowMs())
    return { path: `v1/${anchor}`, anchor, isRepeated: false }
  }
  if (typeof header !== 'string' || !KEY.test(header)) {
    throw new Refusal('invalid_request', 'Idempotency-Key is not 1 to 255 visible ASCII characters.')
  }
  const { runId, apiKeyId } = payer
  // The key of an external run pays from that run, and asks in the name of the key that opened it.
  const path = runId === null ? `v1/${apiKeyId}/${header}` : `v1/${header}`
  const digest = sha256(canonical({ kind, model, ...body }))
  const claim = await claimKey(engine.db, { scope: runId ?? apiKeyId, key: header, digest })
  if (claim === 'other') {
    throw new Refusal('idempotency_mismatch', 'This Idempotency-Key came with another request before.', {
      remedy: 'Use a new key for a new request; to repeat the first one, send it exactly as it was.',
    })
  }
  if (claim === 'repeated') await throwIfInFlight(engine, payer, { ...request, path })
  return { path, isRepeated: claim === 'repeated' }
}

async function throwIfInFlight(
  engine: Engine,
  payer: Payer,
  asked: { readonly path: string; readonly model: string; readonly body: CallBody },
): Promise<void> {
  const { path, model, body } = asked
  const callId = callIdOf({ ...payer, path, model, body })
  const story = await loadCall(engine.db, payer.scope, callId)
  const isSent = story?.steps.some(({ state, ownerAlive }) => state === 'sent' && ownerAlive) ?? false
  if (!isSent) return
  throw new Refusal('request_in_flight', 'A request with this Idempotency-Key is still in flight.', {
    callId,
    retryAfterSeconds: RETRY_AFTER_SECONDS,
    remedy: 'Ask again in a moment: its answer is kept.',
  })
}

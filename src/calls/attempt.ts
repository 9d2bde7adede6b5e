import type { Plan } from '#contracts/stored.ts'
import { isStoreUnavailable } from '#db/database.ts'
import { correct, type PocketKey, type SettleItem } from '#db/hold.ts'
import { invariant } from '#domain/invariant.ts'
import type { ProviderResult } from '#providers/provider.ts'
import { NOTHING_RECEIVED } from '#providers/provider.ts'
import { setTimeout as delay } from 'node:timers/promises'
import type { CallRequest } from './call.ts'
import { ledgerId, settlementOf, type AttemptKey } from './charge.ts'
import type { Engine } from './engine.ts'
import { Draining } from './gate-watch.ts'

/** How long an answer is kept in hand while the database is away, before it is given up for lost. */
const STORE_PATIENCE_MS = 60_000
const STORE_RETRY_MS = 250

/** An attempt that is held and marked sent, and that this executor alone may send. */
export interface GrantedAttempt {
  readonly key: AttemptKey
  readonly pocket: PocketKey
  readonly plan: Plan
  readonly held: bigint
}

/** Sends one granted attempt and settles it. Whatever happens, the attempt is resolved, or its process is dead. */
export async function performAttempt(engine: Engine, request: CallRequest, granted: GrantedAttempt): Promise<void> {
  const result = await send(engine, request, granted)
  const item = settlementOf(granted.key, result, { plan: granted.plan, body: request.body, held: granted.held })
  const verdict = await settlePatiently(engine, granted.pocket, item)
  invariant(verdict !== 'mismatch' && verdict !== 'unknown_hold', `settling ${item.holdId} answered ${verdict}`)
  if (verdict === 'already_resolved') await bookLateTruth(engine, granted, item)
}

async function send(engine: Engine, request: CallRequest, granted: GrantedAttempt): Promise<ProviderResult> {
  const { plan, key } = granted
  const provider = engine.providers.get(plan.provider)
  if (!provider) return notSent(`no provider is called ${plan.provider} in this process`)
  const watch = engine.gates.watch(request.envelopeId)
  try {
    if (!engine.instance.isFresh()) return notSent('the lease of this process ran out before the request was sent')
    const result = await provider.chat({
      upstreamModel: plan.upstreamModel,
      messages: request.body.messages,
      maxOutputTokens: plan.maxOutputTokens,
      ...(request.body.schema && { schema: request.body.schema }),
      clientRequestId: `${key.callId}:${key.number}`,
      timeoutMs: Math.max(1, Math.min(plan.timeoutMs, request.deadlineMs - engine.nowMs())),
      signal: AbortSignal.any([request.signal, watch.signal]),
    })
    return afterDrain(result, request.signal)
  } finally {
    watch.release()
  }
}

/** An abort because this process ends is nobody's wish: the attempt is lost, and may be repeated elsewhere. */
function afterDrain(result: ProviderResult, signal: AbortSignal): ProviderResult {
  if (result.outcome !== 'aborted' || !(signal.reason instanceof Draining)) return result
  return result.sent
    ? { ...result, outcome: 'network_after_send', detail: 'the process ended while the request was open' }
    : { ...result, outcome: 'not_sent' }
}

function notSent(detail: string): ProviderResult {
  return { outcome: 'not_sent', sent: false, detail, httpStatus: null, retryAfterMs: null, received: NOTHING_RECEIVED }
}

/** An answer in hand is worth waiting for the database: ids make every repeat harmless. */
async function settlePatiently(engine: Engine, pocket: PocketKey, item: SettleItem) {
  const untilMs = engine.nowMs() + STORE_PATIENCE_MS
  for (;;) {
    try {
      return (await engine.queue.settle(pocket, item)).verdict
    } catch (error) {
      if (!isStoreUnavailable(error) || engine.nowMs() > untilMs) throw error
      await delay(STORE_RETRY_MS)
    }
  }
}

/** Somebody resolved this attempt by estimate while its owner slept: the truth is booked as a correction. */
async function bookLateTruth(engine: Engine, granted: GrantedAttempt, item: SettleItem): Promise<void> {
  if (item.amount === null || item.certainty === null || item.certainty === 'unknown') {
    if (item.outcome !== 'not_sent') return
  }
  await correct(engine.db, granted.pocket, {
    holdId: item.holdId,
    correctionId: ledgerId(granted.key, 'correction'),
    debtId: ledgerId(granted.key, 'debt'),
    amount: item.amount ?? 0n,
    certainty: item.certainty ?? 'billed',
    usage: item.usage,
    detail: { lateOutcome: item.outcome },
    answerId: item.answerId,
    answer: item.answer,
  })
}

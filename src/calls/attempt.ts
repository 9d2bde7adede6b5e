import type { Plan } from '#contracts/stored.ts'
import { isStoreUnavailable } from '#db/database.ts'
import { correct, type Correction } from '#db/correction.ts'
import { keepRequestId } from '#db/look-up.ts'
import {
  settle,
  type PocketKey,
  type ReserveAnswer,
  type ReserveItem,
  type SettleItem,
  type SettleAnswer,
} from '#db/hold.ts'
import { invariant } from '#domain/invariant.ts'
import type { Provider, ProviderResult } from '#providers/provider.ts'
import { NOTHING_RECEIVED } from '#providers/provider.ts'
import { setTimeout as delay } from 'node:timers/promises'
import type { CallRequest } from './call.ts'
import { ledgerId, settlementOf, wholeSettlementOf, type AttemptKey } from './charge.ts'
import type { Engine } from './engine.ts'
import { Draining } from './gate-watch.ts'
import { isEmbedding } from './prompt-size.ts'
import type { RouteTicket } from './route-desk.ts'

/** How long an answer is kept in hand at least while the database is away, before it is given up for lost. */
const STORE_PATIENCE_MS = 60_000
const STORE_RETRY_MS = 250
/** In characters. */
const LARGE_ANSWER = 65_536

/** An attempt that is held and marked sent, and that this executor alone may send. */
export interface GrantedAttempt {
  readonly key: AttemptKey
  readonly pocket: PocketKey
  readonly plan: Plan
  readonly held: bigint
}

/** With its place on the route, which is given back as soon as it is known how the request ended. */
type Ticketed = GrantedAttempt & { readonly ticket: RouteTicket }

/** How an attempt ended, after its settlement's commit. */
export interface Performed {
  readonly result: ProviderResult
  /** What was settled, in nano; null when nothing was used. */
  readonly charged: bigint | null
  /** As it was stored. */
  readonly usage: unknown
  /** The answer, as it was stored, when it is the call's. */
  readonly answer: { readonly id: string; readonly body: unknown } | undefined
  /** What the pocket could pay after that commit, in nano, where that is known. */
  readonly reach: bigint | undefined
}

/** Sends one granted attempt and settles it. Whatever happens, the attempt is resolved, or its process is dead. */
export async function performAttempt(engine: Engine, request: CallRequest, granted: Ticketed): Promise<Performed> {
  const provider = engine.providers.get(granted.plan.provider)
  const seen = await send(engine, request, granted)
  const result = afterDrain(seen, request.signal)
  const settlement = settlementOf(granted.key, result, { plan: granted.plan, held: granted.held })
  const item = { ...settlement, tellsReach: request.withReceipt }
  tellRoute(granted, (await wasReplaced(engine, granted.plan, { provider, seen })) ? REPLACED : seen, item)
  const untilMs = Math.max(engine.nowMs() + STORE_PATIENCE_MS, request.deadlineMs)
  const { answered, settled } = await patiently(engine, untilMs, () => settleOrKeepWhole(engine, granted, item))
  const { verdict, reach } = answered
  invariant(
    verdict !== 'mismatch' && verdict !== 'unknown_hold' && verdict !== 'invalid_amount',
    `settling ${item.holdId} answered ${verdict}`,
  )
  if (verdict === 'already_resolved') await patiently(engine, untilMs, () => bookLateTruth(engine, granted, item))
  const { answerId, answer, amount: charged, usage } = settled
  const isAnswer = verdict === 'settled' && answerId !== null
  return { result, charged, usage, reach, answer: isAnswer ? { id: answerId, body: answer } : undefined }
}

/** What a key's refusal says of a route when another key is in force by now: nothing. */
const REPLACED = notSent('its provider was changed meanwhile')

/** A key that was refused may have been changed a moment ago: its refusal must not close the route to the new one. */
async function wasReplaced(
  { providers }: Engine,
  plan: Plan,
  { provider, seen }: { readonly provider: Provider | undefined; readonly seen: ProviderResult },
): Promise<boolean> {
  if (seen.outcome !== 'authentication') return false
  await providers.look()
  return providers.get(plan.provider) !== provider
}

/** As it was seen: that this process ends is no fault of the route. */
function tellRoute(
  { ticket, held }: Ticketed,
  result: ProviderResult,
  { amount, tokens, certainty }: SettleItem,
): void {
  const isFailure = result.outcome !== 'answered'
  ticket.done({
    outcome: isFailure && !result.sent && result.outcome === 'not_sent' ? null : result.outcome,
    message: isFailure ? result.detail : null,
    retryAfterMs: isFailure ? result.retryAfterMs : null,
    tokens: tokens === null ? null : Number(tokens),
    held,
    charged: certainty === 'billed' ? amount : null,
  })
}

/** Reserves, and repeats while the database is away: the same owner is told again what it was granted. */
export async function reservePatiently(
  engine: Engine,
  hold: { readonly pocket: PocketKey; readonly item: ReserveItem },
  until: { readonly signal: AbortSignal; readonly deadlineMs: number },
): Promise<ReserveAnswer> {
  try {
    return await patiently(engine, until.deadlineMs, () => engine.queue.reserve(hold.pocket, hold.item, until))
  } catch (error) {
    engine.instance.unsent.add(hold.item.owner)
    throw error
  }
}

/** What happened is worth waiting for the database: ids make every repeat harmless. */
async function patiently<Result>(engine: Engine, untilMs: number, work: () => Promise<Result>): Promise<Result> {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!isStoreUnavailable(error) || engine.nowMs() > untilMs) throw error
      await delay(STORE_RETRY_MS)
    }
  }
}

/** A settlement that the database cannot take as it is keeps the whole hold, and the answer: nothing paid is lost. */
async function settleOrKeepWhole(
  engine: Engine,
  granted: GrantedAttempt,
  item: SettleItem,
): Promise<{ readonly answered: SettleAnswer; readonly settled: SettleItem }> {
  try {
    const answered = await settleBySize(engine, granted.pocket, item)
    if (answered.verdict !== 'invalid_amount') return { answered, settled: item }
    throw new Error('the ledger takes no such amount')
  } catch (error) {
    if (isStoreUnavailable(error)) throw error
    const message = error instanceof Error ? error.message : String(error)
    const { plan, held } = granted
    const whole = wholeSettlementOf(granted.key, item, { plan, held, why: message })
    return { answered: await settleBySize(engine, granted.pocket, whole), settled: whole }
  }
}

/** A large answer goes alone: a commit has many settlements and five seconds. */
async function settleBySize({ db, queue }: Engine, pocket: PocketKey, item: SettleItem): Promise<SettleAnswer> {
  const isLarge = JSON.stringify(item.answer).length > LARGE_ANSWER
  return isLarge ? settle(db, pocket, { item, mode: 'owner' }) : queue.settle(pocket, item)
}

/** Whoever waits for a turn is watched too: a gate that closes meanwhile must be seen before anything is sent. */
async function send(engine: Engine, request: CallRequest, granted: GrantedAttempt): Promise<ProviderResult> {
  const watch = engine.gates.watch(request.envelopeId)
  const signal = AbortSignal.any([request.signal, watch.signal])
  const go = (): Promise<ProviderResult> => dispatch(engine, { ...request, signal }, granted)
  try {
    return await (request.inTurn ? request.inTurn(go) : go())
  } finally {
    watch.release()
  }
}

async function dispatch(engine: Engine, request: CallRequest, granted: GrantedAttempt): Promise<ProviderResult> {
  const { plan, key } = granted
  const { body, signal } = request
  const provider = engine.providers.get(plan.provider)
  if (!provider) return notSent(`no provider is called ${plan.provider} in this process`)
  if (!engine.instance.isFresh()) return notSent('the lease of this process ran out before the request was sent')
  const sending = {
    upstreamModel: plan.upstreamModel,
    clientRequestId: `${key.callId}:${key.number}`,
    timeoutMs: Math.max(1, Math.min(plan.timeoutMs, request.deadlineMs - engine.nowMs())),
    signal,
  }
  if (isEmbedding(body)) {
    if (!provider.embed) return notSent(`${plan.provider} has no embeddings`)
    return provider.embed({ ...sending, body })
  }
  return provider.chat({
    ...sending,
    body,
    maxOutputTokens: plan.maxOutputTokens,
    streaming: plan.streaming ?? true,
    firstByteTimeoutMs: plan.firstByteTimeoutMs,
    onDelta: request.onDelta,
    onRequestId: provider.lookUp && ((id) => noteRequestId(engine, granted, id)),
  })
}

/** Where the provider can tell later: should this process die, whoever finds the attempt can ask. */
function noteRequestId(engine: Engine, { key, pocket }: GrantedAttempt, requestId: string): void {
  const attempt = { callId: key.callId, number: key.number, requestId }
  // Without it a lost attempt costs its estimate: no reason to fail one that is going well.
  keepRequestId(engine.db, pocket, attempt).catch(() => {})
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

/**
 * Somebody resolved this attempt while its owner slept: what the owner knows is booked as a correction; as another one, if
 * its provider was asked meanwhile and that was booked.
 */
async function bookLateTruth(engine: Engine, granted: GrantedAttempt, item: SettleItem): Promise<void> {
  if (item.certainty === 'unknown') return
  const { key, pocket } = granted
  const first = { correctionId: ledgerId(key, 'correction'), debtId: ledgerId(key, 'correction_debt') }
  let verdict = await correct(engine.db, pocket, { ...first, ...lateTruthOf(item) })
  if (verdict === 'mismatch') {
    // An estimate says less than what its provider told.
    if (item.certainty !== 'billed' && item.answerId === null) return
    const second = { correctionId: ledgerId(key, 'late'), debtId: ledgerId(key, 'late_debt') }
    verdict = await correct(engine.db, pocket, { ...second, ...lateTruthOf(item) })
  }
  invariant(verdict === 'corrected' || verdict === 'replayed', `correcting ${item.holdId} answered ${verdict}`)
}

function lateTruthOf(item: SettleItem): Omit<Correction, 'correctionId' | 'debtId'> {
  return {
    holdId: item.holdId,
    amount: item.amount ?? 0n,
    tokens: item.tokens ?? (item.amount === null ? 0n : null),
    certainty: item.certainty ?? 'billed',
    usage: item.usage,
    detail: { lateOutcome: item.outcome, ...(item.certainty !== 'billed' && { lateCertainty: item.certainty }) },
    answerId: item.answerId,
    answer: item.answer,
  }
}

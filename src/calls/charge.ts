import type { Certainty } from '#contracts/names.ts'
import { outputBoundOf, storedUsage, type Plan, type PlannedCost, type StoredAnswer } from '#contracts/stored.ts'
import type { SettleItem } from '#db/hold.ts'
import { deriveId } from '#db/ids.ts'
import { mayHaveRun } from '#domain/policy.ts'
import { chargeOf, NO_USAGE, type Usage } from '#domain/pricing.ts'
import { utf8Length } from '#domain/token-bound.ts'
import { choicesOf, type ProviderResult, type Received, type ReceivedChoice } from '#providers/provider.ts'
import type { LostCost } from './lost-cost.ts'
import { marginOf, type ChargeBasis } from './margin.ts'

export interface AttemptKey {
  /** Null for a call of a standing envelope. */
  readonly runId: string | null
  readonly callId: string
  readonly number: number
}

/** What an attempt cost, and how sure that is; undefined when nothing was used. */
export interface Charge {
  readonly amount: bigint
  readonly certainty: Certainty
  readonly usage: Usage | null
}

/** What of an attempt a ledger row is. A settlement, late truth and a void by hand may each leave a debt, or pay one. */
type Phase =
  | 'hold'
  | 'resolution'
  | 'lost'
  | 'overage'
  | 'debt'
  | 'correction'
  | 'correction_debt'
  | 'late'
  | 'late_debt'
  | 'void'
  | 'void_debt'
  | 'margin'
  | 'cost_sold'
  | 'cost_bought'
  | 'answer'

/** The id of one of an attempt's ledger rows: the same phase of the same attempt is the same row. */
export function ledgerId(key: AttemptKey, phase: Phase): string {
  return deriveId(key.runId ?? key.callId, 'attempt', key.callId, String(key.number), phase)
}

function marginIds(key: AttemptKey) {
  return {
    marginId: ledgerId(key, 'margin'),
    soldId: ledgerId(key, 'cost_sold'),
    boughtId: ledgerId(key, 'cost_bought'),
  }
}

interface ChargeContext {
  readonly plan: Plan
  readonly held: bigint
}

/** Prices what came back from an attempt, at the prices its hold was made with. */
function chargeFor(result: ProviderResult, context: ChargeContext): Charge | undefined {
  const { received } = result
  const { prices } = context.plan
  // Usage that comes before the end is a running count, not a bill.
  if (received.usage && isEnded(received)) {
    return { amount: chargeOf(prices, received.usage), certainty: 'billed', usage: received.usage }
  }
  if (result.outcome === 'answered') return estimate(received, context)
  if (!result.sent || !mayHaveRun(result.outcome)) return undefined
  const isAnswer = result.isTakenOn || bytesOf(received) > 0 || received.finishReason !== null
  if (result.isTakenOn && result.outcome === 'malformed_answer')
    return estimate(received, { ...context, isUnread: true })
  if (isAnswer || result.outcome === 'aborted' || result.outcome === 'cut_stream') return estimate(received, context)
  // An answer that is none and reports no usage was not billed; a silence may have been, up to the hold.
  if (result.outcome === 'malformed_answer' || result.outcome === 'content_filter') return undefined
  return { amount: context.held, certainty: 'unknown', usage: null }
}

/**
 * The most that an answer cut short can have cost: the prompt, as the provider counted it before it answered or else by its
 * bound, and a token for each byte received, or all its output where not all of that is seen. What is given back too early
 * would be spent again, so an estimate errs to the side of the provider.
 */
function estimate(received: Received, { plan, held, isUnread }: ChargeContext & { readonly isUnread?: true }): Charge {
  const most = outputBoundOf(plan)
  const isHidden = isUnread || plan.reasoning || (plan.streaming === false && !isEnded(received))
  const seen = isHidden ? most : Math.min(most, bytesOf(received))
  const usage: Usage = {
    ...(received.usage ?? { ...NO_USAGE, input: plan.inputTokenBound, images: plan.bound?.images ?? 0 }),
    output: Math.max(received.usage?.output ?? 0, seen),
  }
  const amount = chargeOf(plan.prices, usage)
  return { amount: amount < held ? amount : held, certainty: 'estimated', usage }
}

/** Whether the model has ended each of its answers. */
function isEnded(received: Received): boolean {
  return choicesOf(received).every(({ finishReason }) => finishReason !== null)
}

/** What a model writes around a call of a tool, in tokens: it is billed, and not shown. */
const CALL_MARKS = 50

/** Of everything received that was billed as output: no token is shorter than a byte. */
function bytesOf(received: Received): number {
  return choicesOf(received).reduce((sum, choice) => sum + bytesOfChoice(choice), received.reasoningBytes)
}

function bytesOfChoice({ text, toolCalls }: ReceivedChoice): number {
  return toolCalls.reduce((sum, { name, arguments: written }) => {
    return sum + CALL_MARKS + utf8Length(name) + utf8Length(written)
  }, utf8Length(text))
}

function answerOf(received: Received): StoredAnswer {
  const { others, vectors } = received
  return {
    ...storedChoice(received),
    ...(others.length > 0 && { others: others.map(storedChoice) }),
    ...(vectors.length > 0 && { vectors: vectors.map(packVector) }),
  }
}

function storedChoice({ text, finishReason, stopSequence, toolCalls }: ReceivedChoice) {
  return {
    text,
    finishReason,
    ...(stopSequence !== null && { stopSequence }),
    ...(toolCalls.length > 0 && { toolCalls: [...toolCalls] }),
  }
}

function packVector(vector: readonly number[]): string {
  return Buffer.from(new Float32Array(vector).buffer).toString('base64')
}

/** What is written when an attempt is over. */
export function settlementOf(key: AttemptKey, result: ProviderResult, context: ChargeContext): SettleItem {
  const charge = chargeFor(result, context)
  const answered = result.outcome === 'answered'
  return {
    ...bareSettlement({ ...key, holdId: ledgerId(key, 'hold') }, 'resolution'),
    amount: charge?.amount ?? null,
    tokens: charge?.usage ? BigInt(charge.usage.input) + BigInt(charge.usage.output) : null,
    certainty: charge?.certainty ?? null,
    outcome: result.outcome,
    detail: {
      providerRequestId: result.received.providerRequestId,
      ...(charge && charge.certainty !== 'billed' && { certainty: charge.certainty }),
      ...(answered
        ? {}
        : {
            message: result.detail,
            httpStatus: result.httpStatus,
            retryAfterMs: result.retryAfterMs,
            sent: result.sent,
          }),
    },
    usage: charge?.usage ? storedUsage(charge.usage) : null,
    answerId: answered ? ledgerId(key, 'answer') : null,
    answer: answered ? answerOf(result.received) : null,
    margin: charge && marginOf(context.plan.cost, basisOf(charge), () => marginIds(key)),
  }
}

function basisOf({ usage, certainty }: Charge): ChargeBasis {
  return usage ? { usage, certainty } : 'whole_hold'
}

/** A settlement that the ledger did not take as it was: at the whole hold, with its answer. */
export function wholeSettlementOf(
  key: AttemptKey,
  item: SettleItem,
  context: ChargeContext & { readonly why: string },
): SettleItem {
  return {
    ...item,
    amount: context.held,
    tokens: null,
    certainty: 'unknown',
    usage: null,
    detail: { message: `settled at the whole hold: ${context.why}` },
    margin: marginOf(context.plan.cost, 'whole_hold', () => marginIds(key)),
  }
}

/** An attempt as it was found: its hold is the one that its row names. */
interface FoundAttempt extends AttemptKey {
  readonly holdId: string
}

/** What is written for an attempt whose answer died with its process. */
export function lostSettlementOf(
  found: FoundAttempt,
  lost: LostCost & { readonly cost?: PlannedCost | undefined },
  evidence: Readonly<Record<string, unknown>>,
): SettleItem {
  const { amount, certainty, basis, share, cost } = lost
  return {
    ...bareSettlement(found, 'lost'),
    amount,
    certainty,
    outcome: 'lost',
    detail: { ...evidence, basis },
    margin: marginOf(cost, share ? { share } : 'whole_hold', () => marginIds(found)),
  }
}

/** What is written for an attempt that was granted and surely never sent. */
export function unsentSettlementOf(found: FoundAttempt, evidence: Readonly<Record<string, unknown>>): SettleItem {
  return { ...bareSettlement(found, 'lost'), amount: null, certainty: null, outcome: 'not_sent', detail: evidence }
}

/** What is written for an attempt whose process died, when a person knows that the provider did not bill it. */
export function voidedSettlementOf(found: FoundAttempt, evidence: Readonly<Record<string, unknown>>): SettleItem {
  return { ...bareSettlement(found, 'lost'), amount: null, certainty: null, outcome: 'lost', detail: evidence }
}

function bareSettlement(key: FoundAttempt, phase: 'resolution' | 'lost') {
  return {
    holdId: key.holdId,
    callId: key.callId,
    attempt: key.number,
    resolutionId: ledgerId(key, phase),
    overageId: ledgerId(key, 'overage'),
    debtId: ledgerId(key, 'debt'),
    tokens: null,
    usage: null,
    answerId: null,
    answer: null,
  }
}

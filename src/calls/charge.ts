import type { Certainty } from '#contracts/names.ts'
import type { Plan } from '#contracts/stored.ts'
import type { SettleItem } from '#db/hold.ts'
import { deriveId } from '#db/ids.ts'
import { mayHaveRun } from '#domain/policy.ts'
import { chargeOf, type Usage } from '#domain/pricing.ts'
import { utf8Length } from '#domain/token-bound.ts'
import type { ProviderResult, Received } from '#providers/provider.ts'
import type { CallBody } from './call.ts'

export interface AttemptKey {
  readonly runId: string
  readonly callId: string
  readonly number: number
}

/** What an attempt cost, and how sure that is; undefined when nothing was used. */
export interface Charge {
  readonly amount: bigint
  readonly certainty: Certainty
  readonly usage: Usage | null
}

/** Bytes per token when only the text is known: near the truth for prose, high for English, right for Chinese. */
const BYTES_PER_TOKEN = 3

/** The id of one of an attempt's ledger rows: the same phase of the same attempt is the same row. */
export function ledgerId(
  key: AttemptKey,
  phase: 'hold' | 'resolution' | 'lost' | 'overage' | 'debt' | 'correction' | 'answer',
): string {
  return deriveId(key.runId, 'attempt', key.callId, String(key.number), phase)
}

/** Prices what came back from an attempt, at the prices its hold was made with. */
function chargeFor(
  result: ProviderResult,
  context: { readonly plan: Plan; readonly body: CallBody; readonly held: bigint },
): Charge | undefined {
  const { received } = result
  const { prices } = context.plan
  if (received.usage) return { amount: chargeOf(prices, received.usage), certainty: 'billed', usage: received.usage }
  if (result.outcome === 'answered') return estimate(received, context)
  if (!result.sent || !mayHaveRun(result.outcome)) return undefined
  if (received.text !== '' || result.outcome === 'aborted' || result.outcome === 'cut_stream')
    return estimate(received, context)
  // An answer that is none and reports no usage was not billed; a silence may have been, up to the hold.
  if (result.outcome === 'malformed_answer' || result.outcome === 'content_filter') return undefined
  return { amount: context.held, certainty: 'unknown', usage: null }
}

function estimate(
  received: Received,
  context: { readonly plan: Plan; readonly body: CallBody; readonly held: bigint },
): Charge {
  const prompt = context.body.messages.reduce((sum, message) => sum + utf8Length(message.content), 0)
  const usage: Usage = {
    input: Math.min(context.plan.inputTokenBound, Math.ceil(prompt / BYTES_PER_TOKEN)),
    cachedInput: 0,
    output: Math.min(context.plan.maxOutputTokens, Math.ceil(utf8Length(received.text) / BYTES_PER_TOKEN)),
  }
  const amount = chargeOf(context.plan.prices, usage)
  return { amount: amount < context.held ? amount : context.held, certainty: 'estimated', usage }
}

/** What is written when an attempt is over. */
export function settlementOf(
  key: AttemptKey,
  result: ProviderResult,
  context: { readonly plan: Plan; readonly body: CallBody; readonly held: bigint },
): SettleItem {
  const charge = chargeFor(result, context)
  const answered = result.outcome === 'answered'
  return {
    holdId: ledgerId(key, 'hold'),
    resolutionId: ledgerId(key, 'resolution'),
    overageId: ledgerId(key, 'overage'),
    debtId: ledgerId(key, 'debt'),
    amount: charge?.amount ?? null,
    certainty: charge?.certainty ?? null,
    outcome: result.outcome,
    detail: {
      providerRequestId: result.received.providerRequestId,
      ...(answered
        ? {}
        : {
            message: result.detail,
            httpStatus: result.httpStatus,
            retryAfterMs: result.retryAfterMs,
            sent: result.sent,
          }),
    },
    usage: charge?.usage ?? null,
    answerId: answered ? ledgerId(key, 'answer') : null,
    answer: answered ? { text: result.received.text, finishReason: result.received.finishReason } : null,
  }
}

/** What is written for an attempt whose answer died with its process: all that was held, because nobody knows. */
export function lostSettlementOf(
  key: AttemptKey,
  held: bigint,
  evidence: Readonly<Record<string, unknown>>,
): SettleItem {
  return {
    holdId: ledgerId(key, 'hold'),
    resolutionId: ledgerId(key, 'lost'),
    overageId: ledgerId(key, 'overage'),
    debtId: ledgerId(key, 'debt'),
    amount: held,
    certainty: 'unknown',
    outcome: 'lost',
    detail: evidence,
    usage: null,
    answerId: null,
    answer: null,
  }
}

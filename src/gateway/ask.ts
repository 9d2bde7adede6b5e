import type { AnswerDelta, CallAnswer, CallBody, CallResult, HeldMoney } from '#calls/call.ts'
import type { Engine } from '#calls/engine.ts'
import { executeCall } from '#calls/execute.ts'
import { callReceipt, type CallReceipt } from '#db/call-receipt.ts'
import { freeFor } from '#db/free-money.ts'
import { placeOf } from './once.ts'
import type { Payer } from './payer.ts'
import { refusalOf } from './refusal-of.ts'

/** As long as an activity's call may take. */
const CALL_TIMEOUT_MS = 9 * 60_000

/** One request of a client, in no client's own shape. */
export interface Question {
  readonly payer: Payer
  /** Catalog model. */
  readonly model: string
  readonly body: CallBody
  /** Which surface asks. */
  readonly kind: string
  readonly idempotencyKey: string | readonly string[] | undefined
  /** The client is gone. */
  readonly signal: AbortSignal
  readonly onHeld?: (held: HeldMoney) => void
  readonly onDelta?: (delta: AnswerDelta) => void
}

export interface Reply {
  readonly callId: string
  readonly answer: CallAnswer
  /** Undefined when the answer cost nothing, because it was there before. */
  readonly receipt: CallReceipt | undefined
  /** What the pocket that paid can still pay, in nano. */
  readonly remaining: bigint | undefined
}

/**
 * Asks the call engine, which holds, sends and settles.
 *
 * @throws Refusal when there is no answer
 */
export async function ask(engine: Engine, question: Question): Promise<Reply> {
  const { payer, model, body, signal, onHeld, onDelta } = question
  const { path, isRepeated } = await placeOf(engine, question, question.idempotencyKey)
  const result = await executeCall(engine, {
    ...payer,
    path,
    model,
    body,
    signal,
    deadlineMs: engine.nowMs() + CALL_TIMEOUT_MS,
    ...(isRepeated && { again: true }),
    ...(onHeld && { onHeld }),
    ...(onDelta && { onDelta }),
  })
  if (result.kind !== 'answered') throw await refusalOf(engine, payer, { model, result })
  return replyOf(engine, payer, result)
}

async function replyOf(
  { db }: Engine,
  { scope }: Payer,
  { callId, answer }: Extract<CallResult, { kind: 'answered' }>,
): Promise<Reply> {
  const receipt = await callReceipt(db, scope, callId)
  const remaining = receipt && (await freeFor(db, scope, receipt.accountId))
  return { callId, answer, receipt, remaining }
}

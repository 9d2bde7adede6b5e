import type { AnswerDelta, CallAnswer, CallBody, CallResult, HeldMoney } from '#calls/call.ts'
import type { Engine } from '#calls/engine.ts'
import { executeCall } from '#calls/execute.ts'
import { Draining } from '#calls/gate-watch.ts'
import { callReceipt, type CallReceipt } from '#db/call-receipt.ts'
import { placeOf } from './once.ts'
import type { Payer } from './payer.ts'
import { Refusal } from './refusal.ts'
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
  /** It was answered before, under the same Idempotency-Key. */
  readonly isReplayed: boolean
}

/**
 * Asks the call engine, which holds, sends and settles.
 *
 * @throws Refusal when there is no answer
 */
export async function ask(engine: Engine, question: Question): Promise<Reply> {
  const { payer, model, body, signal, onHeld, onDelta } = question
  let isHeld = false
  const { path, anchor, isRepeated } = await placeOf(engine, question, question.idempotencyKey)
  const result = await executeCall(engine, {
    ...payer,
    path,
    ...(anchor !== undefined && { anchor }),
    model,
    body,
    signal,
    withReceipt: true,
    deadlineMs: engine.nowMs() + CALL_TIMEOUT_MS,
    ...(isRepeated && { again: true }),
    onHeld(held) {
      isHeld = true
      onHeld?.(held)
    },
    ...(onDelta && { onDelta }),
  })
  if (result.kind !== 'answered' && signal.reason instanceof Draining) throw ending(result.callId)
  if (result.kind !== 'answered') throw await refusalOf(engine, payer, { model, result })
  return { ...(await replyOf(engine, payer, result)), isReplayed: isRepeated && !isHeld }
}

function ending(callId: string): Refusal {
  return new Refusal('unavailable', 'This process is ending.', {
    callId,
    retryAfterSeconds: 1,
    remedy: 'Send the request again: another process answers.',
  })
}

async function replyOf(
  { db, shelf }: Engine,
  { scope }: Payer,
  { callId, answer, receipt: known, reach }: Extract<CallResult, { kind: 'answered' }>,
): Promise<Omit<Reply, 'isReplayed'>> {
  const receipt = known ?? (await callReceipt(db, scope, callId))
  const remaining = known && reach !== undefined ? reach : receipt && (await shelf.free(scope, receipt.accountId))
  return { callId, answer, receipt, remaining }
}

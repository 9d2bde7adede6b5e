import { answerSchema, planSchema } from '#contracts/stored.ts'
import type { CallStory, Step } from '#db/call.ts'
import { invariant } from '#domain/invariant.ts'
import type { CallAnswer, CallResult, HoldRefusal } from './call.ts'

/** What bound a hold, what it asked and what was free. */
export function refusalIn(refused: Step): HoldRefusal {
  const plan = planSchema.parse(refused.plan)
  return {
    id: refused.holdId,
    route: plan.route,
    limit: refused.limit ?? `${plan.balanceClass} ${refused.bound}`,
    measure: refused.measure,
    currency: plan.currency,
    needed: refused.held,
    free: refused.free ?? 0n,
  }
}

export function answered(callId: string, story: CallStory): CallResult {
  invariant(story.answerId !== null, 'an answered call has an answer')
  if (story.isErased) return notStored(callId)
  const answer: CallAnswer = answerSchema.parse(story.answer)
  return { kind: 'answered', callId, answerId: story.answerId, answer }
}

/** Nothing is sent in place of an answer that was paid for: whoever repeats the call is told that it is gone. */
export function notStored(callId: string): CallResult {
  return failed(callId, 'answer_not_stored', 'the call was answered, and its answer is not stored any more')
}

export function failed(callId: string, reason: string, detail: string): Extract<CallResult, { kind: 'failed' }> {
  return { kind: 'failed', callId, reason, detail }
}

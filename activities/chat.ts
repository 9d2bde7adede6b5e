import {
  type CallActivities,
  type ChatRequest,
  type ChatResult,
  MAX_VALUE_BYTES,
  type MoneyStop,
} from '#contracts/activities.ts'
import { checkJsonSchema } from '#contracts/json-schema.ts'
import type { CallBody, CallRequest, CallResult, HeldMoney, HoldRefusal } from '#calls/call.ts'
import type { Engine } from '#calls/engine.ts'
import { executeCall } from '#calls/execute.ts'
import { Draining } from '#calls/gate-watch.ts'
import type { RunFacts } from '#db/run.ts'
import { formatNano } from '#domain/money.ts'
import { utf8Length } from '#domain/token-bound.ts'
import { asActivity, workerShutdown } from './failure.ts'
import { withHeartbeat } from './heartbeat.ts'
import { parseObject } from '#domain/json-answer.ts'
import { loadContents } from './prompt-contents.ts'
import { renderMessages } from './render.ts'

/** A minute less than the activity's timeout: Temporal stops nothing by itself, so the engine returns before it. */
const CALL_TIMEOUT_MS = 9 * 60_000

/** @param deps the process's one call engine */
export function createCallActivities(deps: { readonly engine: Engine }): CallActivities {
  return {
    chat: (request) =>
      asActivity(() => {
        const shown: Shown = { held: undefined }
        const details = () => ({ path: request.path, ...shownOf(shown) })
        return withHeartbeat(details, (signal) => chat(deps.engine, request, { signal, shown }))
      }),
  }
}

/** What people see of a call while it is pending, and in its result. */
interface Shown {
  held: HeldMoney | undefined
}

function shownOf({ held }: Shown): { readonly route?: string; readonly held?: string } {
  return held ? { route: held.route, held: `${formatNano(held.held)} ${held.currency}` } : {}
}

async function chat(
  engine: Engine,
  request: ChatRequest,
  { signal, shown }: { readonly signal: AbortSignal; readonly shown: Shown },
): Promise<ChatResult> {
  const facts = await engine.shelf.run(request.runId)
  const contents = await loadContents(engine.db, facts.scope, request.messages)
  const body: CallBody = {
    messages: renderMessages(request.messages, contents),
    maxTokens: request.maxTokens,
    ...(request.schema && { schema: request.schema }),
  }
  const { path } = request
  const deadlineMs = engine.nowMs() + CALL_TIMEOUT_MS
  const onHeld = (held: HeldMoney): void => {
    shown.held = held
  }
  const spending = spendingOf(facts, request)
  const result = await executeCall(engine, { ...facts, ...spending, path, body, signal, deadlineMs, onHeld })
  if (result.kind !== 'answered' && signal.reason instanceof Draining) throw workerShutdown()
  const told = toChatResult(result, { schema: request.schema, nowMs: engine.nowMs() })
  return told.kind === 'answered' ? { ...told, ...shownOf(shown) } : told
}

type SpendingRequest = Pick<ChatRequest, 'model' | 'downgraded' | 'wrapUp' | 'repeats' | 'again'>

/** Which money a call spends, and on what: what the run was started with, unless it was downgraded or is wrapping up. */
export function spendingOf(
  facts: RunFacts,
  { model, downgraded, wrapUp, repeats = 0, again }: SpendingRequest,
): Pick<CallRequest, 'model' | 'envelopeId' | 'bounds' | 'granted' | 'again'> {
  const down = downgraded ? facts.downgrade : undefined
  return {
    model: down?.model ?? model,
    bounds: down?.bounds ?? facts.bounds,
    envelopeId: (wrapUp ? facts.wrapUpEnvelopeId : undefined) ?? facts.envelopeId,
    granted: repeats,
    again: again === true,
  }
}

/** What the workflow may see of a result: small, without amounts that are no decimal strings, without a clock. */
export function toChatResult(
  result: CallResult,
  context: { readonly schema: ChatRequest['schema']; readonly nowMs: number },
): ChatResult {
  switch (result.kind) {
    case 'answered':
      return context.schema ? objectResult(result, context.schema) : textResult(result)
    case 'exhausted':
      return { kind: 'exhausted', callId: result.callId, stop: moneyStop(result.refusal) }
    case 'gate':
      return { kind: 'gate', gate: result.gate }
    case 'waiting':
      return { kind: 'waiting', waitMs: Math.max(1, Math.ceil(result.untilMs - context.nowMs)) }
    case 'failed':
      return result
  }
}

type Answered = Extract<CallResult, { kind: 'answered' }>

function textResult({ callId, answerId, answer }: Answered): ChatResult {
  const fits = utf8Length(JSON.stringify(answer.text)) <= MAX_VALUE_BYTES
  return { kind: 'answered', callId, ref: answerId, ...(fits && { text: answer.text }) }
}

/** The call stays answered and paid whatever its text is: a text that is no such object is a failure of this use of it. */
function objectResult({ callId, answerId, answer }: Answered, format: NonNullable<ChatRequest['schema']>): ChatResult {
  const parsed = parseObject(answer.text)
  if (!parsed.ok) return malformed(callId, `the answer is not JSON (it ended with ${answer.finishReason ?? 'nothing'})`)
  const checked = checkJsonSchema(format.schema, parsed.value)
  if (!checked.ok) return malformed(callId, checked.detail)
  if (utf8Length(JSON.stringify(checked.value)) > MAX_VALUE_BYTES) return malformed(callId, 'the object is too large')
  return { kind: 'answered', callId, ref: answerId, object: checked.value }
}

function malformed(callId: string, detail: string): ChatResult {
  return { kind: 'failed', callId, reason: 'malformed_object', detail }
}

function moneyStop({ id, limit, measure, currency, needed, free }: HoldRefusal): MoneyStop {
  const isMoney = measure === 'money'
  return {
    refusalId: id,
    limit,
    needed: isMoney ? formatNano(needed) : needed.toString(),
    free: isMoney ? formatNano(free) : free.toString(),
    currency: isMoney ? currency : measure,
  }
}

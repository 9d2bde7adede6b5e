import type { MapRowsRequest, MapRowsResult } from '#contracts/map-activities.ts'
import { jsonSchemaCheck, type SchemaCheck } from '#contracts/json-schema.ts'
import type { RowAsk } from '#contracts/row-map.ts'
import { answerSchema } from '#contracts/stored.ts'
import type { CallAnswer, CallBody, CallRequest, CallResult } from '#calls/call.ts'
import type { Engine } from '#calls/engine.ts'
import { callIdOf, executeCall } from '#calls/execute.ts'
import type { InTurn } from '#calls/places.ts'
import type { NumberedRow } from '#db/dataset.ts'
import { answersOf, type RowMap, type RowOutcome } from '#db/row-map.ts'
import type { RunFacts } from '#db/run.ts'
import { parseObject } from '#domain/json-answer.ts'
import { fillTemplate } from '#domain/row-template.ts'
import { spendingOf, toChatResult } from './chat.ts'
import { loadContents } from './prompt-contents.ts'
import { renderMessages } from './render.ts'

/** A minute less than the activity has after it has begun its last row. */
const CALL_TIMEOUT_MS = 9 * 60_000
const MAX_DETAIL_LENGTH = 500

/** Why no further row begins. */
export type RowStop = Exclude<NonNullable<MapRowsResult['stopped']>, { kind: 'away' }>

export interface AskedRow {
  readonly outcome?: RowOutcome | undefined
  readonly stop?: RowStop | undefined
  /** Its provider was away, and nothing was executed. */
  readonly isAway?: true
}

/** What all rows of a batch are asked with. */
export interface Asking {
  readonly engine: Engine
  readonly facts: RunFacts
  readonly map: RowMap
  readonly request: MapRowsRequest
  readonly signal: AbortSignal
  readonly contentOf: Awaited<ReturnType<typeof loadContents>>
  readonly check: ((value: unknown) => SchemaCheck) | undefined
}

export async function prepareAsking(
  engine: Engine,
  asking: Pick<Asking, 'facts' | 'map' | 'request' | 'signal'>,
): Promise<Asking> {
  const { ask } = asking.map
  const contentOf = await loadContents(engine.db, asking.facts.scope, ask.messages)
  return { engine, ...asking, contentOf, check: ask.schema && jsonSchemaCheck(ask.schema.schema) }
}

/** One row, one call under its own path. Whatever becomes of it is an outcome, unless it stops the run. */
export async function askRow(asking: Asking, { number, row }: NumberedRow, inTurn?: InTurn): Promise<AskedRow> {
  const { engine, facts, map, request, signal } = asking
  const body = bodyFor(asking, row)
  if (!body.ok) {
    return {
      outcome: { number, outcome: 'failed', reason: 'missing_column', detail: `the row has no ${body.missing}` },
    }
  }
  const call: CallRequest = {
    ...facts,
    ...spendingOf(facts, { ...request, model: map.ask.model }),
    path: `${map.path}/${number}`,
    body: body.body,
    signal,
    deadlineMs: engine.nowMs() + CALL_TIMEOUT_MS,
    inTurn,
  }
  return outcomeOf(asking, number, await executeCall(engine, call))
}

/**
 * Leaves out rows that were answered before the run was downgraded, and whose outcome died with its worker: with another
 * model they would be other calls, and be asked twice.
 */
export async function withoutAnswers(
  asking: Asking,
  rows: readonly NumberedRow[],
): Promise<{ readonly rows: readonly NumberedRow[]; readonly found: readonly AskedRow[] }> {
  const { engine, facts, map, request } = asking
  const { model } = map.ask
  if (!request.downgraded || spendingOf(facts, { ...request, model }).model === model) return { rows, found: [] }
  const before = spendingOf(facts, { model, ...(request.wrapUp && { wrapUp: request.wrapUp }) })
  const callIds = new Map<number, string>()
  for (const { number, row } of rows) {
    const body = bodyFor(asking, row)
    const path = `${map.path}/${number}`
    if (body.ok) callIds.set(number, callIdOf({ ...facts, ...before, path, body: body.body }))
  }
  const answers = await answersOf(engine.db, facts.scope, [...callIds.values()])
  const answerTo = (number: number): unknown => answers.get(callIds.get(number) ?? '')
  const found = rows.flatMap(({ number }) => {
    const stored = answerTo(number)
    const callId = callIds.get(number)
    if (stored === undefined || callId === undefined) return []
    return [{ outcome: answeredRow(asking, { number, callId, answer: answerSchema.parse(stored) }) }]
  })
  return { rows: rows.filter(({ number }) => answerTo(number) === undefined), found }
}

type RowBody = { readonly ok: true; readonly body: CallBody } | { readonly ok: false; readonly missing: string }

function bodyFor({ map, contentOf }: Asking, row: NumberedRow['row']): RowBody {
  const { columns, ask } = map
  let missing: string | undefined
  const fill = (part: RowAsk['messages'][number]['parts'][number]) => {
    if (typeof part !== 'string') return part
    const filled = fillTemplate(part, { row, columns })
    if (filled.ok) return filled.text
    missing ??= filled.missing
    return ''
  }
  const messages = ask.messages.map(({ role, parts }) => ({ role, parts: parts.map(fill) }))
  if (missing !== undefined) return { ok: false, missing }
  const { maxTokens, schema } = ask
  return { ok: true, body: { messages: renderMessages(messages, contentOf), maxTokens, ...(schema && { schema }) } }
}

function outcomeOf(asking: Asking, number: number, result: CallResult): AskedRow {
  const { callId } = result
  const open: RowOutcome = { number, outcome: 'open', callId }
  if (result.kind === 'answered') return { outcome: answeredRow(asking, { ...result, number }) }
  if (result.kind === 'failed' && result.isPassing && asking.request.waits) return { outcome: open, isAway: true }
  if (result.kind === 'failed' && result.reason !== 'aborted') {
    return { outcome: failedRow({ number, callId, reason: result.reason, detail: result.detail }) }
  }
  if (result.kind === 'failed') return { outcome: open, stop: { kind: 'gate', gate: 'closing' } }
  const told = toChatResult(result, { schema: undefined, nowMs: asking.engine.nowMs() })
  return told.kind === 'answered' || told.kind === 'failed' ? { outcome: open } : { outcome: open, stop: told }
}

/** The call stays answered and paid whatever its text is: a text that is no such object is a failure of the row. */
function answeredRow(
  { check }: Asking,
  { number, callId, answer }: { readonly number: number; readonly callId: string; readonly answer: CallAnswer },
): RowOutcome {
  if (!check) return { number, outcome: 'answered', callId }
  const parsed = parseObject(answer.text)
  const checked = parsed.ok ? check(parsed.value) : undefined
  if (checked?.ok) return { number, outcome: 'answered', callId }
  const detail = checked?.detail ?? `the answer is not JSON (it ended with ${answer.finishReason ?? 'nothing'})`
  return failedRow({ number, callId, reason: 'malformed_object', detail })
}

function failedRow(row: Omit<RowOutcome, 'outcome' | 'detail'> & { readonly detail: string }): RowOutcome {
  // What a provider says may hold anything.
  const detail = row.detail.toWellFormed().replaceAll('\0', '\uFFFD').slice(0, MAX_DETAIL_LENGTH).toWellFormed()
  return { ...row, outcome: 'failed', detail }
}

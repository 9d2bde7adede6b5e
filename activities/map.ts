import {
  MAX_MAP_ROWS,
  type MapActivities,
  type MapRowsRequest,
  type MapRowsResult,
  type RowMapOpening,
  type RowMapRequest,
} from '#contracts/map-activities.ts'
import type { Engine } from '#calls/engine.ts'
import { Draining } from '#calls/gate-watch.ts'
import { createPlaces, type InTurn } from '#calls/places.ts'
import { getDataset, type NumberedRow } from '#db/dataset.ts'
import { getRowMap, isUnsure, openRowMap, recordRows, reopenUnsure, rowsStanding } from '#db/row-map.ts'
import { invariant } from '#domain/invariant.ts'
import { unknownPlaceholders } from '#domain/row-template.ts'
import { asActivity, workerShutdown } from './failure.ts'
import { withHeartbeat } from './heartbeat.ts'
import { askRow, withoutAnswers, prepareAsking, type Asking, type AskedRow, type RowStop } from './map-row.ts'
import { createRowRecorder, type RowRecorder } from './map-recorder.ts'

/** After so long it begins no row more: with the longest call, it is over before the activity's timeout of 15 minutes. */
const TAKE_ROWS_MS = 5 * 60_000

interface MapDependencies {
  /** The process's one call engine. */
  readonly engine: Engine
  /** Whether this process was told to end: it begins no row more, and finishes those that it has begun. */
  readonly isEnding: () => boolean
}

export function createMapActivities(deps: MapDependencies): MapActivities {
  return {
    openMap: (request) => asActivity(() => openMap(deps.engine, request)),
    mapRows: (request) =>
      asActivity(() => {
        const progress = { path: request.path, from: request.from, to: request.to, done: 0 }
        return withHeartbeat(
          () => progress,
          (signal) => mapRows(deps, request, { signal, progress }),
        )
      }),
  }
}

async function openMap({ db, shelf }: Engine, request: RowMapRequest): Promise<RowMapOpening> {
  const { runId, path, datasetId, model, messages, maxTokens, schema } = request
  const { scope } = await shelf.run(runId)
  const dataset = await getDataset(db, scope, datasetId)
  if (!dataset) return { kind: 'refused', reason: 'unknown_dataset', detail: `there is no dataset ${datasetId}` }
  const texts = messages.flatMap(({ parts }) => parts.filter((part) => typeof part === 'string'))
  const unknown = unknownPlaceholders(texts, dataset.columns)
  if (unknown.length > 0) {
    const detail = `the dataset has no column ${unknown.join(', ')}; it has ${dataset.columns.join(', ')}`
    return { kind: 'refused', reason: 'unknown_column', detail: detail.slice(0, 500) }
  }
  const ask = {
    model,
    maxTokens,
    messages: messages.map(({ role, parts }) => ({ role, parts: [...parts] })),
    ...(schema && { schema }),
  }
  if (!(await openRowMap(db, scope, { runId, path, datasetId, ask }))) {
    return { kind: 'refused', reason: 'path_taken', detail: `another map of this run has the path ${path}` }
  }
  return { kind: 'opened', rows: dataset.rows }
}

/** Rows on their way, and what keeps further ones from beginning. */
interface Batch {
  readonly deps: MapDependencies
  readonly asking: Asking
  readonly concurrency: number
  readonly recorder: RowRecorder
  readonly progress: { done: number }
  readonly takeUntilMs: number
  readonly counts: { answered: number; failed: number }
  /** Failed rows that may have been executed. */
  readonly unsure: Set<number>
  /** Rows that found their provider away, and how many of them since it was last heard of. */
  readonly away: { rows: number; inARow: number }
  stop: RowStop | undefined
  failure: { readonly error: unknown } | undefined
}

async function mapRows(
  deps: MapDependencies,
  request: MapRowsRequest,
  { signal, progress }: { readonly signal: AbortSignal; readonly progress: { done: number } },
): Promise<MapRowsResult> {
  const { engine } = deps
  const { from, to, concurrency } = request
  invariant(to - from < MAX_MAP_ROWS, `at most ${MAX_MAP_ROWS} rows are one activity`)
  const facts = await engine.shelf.run(request.runId)
  const map = await getRowMap(engine.db, facts.scope, request)
  invariant(map, `run ${request.runId} has no map ${request.path}`)
  const part = { map, range: { from, to } }
  if (request.repeats) await reopenUnsure(engine.db, facts.scope, part)
  const { answered, failed, unsure, open } = await rowsStanding(engine.db, facts.scope, part)
  const asking = await prepareAsking(engine, { facts, map, request, signal })
  const batch: Batch = {
    deps,
    asking,
    concurrency,
    recorder: createRowRecorder((outcomes) => recordRows(engine.db, facts.scope, { map, outcomes })),
    progress,
    takeUntilMs: engine.nowMs() + TAKE_ROWS_MS,
    counts: { answered, failed },
    unsure: new Set(unsure),
    away: { rows: 0, inARow: 0 },
    stop: undefined,
    failure: undefined,
  }
  progress.done = answered + failed
  const { rows, found } = await withoutAnswers(asking, open)
  for (const asked of found) take(batch, asked)
  await askAll(batch, rows)
  const left = answered + failed + open.length - batch.counts.answered - batch.counts.failed
  const isHandedOver = signal.reason instanceof Draining || (deps.isEnding() && !batch.stop)
  if (left > 0 && isHandedOver) throw workerShutdown()
  const stopped = batch.stop ?? (batch.away.rows > 0 ? ({ kind: 'away' } as const) : undefined)
  const asked = [...batch.unsure].toSorted((one, other) => one - other)
  return {
    ...batch.counts,
    left,
    ...(left > 0 && stopped && { stopped }),
    ...(asked.length > 0 && { unsure: asked }),
  }
}

/** What one row does stops no other; what stops the run lets those that have begun finish. */
async function askAll(batch: Batch, rows: readonly NumberedRow[]): Promise<void> {
  const places = createPlaces(batch.concurrency)
  await Promise.all(rows.map((row) => places.run((inTurn) => ask(batch, row, inTurn))))
  await batch.recorder.flush()
  if (batch.failure) throw batch.failure.error
}

async function ask(batch: Batch, row: NumberedRow, inTurn: InTurn): Promise<void> {
  if (!mayBegin(batch)) return
  try {
    take(batch, await askRow(batch.asking, row, inTurn))
  } catch (error) {
    batch.failure ??= { error }
  }
}

function mayBegin({ deps, asking, concurrency, away, stop, failure, takeUntilMs }: Batch): boolean {
  if (stop || failure || asking.signal.aborted || deps.isEnding()) return false
  // As many as are asked at once, and not one of them was heard: the others would only find the same.
  if (away.inARow >= concurrency) return false
  return deps.engine.nowMs() < takeUntilMs
}

function take(batch: Batch, { outcome, stop, isAway }: AskedRow): void {
  if (isAway) batch.away.rows += 1
  batch.away.inARow = isAway ? batch.away.inARow + 1 : 0
  if (outcome) batch.recorder.add(outcome)
  if (outcome && isUnsure(outcome)) batch.unsure.add(outcome.number)
  if (outcome?.outcome === 'answered') batch.counts.answered += 1
  if (outcome?.outcome === 'failed') batch.counts.failed += 1
  batch.progress.done = batch.counts.answered + batch.counts.failed
  // A gate that is closing ends the run, whatever else a row was told.
  if (stop && (!batch.stop || stop.kind === 'gate')) batch.stop = stop
}

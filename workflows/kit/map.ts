import type { ChatRequest } from '#contracts/activities.ts'
import { MAX_MAP_ROWS, type MapRowsRequest, type MapRowsResult } from '#contracts/map-activities.ts'
import { invariant } from '#domain/invariant.ts'
import { askOwner } from './ask.ts'
import { boundedMap } from './bounded-map.ts'
import { asksToRepeat, followUp, GIVE_UP, OUTAGE_WAITS_MS, REPEAT } from './chat.ts'
import { mapRows, openMap } from './ports.ts'
import { rest } from './rest.ts'
import type { RunControl } from './run-control.ts'
import { CallFailed } from './stop.ts'

/** Times one batch may be put off (paused, frozen, told to wait). */
const MAX_ROUNDS = 1_000
/**
 * Batches at once. While the last rows of one are on their way, and the next is being dispatched, the others keep the
 * provider busy; the fewer rows at once each has, the smaller a part of its time that is.
 */
const MOST_LANES = 4
/** Fewer rows at once are no lane of their own. */
const ROWS_PER_LANE = 4
const DEFAULT_CONCURRENCY = 16
/** Times an owner is asked about the rows of one part. */
const MAX_QUESTIONS = 100
/** Rows that a question names. */
const NAMED_ROWS = 10
export const MAX_CONCURRENCY = 64

export interface RowMap {
  readonly datasetId: string
  /** `{{column}}` in a text is the row's value, `{{row}}` the whole row as JSON. */
  readonly messages: ChatRequest['messages']
  /** Most output tokens of a row. */
  readonly maxTokens: number
  /** Catalog model; the one the run was started with unless given. */
  readonly model?: string
  /** Each answer must be JSON of this schema. */
  readonly schema?: NonNullable<ChatRequest['schema']>
  /** Most rows at once: 16 unless given, at most 64. */
  readonly concurrency?: number
  /** The first row, from 1, and how many rows from there on: all unless given. */
  readonly from?: number
  readonly most?: number
  /** Told how the rows of this part stand, after each step. */
  readonly onProgress?: (progress: MapProgress) => void
}

export interface MapProgress {
  /** Of the whole dataset. */
  readonly rows: number
  /** Of this part. */
  readonly answered: number
  readonly failed: number
}

/** What became of the rows of a part; each of them has an outcome. */
export interface MapResult extends MapProgress {
  /** Where the next part begins; undefined when this was the last one. */
  readonly next: number | undefined
}

interface MapOrder extends Pick<ChatRequest, 'runId' | 'path' | 'wrapUp'> {
  readonly map: RowMap & { readonly model: string }
}

interface Batch {
  readonly from: number
  readonly to: number
  readonly concurrency: number
}

/** What all batches of a map have seen of their providers. */
interface Weather {
  /** How often any batch heard something. */
  heard: number
  /** A batch has waited for as long as one waits, and no batch heard anything meanwhile: nobody waits until one does. */
  isGivenUp: boolean
}

/**
 * Asks one prompt about each row of a dataset: many calls in one activity, each of them durable. Pauses, money and the end
 * of the run are those of any call; what is done is never asked again. Rows that may have been executed and may not be
 * repeated are put to the owner, once all others are done.
 *
 * @throws CallFailed when the dataset or a column does not exist
 */
export async function mapDataset(control: RunControl, { map, ...order }: MapOrder): Promise<MapResult> {
  const { datasetId, messages, model, maxTokens, schema, concurrency = DEFAULT_CONCURRENCY, from = 1 } = map
  invariant(concurrency >= 1 && concurrency <= MAX_CONCURRENCY, `a map works on 1 to ${MAX_CONCURRENCY} rows at once`)
  const { runId, path } = order
  const ask = { datasetId, messages, model, maxTokens, ...(schema && { schema }) }
  const opened = await openMap.executeWithOptions({ summary: `${path} · dataset` }, [{ runId, path, ...ask }])
  if (opened.kind === 'refused') throw new CallFailed(path, opened.reason, opened.detail)
  const { rows } = opened
  const to = Math.min(rows, from + (map.most ?? rows) - 1)
  const seen = new Map<number, MapRowsResult>()
  const progress = (): MapProgress => ({ rows, ...sumsOf([...seen.values()]) })
  const { lanes, batches } = batchesOf({ from, to, concurrency })
  const weather: Weather = { heard: 0, isGivenUp: false }
  const unsure = (batch: Batch): readonly number[] => seen.get(batch.from)?.unsure ?? []
  let repeats = 0
  for (let asked: readonly Batch[] = batches; asked.length > 0; repeats += 1) {
    await boundedMap(asked, lanes, (batch) =>
      mapBatch(control, { ...order, weather, repeats }, batch, (result) => {
        seen.set(batch.from, result)
        map.onProgress?.(progress())
      }),
    )
    const isAgain = await mayRepeat(control, { path, from, repeats, rows: batches.flatMap(unsure) })
    asked = isAgain ? batches.filter((batch) => unsure(batch).length > 0) : []
  }
  return { ...progress(), next: to < rows ? to + 1 : undefined }
}

interface BatchOrder extends Omit<MapOrder, 'map'> {
  readonly weather: Weather
  /** How often the owner let rows be sent again that may have been executed. */
  readonly repeats: number
}

/** One batch, taken up again after every pause and wait: rows that are done are passed over there. */
async function mapBatch(
  control: RunControl,
  { weather, repeats, ...order }: BatchOrder,
  batch: Batch,
  onResult: (result: MapRowsResult) => void,
): Promise<void> {
  const { path } = order
  const summary = `${path} · rows ${batch.from} to ${batch.to}`
  const outage = new Outage(weather)
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    control.throwIfStopped()
    const request = {
      ...order,
      ...batch,
      ...(repeats > 0 && { repeats }),
      ...(control.downgraded && { downgraded: true as const }),
      ...outage.choice(),
    }
    const result = await mapRows.executeWithOptions({ summary }, [request])
    outage.note(result, request)
    onResult(result)
    if (result.left === 0) return
    control.throwIfStopped()
    const { stopped } = result
    if (stopped?.kind === 'away') await outage.wait(control)
    else if (stopped) await followUp(control, request, stopped)
  }
  throw new CallFailed(path, 'put_off', `rows ${batch.from} to ${batch.to} were put off ${MAX_ROUNDS} times`)
}

/**
 * What a batch does about a provider that is away: it waits, longer each time, and begins anew with whatever it hears. When
 * it has waited for as long as a call waits, the rows that are left have their error.
 */
class Outage {
  readonly #weather: Weather
  /** Rows that a provider has answered or refused, as far as it is known. */
  #heard = 0
  #passes = 0
  #hasWaited = false
  /** Of the whole map, when this batch began to wait. */
  #heardBefore = 0

  constructor(weather: Weather) {
    this.#weather = weather
  }

  choice(): Pick<MapRowsRequest, 'waits' | 'again'> {
    const waits = !this.#weather.isGivenUp && this.#passes < OUTAGE_WAITS_MS.length
    return { ...(waits && { waits }), ...(this.#hasWaited && { again: true as const }) }
  }

  /** An error shows that a provider is there only where its absence is none. */
  note({ answered, failed }: MapRowsResult, { waits }: Pick<MapRowsRequest, 'waits'>): void {
    const heard = answered + (waits ? failed : 0)
    const isNews = heard > this.#heard
    this.#heard = Math.max(this.#heard, heard)
    if (!isNews) return
    this.#weather.heard += 1
    this.#weather.isGivenUp = false
    this.#passes = 0
  }

  async wait(control: RunControl): Promise<void> {
    const waitMs = OUTAGE_WAITS_MS[this.#passes] ?? 0
    if (this.#passes === 0) this.#heardBefore = this.#weather.heard
    this.#passes += 1
    this.#hasWaited = true
    await rest(control, waitMs)
    const isOver = this.#passes >= OUTAGE_WAITS_MS.length
    if (isOver && this.#weather.heard === this.#heardBefore) this.#weather.isGivenUp = true
  }
}

/**
 * Puts all rows of a part that may have been executed to the owner of a run that may repeat nothing by itself. Everything
 * else is done by then: when nobody answers in time they keep their errors, and the run delivers.
 */
async function mayRepeat(
  control: RunControl,
  asked: { readonly path: string; readonly from: number; readonly repeats: number; readonly rows: readonly number[] },
): Promise<boolean> {
  const { path, from, repeats, rows } = asked
  if (rows.length === 0 || repeats >= MAX_QUESTIONS || !asksToRepeat(control)) return false
  const others = rows.length > NAMED_ROWS ? ` and ${rows.length - NAMED_ROWS} more` : ''
  const named = `${path}: ${rows.slice(0, NAMED_ROWS).join(', ')}${others}`
  const question = `Rows may have been executed and paid for already (${named}). Send them once more?`
  const choices = [REPEAT, GIVE_UP]
  const questionPath = `${path}/repeat/${from}/${repeats + 1}`
  return (await askOwner(control, questionPath, { question, choices, otherwise: GIVE_UP })) === REPEAT
}

/** Batches of one size, so that all lanes end at about the same time. */
function batchesOf({ from, to, concurrency }: Batch): { readonly lanes: number; readonly batches: readonly Batch[] } {
  const count = Math.max(0, to - from + 1)
  const lanes = Math.max(1, Math.min(MOST_LANES, Math.floor(concurrency / ROWS_PER_LANE)))
  const rounds = Math.max(1, Math.ceil(count / (lanes * MAX_MAP_ROWS)))
  const size = Math.max(1, Math.ceil(count / (lanes * rounds)))
  const batches = Array.from({ length: Math.ceil(count / size) }, (_, index) => {
    const first = from + index * size
    return { from: first, to: Math.min(to, first + size - 1), concurrency: Math.floor(concurrency / lanes) }
  })
  return { lanes, batches }
}

function sumsOf(results: readonly MapRowsResult[]): Pick<MapProgress, 'answered' | 'failed'> {
  return results.reduce(
    (sum, { answered, failed }) => ({ answered: sum.answered + answered, failed: sum.failed + failed }),
    { answered: 0, failed: 0 },
  )
}

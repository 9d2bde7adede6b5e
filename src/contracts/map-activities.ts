import type { ChatRequest, ChatResult } from './activities.ts'

/** What a map asks about each row: `{{column}}` in its texts is the row's value. */
export interface RowMapRequest extends Pick<
  ChatRequest,
  'runId' | 'path' | 'model' | 'messages' | 'maxTokens' | 'schema'
> {
  readonly datasetId: string
}

export type RowMapOpening =
  | { readonly kind: 'opened'; readonly rows: number }
  | { readonly kind: 'refused'; readonly reason: string; readonly detail: string }

/** Some of the rows of a map. Row 7 is asked by the call `<path>/7`. */
export interface MapRowsRequest extends Pick<ChatRequest, 'runId' | 'path' | 'downgraded' | 'wrapUp' | 'repeats'> {
  /** Both counted from 1, and both included: at most `MAX_MAP_ROWS` rows. */
  readonly from: number
  readonly to: number
  /** Most rows at once. */
  readonly concurrency: number
  /** Rows whose provider is away are left, so that they may be asked `again`; without it, that is an error of the row. */
  readonly waits?: true
  readonly again?: true
}

/** Most rows of one activity: more are more work to look through again after a crash. */
export const MAX_MAP_ROWS = 200

/** How the rows asked for stand now, all of them together. With rows `left`, what stopped the others is told; or time did. */
export interface MapRowsResult {
  readonly answered: number
  readonly failed: number
  readonly left: number
  readonly stopped?: Exclude<ChatResult, { kind: 'answered' | 'failed' }> | { readonly kind: 'away' }
  /** Those of the failed rows that may have been executed, and may not be sent again unless their owner says so. */
  readonly unsure?: readonly number[]
}

export interface MapActivities {
  /** Keeps what a map asks, and says how many rows there are. Safe to repeat: the first order counts. */
  openMap(request: RowMapRequest): Promise<RowMapOpening>
  /** Many calls, each durable. Rows that are done are passed over, so that it may be repeated. */
  mapRows(request: MapRowsRequest): Promise<MapRowsResult>
}

import type { ColumnType, Generated } from 'kysely'

type Json = ColumnType<unknown, string, string>
type Stamp = Generated<Date>

/** Datasets, and what runs make of their rows, as migration 0020 makes them. */
export interface DatasetTables {
  dataset: {
    id: string
    project_id: string
    name: string
    format: 'csv' | 'jsonl'
    digest: Buffer
    columns: string[]
    row_count: number
    bytes: bigint
    most_row_bytes: number
    created_at: Stamp
    stored_at: Date | null
  }
  dataset_row: { dataset_id: string; project_id: string; number: number; body: Json }
  run_map: { run_id: string; path: string; project_id: string; dataset_id: string; ask: Json; created_at: Stamp }
  run_map_row: {
    run_id: string
    path: string
    number: number
    project_id: string
    outcome: 'answered' | 'failed' | 'open'
    call_ids: string[]
    reason: string | null
    detail: string | null
    recorded_at: Stamp
  }
}

import type { Generated } from 'kysely'

/** The tables of documents, as migration 0004 makes them. */
export interface CorpusTables {
  corpus: { id: string; project_id: string; name: string; digest: string | null; created_at: Generated<Date> }
  passage: {
    id: string
    project_id: string
    corpus_id: string
    ordinal: number
    source: string
    title: string
    heading: string | null
    body: string
    search: Generated<string>
  }
}

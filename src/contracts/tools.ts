import type { SearchHit } from './corpus.ts'

/** A note as a reader took it: what a passage is said to say. */
export interface Note {
  readonly passage: string
  readonly quote: string
}

/** An entry of a citation registry: its quote stands verbatim in its passage. */
export interface Citation {
  /** From 1, in the order of the notes. */
  readonly n: number
  readonly passageId: string
  readonly source: string
  readonly title: string
  readonly quote: string
}

export interface RejectedNote {
  readonly passage: string
  readonly reason: string
}

/**
 * The tools that agents may use: what goes in, and the small value that comes out. What is large stands in the payload
 * behind the result's reference; passages that a prompt may show stand there as `passages` (see `passages.ts`).
 */
export interface ToolCatalog {
  readonly search: {
    readonly input: { readonly corpusId: string; readonly query: string; readonly limit: number }
    readonly value: { readonly hits: readonly SearchHit[] }
  }
  readonly fetch: {
    readonly input: { readonly corpusId: string; readonly passageIds: readonly string[] }
    readonly value: { readonly passageIds: readonly string[] }
  }
  readonly cite: {
    readonly input: { readonly corpusId: string; readonly notes: readonly Note[] }
    readonly value: { readonly citations: readonly Citation[]; readonly rejected: readonly RejectedNote[] }
  }
}

export type ToolName = keyof ToolCatalog

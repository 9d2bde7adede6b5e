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

/** Where a passage comes from, shortened where it is long. */
interface Origin {
  readonly source: string
  readonly title: string
}

/**
 * The tools that agents may use: what goes in, and the small value that comes out. What is large stands in the payload
 * behind the result's reference; passages that a prompt may show stand there as `passages` (see `passages.ts`).
 */
export interface ToolCatalog {
  /** Finds passages, best first. */
  readonly search: {
    readonly input: { readonly corpusId: string; readonly query: string; readonly limit: number }
    readonly value: { readonly hits: readonly ({ readonly id: string } & Origin)[] }
  }
  /** Reads passages, to be written into a prompt. */
  readonly fetch: {
    readonly input: { readonly corpusId: string; readonly passageIds: readonly string[] }
    readonly value: { readonly count: number }
  }
  /** Makes citations of those notes whose quotes stand in their passages. */
  readonly cite: {
    readonly input: { readonly corpusId: string; readonly notes: readonly Note[] }
    readonly value: { readonly citations: readonly Citation[]; readonly rejected: number }
  }
}

export type ToolName = keyof ToolCatalog

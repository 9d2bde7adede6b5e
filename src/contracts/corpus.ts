import { z } from 'zod'
import { nextCursorSchema, pageQuerySchema } from './api-page.ts'
import { storableText } from './storable-text.ts'

/** Most documents of one upload, so that one request is one short transaction. */
export const MAX_UPLOAD_DOCUMENTS = 200
/** Largest body of one upload, in bytes: the limit of the HTTP server for this endpoint. */
export const MAX_UPLOAD_BYTES = 4 * 1024 * 1024
/** Longest document, in characters: more is a book, to be uploaded in chapters. */
const MAX_DOCUMENT_LENGTH = 512 * 1024
/** Most passages of one search or fetch. */
export const MAX_PASSAGES = 20

const source = storableText.min(1).max(300)
const title = storableText.min(1).max(300)

export const corpusSchema = z.strictObject({ id: z.uuid(), name: storableText.min(1).max(200) })

export const corpusListQuerySchema = pageQuerySchema.extend({
  projectId: z.string().optional().describe('Required of an operator key; a project key lists its own project.'),
})

export const corpusListSchema = z.object({ corpora: z.array(corpusSchema), nextCursor: nextCursorSchema })

export const corpusRequestSchema = corpusSchema.pick({ name: true })

/** A document as it is uploaded: `source` is its path, unique in its corpus. */
export const documentSchema = z.strictObject({
  source,
  title: title.optional(),
  text: z.string().max(MAX_DOCUMENT_LENGTH),
})

export const uploadSchema = z.strictObject({ documents: z.array(documentSchema).min(1).max(MAX_UPLOAD_DOCUMENTS) })

export const passageSchema = z.strictObject({
  id: z.uuid(),
  source,
  title,
  /** The headings above the passage, outermost first, joined by ` › `. */
  heading: z.string().optional(),
  /** Its place in its document, from 0. */
  ordinal: z.int().nonnegative(),
  text: z.string(),
})

export type Corpus = z.infer<typeof corpusSchema>
export type SourceDocument = z.infer<typeof documentSchema>
export type Passage = z.infer<typeof passageSchema>

/** A document cut into passages; the place in the list is the passage's ordinal. */
export interface SplitDocument {
  readonly source: string
  readonly title: string
  readonly passages: readonly { readonly heading?: string; readonly text: string }[]
}

export interface SearchHit {
  readonly id: string
  readonly source: string
  readonly title: string
  readonly heading?: string
  /** Higher is better; comparable within one search only. */
  readonly score: number
  /** Share of the query's distinct lexemes that the passage holds, 0 to 1. */
  readonly coverage: number
}

/** Where tools read: the passages of one tenant. */
export interface CorpusStore {
  /** Best hits first; none when nothing of the query is in the corpus. */
  search(query: {
    readonly corpusId: string
    readonly query: string
    readonly limit: number
  }): Promise<readonly SearchHit[]>
  /** In the order asked for; ids that are not in this corpus are left out. */
  fetch(request: { readonly corpusId: string; readonly passageIds: readonly string[] }): Promise<readonly Passage[]>
}

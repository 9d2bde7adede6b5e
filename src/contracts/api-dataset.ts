import { z } from 'zod'
import { nextCursorSchema, pageQuerySchema } from './api-page.ts'
import { storableText } from './storable-text.ts'

/** Largest file of one upload, in bytes. It is in memory while it is read. */
export const MAX_DATASET_BYTES = 32 * 1024 * 1024
export const MAX_DATASET_ROWS = 100_000
/** As JSON: more is no row but a document, and would not fit a prompt with much else. */
export const MAX_ROW_BYTES = 65_536

export const datasetUploadQuerySchema = z.strictObject({
  name: storableText.trim().min(1).max(200),
  format: z.enum(['csv', 'jsonl']).optional().describe("That of the body's media type unless given."),
})

/** Told in the document only: it is bytes, which are checked as they are read. */
export const datasetFileSchema = z.unknown().meta({ type: 'string', format: 'binary', description: 'The file.' })

export const datasetSchema = z
  .object({
    id: z.uuid(),
    name: z.string(),
    format: z.enum(['csv', 'jsonl']),
    columns: z.array(z.string()),
    rows: z.int(),
    bytes: z.int().describe('Of all rows as JSON.'),
    mostRowBytes: z.int().describe('Of the largest row.'),
    createdAt: z.iso.datetime(),
  })
  .meta({ id: 'Dataset' })

export const datasetListQuerySchema = pageQuerySchema.extend({
  projectId: z.string().optional().describe('Required of an operator key; a project key lists its own project.'),
})

export const datasetListSchema = z.object({ datasets: z.array(datasetSchema), nextCursor: nextCursorSchema })

export const datasetRowsSchema = z.object({
  rows: z.array(z.object({ number: z.int().describe('From 1.'), values: z.record(z.string(), z.unknown()) })),
  nextCursor: nextCursorSchema,
})

export type DatasetView = z.infer<typeof datasetSchema>

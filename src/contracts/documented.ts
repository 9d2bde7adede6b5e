import { z } from 'zod'

/**
 * Notes on a schema for the OpenAPI document: what JSON Schema cannot tell from a `preprocess`. The document is written
 * as they say (`spellOut` in `src/api/documentation.ts`); they change nothing of what is checked.
 */

/** A text stands for one part of the list that is described. */
export const OR_TEXT = Object.freeze({ 'x-or-text': true })

/** The member `type` may be left out. */
export const TYPE_OPTIONAL = Object.freeze({ 'x-may-lack': ['type'] })

export const REFERENCE_PREFIX = '#/components/schemas/'

/**
 * Each event of a stream, as OpenAPI before 3.2 has the schema of `text/event-stream` describe it: its data is the text of
 * what a schema with a name describes, or the word that ends the stream.
 */
export function eventsOf(data: z.ZodType, end?: string): z.ZodType {
  const name = data.meta()?.id
  if (name === undefined) throw new Error('the events of a stream are described by a schema with an id')
  const json = z.string().meta({
    contentMediaType: 'application/json',
    contentSchema: { $ref: REFERENCE_PREFIX + name },
  })
  return z.looseObject({ data: end === undefined ? json : z.union([z.literal(end), json]) })
}

import type { z } from 'zod'

/**
 * Notes on a schema for the OpenAPI document: what JSON Schema cannot tell from a `preprocess`. The document is written
 * as they say (`spellOut` in `src/api/documentation.ts`); they change nothing of what is checked.
 */

/** A text stands for one part of the list that is described. */
export const OR_TEXT = Object.freeze({ 'x-or-text': true })

/** The member `type` may be left out. */
export const TYPE_OPTIONAL = Object.freeze({ 'x-may-lack': ['type'] })

export const REFERENCE_PREFIX = '#/components/schemas/'

/** Of a stream: the data of each of its events is described by a schema that has a name. */
export function eventsOf(event: z.ZodType): Readonly<Record<string, unknown>> {
  const name = event.meta()?.id
  if (name === undefined) throw new Error('the events of a stream are described by a schema with an id')
  return {
    description: `Server-sent events, whose data is a \`${name}\`.`,
    'x-event': { $ref: REFERENCE_PREFIX + name },
  }
}

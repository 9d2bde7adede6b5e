import { isTerminal, RUN_STATES } from '#domain/run-states.ts'
import { z } from 'zod'

const LAST_KINDS: ReadonlySet<string> = new Set(RUN_STATES.filter(isTerminal).map((state) => `run.${state}`))

/** Whether a run tells nothing of its own after this event. */
export function isLastEvent(event: { readonly kind: string }): boolean {
  return LAST_KINDS.has(event.kind)
}

/** Largest value of both halves: Postgres' bigint. */
const MAX_HALF = 9_223_372_036_854_775_807n

/** `<xid>-<seq>`: in the order of this pair no event is lost, however many write at once. */
export const eventIdSchema = z
  .string()
  .refine(
    (text) => /^\d{1,19}-\d{1,19}$/.test(text) && text.split('-').every((half) => BigInt(half) <= MAX_HALF),
    'is not the id of an event, such as 812-40',
  )

export const eventSchema = z
  .object({
    id: eventIdSchema,
    kind: z.string(),
    at: z.iso.datetime(),
    data: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'Event' })

export const eventQuerySchema = z.strictObject({
  format: z.enum(['sse', 'json']).default('sse'),
  after: eventIdSchema.optional().describe('Like the header Last-Event-ID.'),
})

/** One page. Go on with `after` = the id of the last event, also when the page is empty. */
export const eventPageSchema = z.object({ events: z.array(eventSchema) })

export type EventView = z.infer<typeof eventSchema>

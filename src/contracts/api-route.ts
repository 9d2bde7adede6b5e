import { OUTCOMES } from '#domain/policy.ts'
import { z } from 'zod'
import { storableText } from './storable-text.ts'

const moment = z.iso.datetime({ offset: true })

export const RESETTABLE = ['circuit', 'distrust'] as const

const roomSchema = z
  .object({
    limit: z.int(),
    used: z.int().describe('In the last minute; of concurrency: what processes have, idle slots included.'),
    leased: z.int().describe('Lent to processes, and not used yet.'),
  })
  .nullable()
  .describe('`null`: no limit.')

const routeHealthSchema = z
  .object({
    provider: z.string(),
    upstreamModel: z.string(),
    routes: z.array(z.string()).describe('Routes of the newest catalog that lead there: `model › route`.'),
    circuit: z.object({
      state: z
        .enum(['closed', 'open', 'half_open', 'paused'])
        .describe('`half_open`: one request finds out. `paused`: the provider asked to be left alone.'),
      since: moment.nullable(),
      until: moment.nullable().describe('When a probe may be sent, or the pause ends.'),
      failures: z.int().describe('In a row.'),
    }),
    lastFailure: z
      .object({
        outcome: z.enum(OUTCOMES),
        message: z.string().nullable().describe("The provider's words, for operators of the installation."),
        at: moment,
      })
      .nullable(),
    room: z.object({ requestsPerMinute: roomSchema, tokensPerMinute: roomSchema, concurrency: roomSchema }),
    distrust: z
      .object({
        factor: z.string().describe('What holds are multiplied by, as a decimal string.'),
        since: moment,
      })
      .nullable()
      .describe('It billed above a hold; `null`: it is trusted.'),
    lastReset: z
      .object({ what: z.enum(RESETTABLE), at: moment, organisationId: z.uuid(), keyId: z.uuid() })
      .nullable()
      .describe('By a person.'),
  })
  .meta({ id: 'RouteHealth' })

export const routeListSchema = z.object({ catalogVersion: z.int(), routes: z.array(routeHealthSchema) })

export const routeResetRequestSchema = z.strictObject({
  provider: storableText.min(1).max(100),
  upstreamModel: storableText.min(1).max(200),
  what: z.enum(RESETTABLE),
})

export const routeResetSchema = z
  .object({ isChanged: z.boolean().describe('False: there was nothing to reset.'), route: routeHealthSchema })
  .meta({ id: 'RouteReset' })

export type RouteHealthView = z.infer<typeof routeHealthSchema>

import { eventIdSchema, eventPageSchema, eventSchema, eventQuerySchema, isLastEvent } from '#contracts/api-event.ts'
import { Problem } from '#contracts/codes.ts'
import { eventsOf } from '#contracts/documented.ts'
import { isKeyValid } from '#db/key-holder.ts'
import type { Scope } from '#db/database.ts'
import { eventsAfter, runKindsUpTo, type EventPlace } from '#db/event.ts'
import type { Database } from '#db/schema.ts'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Kysely } from 'kysely'
import { finished, Readable } from 'node:stream'
import { z } from 'zod'
import { callerOfRequest, tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { EVENTS_PER_PAGE, eventView, streamEvents, type EventSource } from './event-stream.ts'
import { problemOf } from './validation.ts'

/** Open streams of one process: each asks the database six times a second. */
const MAX_STREAMS = 200
/** So that no project takes the streams of all. */
const MAX_STREAMS_OF_PROJECT = 50

const description =
  'Server-sent events, in the order (xid, seq): none is lost, however many write at once. Comes back where it stopped ' +
  "with `Last-Event-ID`, and ends after the run's last event. With `format=json` one page."

export function eventRoutes(app: Api, { nowMs }: RouteDeps): void {
  const closing = new AbortController()
  let streams = 0
  const streamsOf = new Map<string, number>()
  app.addHook('preClose', async () => closing.abort())

  function sourceOf(request: FastifyRequest, scope: Scope, runId: string): EventSource {
    const db = tenantDb(request)
    const { keyId } = callerOfRequest(request)
    return {
      async read(after) {
        const events = await eventsAfter(db, scope, { runId, after: placeOf(after), limit: EVENTS_PER_PAGE })
        return events.map(eventView)
      },
      isOverAt: async (id) => (await kindsUpTo(db, scope, { runId, id })).some((kind) => isLastEvent({ kind })),
      mayGoOn: () => isKeyValid(db, keyId),
    }
  }

  app.get(
    '/runs/:id/events',
    {
      config: { access: 'any', readsRun: true },
      schema: {
        tags: ['Runs'],
        summary: "A run's events",
        description,
        params: z.object({ id: z.string() }),
        querystring: eventQuerySchema,
        response: {
          200: {
            description: 'Events',
            content: {
              'text/event-stream': { schema: eventsOf(eventSchema) },
              'application/json': { schema: eventPageSchema },
            },
          },
        },
      },
    },
    async (request, reply) => {
      const db = tenantDb(request)
      const { id } = request.params
      const scope = await tenantFor(db, request, { noun: 'run', id })
      const source = sourceOf(request, scope, id)
      const after = request.query.after ?? lastEventId(request)
      if (request.query.format === 'json') return { events: [...(await source.read(after))] }
      const ofProject = streamsOf.get(scope.projectId) ?? 0
      if (streams >= MAX_STREAMS || ofProject >= MAX_STREAMS_OF_PROJECT) {
        throw new Problem('overloaded', 'Too many event streams are open.', {
          remedy: 'Use format=json, or try again.',
        })
      }
      const gone = new AbortController()
      const signal = AbortSignal.any([gone.signal, closing.signal])
      streams += 1
      streamsOf.set(scope.projectId, ofProject + 1)
      // Also when the client has gone already: 'close' is not told twice.
      finished(reply.raw, () => {
        streams -= 1
        const left = (streamsOf.get(scope.projectId) ?? 1) - 1
        if (left === 0) streamsOf.delete(scope.projectId)
        else streamsOf.set(scope.projectId, left)
        gone.abort()
      })
      reply.header('cache-control', 'no-store').header('x-accel-buffering', 'no').type('text/event-stream')
      return sendStream(reply, Readable.from(streamEvents(source, { after, signal, nowMs })))
    },
  )
}

async function kindsUpTo(
  db: Kysely<Database>,
  scope: Scope,
  { runId, id }: { readonly runId: string; readonly id: string },
): Promise<readonly string[]> {
  const place = placeOf(id)
  return place ? runKindsUpTo(db, scope, { runId, place }) : []
}

/** The schema of the answer describes what is in the stream, which is sent as it is. */
function sendStream(reply: FastifyReply, stream: Readable): FastifyReply {
  return reply.send(stream)
}

function lastEventId(request: FastifyRequest): string | undefined {
  const header = request.headers['last-event-id']
  if (header === undefined || header === '') return undefined
  const checked = eventIdSchema.safeParse(header)
  if (!checked.success) throw problemOf(checked.error.issues, 'header.last-event-id')
  return checked.data
}

function placeOf(id: string | undefined): EventPlace | undefined {
  const [xid, seq] = id?.split('-') ?? []
  return xid === undefined || seq === undefined ? undefined : { xid, seq }
}

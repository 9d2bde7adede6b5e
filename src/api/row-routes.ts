import { rowCountsQuerySchema, rowCountsSchema, rowResultsQuerySchema, rowResultsSchema } from '#contracts/api-row.ts'
import { Problem } from '#contracts/codes.ts'
import type { Scope } from '#db/database.ts'
import type { Database } from '#db/schema.ts'
import { countRows, rowMapsOf, type RowMap } from '#db/row-map.ts'
import { readRowResults } from '#db/row-result.ts'
import type { FastifyReply } from 'fastify'
import type { Kysely } from 'kysely'
import { finished, Readable } from 'node:stream'
import { z } from 'zod'
import { tenantFor, tenantDb } from './access.ts'
import type { Api } from './api-deps.ts'
import { rowsCsv, rowsJson, rowsJsonLines } from './row-results.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Runs']
/** Results that one process writes at once: each keeps a connection of the pool busy most of the time. */
const MAX_AT_ONCE = 4
/** So that readers who stop reading keep nobody else from theirs. */
const MAX_OF_PROJECT = 2
/** A reader that takes nothing for so long, in milliseconds, has gone. */
const READER_TIMEOUT_MS = 60_000

const WRITERS = {
  json: { write: rowsJson, type: 'application/json; charset=utf-8' },
  jsonl: { write: rowsJsonLines, type: 'application/x-ndjson; charset=utf-8' },
  csv: { write: rowsCsv, type: 'text/csv; charset=utf-8; header=present' },
} as const

/** What runs made of the rows of datasets. */
export function rowResultRoutes(app: Api): void {
  const open: string[] = []

  app.get(
    '/runs/:id/rows',
    {
      config: { access: 'any', problems: ['overloaded'] },
      schema: {
        tags,
        summary: 'What became of each row of a map, in order',
        description:
          'Each row as it was, its answer or its error, and what it cost. Written while it is read: JSON without its end ' +
          '(`"end": true`) was cut off. In CSV a text that a spreadsheet could take for a formula begins with `\'`.',
        params: idParams,
        querystring: rowResultsQuerySchema,
        response: {
          200: {
            description: 'The rows',
            content: {
              'application/json': { schema: rowResultsSchema },
              'application/x-ndjson': { schema: z.string() },
              'text/csv': { schema: z.string() },
            },
          },
        },
      },
    },
    async (request, reply) => {
      const db = tenantDb(request)
      const { id } = request.params
      const { format, path } = request.query
      const scope = await tenantFor(db, request, { noun: 'run', id })
      const map = await mapOf(db, scope, { runId: id, path })
      const own = open.filter((projectId) => projectId === scope.projectId)
      if (open.length >= MAX_AT_ONCE || own.length >= MAX_OF_PROJECT) {
        throw new Problem('overloaded', 'Too many results are being written.', {
          remedy: `Read at most ${MAX_OF_PROJECT} at the same time, to their ends.`,
        })
      }
      open.push(scope.projectId)
      finished(reply.raw, () => {
        open.splice(open.indexOf(scope.projectId), 1)
      })
      reply.raw.setTimeout(READER_TIMEOUT_MS, () => reply.raw.destroy())
      const { write, type } = WRITERS[format]
      reply
        .header('cache-control', 'no-store')
        .header('content-disposition', `attachment; filename="rows-${id}.${format}"`)
        .type(type)
      return sendStream(reply, Readable.from(write(map, readRowResults(db, scope, map))))
    },
  )
}

export function rowCountRoutes(app: Api): void {
  app.get(
    '/runs/:id/row-counts',
    {
      config: { access: 'any' },
      schema: {
        tags,
        summary: 'How many rows of a map are done',
        params: idParams,
        querystring: rowCountsQuerySchema,
        response: { 200: rowCountsSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const scope = await tenantFor(db, request, { noun: 'run', id })
      const map = await mapOf(db, scope, { runId: id, path: request.query.path })
      return { path: map.path, ...(await countRows(db, scope, map)) }
    },
  )
}

/** The map of a path, or the first one. @throws Problem `not_found` */
async function mapOf(
  db: Kysely<Database>,
  scope: Scope,
  { runId, path }: { readonly runId: string; readonly path: string | undefined },
): Promise<RowMap> {
  const maps = await rowMapsOf(db, scope, runId)
  const map = path === undefined ? maps[0] : maps.find((each) => each.path === path)
  if (map) return map
  const what = path === undefined ? 'has asked about no rows yet' : `has no map ${path.slice(0, 60)}`
  throw new Problem('not_found', `This run ${what}.`, {
    ...(maps.length > 0 && { remedy: `Its maps: ${maps.map((each) => each.path).join(', ')}.` }),
  })
}

/** The schema of the answer describes what is in the stream, which is sent as it is. */
function sendStream(reply: FastifyReply, stream: Readable): FastifyReply {
  return reply.send(stream)
}

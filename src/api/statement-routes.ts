import { statementParamsSchema, statementQuerySchema, statementSchema } from '#contracts/statement.ts'
import { Problem } from '#contracts/codes.ts'
import { getProject } from '#db/project.ts'
import { statementPeriod } from '#db/statement-period.ts'
import { readStatement } from '#db/statement.ts'
import type { FastifyReply } from 'fastify'
import { finished, Readable } from 'node:stream'
import { z } from 'zod'
import { callerOfRequest, notFound, tenantFor, tenantDb } from './access.ts'
import type { Api } from './api-deps.ts'
import { badInstant } from './instant.ts'
import { statementCsv } from './statement-csv.ts'
import { statementJson, type StatementHead } from './statement-json.ts'

/** Statements that one process writes at once: each keeps a connection of the pool busy most of the time. */
const MAX_AT_ONCE = 4

const description =
  'Opening balance, every movement and closing balance of each balance class and currency; debts; and for each envelope ' +
  'what it got, gave and spent, by model, route and provider. Written while it is read: one without its end (`"end": ' +
  "true`, or the row `end`) was cut off. In CSV a text that a spreadsheet could take for a formula begins with `'`."

export function statementRoutes(app: Api): void {
  let open = 0

  app.get(
    '/wallets/:id/statements/:month',
    {
      config: { access: 'any', problems: ['invalid_instant', 'overloaded'] },
      schema: {
        tags: ['Wallets'],
        summary: "A wallet's statement of a month",
        description,
        params: statementParamsSchema,
        querystring: statementQuerySchema,
        response: {
          200: {
            description: 'The statement',
            content: { 'application/json': { schema: statementSchema }, 'text/csv': { schema: z.string() } },
          },
        },
      },
    },
    async (request, reply) => {
      const db = tenantDb(request)
      const { id: walletId, month } = request.params
      const { format, timeZone } = request.query
      const scope = await tenantFor(db, request, { noun: 'wallet', id: walletId })
      const period = await statementPeriod(db, { month, timeZone })
      if (!period) throw badInstant('path.month', `${month} has not begun yet in ${timeZone}`)
      const project = await getProject(db, callerOfRequest(request).organisationId, scope.projectId)
      if (!project) throw notFound('wallet', walletId)
      if (open >= MAX_AT_ONCE) throw new Problem('overloaded', 'Too many statements are being written.')
      open += 1
      finished(reply.raw, () => {
        open -= 1
      })
      const { from, to, writtenAt, final } = period
      const head: StatementHead = {
        walletId,
        project: { id: project.id, name: project.name },
        month,
        timeZone,
        from,
        to,
        writtenAt,
        final,
      }
      const parts = readStatement(db, scope, { walletId, period })
      reply
        .header('cache-control', 'no-store')
        .header('content-disposition', `attachment; filename="statement-${month}-${walletId}.${format}"`)
        .type(format === 'csv' ? 'text/csv; charset=utf-8; header=present' : 'application/json; charset=utf-8')
      return sendStream(reply, Readable.from(format === 'csv' ? statementCsv(head, parts) : statementJson(head, parts)))
    },
  )
}

/** The schema of the answer describes what is in the stream, which is sent as it is. */
function sendStream(reply: FastifyReply, stream: Readable): FastifyReply {
  return reply.send(stream)
}

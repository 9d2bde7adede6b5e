import { externalRequestSchema, externalRunSchema } from '#contracts/api-external.ts'
import { Problem } from '#contracts/codes.ts'
import { newestCatalog } from '#db/catalog.ts'
import type { Scope } from '#db/database.ts'
import { openExternalRun, runRequestOf } from '#db/external-run.ts'
import { getRun } from '#db/run-read.ts'
import type { Database } from '#db/schema.ts'
import { ANY_MODEL } from '#contracts/names.ts'
import type { Kysely } from 'kysely'
import { callerOfRequest, projectOf } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'
import { checkMoneyPath, routesFor, type AskedRun } from './money-path.ts'
import { makeSecret } from './key-secret.ts'
import { START_PROBLEMS } from './run-request.ts'

/** Runs of programs outside: their calls come through the gateway. */
export function externalRunRoutes(app: Api, { nowMs, poke }: RouteDeps): void {
  app.post(
    '/runs/external',
    {
      config: { access: 'project', problems: START_PROBLEMS },
      schema: {
        tags: ['Runs'],
        summary: 'Open a run for a program outside, with a key that works for it alone',
        description:
          'Its calls come through the gateway under `/v1`, with the key that is answered once. When its money ends they are refused with 402 until it is topped up. It is over when you end it, when nothing was asked for `idleSeconds`, or at its deadline (`limits.seconds`).',
        body: externalRequestSchema,
        response: { 201: externalRunSchema },
      },
    },
    async (request, reply) => {
      const scope = projectOf(request)
      const { keyId, organisationId } = callerOfRequest(request)
      const opened = await answerPost({ request, reply, schema: externalRunSchema }, async (trx) => {
        const asked = request.body
        await checkPayable(trx, scope, { request: runRequestOf(asked), keyId })
        const secret = makeSecret('rk')
        const run = { request: asked, keyId, organisationId, secret, nowMs: nowMs() }
        const { runId, key } = await openExternalRun(trx, scope, run)
        const { id, hint } = key
        const body = { run: await getRun(trx, scope, runId), key: { id, hint } }
        const remedy = 'The secret was answered once and is not kept. If it is lost, end this run and open another.'
        return { status: 201, body: { ...body, key: { id, hint, secret } }, kept: { ...body, remedy } }
      })
      poke()
      return opened
    },
  )
}

/** Its model, or any that it may ask, has to be there, priced and payable from its pockets. */
async function checkPayable(db: Kysely<Database>, scope: Scope, asked: AskedRun): Promise<void> {
  if (asked.request.model !== ANY_MODEL) return checkMoneyPath(db, scope, asked)
  const { catalog } = await newestCatalog(db)
  for (const { name } of catalog.models) {
    const { candidates } = await routesFor(db, scope, asked, name)
    if (candidates.length > 0) return
  }
  throw new Problem('no_route', 'No model of the catalog can be paid from these pockets under these constraints.', {
    remedy: 'GET /api/v1/models lists the routes with their balance class and currency.',
  })
}

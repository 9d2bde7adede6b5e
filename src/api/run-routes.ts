import { runPlanSchema } from '#contracts/api-plan.ts'
import { startRequestSchema, runSchema } from '#contracts/api-run.ts'
import { getRun } from '#db/run-read.ts'
import { startRun } from '#db/run-start.ts'
import { callerOfRequest, projectOf, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'
import { planRun } from './run-plan.ts'
import { makeRunCheck, START_PROBLEMS } from './run-request.ts'

const tags = ['Runs']

/** Rows first: the workflow hears of it afterwards. */
export function runStartRoutes(app: Api, { agents, nowMs, poke }: RouteDeps): void {
  const checkRun = makeRunCheck(agents)

  app.post(
    '/runs',
    {
      config: { access: 'project', problems: START_PROBLEMS },
      schema: {
        tags,
        summary: 'Start a run in an envelope of its own',
        description:
          'The money is set aside at once. The workflow starts as soon as Temporal can be reached. With `dryRun` it is asked what would be done: what would be refused is refused.',
        body: startRequestSchema,
        response: { 200: runPlanSchema, 201: runSchema },
      },
    },
    async (request, reply) => {
      const scope = projectOf(request)
      const { keyId } = callerOfRequest(request)
      if (request.body.dryRun) {
        return planRun(tenantDb(request), scope, { agents, nowMs, request: request.body, keyId, check: checkRun })
      }
      const run = await answerPost({ request, reply, schema: runSchema }, async (trx) => {
        const { input } = await checkRun(trx, scope, { request: request.body, keyId })
        const runId = await startRun(trx, scope, { request: request.body, input, keyId, nowMs: nowMs() })
        return { status: 201, body: await getRun(trx, scope, runId) }
      })
      poke()
      return run
    },
  )
}

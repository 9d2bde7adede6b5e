import { cancelRequestSchema, runRequestSchema, runSchema, topUpRequestSchema } from '#contracts/api-run.ts'
import { cancelRun, startRun, topUpRun } from '#db/run-commands.ts'
import { getRun } from '#db/run-read.ts'
import { z } from 'zod'
import { callerOfRequest, projectOf, tenantFor } from './access.ts'
import type { Api, ApiDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'
import { makeRunCheck } from './run-request.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Runs']

/** Rows first: the workflow hears of it afterwards. */
export function runStartRoutes(app: Api, deps: ApiDeps): void {
  const { db, nowMs, poke } = deps
  const checkRun = makeRunCheck(deps.agents)

  app.post(
    '/runs',
    {
      config: {
        access: 'project',
        problems: [
          'invalid_amount',
          'unknown_agent',
          'unknown_model',
          'no_price',
          'no_route',
          'route_not_allowed',
          'not_found',
          'wallet_short',
          'debt_outstanding',
        ],
      },
      schema: {
        tags,
        summary: 'Start a run in an envelope of its own',
        description: 'The money is set aside at once. The workflow starts as soon as Temporal can be reached.',
        body: runRequestSchema,
        response: { 201: runSchema },
      },
    },
    async (request, reply) => {
      const scope = projectOf(request)
      const run = await answerPost(db, { request, reply, schema: runSchema }, async (trx) => {
        const { keyId } = callerOfRequest(request)
        const { input } = await checkRun(trx, scope, { request: request.body, keyId })
        const runId = await startRun(trx, scope, { request: request.body, input, keyId, nowMs: nowMs() })
        return { status: 201, body: await getRun(trx, scope, runId) }
      })
      poke()
      return run
    },
  )
}

export function runChangeRoutes(app: Api, { db, nowMs, poke }: ApiDeps): void {
  app.post(
    '/runs/:id/top-up',
    {
      config: {
        access: 'project',
        problems: ['invalid_amount', 'run_finished', 'not_root', 'wallet_short', 'debt_outstanding'],
      },
      schema: {
        tags,
        summary: "Move more money into a run's envelope",
        description: 'A run that is paused for money goes on.',
        params: idParams,
        body: topUpRequestSchema,
        response: { 202: runSchema },
      },
    },
    async (request, reply) => {
      const runId = request.params.id
      const run = await answerPost(db, { request, reply, schema: runSchema }, async (trx) => {
        const scope = await tenantFor(trx, request, { noun: 'run', id: runId })
        await topUpRun(trx, scope, { runId, pockets: request.body.pockets, nowMs: nowMs() })
        return { status: 202, body: await getRun(trx, scope, runId) }
      })
      poke()
      return run
    },
  )

  app.post(
    '/runs/:id/cancel',
    {
      config: { access: 'project', problems: ['run_finished'] },
      schema: {
        tags,
        summary: 'End a run',
        description:
          'From the answer on no request begins. What is in flight is aborted and settled; the rest goes home.',
        params: idParams,
        body: cancelRequestSchema,
        response: { 202: runSchema },
      },
    },
    async (request, reply) => {
      const runId = request.params.id
      const run = await answerPost(db, { request, reply, schema: runSchema }, async (trx) => {
        const scope = await tenantFor(trx, request, { noun: 'run', id: runId })
        await cancelRun(trx, scope, { runId, reason: request.body?.reason, nowMs: nowMs() })
        return { status: 202, body: await getRun(trx, scope, runId) }
      })
      poke()
      return run
    },
  )
}

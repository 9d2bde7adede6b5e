import {
  answerRequestSchema,
  cancelRequestSchema,
  emptyRequestSchema,
  runSchema,
  topUpRequestSchema,
} from '#contracts/api-run.ts'
import type { Scope } from '#db/database.ts'
import { answerRun, cancelRun, endRun, pauseRun, resumeRun, topUpRun, type Order } from '#db/run-commands.ts'
import { getRun } from '#db/run-read.ts'
import type { Database } from '#db/schema.ts'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Transaction } from 'kysely'
import { z } from 'zod'
import { callerOfRequest, tenantFor } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'

const params = z.object({ id: z.string() })
const common = { tags: ['Runs'], params, response: { 202: runSchema } }

/** What people ask of a run that is there. Rows first: its workflow hears of it afterwards. */
export function runActionRoutes(app: Api, deps: RouteDeps): void {
  pauseAndResume(app, deps)
  waysToEnd(app, deps)

  app.post(
    '/runs/:id/top-up',
    {
      config: {
        access: 'project',
        problems: [
          'invalid_amount',
          'run_finished',
          'not_root',
          'no_pocket',
          'no_quote',
          'wallet_short',
          'debt_outstanding',
        ],
      },
      schema: {
        ...common,
        summary: "Move more money into a run's envelope",
        description: 'A run that is paused for money goes on, and so do the runs below it.',
        body: topUpRequestSchema,
      },
    },
    (request, reply) =>
      act(deps, { request, reply, runId: request.params.id }, (trx, scope, order) =>
        topUpRun(trx, scope, { ...order, pockets: request.body.pockets }),
      ),
  )

  app.post(
    '/runs/:id/answer',
    {
      config: { access: 'project', problems: ['run_finished', 'no_question', 'many_questions', 'not_a_choice'] },
      schema: {
        ...common,
        summary: "Answer a run's question",
        description: 'A run that is paused for input goes on when no other question is open.',
        body: answerRequestSchema,
      },
    },
    (request, reply) =>
      act(deps, { request, reply, runId: request.params.id }, (trx, scope, order) =>
        answerRun(trx, scope, {
          ...order,
          path: request.body.path,
          answer: request.body.answer,
          keyId: callerOfRequest(request).keyId,
        }),
      ),
  )
}

function waysToEnd(app: Api, deps: RouteDeps): void {
  app.post(
    '/runs/:id/cancel',
    {
      config: { access: 'project', problems: ['run_finished'] },
      schema: {
        ...common,
        summary: 'End a run',
        description:
          'Now: from the answer on no request begins, what is in flight is aborted and settled, and the rest goes home. With `wrap_up` what is in flight may finish, and the run delivers what it has, from its wrap-up reserve if it has one.',
        body: cancelRequestSchema,
      },
    },
    (request, reply) =>
      act(deps, { request, reply, runId: request.params.id }, (trx, scope, order) =>
        cancelRun(trx, scope, { ...order, mode: request.body?.mode ?? 'now', reason: request.body?.reason }),
      ),
  )

  app.post(
    '/runs/:id/end',
    {
      config: { access: 'project', problems: ['run_finished', 'not_external'] },
      schema: {
        ...common,
        summary: 'End an external run whose work is done',
        description:
          'It completes: from the answer on no request begins, what is in flight is aborted and settled, its key opens nothing, and the rest of its money goes home.',
        body: emptyRequestSchema,
      },
    },
    (request, reply) => act(deps, { request, reply, runId: request.params.id }, endRun),
  )
}

function pauseAndResume(app: Api, deps: RouteDeps): void {
  app.post(
    '/runs/:id/pause',
    {
      config: { access: 'project', problems: ['run_finished'] },
      schema: {
        ...common,
        summary: 'Pause a run',
        description:
          'From the answer on no request begins; those in flight finish. It ends when nobody resumes it before its pause deadline.',
        body: emptyRequestSchema,
      },
    },
    (request, reply) => act(deps, { request, reply, runId: request.params.id }, pauseRun),
  )

  app.post(
    '/runs/:id/resume',
    {
      config: { access: 'project', problems: ['run_finished', 'not_paused', 'waits_for_answer'] },
      schema: {
        ...common,
        summary: 'Let a paused run go on',
        description:
          'One that waits for money asks again, and is paused again if there is none. Questions are answered.',
        body: emptyRequestSchema,
      },
    },
    (request, reply) => act(deps, { request, reply, runId: request.params.id }, resumeRun),
  )
}

/** Does one action in one transaction, once for its Idempotency-Key, and answers the run as it stands then. */
async function act(
  { nowMs, poke }: RouteDeps,
  exchange: { readonly request: FastifyRequest; readonly reply: FastifyReply; readonly runId: string },
  action: (trx: Transaction<Database>, scope: Scope, order: Order) => Promise<void>,
): Promise<z.output<typeof runSchema>> {
  const { request, reply, runId } = exchange
  const run = await answerPost({ request, reply, schema: runSchema }, async (trx) => {
    const scope = await tenantFor(trx, request, { noun: 'run', id: runId })
    await action(trx, scope, { runId, nowMs: nowMs() })
    return { status: 202, body: await getRun(trx, scope, runId) }
  })
  poke()
  return run
}

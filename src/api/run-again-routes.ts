import { EXTERNAL_AGENT } from '#contracts/agents.ts'
import {
  forkRequestSchema,
  rerunRequestSchema,
  runRequestSchema,
  runSchema,
  type RunOverrides,
  type RunRequest,
} from '#contracts/api-run.ts'
import { Problem } from '#contracts/codes.ts'
import type { Scope } from '#db/database.ts'
import { getRun } from '#db/run-read.ts'
import { forkPoint, holdSource, startedRun, type StartedRun } from '#db/run-source.ts'
import { startRun, type RunSource } from '#db/run-start.ts'
import type { Database } from '#db/schema.ts'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Transaction } from 'kysely'
import { z } from 'zod'
import { callerOfRequest, tenantFor } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'
import { makeRunCheck, START_PROBLEMS, type RunCheck } from './run-request.ts'
import { problemOf } from './validation.ts'

const params = z.object({ id: z.string() })
const common = { tags: ['Runs'], params, response: { 201: runSchema } }

/** New runs of what was asked for before. */
export function runAgainRoutes(app: Api, deps: RouteDeps): void {
  const check = makeRunCheck(deps.agents)

  app.post(
    '/runs/:id/rerun',
    {
      config: { access: 'project', problems: [...START_PROBLEMS, 'is_external'] },
      schema: {
        ...common,
        summary: 'Start a run of the same request',
        description: 'With an envelope of its own, as large as the first one was unless you say otherwise.',
        body: rerunRequestSchema,
      },
    },
    (request, reply) =>
      again({ deps, check }, { request, reply }, request.body ?? {}, () =>
        Promise.resolve({ runId: request.params.id, reuseBefore: null }),
      ),
  )

  app.post(
    '/runs/:id/fork',
    {
      config: { access: 'project', problems: [...START_PROBLEMS, 'unknown_step', 'is_external', 'answer_not_stored'] },
      schema: {
        ...common,
        summary: 'Start a run of the same request that uses stored answers again',
        description:
          'Calls that the first run had opened before its step `from` cost nothing when they ask the same, model included: they get the same answers. What comes after is done anew.',
        body: forkRequestSchema,
      },
    },
    (request, reply) => {
      const { from, ...overrides } = request.body ?? {}
      return again({ deps, check }, { request, reply }, overrides, (trx, scope) =>
        forkPoint(trx, scope, { runId: request.params.id, from }),
      )
    },
  )
}

async function again(
  { deps, check }: { readonly deps: RouteDeps; readonly check: RunCheck },
  { request, reply }: { readonly request: FastifyRequest<{ Params: { id: string } }>; readonly reply: FastifyReply },
  overrides: RunOverrides,
  sourceOf: (trx: Transaction<Database>, scope: Scope) => Promise<RunSource>,
): Promise<z.output<typeof runSchema>> {
  const { nowMs, poke } = deps
  const { id } = request.params
  const run = await answerPost({ request, reply, schema: runSchema }, async (trx) => {
    const scope = await tenantFor(trx, request, { noun: 'run', id })
    const { keyId } = callerOfRequest(request)
    const repeated = requestOf(await startedRun(trx, scope, id), overrides)
    const { input } = await check(trx, scope, { request: repeated, keyId })
    const source = await sourceOf(trx, scope)
    const runId = await startRun(trx, scope, { request: repeated, input, keyId, nowMs: nowMs(), source })
    if (source.reuseBefore !== null) await holdSource(trx, scope, id)
    return { status: 201, body: await getRun(trx, scope, runId) }
  })
  poke()
  return run
}

/** The request as it was, with what is to be another. Together they must be one that could be asked for. */
function requestOf(started: StartedRun, overrides: RunOverrides): RunRequest {
  const { agent, model, input, options, priority, pockets } = started
  if (agent === EXTERNAL_AGENT) {
    throw new Problem('is_external', 'The calls of an external run are made outside: it cannot be repeated here.', {
      remedy: 'Open a new one with POST /api/v1/runs/external.',
    })
  }
  const { pauseDeadlineMs, wrapUpPercent, constraints, reuse, downgrade, limits, ...rest } = options
  // What followed a downgrade goes with it.
  const isStillDowngrade = (overrides.onExhausted ?? options.onExhausted) === 'downgrade'
  const parsed = runRequestSchema.safeParse({
    agent,
    model,
    input,
    priority,
    ...(pockets && { envelope: { pockets, wrapUpPercent } }),
    ...rest,
    pauseDeadlineSeconds: Math.round(pauseDeadlineMs / 1000),
    ...(constraints && { constraints }),
    ...(reuse && { reuse }),
    ...(downgrade && isStillDowngrade && { downgrade }),
    ...(limits && { limits }),
    ...overrides,
  })
  if (!parsed.success) throw problemOf(parsed.error.issues)
  return parsed.data
}

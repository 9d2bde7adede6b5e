import {
  limitChangeSchema,
  limitListSchema,
  limitQuerySchema,
  limitRequestSchema,
  limitSchema,
  type LimitCap,
  type LimitChangeRequest,
  type LimitRequest,
  type LimitView,
} from '#contracts/api-limit.ts'
import { Problem } from '#contracts/codes.ts'
import type { Caller } from '#db/api-key.ts'
import { newId } from '#db/ids.ts'
import { changeLimit, getLimit, listLimits, retireLimit, setLimit, type Limit } from '#db/limit.ts'
import type { Database } from '#db/schema.ts'
import { invariant } from '#domain/invariant.ts'
import { parseDecimal, toAmount } from '#domain/money.ts'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { callerOfRequest, isId, notFound, tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerChange, answerPost } from './idempotency.ts'
import { pageAsked, pageOf } from './page.ts'
import { faulty } from './validation.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Limits']

/**
 * What a project's key may set: runs are its own to start, so it may also bind them. Projects, keys and organisations
 * are bound by operators, and what an operator has set is not lifted by those whom it binds.
 */
const OF_PROJECTS: readonly string[] = ['run', 'step'] satisfies readonly Limit['scope'][]

export function limitRoutes(app: Api, { nowMs }: RouteDeps): void {
  app.post(
    '/limits',
    {
      config: { access: 'any', versioned: 'limit', audit: 'limit.set', problems: ['not_found', 'invalid_amount'] },
      schema: {
        tags,
        summary: 'Set a limit',
        description:
          'On money, tokens or calls, for life or by window. It counts what is held from now on. Operators set any; a ' +
          "project's key sets those on its runs and steps.",
        body: limitRequestSchema,
        response: { 201: limitSchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: limitSchema }, async (trx) => {
        const caller = callerOfRequest(request)
        const id = newId(nowMs())
        await set(trx, caller, { id, request: request.body })
        return { status: 201, body: limitView(await theLimit(trx, caller, id)) }
      }),
  )

  app.get(
    '/limits',
    {
      config: { access: 'any', problems: ['not_found'] },
      schema: {
        tags,
        summary: 'Limits in force, newest first',
        description: "A project's key sees those within its project.",
        querystring: limitQuerySchema,
        response: { 200: limitListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { limit: _limit, order: _order, cursor: _cursor, ...filter } = request.query
      if (filter.projectId !== undefined) await tenantFor(db, request, { noun: 'project', id: filter.projectId })
      const asked = { filter, page: pageAsked(request) }
      const { items, nextCursor } = pageOf(request, await listLimits(db, callerOfRequest(request), asked))
      return { limits: items.map(limitView), nextCursor }
    },
  )

  app.get(
    '/limits/:id',
    {
      config: { access: 'any', versioned: 'limit' },
      schema: { tags, summary: 'A limit with its window of now', params: idParams, response: { 200: limitSchema } },
    },
    async (request) => limitView(await theLimit(tenantDb(request), callerOfRequest(request), request.params.id)),
  )

  limitChangeRoutes(app)
}

function limitChangeRoutes(app: Api): void {
  app.patch(
    '/limits/:id',
    {
      config: {
        access: 'any',
        versioned: 'limit',
        audit: 'limit.change',
        problems: ['invalid_request', 'invalid_amount', 'limit_retired', 'payload_too_large', 'unsupported_media_type'],
      },
      schema: {
        tags,
        summary: 'Change the cap of a limit, its thresholds, or both',
        description:
          'At once. When the cap is lowered, what envelopes have idle of it is taken back. What webhooks were told of this ' +
          'window they are not told again.',
        params: idParams,
        body: limitChangeSchema,
        response: { 200: limitSchema },
      },
    },
    (request, reply) =>
      answerChange({ request, reply }, async (trx) => {
        const caller = callerOfRequest(request)
        const limit = await changeableLimit(trx, caller, request.params.id)
        const verdict = await changeLimit(trx, caller, { limitId: limit.id, ...changeOf(limit, request.body) })
        if (verdict === 'retired')
          throw new Problem('limit_retired', 'The limit is retired.', { remedy: 'Set a new one.' })
        invariant(verdict === 'changed', `a change that was checked is ${verdict}`)
        const body = limitView(await theLimit(trx, caller, limit.id))
        return { status: 200, body, audit: { before: limitView(limit) } }
      }),
  )

  app.delete(
    '/limits/:id',
    {
      config: { access: 'any', versioned: 'limit', audit: 'limit.retire' },
      schema: {
        tags,
        summary: 'Retire a limit',
        description: 'At once and for good. What it counted is kept.',
        params: idParams,
        response: { 204: z.undefined().describe('It binds nothing any more.') },
      },
    },
    (request, reply) =>
      answerChange({ request, reply }, async (trx) => {
        const caller = callerOfRequest(request)
        const limit = await changeableLimit(trx, caller, request.params.id)
        await retireLimit(trx, caller, limit.id)
        return { status: 204, body: undefined, audit: { projectId: limit.projectId, before: limitView(limit) } }
      }),
  )
}

async function set(
  db: Kysely<Database>,
  caller: Caller,
  limit: { readonly id: string; readonly request: LimitRequest },
): Promise<void> {
  const { scope, subjectId = caller.organisationId, step = null, measure, period, timeZone, thresholds } = limit.request
  if (caller.projectId !== null && !OF_PROJECTS.includes(scope)) {
    throw new Problem('forbidden', `A limit with the scope ${scope} is set with an operator key.`, {
      remedy: 'Set it on a run or a step, or ask an operator of the organisation.',
    })
  }
  checkThresholds(scope, thresholds)
  if (!isId(subjectId)) throw notFound(nameOf(scope), subjectId)
  const money = limit.request.measure === 'money' ? limit.request.cap : undefined
  const verdict = await setLimit(db, caller, {
    id: limit.id,
    scope,
    subjectId,
    step,
    measure,
    currency: money?.currency ?? null,
    period,
    timeZone,
    cap: quantityOf(limit.request.cap),
    thresholds,
  })
  if (verdict === 'unknown_subject') throw notFound(nameOf(scope), subjectId)
  if (verdict === 'unknown_time_zone')
    throw faulty([{ path: 'timeZone', message: 'is no time zone, such as Europe/Berlin' }])
  invariant(verdict === 'set', 'the schema has checked the limit')
}

function nameOf(scope: Limit['scope']): string {
  return scope === 'step' ? 'project, key or run' : scope
}

/** The limit, if the caller may see it and change it. */
async function changeableLimit(db: Kysely<Database>, caller: Caller, id: string): Promise<Limit> {
  const limit = await theLimit(db, caller, id)
  if (caller.projectId !== null && limit.isOperators) {
    throw new Problem('forbidden', 'An operator has set this limit.', {
      remedy: 'Ask an operator of the organisation.',
    })
  }
  return limit
}

async function theLimit(db: Kysely<Database>, caller: Caller, id: string): Promise<Limit> {
  const limit = isId(id) ? await getLimit(db, caller, id) : undefined
  if (!limit) throw notFound('limit', id)
  return limit
}

function changeOf(limit: Limit, { cap, thresholds }: LimitChangeRequest) {
  if (thresholds) checkThresholds(limit.scope, thresholds)
  return { cap: cap === undefined ? undefined : capOf(limit, cap), thresholds }
}

/** What an organisation spends is no single project's to hear of. */
function checkThresholds(scope: Limit['scope'], thresholds: readonly number[]): void {
  if (scope !== 'organisation' || thresholds.length === 0) return
  throw faulty(
    [{ path: 'thresholds', message: 'go with the scopes project, key, run and step: webhooks are of projects' }],
    'Set a limit with thresholds on each project.',
  )
}

function capOf(limit: Limit, cap: LimitCap): bigint {
  const currency = typeof cap === 'number' ? null : cap.currency
  if (currency !== limit.currency) {
    const unit = limit.currency === null ? `a number of ${limit.measure}` : `an amount of ${limit.currency}`
    throw faulty([{ path: 'cap', message: `is not ${unit}, which the limit is on` }])
  }
  return quantityOf(cap)
}

function quantityOf(cap: LimitCap): bigint {
  if (typeof cap === 'number') return BigInt(cap)
  const parsed = parseDecimal(cap.amount)
  invariant(parsed.ok, 'the schema has checked the amount')
  return parsed.nano
}

function limitView(limit: Limit): LimitView {
  const { currency, cap, spent, held, leased } = limit
  const quantity = (value: bigint) => (currency === null ? Number(value) : toAmount(value, currency))
  const free = cap - spent - held
  return {
    id: limit.id,
    scope: limit.scope,
    projectId: limit.projectId,
    subjectId: limit.subjectId,
    step: limit.step,
    measure: limit.measure,
    period: limit.period,
    timeZone: limit.timeZone,
    cap: quantity(cap),
    thresholds: [...limit.thresholds],
    window: {
      startsAt: limit.startsAt.toISOString(),
      resetsAt: limit.endsAt?.toISOString() ?? null,
      spent: quantity(spent),
      held: quantity(held),
      leased: quantity(leased),
      free: quantity(free > 0n ? free : 0n),
    },
    setBy: limit.isOperators ? 'operator' : 'project',
    createdAt: limit.createdAt.toISOString(),
    retiredAt: limit.retiredAt?.toISOString() ?? null,
    version: limit.version,
  }
}

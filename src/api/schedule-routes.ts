import {
  firingListSchema,
  firingQuerySchema,
  scheduleChangeSchema,
  scheduleListSchema,
  scheduleQuerySchema,
  scheduleRequestSchema,
  scheduleSchema,
  scheduleWithTimesSchema,
  type ScheduleView,
} from '#contracts/api-schedule.ts'
import { Problem } from '#contracts/codes.ts'
import type { Scope } from '#db/database.ts'
import { listFirings } from '#db/schedule-firing.ts'
import { changeSchedule, createSchedule, endSchedule, getSchedule, listSchedules, lockSchedule } from '#db/schedule.ts'
import type { Database } from '#db/schema.ts'
import { isZoneName } from '#db/time-zone.ts'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { callerOfRequest, notFound, projectOf, tenantFor, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerChange, answerPost } from './idempotency.ts'
import { pageAsked, pageOf } from './page.ts'
import { makeRunCheck } from './run-request.ts'
import { projectToList } from './run-read-routes.ts'
import { faulty } from './validation.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Schedules']
/** What a run may be refused for before any money moves. */
const RUN_PROBLEMS = [
  'invalid_amount',
  'unknown_agent',
  'unknown_model',
  'no_price',
  'no_route',
  'no_quote',
  'route_not_allowed',
  'downgrade_not_cheaper',
  'not_found',
] as const

/** Rows first: Temporal hears of them afterwards. */
export function scheduleRoutes(app: Api, deps: RouteDeps): void {
  const { nowMs, poke } = deps
  const checkRun = makeRunCheck(deps.agents)

  app.post(
    '/schedules',
    {
      config: { access: 'project', versioned: 'schedule', problems: [...RUN_PROBLEMS, 'already_exists'] },
      schema: {
        tags,
        summary: 'Start runs by the clock',
        description:
          'A time brings no run while the last one is not over, when the cap of the month would be exceeded, or when the ' +
          'wallet is short; each time that reached a worker is listed with what became of it. What was missed is caught ' +
          'up within one interval, and what is older is only counted, by Temporal.',
        body: scheduleRequestSchema,
        response: { 201: scheduleSchema },
      },
    },
    async (request, reply) => {
      const scope = projectOf(request)
      const { body } = request
      const schedule = await answerPost({ request, reply, schema: scheduleSchema }, async (trx) => {
        const { keyId } = callerOfRequest(request)
        await checkZone(trx, body.timeZone)
        const { input } = await checkRun(trx, scope, { request: body.run, keyId })
        const id = await createSchedule(trx, scope, { request: body, input, keyId, nowMs: nowMs() })
        if (id === undefined) throw nameTaken(body.name)
        return { status: 201, body: await scheduleOf(trx, scope, id) }
      })
      poke()
      return schedule
    },
  )
}

export function scheduleChangeRoutes(app: Api, deps: RouteDeps): void {
  const { poke } = deps
  const checkRun = makeRunCheck(deps.agents)

  app.patch(
    '/schedules/:id',
    {
      config: { access: 'project', versioned: 'schedule', problems: [...RUN_PROBLEMS, 'already_exists'] },
      schema: {
        tags,
        summary: 'Pause, resume or change a schedule',
        description: 'The key that says what it runs pays from then on, within its constraints and limits.',
        params: idParams,
        body: scheduleChangeSchema,
        response: { 200: scheduleSchema },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      const { body } = request
      const changed = await answerChange({ request, reply }, async (trx) => {
        const scope = await tenantFor(trx, request, { noun: 'schedule', id })
        const known = await lockSchedule(trx, scope, id)
        if (!known) throw notFound('schedule', id)
        if (known.isKeyRevoked) throw withoutPayer()
        const { keyId } = callerOfRequest(request)
        await checkZone(trx, body.timeZone)
        const checked = body.run && (await checkRun(trx, scope, { request: body.run, keyId }))
        const runs = checked && { input: checked.input, keyId }
        const isChanged = await changeSchedule(trx, scope, { scheduleId: id, to: body, runs })
        if (!isChanged) throw nameTaken(body.name ?? '')
        return { status: 200, body: await scheduleOf(trx, scope, id) }
      })
      poke()
      return changed
    },
  )

  app.delete(
    '/schedules/:id',
    {
      config: { access: 'project', versioned: 'schedule' },
      schema: {
        tags,
        summary: 'Remove a schedule',
        description: 'Its runs go on, and stay.',
        params: idParams,
        response: { 204: z.undefined().describe('It starts nothing any more.') },
      },
    },
    async (request, reply) => {
      const { id } = request.params
      await answerChange({ request, reply }, async (trx) => {
        const scope = await tenantFor(trx, request, { noun: 'schedule', id })
        if (!(await lockSchedule(trx, scope, id))) throw notFound('schedule', id)
        await endSchedule(trx, scope, { scheduleId: id, state: 'deleted', reason: null })
        return { status: 204, body: undefined }
      })
      poke()
    },
  )
}

export function scheduleReadRoutes(app: Api, { missedTimes }: RouteDeps): void {
  app.get(
    '/schedules',
    {
      config: { access: 'any', problems: ['not_found'] },
      schema: {
        tags,
        summary: 'Schedules, newest first',
        querystring: scheduleQuerySchema,
        response: { 200: scheduleListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { projectId, state } = request.query
      const scope = await tenantFor(db, request, { noun: 'project', id: projectToList(request, projectId) })
      const found = await listSchedules(db, scope, { ...pageAsked(request), state })
      const { items, nextCursor } = pageOf(request, found)
      return { schedules: items, nextCursor }
    },
  )

  app.get(
    '/schedules/:id',
    {
      config: { access: 'any', versioned: 'schedule' },
      schema: { tags, summary: 'A schedule', params: idParams, response: { 200: scheduleWithTimesSchema } },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const schedule = await scheduleOf(db, await tenantFor(db, request, { noun: 'schedule', id }), id)
      return { ...schedule, missed: (await missedTimes?.(id)) ?? null }
    },
  )

  app.get(
    '/schedules/:id/firings',
    {
      config: { access: 'any' },
      schema: {
        tags,
        summary: 'What became of its times, newest first',
        description: 'Of those that reached a worker; also of a schedule that was removed.',
        params: idParams,
        querystring: firingQuerySchema,
        response: { 200: firingListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { id } = request.params
      const { from, to } = request.query
      const scope = await tenantFor(db, request, { noun: 'schedule', id })
      const found = await listFirings(db, scope, { ...pageAsked(request), scheduleId: id, from, to })
      const { items, nextCursor } = pageOf(request, found)
      return { firings: items, nextCursor }
    },
  )
}

async function scheduleOf(db: Kysely<Database>, scope: Scope, id: string): Promise<ScheduleView> {
  const schedule = await getSchedule(db, scope, id)
  if (!schedule) throw notFound('schedule', id)
  return schedule
}

async function checkZone(db: Kysely<Database>, timeZone: string | undefined): Promise<void> {
  if (timeZone === undefined || (await isZoneName(db, timeZone))) return
  throw faulty(
    [{ path: 'timeZone', message: 'is no name of a time zone' }],
    'Write it as the IANA time zone database does: Europe/Berlin, UTC. An offset is no name.',
  )
}

function nameTaken(name: string): Problem {
  return new Problem('already_exists', `There is a schedule named ${name} already.`, {
    remedy: 'Give it another name, or change that one.',
  })
}

function withoutPayer(): Problem {
  return new Problem('forbidden', 'The key that made the schedule is revoked, and nobody else pays for it.', {
    remedy: 'Remove it, and make it again with a key that is in force.',
  })
}
